"""Tar archives from raw blocks, so that tests can write what no honest tool writes."""

from __future__ import annotations

__all__ = ["END", "Dribble", "base256", "entry", "gnu_long", "header", "octal", "pax", "pax_record", "resum"]

END = bytes(1024)
"""The end-of-archive marker."""


def octal(number: int, width: int) -> bytes:
    """Return ``number`` as octal digits and a NUL, ``width`` bytes in all."""
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """Return ``number`` in base-256: 0x80 first for positive numbers, 0xFF for negative ones."""
    if number < 0:
        return number.to_bytes(width, "big", signed=True)
    raw = bytearray(number.to_bytes(width, "big"))
    raw[0] |= 0x80
    return bytes(raw)


def resum(block: bytes | bytearray, *, signed: bool = False) -> bytes:
    """Return ``block`` with a right checksum."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def header(
    name: bytes = b"file",
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    devices: bytes = bytes(16),
    checksum: bytes | None = None,
    patch: dict[int, bytes] | None = None,
) -> bytes:
    """Return one header block; ``size`` may be the raw field, ``patch`` overwrites bytes before the checksum."""
    block = bytearray(512)
    fields = {
        0: name,
        100: mode,
        108: uid,
        116: gid,
        124: size if isinstance(size, bytes) else octal(size, 12),
        136: mtime,
        156: kind,
        157: link,
        257: magic,
        329: devices,
        345: prefix,
        **(patch or {}),
    }
    for start, value in fields.items():
        block[start : start + len(value)] = value
    assert len(block) == 512
    if checksum is not None:
        block[148:156] = checksum
        return bytes(block)
    return resum(block)


def entry(name: bytes = b"file", data: bytes = b"", **fields: object) -> bytes:
    """Return a header and its padded data; the size is that of the data unless given."""
    fields.setdefault("size", len(data))
    return header(name, **fields) + data + bytes(-len(data) % 512)  # type: ignore[arg-type]


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one pax record; its length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: tuple[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """Return a pax header with these records; bytes are put in as they are."""
    data = b"".join(record if isinstance(record, bytes) else pax_record(*record) for record in records)
    return entry(b"PaxHeaders/x", data, kind=kind)


def gnu_long(text: bytes, kind: bytes = b"L") -> bytes:
    """Return a GNU long name (``L``) or long link target (``K``)."""
    return entry(b"././@LongLink", text + b"\0", kind=kind, magic=b"ustar  \0")


class Dribble:
    """A pipe that gives ``step`` bytes at a time at most."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self.data, self.step, self.at = data, step, 0

    def readinto(self, buffer: memoryview, /) -> int:
        chunk = self.data[self.at : self.at + min(self.step, len(buffer))]
        buffer[: len(chunk)] = chunk
        self.at += len(chunk)
        return len(chunk)
