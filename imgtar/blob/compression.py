"""Which compressions there are: told by their first bytes, or named on the command line.

Nothing here compresses or decompresses, and no library that does is imported: asking is cheap.
"""

from __future__ import annotations

from enum import StrEnum

from imgtar.blob.zstd_frames import is_frame_start
from imgtar.errors import UsageError
from imgtar.text import shown

__all__ = [
    "GZIP_MAGIC",
    "SNIFF_BYTES",
    "XZ_MAGIC",
    "Compression",
    "checked_level",
    "foreign_compression",
    "parse_compression",
    "sniff",
]

SNIFF_BYTES = 8
"""How many first bytes :func:`sniff` and :func:`foreign_compression` need to decide."""


class Compression(StrEnum):
    """How a file or blob is compressed. All of these are read; only the first three are written."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


GZIP_MAGIC = b"\x1f\x8b\x08"
XZ_MAGIC = b"\xfd7zXZ\x00"
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

_LEVELS = {Compression.GZIP: (6, 1, 9), Compression.ZSTD: (3, 1, 22)}  # default, lowest, highest
_FORMS = "none, gzip, gzip:1 to gzip:9, zstd, zstd:1 to zstd:22"


def sniff(head: bytes) -> Compression:
    """Return the compression that the magic number in ``head`` announces; ``NONE`` for everything else."""
    if head.startswith(GZIP_MAGIC):
        return Compression.GZIP
    if is_frame_start(head):
        return Compression.ZSTD
    if head.startswith(XZ_MAGIC):
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
    checked_level(kind, level)
    return kind, level


def checked_level(kind: Compression, level: int | None) -> int:
    """Return the level to write ``kind`` with; raises ``UsageError`` for what is not written or does not exist."""
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
