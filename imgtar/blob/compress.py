"""Our own compression, made so that it always gives the same bytes.

The libraries are imported when a stream begins that needs them: most runs write none, or one kind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from imgtar.blob.compression import GZIP_MAGIC, Compression, checked_level
from imgtar.blob.lanes import InOrder
from imgtar.blob.stream import BUFFER_SIZE
from imgtar.errors import UsageError

__all__ = ["Compressor", "compressing"]

Bytes = bytes | bytearray | memoryview

_GZIP_BLOCK = 1 << 20
_GZIP_WINDOW = 32 << 10  # how far back deflate can refer (RFC 1951)
_DEFLATE_END = b"\x03\x00"  # an empty last block: whichever block is the last one, none need know
_ZSTD_JOB = 1 << 20
_ZSTD_WINDOW_LOG = 23
_ZSTD_THREADS = 64  # each brings about 16 MiB of buffers with it


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

    def abandon(self) -> None:
        """Let go of threads after an error; nothing more is written. Idempotent."""

    def _emit(self, data: bytes) -> None:
        if data:
            self._hand_on(data)

    def _compress(self, piece: memoryview) -> None:
        self._hand_on(piece)

    def _complete(self) -> None:
        pass


class _GzipCompressor(Compressor):
    """gzip without a time, a name or the name of this system, cut into blocks that are compressed at once.

    Every block ends on a byte (a deflate sync flush) and may refer to the 32 KiB before it, as pigz has it: the stream is
    one member, as good as a single one to any reader, and the number of threads changes only the speed.

    This is zlib, not isal, although isal is several times as fast: isal picks other code, and may write other bytes,
    on another CPU. The same image must have the same digest wherever it is saved.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], level: int, jobs: int) -> None:
        import zlib

        super().__init__(write)
        self._zlib = zlib
        self._level = level
        self._crc = 0
        self._size = 0
        self._block = bytearray()
        self._before = b""
        self._blocks = InOrder(self._deflated, self._emit, jobs)
        # The header is written by hand because zlib's own names the operating system it was built for.
        effort = {1: 4, 9: 2}.get(level, 0)
        self._header = GZIP_MAGIC + bytes((0, 0, 0, 0, 0, effort, 255))

    def _deflated(self, work: tuple[bytes, bytearray]) -> bytes:
        before, block = work
        zlib = self._zlib
        settings = (self._level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY)
        deflate = zlib.compressobj(*settings, before) if before else zlib.compressobj(*settings)
        done: bytes = deflate.compress(block) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return done

    def _compress(self, piece: memoryview) -> None:
        self._crc = self._zlib.crc32(piece, self._crc)
        self._size += len(piece)
        while piece:
            room = _GZIP_BLOCK - len(self._block)
            self._block += piece[:room]
            piece = piece[room:]
            if len(self._block) == _GZIP_BLOCK:
                self._pass_on()

    def _pass_on(self) -> None:
        self._begin()
        self._blocks.put((self._before, self._block))
        self._before = bytes(self._block[-_GZIP_WINDOW:])
        self._block = bytearray()

    def _complete(self) -> None:
        self._begin()
        if self._block:
            self._pass_on()
        self._blocks.finish()
        self._emit(_DEFLATE_END + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def abandon(self) -> None:
        self._blocks.abandon()

    def _begin(self) -> None:
        header, self._header = self._header, b""
        self._emit(header)


class _ZstdCompressor(Compressor):
    """zstd with a checksum, cut into jobs of a fixed size, so that the number of threads changes only the speed.

    No frame needs a window over 8 MiB, whatever the level: RFC 8878 expects no more of a decoder.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object], level: int, jobs: int) -> None:
        import zstandard

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
        import zstandard

        # When the data ends exactly where a job does, whether that job is the last one or an empty one follows would
        # depend on how busy the threads are. Closing the block first makes it always the same, for three bytes.
        self._emit(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        self._emit(self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))


def compressing(
    kind: Compression, level: int | None, write: Callable[[bytes | memoryview], object], *, jobs: int = 1
) -> Compressor:
    """Return a compressor that hands its output to ``write``. The output depends on data, kind and level alone.

    ``level`` None means gzip 6 or zstd 3. ``jobs`` is the number of threads. What ``write`` gets for ``NONE`` is a view of
    the caller's data, good only during the call.
    """
    level = checked_level(kind, level)
    if jobs < 1:
        raise UsageError(f"{jobs} is not a number of threads", hint="use 1 or more")
    if kind is Compression.GZIP:
        return _GzipCompressor(write, level, jobs)
    if kind is Compression.ZSTD:
        return _ZstdCompressor(write, level, jobs)
    return Compressor(write)
