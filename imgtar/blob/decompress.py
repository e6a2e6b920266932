"""Compression by strangers undone with suspicion.

Everything runs in this process: no ``xz``, ``unpigz`` or other program is ever started (CVE-2014-9357 shows why).
A stream counts as read only when its end was proven: every checksum, every length, and nothing behind it but NULs.
The libraries are imported when a stream begins that needs them: most runs meet none, or one kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast
from zlib import crc32

from imgtar.blob.compression import GZIP_MAGIC, SNIFF_BYTES, XZ_MAGIC, Compression, sniff
from imgtar.blob.stream import BUFFER_SIZE, Peeked, Readable
from imgtar.blob.zstd_frames import FrameWalker
from imgtar.errors import Refused
from imgtar.model.budget import Budget
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import human_size, printable

__all__ = ["decompressing", "plain"]

_SMALLEST_FILL = 1 << 16  # smaller reads are served from a block of this size, or each would cost a decoder call
_LARGEST_FEED = 1 << 16  # what a decoder has no room for is copied once more for each call
_SMALLEST_FEED = 1 << 12
_ZSTD_FEED = 1 << 17

_GZIP_WINDOW = 31  # "a gzip member, the largest window", in the words of zlib
_GZIP_PLAIN_HEADER = GZIP_MAGIC + b"\0\0\0\0\0\0\xff"
_GZIP_HEADER = 1 << 18  # an extra field has at most 64 KiB; name and comment have no end of their own
_XZ_MEMORY = 192 << 20  # "xz -9" needs 65 MiB; a dictionary of 128 MiB, our largest zstd window, still fits
_XZ_PADDING = 4


def decompressing(
    source: Readable,
    kind: Compression,
    *,
    where: str = "",
    limits: Limits = DEFAULT_LIMITS,
    limit: int | None = None,
    limit_name: str = "",
    budget: Budget | None = None,
) -> Readable:
    """Return a stream of what ``source`` holds once ``kind`` is undone.

    It ends (returns 0) only after all of ``source`` was read and proven whole. Damage, truncation and anything but
    NULs behind the last member are ``E_COMPRESS``; more than ``limit`` bytes, or an expansion that nothing honest
    reaches, are ``E_LIMIT``, with ``limit_name`` saying which limit it was. What ``source`` raises passes unchanged,
    and after any error the stream raises that error again. All of it is charged to ``budget``, the archive's.
    """
    ceiling = _Ceiling(kind, where, limits, limit, limit_name, budget if kind is not Compression.NONE else None)
    match kind:
        case Compression.NONE:
            return source if limit is None else _Plain(source, ceiling)
        case Compression.GZIP:
            return _GzipStream(source, ceiling)
        case Compression.BZIP2:
            return _Bzip2Stream(source, ceiling)
        case Compression.XZ:
            return _XzStream(source, ceiling)
        case Compression.ZSTD:
            return _ZstdStream(source, ceiling)


def plain(
    source: Readable, *, where: str = "", limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None
) -> Readable:
    """Return what ``source`` holds uncompressed, whatever its first bytes say it is. Raises what :func:`decompressing` does."""
    whole = Peeked(source, SNIFF_BYTES)
    limit = limits.layer_uncompressed
    return decompressing(whole, sniff(whole.head), where=where, limits=limits, limit=limit, budget=budget)


class _Ceiling:
    """How much may come out of one stream, and the words to refuse it with."""

    def __init__(
        self,
        kind: Compression,
        where: str,
        limits: Limits,
        limit: int | None,
        limit_name: str,
        budget: Budget | None,
    ) -> None:
        self.kind = kind
        self.where = where
        self.limits = limits
        self._limit = limit
        self._limit_name = limit_name
        self._made = 0
        self._budget = budget

    def charge(self, made: int = 0, taken: int = 0, members: int = 0) -> None:
        """Count output, input and members against what the whole archive may have, also of those without output."""
        if self._budget is not None:
            try:
                self._budget.expanded(made, taken, members)
            except Refused as error:
                raise error.within(self.where) from None

    def count(self, made: int, taken: int) -> None:
        """Add ``made`` bytes of output; ``taken`` is all the input up to now."""
        self._made += made
        self.charge(made)
        if self._limit is not None and self._made > self._limit:
            stream = "data" if self.kind is Compression.NONE else f"{self.kind} stream"
            name = f"{self._limit_name}, " if self._limit_name else ""
            raise Refused(
                "E_LIMIT",
                f"{stream} holds more than the limit of {human_size(self._limit)} ({name}{self._limit} bytes)",
                where=self.where,
                hint="this expands far beyond any honest image: do not trust where it comes from",
                details={"limit": self._limit_name or "limit", "value": self._limit},
            )
        ratio = self.limits.expansion_ratio
        if self._made > self.limits.expansion_judged_after and self._made > ratio * taken:
            raise Refused(
                "E_LIMIT",
                f"{self.kind} stream expands more than {ratio}-fold ({taken} bytes became over {self._made})",
                where=self.where,
                hint="raise expansion_ratio if you trust where this comes from",
                details={"limit": "expansion_ratio", "value": ratio, "compressed": taken, "uncompressed": self._made},
            )

    def refused(self, message: str) -> Refused:
        return Refused("E_COMPRESS", message, where=self.where)

    def damaged(self, error: Exception) -> Refused:
        return self.refused(f"{self.kind} stream is damaged: {printable(str(error))}")

    def early(self, taken: int) -> Refused:
        return self.refused(f"{self.kind} stream ends early, after {taken} bytes")


class _Plain:
    """Bytes as they are, counted."""

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        self._source = source
        self._ceiling = ceiling
        self._taken = 0

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._source.readinto(buffer)
        self._taken += count
        self._ceiling.count(count, self._taken)
        return count


class _Stream(ABC):
    """What all decoding streams share: small reads, the ceiling, and errors that stay."""

    def __init__(self, ceiling: _Ceiling) -> None:
        self._ceiling = ceiling
        self._rest = memoryview(b"")
        self._scratch: memoryview | None = None
        self._error: BaseException | None = None
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        if not len(buffer):
            raise ValueError("0 would read as the end: the buffer must have room")
        if self._error:
            raise self._error
        try:
            return self._read(buffer)
        except BaseException as error:
            # Whoever goes on reading after an error must not be told that the stream ended well.
            self._error = error
            raise

    def _read(self, buffer: memoryview) -> int:
        if not self._rest:
            if self._ended:
                return 0
            small = len(buffer) < _SMALLEST_FILL
            if small and self._scratch is None:
                self._scratch = memoryview(bytearray(_SMALLEST_FILL))
            room = self._scratch if small and self._scratch is not None else buffer[:BUFFER_SIZE]
            count = self._fill(room)
            self._ceiling.count(count, self._taken())
            self._ended = not count
            if not small or not count:
                return count
            self._rest = room[:count]
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    @abstractmethod
    def _fill(self, room: memoryview) -> int:
        """Decode into ``room``; 0 only after the end was proven."""

    @abstractmethod
    def _taken(self) -> int:
        """How many compressed bytes have been consumed."""


class _Input:
    """The compressed bytes: one reused buffer with a window ``[start, end)`` of what is not used yet."""

    def __init__(self, source: Readable, charge: Callable[[int], object]) -> None:
        self.data = bytearray(BUFFER_SIZE)
        self._charge = charge
        self.start = 0
        self.end = 0
        self.taken = 0
        self._view = memoryview(self.data)
        self._source = source

    def __len__(self) -> int:
        return self.end - self.start

    def more(self) -> bool:
        """Read once from the source; return False at its end."""
        if self.start == self.end:
            self.start = self.end = 0
        elif self.end == len(self.data):
            self._view[: len(self)] = bytes(self._view[self.start : self.end])
            self.start, self.end = 0, len(self)
        count = self._source.readinto(self._view[self.end :])
        self.end += count
        self._charge(count)
        return count > 0

    def want(self, size: int) -> bytes:
        """Return the next ``size`` bytes without using them; fewer only at the end of the source."""
        while len(self) < size and self.more():
            pass
        return bytes(self._view[self.start : min(self.end, self.start + size)])

    def use(self, size: int) -> memoryview:
        """Return the next ``size`` bytes, or what there is of them, and move on."""
        start = self.start
        self.start = min(self.end, start + size)
        self.taken += self.start - start
        return self._view[start : self.start]

    def give_back(self, size: int) -> None:
        """Undo the last part of the last :meth:`use`."""
        self.start -= size
        self.taken -= size


class _MemberDecoder(Protocol):
    """What the decoders of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview | bytes, max_length: int = ..., /) -> bytes: ...


class _Members(_Stream):
    """A sequence of members (gzip), or streams (bzip2, xz), each with its own decoder."""

    magic: bytes
    errors: tuple[type[Exception], ...]
    _new_decoder: Callable[[], _MemberDecoder]

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        super().__init__(ceiling)
        self._input = _Input(source, lambda count: ceiling.charge(taken=count))
        self._decoder: _MemberDecoder | None = None
        self._members = 0
        self._member_start = 0
        self._feed = _LARGEST_FEED

    def _taken(self) -> int:
        return self._input.taken

    def _begin(self) -> _MemberDecoder:
        """Return a decoder for the member that begins at the input, after its magic number was seen there."""
        return self._new_decoder()

    def _fill(self, room: memoryview) -> int:
        stream = self._input
        while True:
            decoder = self._decoder
            if decoder is None:
                if not self._next():
                    return 0
                continue
            piece: memoryview | bytes = b""
            ended = False
            if decoder.needs_input:
                if not len(stream):
                    ended = not stream.more()
                piece = stream.use(self._feed)
                self._feed = min(self._feed * 2, _LARGEST_FEED)
            try:
                out = decoder.decompress(piece, len(room))
            except self.errors as error:
                raise self._ceiling.damaged(error) from error
            if decoder.eof:
                self._end(len(decoder.unused_data))
            elif ended and not out:
                raise self._ceiling.early(stream.taken)
            if out:
                room[: len(out)] = out
                return len(out)

    def _end(self, unused: int) -> None:
        self._input.give_back(unused)
        self._decoder = None
        # Each decoder copies what it does not use. Small members get small pieces, so that a file of a million tiny
        # members costs time by its size and not by its square.
        used = self._input.taken - self._member_start
        self._feed = max(_SMALLEST_FEED, min(2 * used, _LARGEST_FEED))

    def _next(self) -> bool:
        """Set up the decoder for the next member; return False when there is none and nothing else either."""
        stream, kind = self._input, self._ceiling.kind
        if self._members and stream.want(1) == b"\0":
            self._padding()
        head = stream.want(len(self.magic))
        if not head and self._members:
            return False
        if head != self.magic:
            if self._members:
                raise self._ceiling.refused(f"bytes that are no {kind} stream follow it (at byte {stream.taken})")
            if self.magic.startswith(head):
                raise self._ceiling.early(len(head))
            raise self._ceiling.refused(f"not a {kind} stream")
        self._members += 1
        self._ceiling.charge(members=1)
        self._member_start = stream.taken
        self._decoder = self._begin()
        return True

    def _padding(self) -> None:
        """Pass over NULs. They come from tools that pad to blocks; some layers in the wild have them."""
        stream, kind, limit = self._input, self._ceiling.kind, self._ceiling.limits.trailing_zeros
        passed = 0
        while stream.want(1) == b"\0":
            block = bytes(stream.use(BUFFER_SIZE))
            rest = len(block.lstrip(b"\0"))
            stream.give_back(rest)
            passed += len(block) - rest
            if passed > limit:
                raise Refused(
                    "E_LIMIT",
                    f"more than {limit} NUL bytes follow the {kind} stream",
                    where=self._ceiling.where,
                    details={"limit": "trailing_zeros", "value": limit},
                )
        self._padded(passed)

    def _padded(self, passed: int) -> None:
        """Judge ``passed`` NULs, after which there is the end or another byte."""
        if passed and len(self._input):
            raise self._ceiling.refused(f"bytes other than NUL follow the {self._ceiling.kind} stream")


class _Inflater:
    """The decoder of zlib-ng with the face of those of bz2 and lzma.

    It refuses what zlib refuses, tables included that no code fits (docs/decisions/0003): every engine does, and what
    they cannot unpack must not pass for a good layer. It checks the CRC and the length behind the data, on all of it.
    """

    def __init__(self) -> None:
        from zlib_ng import zlib_ng

        self._zlib = zlib_ng.decompressobj(_GZIP_WINDOW)
        self._zlib.decompress(_GZIP_PLAIN_HEADER)  # In place of the member's own, which was read by us.

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: memoryview | bytes, max_length: int = 0, /) -> bytes:
        return self._zlib.decompress(data or self._zlib.unconsumed_tail, max_length)


class _GzipStream(_Members):
    magic = GZIP_MAGIC

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        from zlib_ng import zlib_ng

        super().__init__(source, ceiling)
        self.errors = (cast("type[Exception]", zlib_ng.error),)
        self._new_decoder = _Inflater

    def _begin(self) -> _MemberDecoder:
        # The header is read here, not by the decoder: reserved flags, a wrong header checksum and names without end
        # are to be refused. The name itself is of no use to anybody.
        stream = self._input
        while True:
            size = self._header_size(stream.data, stream.start, stream.end)
            if size > _GZIP_HEADER or (not size and len(stream) > _GZIP_HEADER):
                raise self._ceiling.refused(f"gzip header is longer than {_GZIP_HEADER} bytes")
            if size:
                break
            if not stream.more():
                raise self._ceiling.early(stream.taken + len(stream))
        stream.use(size)
        return self._new_decoder()

    def _header_size(self, data: bytearray, start: int, end: int) -> int:
        """Return the size of the header (RFC 1952) at ``start``, or 0 if ``end`` cuts it off."""
        pos = start + 10
        if pos > end:
            return 0
        flags = data[start + 3]
        if flags & 0xE0:
            raise self._ceiling.refused("gzip stream is damaged: reserved flags are set")
        if flags & 0x04:
            if pos + 2 > end:
                return 0
            pos += 2 + int.from_bytes(data[pos : pos + 2], "little")
        for flag in (0x08, 0x10):  # name, comment
            if flags & flag:
                pos = data.find(0, pos, end) + 1
                if not pos:
                    return 0
        if flags & 0x02:
            pos += 2
            if pos <= end:
                crc = crc32(data[start : pos - 2]) & 0xFFFF
                if crc != int.from_bytes(data[pos - 2 : pos], "little"):
                    raise self._ceiling.refused("gzip stream is damaged: wrong checksum of a header")
        return pos - start if pos <= end else 0


class _Bzip2Stream(_Members):
    magic = b"BZh"
    errors = (OSError, ValueError)

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        import bz2

        super().__init__(source, ceiling)
        self._new_decoder = bz2.BZ2Decompressor


class _XzStream(_Members):
    magic = XZ_MAGIC

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        import lzma

        super().__init__(source, ceiling)
        self.errors = (lzma.LZMAError,)
        self._new_decoder = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def _padded(self, passed: int) -> None:
        # "Stream padding" of the xz format: always a multiple of four bytes, and another stream may follow.
        if passed % _XZ_PADDING:
            raise self._ceiling.refused(f"{passed} NUL bytes after an xz stream, not a multiple of {_XZ_PADDING}")


class _ZstdFeed:
    """The file object that libzstd reads from; the walker sees every byte first."""

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        limits = ceiling.limits
        self.taken = 0
        self.ended = False
        self._source = source
        self._charge = ceiling.charge
        self._frames = 0
        self._buffer = memoryview(bytearray(_ZSTD_FEED))
        self._walker = FrameWalker(
            max_window=limits.zstd_window, max_padding=limits.trailing_zeros, where=ceiling.where
        )

    def read(self, size: int) -> bytes:
        while True:
            count = self._source.readinto(self._buffer[:size])
            if not count:
                self._walker.finish()
                self.ended = True
                return b""
            self.taken += count
            data = bytes(self._buffer[:count])
            used = self._walker.feed(data)
            self._charge(taken=count, members=self._walker.frames - self._frames)
            self._frames = self._walker.frames
            if used:
                return data[:used]


class _ZstdStream(_Stream):
    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        import zstandard

        super().__init__(ceiling)
        self._feed = _ZstdFeed(source, ceiling)
        self._error_of_library = zstandard.ZstdError
        window = ceiling.limits.zstd_window
        self._reader = zstandard.ZstdDecompressor(max_window_size=window).stream_reader(
            self._feed,  # type: ignore[arg-type]
            read_size=_ZSTD_FEED,
            read_across_frames=True,
            closefd=False,
        )

    def _taken(self) -> int:
        return self._feed.taken

    def _fill(self, room: memoryview) -> int:
        try:
            count = self._reader.readinto(room)
        except self._error_of_library as error:
            raise self._ceiling.damaged(error) from error
        if not count and not self._feed.ended:
            raise self._ceiling.early(self._feed.taken)
        return count
