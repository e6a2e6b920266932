"""One pass over bytes that tells everything worth knowing about them: size, digest, compression, diff ID."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from imgtar.blob.compression import Compression, sniff
from imgtar.blob.decompress import decompressing, plain
from imgtar.blob.lanes import ReadAhead, WriteBehind
from imgtar.blob.stream import BUFFER_SIZE, Peeked, Readable
from imgtar.blob.tar_header import BLOCK
from imgtar.errors import LocalTrouble, Refused
from imgtar.frozen import frozen
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["Measure", "Window", "begins_a_tar", "buffer", "is_archive", "measure"]

_buffers = threading.local()
_LANE_DEPTH = 4
_NO_LANES = (LocalTrouble, MemoryError)
"""What a machine says that has no thread or no buffer to spare: lanes are only speed, so it goes on without them."""
_Update = Callable[[memoryview], object]
_Progress = Callable[[int], object]


def buffer() -> memoryview:
    """This thread's big buffer (``BUFFER_SIZE`` bytes), reused by every loop that does not nest."""
    view: memoryview | None = getattr(_buffers, "view", None)
    if view is None:
        view = _buffers.view = memoryview(bytearray(BUFFER_SIZE))
    return view


@frozen
class Measure:
    """What bytes are. ``diff_id`` is the digest of the uncompressed content and equals ``digest`` for plain bytes.

    ``fault`` is set instead of ``diff_id`` when the content looks compressed but cannot be decompressed to its end:
    that matters only to those who need the diff ID. ``plain_size`` counts the bytes that ``diff_id`` is the digest of.
    ``archive`` tells whether an engine could unpack it as a layer, by the beginning of what is in it.
    """

    digest: Digest
    size: int
    compression: Compression
    diff_id: Digest | None
    fault: Refused | None = None
    plain_size: int | None = None
    archive: bool = False


class Window:
    """At most ``size`` bytes of another stream; tells by ``left`` how many were not there yet."""

    __slots__ = ("_source", "left")

    def __init__(self, source: Readable, size: int) -> None:
        self._source = source
        self.left = size

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target`` from the window."""
        if self.left <= 0:
            return 0
        count = self._source.readinto(target if len(target) <= self.left else target[: self.left])
        self.left -= count
        return count


class _Flow(Protocol):
    """What passes: every byte also goes to the hash and to the writer, whoever reads it, and on whatever thread."""

    size: int

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target``, for a decompressor."""
        ...

    def drain(self) -> None:
        """Let the rest pass."""
        ...

    def close(self) -> None:
        """Wait until everything is written, or after an error let go of it."""
        ...


class _OneHand:
    """Reads, hashes and writes on the caller's thread."""

    __slots__ = ("_hash", "_progress", "_source", "_write", "size")

    def __init__(self, source: Readable, update: _Update, write: _Update | None, progress: _Progress | None) -> None:
        self._source = source
        self._hash = update
        self._write = write
        self._progress = progress
        self.size = 0

    def readinto(self, target: memoryview, /) -> int:
        count = self._source.readinto(target)
        if count:
            piece = target[:count]
            self._hash(piece)
            if self._write is not None:
                self._write(piece)
            self.size += count
            if self._progress is not None:
                self._progress(count)
        return count

    def drain(self) -> None:
        view = buffer()
        while self.readinto(view):
            pass

    def close(self) -> None:
        pass


class _Lanes:
    """Reads and writes on threads of their own. What is to be decompressed is hashed by the reader, else by the caller."""

    __slots__ = ("_ahead", "_behind", "_current", "_hash", "_progress", "_taken", "size")

    def __init__(
        self, source: Readable, update: _Update, write: _Update | None, progress: _Progress | None, *, caller: bool
    ) -> None:
        # The reader last: when it cannot be started nothing has been read.
        self._behind = WriteBehind(write) if write is not None else None
        try:
            self._ahead = ReadAhead(source if caller else _OneHand(source, update, None, None), _LANE_DEPTH)
        except BaseException:
            if self._behind is not None:
                self._behind.abandon()
            raise
        self._hash = update if caller else None
        self._progress = progress
        self._current: memoryview | None = None
        self._taken = self.size = 0

    def _next(self) -> memoryview | None:
        """The next piece, while the one before goes to the writer."""
        view, count = self._ahead.take()
        if not count:
            return None
        if self._hash is not None:
            self._hash(view[:count])
        if self._progress is not None:
            self._progress(count)
        self.size += count
        return view[:count]

    def _hand_over(self, piece: memoryview) -> None:
        whole = memoryview(piece.obj)
        if self._behind is not None:
            self._behind.hand_over(whole, len(piece), self._ahead.release)
        else:
            self._ahead.release(whole)

    def readinto(self, target: memoryview, /) -> int:
        if self._current is None:
            self._current, self._taken = self._next(), 0
            if self._current is None:
                return 0
        count = min(len(target), len(self._current) - self._taken)
        target[:count] = self._current[self._taken : self._taken + count]
        self._taken += count
        if self._taken == len(self._current):
            self._hand_over(self._current)
            self._current = None
        return count

    def drain(self) -> None:
        if self._current is not None:
            self._hand_over(self._current)
            self._current = None
        while (piece := self._next()) is not None:
            self._hand_over(piece)
        if self._behind is not None:
            self._behind.finish()

    def close(self) -> None:
        if self._behind is not None:
            self._behind.abandon()
        self._ahead.close()


def measure(
    content: Readable,
    *,
    write: Callable[[memoryview], object] | None = None,
    where: str = "",
    algorithm: str = "sha256",
    diff: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], object] | None = None,
    lanes: bool = False,
    budget: Budget | None = None,
) -> Measure:
    """Read ``content`` to its end, once, and say what it is.

    Every piece goes to ``write`` as it passes. With ``diff`` false, compressed content is not decompressed. What the
    source or the writer raises passes through; a fault in the compression does not: it is in the result.
    With ``lanes``, reading, decompressing, hashing and writing happen at once, on threads of their own: good for one big
    blob while other cores have nothing to do. The result is the same. What is decompressed is charged to ``budget``;
    when that is spent, this is a fault of the content like others.
    """
    hasher = Digest(algorithm, "").hasher()
    head = Peeked(content, BLOCK)
    compression = sniff(head.head)
    archive = begins_a_tar(head.head)
    is_plain = compression is Compression.NONE
    # Diff IDs are sha256 whatever algorithm names the blob: plain content under another name is hashed twice.
    plain_hasher = Digest("sha256", "").hasher() if is_plain and algorithm != "sha256" else None
    update = hasher.update if plain_hasher is None else _both(hasher.update, plain_hasher.update)
    flow: _Flow = _OneHand(head, update, write, progress)
    if lanes:
        with suppress(*_NO_LANES):
            flow = _Lanes(head, update, write, progress, caller=is_plain)
    diff_id: Digest | None = None
    plain_size: int | None = None
    fault: Refused | None = None
    try:
        if diff and not is_plain:
            try:
                diff_id, plain_size, archive = _decompressed(flow, compression, where, limits, budget, lanes=lanes)
            except Refused as error:
                if error.code not in ("E_COMPRESS", "E_LIMIT"):
                    raise
                fault = error
                archive = error.code == "E_LIMIT"  # Nobody has looked; what cannot be decompressed nobody unpacks.
        flow.drain()
    finally:
        flow.close()
    digest = Digest.from_hex(hasher.hexdigest(), algorithm)
    if is_plain:
        diff_id = Digest.from_hex(plain_hasher.hexdigest()) if plain_hasher is not None else digest
        plain_size = flow.size
    return Measure(digest, flow.size, compression, diff_id, fault, plain_size, archive)


def is_archive(content: Readable, where: str = "", limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether an engine could unpack ``content`` as a layer. Reads no more than the beginning."""
    try:
        return begins_a_tar(Peeked(plain(content, where=where, limits=limits), BLOCK).head)
    except Refused as error:
        return error.code != "E_COMPRESS"  # What cannot be decompressed nobody unpacks.


def begins_a_tar(head: bytes) -> bool:
    """Whether Go's archive/tar reads a tar that begins with ``head``, its first block: also an empty one.

    That is no bytes at all, or the zeros of the end. It is more lenient than imgtar's own reader: the checksum may be the
    sum of signed bytes, and may have blanks around it; the rest of the header does not matter (reader.go, format.go).
    """
    if not head.strip(b"\0"):
        return True
    block = head.ljust(BLOCK, b"\0")
    digits = block[148:156].strip(b" \0")
    if len(head) < BLOCK or not digits or digits.strip(b"01234567"):
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    return int(digits, 8) in (sum(rest), sum(rest) - 256 * sum(byte > 127 for byte in rest))


def _both(one: _Update, other: _Update) -> _Update:
    def update(piece: memoryview) -> None:
        one(piece)
        other(piece)

    return update


def _decompressed(
    flow: _Flow, compression: Compression, where: str, limits: Limits, budget: Budget | None, *, lanes: bool
) -> tuple[Digest, int, bool]:
    """The diff ID, the size, and whether it is an archive."""
    hasher, size = Digest("sha256", "").hasher(), 0
    limit = limits.layer_uncompressed
    content = Peeked(decompressing(flow, compression, where=where, limits=limits, limit=limit, budget=budget), BLOCK)
    archive = begins_a_tar(content.head)
    ahead = None
    if lanes:
        with suppress(*_NO_LANES):
            ahead = ReadAhead(content)
    if ahead is None:
        view = buffer()
        while count := content.readinto(view):
            hasher.update(view[:count])
            size += count
        return Digest.from_hex(hasher.hexdigest()), size, archive
    try:
        while True:
            view, count = ahead.take()
            if not count:
                return Digest.from_hex(hasher.hexdigest()), size, archive
            hasher.update(view[:count])
            size += count
            ahead.release(view)
    finally:
        ahead.close()
