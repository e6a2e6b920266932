"""One pass over bytes that tells everything worth knowing about them: size, digest, compression, diff ID."""

from __future__ import annotations

import threading
from collections.abc import Callable

from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.decompress import decompressing
from imgtar.blob.stream import BUFFER_SIZE, Readable
from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.model.digest import Digest, Hasher
from imgtar.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["Measure", "Window", "buffer", "measure"]

_buffers = threading.local()


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
    """

    digest: Digest
    size: int
    compression: Compression
    diff_id: Digest | None
    fault: Refused | None = None
    plain_size: int | None = None


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


class _Tee:
    """Hands every byte that is read also to the hash and to the writer."""

    __slots__ = ("_hasher", "_head", "_progress", "_source", "_write", "size")

    def __init__(
        self,
        source: Readable,
        hasher: Hasher,
        write: Callable[[memoryview], object] | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self._source = source
        self._hasher = hasher
        self._write = write
        self._progress = progress
        self._head = b""
        self.size = 0

    def peek(self, count: int) -> bytes:
        """Return the first bytes without consuming them; only before the first read."""
        head = bytearray(count)
        view = memoryview(head)
        filled = 0
        while filled < count and (got := self._source.readinto(view[filled:])):
            filled += got
        self._head = bytes(head[:filled])
        return self._head

    def readinto(self, target: memoryview, /) -> int:
        if self._head:
            count = min(len(self._head), len(target))
            target[:count] = self._head[:count]
            self._head = self._head[count:]
            if not self._head and count < len(target):
                count += self._source.readinto(target[count:])
        else:
            count = self._source.readinto(target)
        if count:
            piece = target[:count]
            self._hasher.update(piece)
            if self._write is not None:
                self._write(piece)
            self.size += count
            if self._progress is not None:
                self._progress(count)
        return count


def measure(
    content: Readable,
    *,
    write: Callable[[memoryview], object] | None = None,
    where: str = "",
    algorithm: str = "sha256",
    diff: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], object] | None = None,
) -> Measure:
    """Read ``content`` to its end, once, and say what it is.

    Every piece goes to ``write`` as it passes. With ``diff`` false, compressed content is not decompressed. What the
    source or the writer raises passes through; a fault in the compression does not: it is in the result.
    """
    hasher = Digest(algorithm, "").hasher()
    tee = _Tee(content, hasher, write, progress)
    compression = sniff(tee.peek(SNIFF_BYTES))
    # Diff IDs are sha256 whatever algorithm names the blob: plain content under another name is hashed twice.
    plain_hasher = Digest("sha256", "").hasher() if compression is Compression.NONE and algorithm != "sha256" else None
    view = buffer()
    diff_id: Digest | None = None
    plain_size: int | None = None
    fault: Refused | None = None
    if diff and compression is not Compression.NONE:
        try:
            diff_id, plain_size = _decompressed(tee, compression, where, limits, view)
        except Refused as error:
            if error.code not in ("E_COMPRESS", "E_LIMIT"):
                raise
            fault = error
    while count := tee.readinto(view):
        if plain_hasher is not None:
            plain_hasher.update(view[:count])
    digest = Digest.from_hex(hasher.hexdigest(), algorithm)
    if compression is Compression.NONE:
        diff_id = Digest.from_hex(plain_hasher.hexdigest()) if plain_hasher is not None else digest
        plain_size = tee.size
    return Measure(digest, tee.size, compression, diff_id, fault, plain_size)


def _decompressed(
    tee: _Tee, compression: Compression, where: str, limits: Limits, view: memoryview
) -> tuple[Digest, int]:
    hasher, size = Digest("sha256", "").hasher(), 0
    plain = decompressing(tee, compression, where=where, limits=limits, limit=limits.layer_uncompressed)
    while count := plain.readinto(view):
        hasher.update(view[:count])
        size += count
    return Digest.from_hex(hasher.hexdigest()), size
