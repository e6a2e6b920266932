"""Compression by strangers undone with suspicion, and our own made so that it always gives the same bytes.

Everything runs in this process: no ``xz``, ``unpigz`` or other program is ever started (CVE-2014-9357 shows why).
A stream counts as read only when its end was proven: every checksum, every length, and nothing behind it but NULs.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, cast

import zstandard
from isal import igzip_lib

from ..errors import Refused, UsageError
from ..model.limits import DEFAULT_LIMITS, Limits
from ..text import human_size, printable, shown
from .stream import BUFFER_SIZE, Readable
from .zstd_frames import FrameWalker, is_frame_start

__all__ = [
    "SNIFF_BYTES",
    "Compression",
    "Compressor",
    "compressing",
    "decompressing",
    "foreign_compression",
    "parse_compression",
    "sniff",
]

Bytes = bytes | bytearray | memoryview

SNIFF_BYTES = 8
"""How many first bytes :func:`sniff` and :func:`foreign_compression` need to decide."""


class Compression(StrEnum):
    """How a file or blob is compressed. All of these are read; only the first three are written."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


_GZIP_MAGIC = b"\x1f\x8b\x08"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BZIP2_BLOCKS = (b"1AY&", b"\x17rE8")  # a data block, or the end of an empty stream

_FOREIGN = (
    (b"\x1f\x8b", "gzip with an unknown method"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"\x1f\xa0", "compress (SCO LZH)"),
    (b"\x1f\x1e", "pack (.z)"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4 (legacy)"),
    (b"LZIP", "lzip"),
    (b"\x89LZO\x00", "lzop"),
    (b"\xff\x06\x00\x00sNaP", "snappy"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"PK\x03\x04", "zip"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x78\x01", "zlib"),
    (b"\x78\x9c", "zlib"),
    (b"\x78\xda", "zlib"),
)


def sniff(head: bytes) -> Compression:
    """Return the compression that the magic number in ``head`` announces; ``NONE`` for everything else."""
    if head.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if is_frame_start(head):
        return Compression.ZSTD
    if head.startswith(_XZ_MAGIC):
        return Compression.XZ
    # "BZh1" could also begin the first name in a plain tar, so what follows is looked at as far as it is there.
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and len(head) > 3 and _starts_alike(head[4:8], _BZIP2_BLOCKS):
        return Compression.BZIP2
    return Compression.NONE


def foreign_compression(head: bytes) -> str | None:
    """Return the name of a compression we know of but do not read, for an error message."""
    if sniff(head) is not Compression.NONE:
        return None
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            return name
    if head[1:4] == b"\xb5\x2f\xfd" and (head[0] == 0x1E or 0x22 <= head[0] <= 0x27):
        return "zstd of a version before 0.8"
    return "lzma (.lzma)" if _is_lzma_alone(head) else None


def _starts_alike(part: bytes, wholes: tuple[bytes, ...]) -> bool:
    return any(whole.startswith(part) for whole in wholes)


def _is_lzma_alone(head: bytes) -> bool:
    # There is no magic number: the usual properties byte, a dictionary of 2^n or 3 * 2^n bytes, and a size that is
    # "unknown" (which is what xz and lzma write) are together nothing a tar could begin with.
    if len(head) < SNIFF_BYTES or head[0] != 0x5D or head[5:8] != b"\xff\xff\xff":
        return False
    dictionary = int.from_bytes(head[1:5], "little")
    return dictionary >= 1 << 12 and dictionary // (dictionary & -dictionary) in (1, 3)


# Reading ---------------------------------------------------------------------------------------------------------

_SMALLEST_FILL = 1 << 16  # smaller reads are served from a block of this size, or each would cost a decoder call
_LARGEST_FEED = 1 << 18
_SMALLEST_FEED = 1 << 12
_ZSTD_FEED = 1 << 17

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
) -> Readable:
    """Return a stream of what ``source`` holds once ``kind`` is undone.

    It ends (returns 0) only after all of ``source`` was read and proven whole. Damage, truncation and anything but
    NULs behind the last member are ``E_COMPRESS``; more than ``limit`` bytes, or an expansion that nothing honest
    reaches, are ``E_LIMIT``, with ``limit_name`` saying which limit it was. What ``source`` raises passes unchanged,
    and after any error the stream raises that error again.
    """
    ceiling = _Ceiling(kind, where, limits, limit, limit_name)
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


class _Ceiling:
    """How much may come out of one stream, and the words to refuse it with."""

    def __init__(self, kind: Compression, where: str, limits: Limits, limit: int | None, limit_name: str) -> None:
        self.kind = kind
        self.where = where
        self.limits = limits
        self._limit = limit
        self._limit_name = limit_name
        self._made = 0

    def count(self, made: int, taken: int) -> None:
        """Add ``made`` bytes of output; ``taken`` is all the input up to now."""
        self._made += made
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


class _Stream:
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

    def _fill(self, room: memoryview) -> int:
        """Decode into ``room``; 0 only after the end was proven."""
        raise NotImplementedError

    def _taken(self) -> int:
        raise NotImplementedError


class _Input:
    """The compressed bytes: one reused buffer with a window ``[start, end)`` of what is not used yet."""

    def __init__(self, source: Readable) -> None:
        self.data = bytearray(BUFFER_SIZE)
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
    """What the decoders of bz2, lzma and isal have in common."""

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

    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        super().__init__(ceiling)
        self._input = _Input(source)
        self._decoder: _MemberDecoder | None = None
        self._members = 0
        self._member_start = 0
        self._feed = _LARGEST_FEED

    def _taken(self) -> int:
        return self._input.taken

    def _begin(self) -> _MemberDecoder:
        """Return a decoder for the member that begins at the input, after its magic number was seen there."""
        raise NotImplementedError

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


class _GzipStream(_Members):
    magic = _GZIP_MAGIC
    errors = (cast("type[Exception]", igzip_lib.IsalError),)

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
        # Checks the CRC and the length behind the data, on all of the data.
        decoder: _MemberDecoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP_NO_HDR_VER)
        return decoder

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
                crc = zlib.crc32(data[start : pos - 2]) & 0xFFFF
                if crc != int.from_bytes(data[pos - 2 : pos], "little"):
                    raise self._ceiling.refused("gzip stream is damaged: wrong checksum of a header")
        return pos - start if pos <= end else 0


class _Bzip2Stream(_Members):
    magic = b"BZh"
    errors = (OSError, ValueError)

    def _begin(self) -> _MemberDecoder:
        return bz2.BZ2Decompressor()


class _XzStream(_Members):
    magic = _XZ_MAGIC
    errors = (lzma.LZMAError,)

    def _begin(self) -> _MemberDecoder:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

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
            if used:
                return data[:used]


class _ZstdStream(_Stream):
    def __init__(self, source: Readable, ceiling: _Ceiling) -> None:
        super().__init__(ceiling)
        self._feed = _ZstdFeed(source, ceiling)
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
        except zstandard.ZstdError as error:
            raise self._ceiling.damaged(error) from error
        if not count and not self._feed.ended:
            raise self._ceiling.early(self._feed.taken)
        return count


# Writing ---------------------------------------------------------------------------------------------------------

_LEVELS = {Compression.GZIP: (6, 1, 9), Compression.ZSTD: (3, 1, 22)}  # default, lowest, highest
_ZSTD_JOB = 2 << 20
_ZSTD_WINDOW_LOG = 23
_ZSTD_THREADS = 64  # each brings about 16 MiB of buffers with it
_FORMS = "none, gzip, gzip:1 to gzip:9, zstd, zstd:1 to zstd:22"


def parse_compression(text: str) -> tuple[Compression, int | None]:
    """Read ``none``, ``gzip[:LEVEL]`` or ``zstd[:LEVEL]`` as given on the command line."""
    name, colon, number = text.partition(":")
    try:
        kind = Compression(name)
    except ValueError:
        raise UsageError(f"unknown compression {shown(text)}", hint=f"use one of: {_FORMS}") from None
    level = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else None
    if colon and level is None:
        raise UsageError(f"the level in {shown(text)} is not a number", hint=f"use one of: {_FORMS}")
    _checked_level(kind, level)
    return kind, level


def _checked_level(kind: Compression, level: int | None) -> int:
    if kind in (Compression.BZIP2, Compression.XZ):
        raise UsageError(f"{kind} is read but not written", hint=f"use one of: {_FORMS}")
    if kind is Compression.NONE:
        if level is not None:
            raise UsageError("no compression has no level", hint=f"use one of: {_FORMS}")
        return 0
    default, lowest, highest = _LEVELS[kind]
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise UsageError(f"{kind} has no level {level}", hint=f"use a level from {lowest} to {highest}")
    return level


class Compressor:
    """Takes plain bytes with :meth:`write` and hands compressed ones on; :meth:`finish` completes the stream."""

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self._hand_on = write
        self._finished = False

    def write(self, data: Bytes) -> None:
        """Compress ``data``. How the data is cut into pieces makes no difference to the result."""
        if self._finished:
            raise ValueError("write after finish")
        view = memoryview(data).cast("B")
        for start in range(0, len(view), BUFFER_SIZE):
            self._compress(view[start : start + BUFFER_SIZE])

    def finish(self) -> None:
        """Write what is left and the end of the stream. A second call does nothing."""
        if not self._finished:
            self._finished = True
            self._complete()

    def _emit(self, data: bytes) -> None:
        if data:
            self._hand_on(data)

    def _compress(self, piece: memoryview) -> None:
        self._hand_on(piece)

    def _complete(self) -> None:
        pass


class _GzipCompressor(Compressor):
    """gzip without a time, a name or the name of this system.

    This is zlib, not isal, although isal is several times as fast: isal picks other code, and may write other bytes,
    on another CPU. The same image must have the same digest wherever it is saved.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], level: int) -> None:
        super().__init__(write)
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
        self._crc = 0
        self._size = 0
        # The header is written by hand because zlib's own names the operating system it was built for.
        effort = {1: 4, 9: 2}.get(level, 0)
        self._header = _GZIP_MAGIC + bytes((0, 0, 0, 0, 0, effort, 255))

    def _compress(self, piece: memoryview) -> None:
        self._begin()
        self._crc = zlib.crc32(piece, self._crc)
        self._size += len(piece)
        self._emit(self._deflate.compress(piece))

    def _complete(self) -> None:
        self._begin()
        self._emit(self._deflate.flush() + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _begin(self) -> None:
        header, self._header = self._header, b""
        self._emit(header)


class _ZstdCompressor(Compressor):
    """zstd with a checksum, cut into jobs of a fixed size, so that the number of threads changes only the speed.

    No frame needs a window over 8 MiB, whatever the level: RFC 8878 expects no more of a decoder.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], level: int, jobs: int) -> None:
        super().__init__(write)
        usual = zstandard.ZstdCompressionParameters.from_level(level)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            window_log=min(usual.window_log, _ZSTD_WINDOW_LOG),
            # Tables that reach further than the window would only take memory (a gigabyte at level 22).
            hash_log=min(usual.hash_log, _ZSTD_WINDOW_LOG + 1),
            chain_log=min(usual.chain_log, _ZSTD_WINDOW_LOG + 1),
            job_size=_ZSTD_JOB,
            threads=min(jobs, _ZSTD_THREADS),
            write_checksum=1,
            write_content_size=0,
        )
        self._zstd = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def _compress(self, piece: memoryview) -> None:
        self._emit(self._zstd.compress(piece))

    def _complete(self) -> None:
        # When the data ends exactly where a job does, whether that job is the last one or an empty one follows would
        # depend on how busy the threads are. Closing the block first makes it always the same, for three bytes.
        self._emit(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        self._emit(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))


def compressing(
    kind: Compression, level: int | None, write: Callable[[bytes | memoryview], object], *, jobs: int = 1
) -> Compressor:
    """Return a compressor that hands its output to ``write``. The output depends on data, kind and level alone.

    ``level`` None means gzip 6 or zstd 3. ``jobs`` is the number of threads; gzip always uses one. What ``write`` gets
    for ``NONE`` is a view of the caller's data, good only during the call.
    """
    level = _checked_level(kind, level)
    if jobs < 1:
        raise UsageError(f"{jobs} is not a number of threads", hint="use 1 or more")
    if kind is Compression.GZIP:
        return _GzipCompressor(write, level)
    if kind is Compression.ZSTD:
        return _ZstdCompressor(write, level, jobs)
    return Compressor(write)
