"""What the tests of compressed streams share: data, packing by other hands, and reading it all."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

import zstandard

from imgtar.blob.compression import Compression
from imgtar.blob.decompress import decompressing

GZIP, ZSTD, BZIP2, XZ, NONE = (
    Compression.GZIP,
    Compression.ZSTD,
    Compression.BZIP2,
    Compression.XZ,
    Compression.NONE,
)
PACKED = (GZIP, ZSTD, BZIP2, XZ)
TEXT = b"".join(b"line %d of a layer\n" % number for number in range(60))
NOISE = random.Random(7).randbytes(3_000_000)


class Source:
    """A stream over ``data`` that gives at most ``step`` bytes at a time."""

    def __init__(self, data: bytes, step: int = 1 << 30) -> None:
        self.data, self.step, self.at = memoryview(data), step, 0

    def readinto(self, buffer: memoryview, /) -> int:
        part = self.data[self.at : self.at + min(self.step, len(buffer))]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)


def packed(kind: Compression, data: bytes) -> bytes:
    makers: dict[Compression, Callable[[bytes], bytes]] = {
        NONE: bytes,
        GZIP: lambda data: gzip.compress(data, mtime=0),
        ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
        BZIP2: bz2.compress,
        XZ: lzma.compress,
    }
    return makers[kind](data)


def read(data: bytes, kind: Compression, *, step: int = 1 << 30, room: int = 1 << 16, **options: object) -> bytes:
    source = Source(data, step)
    stream = decompressing(source, kind, **options)  # type: ignore[arg-type]
    buffer, out = memoryview(bytearray(room)), bytearray()
    while count := stream.readinto(buffer):
        assert 0 < count <= room
        out += buffer[:count]
    assert source.at == len(data), "ended before everything was read"
    assert stream.readinto(buffer) == 0
    return bytes(out)
