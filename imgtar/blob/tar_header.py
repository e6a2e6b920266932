"""One tar header block, one set of pax records, one GNU long name, one entry name: parsed or refused.

Everything here is a pure function of a few bytes. The rule throughout: if two readers could understand the bytes
differently, they are refused (``E_HEADER``) instead of guessed at. Sizes and offsets are bytes.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from imgtar.errors import Refused

__all__ = [
    "BLOCK",
    "KINDS",
    "SPECIAL_KINDS",
    "UNSUPPORTED_KINDS",
    "USTAR_SIZE_CEILING",
    "EntryKind",
    "Header",
    "PaxFields",
    "clean_name",
    "has_controls",
    "header_fault",
    "over_limit",
    "padding",
    "parse_header",
    "parse_long_name",
    "parse_pax",
    "settled_size",
]

BLOCK = 512
"""Bytes per tar block: headers are one block, data is padded to whole blocks."""

USTAR_SIZE_CEILING = 1 << 33
"""The first size that eleven octal digits cannot say (8 GiB)."""

_LARGEST_SIZE = (1 << 63) - 1
_LARGEST_ID = (1 << 32) - 1
_TIME_CEILING = 1 << 40

_USTAR, _GNU, _V7 = b"ustar\x0000", b"ustar  \0", bytes(8)
_NO_PREFIX, _NO_LINK, _NO_STAR = bytes(167), bytes(100), bytes(12)

_OCTAL = re.compile(rb" *([0-7]+)[ \0]+")
_CHECKSUM = re.compile(rb"([0-7]{6})(?:\0 | \0)|([0-7]{7})\0")
_RECORD = re.compile(rb"([1-9][0-9]{0,8}) ")
_COUNT = re.compile(rb"0|[1-9][0-9]{0,18}")
_TIME = re.compile(rb"-?([0-9]{1,13})(?:\.[0-9]*)?")
_CHARSETS = (b"BINARY", b"ISO-IR 10646 2000 UTF-8")
_XATTRS = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"RHT.security.selinux")

# Fixed ranges instead of str.isprintable(): that one changes with the Unicode version, and verdicts must not.
_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:[.:].*)?", re.IGNORECASE)


class EntryKind(Enum):
    """What an entry is. ``SPECIAL`` covers devices, fifos and contiguous files, which always carry a problem."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    SPECIAL = "special file"


KINDS = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.SPECIAL,
    b"4": EntryKind.SPECIAL,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.SPECIAL,
    b"7": EntryKind.SPECIAL,
}
SPECIAL_KINDS = {b"3": "a character device", b"4": "a block device", b"6": "a fifo", b"7": "a contiguous file"}
UNSUPPORTED_KINDS = {
    b"D": "GNU directory dump",
    b"M": "GNU multi-volume continuation",
    b"N": "old GNU long names",
    b"S": "old GNU sparse file",
    b"V": "GNU volume label",
    b"X": "Solaris extended header",
}


class Header(NamedTuple):
    """What one block says, undecoded: ``kind`` is the typeflag byte, ``name`` already includes the ustar prefix."""

    kind: bytes
    name: bytes
    size: int
    link: bytes


class PaxFields(NamedTuple):
    """The pax records that change how an entry is read; ``None`` where there is no such record."""

    path: bytes | None = None
    linkpath: bytes | None = None
    size: int | None = None


def header_fault(reason: str, offset: int, where: str = "") -> Refused:
    """Return the ``E_HEADER`` refusal for the header at byte ``offset``."""
    return Refused(
        "E_HEADER",
        f"header at byte {offset}: {reason}",
        where=where,
        hint="the archive is damaged or was made to confuse; copy or export it again",
        details={"offset": offset},
    )


def over_limit(what: str, offset: int, where: str = "") -> Refused:
    """Return the ``E_LIMIT`` refusal for the header at byte ``offset``."""
    message = f"header at byte {offset}: {what} is over the limit"
    return Refused("E_LIMIT", message, where=where, details={"offset": offset})


def padding(size: int) -> int:
    """Return how many bytes follow ``size`` bytes of data up to the next block boundary."""
    return -size % BLOCK


def parse_header(block: bytes, offset: int, where: str = "") -> Header:
    """Parse one non-zero 512-byte ``block`` found at byte ``offset``.

    Raises ``Refused``: ``E_HEADER`` for a wrong checksum, magic, number or text field, ``E_LIMIT`` for a size beyond
    63 bits.
    """
    try:
        _check_sum(block)
        tail_is_empty = block[345:] == _NO_PREFIX
        magic = block[257:265]
        if magic == _USTAR:
            # The last twelve bytes are padding in ustar; star keeps its own magic there and reads the prefix otherwise.
            if not tail_is_empty and block[500:] != _NO_STAR:
                raise ValueError("bytes after the prefix field are not zero (star format?)")
        elif magic == _GNU:
            # GNU keeps times and sparse maps here, others take it for a prefix: two paths for one entry.
            if not tail_is_empty:
                raise ValueError("the prefix field is used under GNU magic")
        elif magic != _V7 or not tail_is_empty:
            raise ValueError("unknown tar dialect (magic is neither ustar, GNU nor empty)")
        _check_ids(block[100:124])
        _check_time(block[136:148])
        _check_ids(block[329:345])
        kind = block[156:157]
        size = _size(block[124:136], kind)
        name = _text(block[:100], "name")
        if not tail_is_empty:
            name = _text(block[345:500], "prefix") + b"/" + name
        link_field = block[157:257]
        link = b"" if link_field == _NO_LINK else _text(link_field, "link name")
    except ValueError as error:
        raise header_fault(str(error), offset, where) from None
    if size > _LARGEST_SIZE:
        raise Refused(
            "E_LIMIT",
            f"header at byte {offset}: a size of {size} bytes is beyond any archive",
            where=where,
            details={"offset": offset, "size": size},
        )
    return Header(kind, name, size, link)


def _check_sum(block: bytes) -> None:
    # adler32's low half is 1 + the byte sum modulo 65521. 256 bytes add up to 65280 at most, so nothing wraps, and it
    # costs a fifth of sum(). Only the unsigned sum counts: a second reading would let damage through.
    field = block[148:156]
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - (adler32(field) & 0xFFFF) + 255
    if field == b"%06o\0 " % total:
        return
    # These spellings differ from each other in two bits or more, so a flipped bit never turns one into another. Leading
    # spaces are left out for that reason: "0" and " " are one bit apart.
    match = _CHECKSUM.fullmatch(field)
    if match is None:
        raise ValueError("not a tar header (the checksum field is no octal number)")
    if int(match[1] or match[2], 8) != total:
        raise ValueError("wrong checksum")


def _number(field: bytes, what: str) -> int:
    """Return the number in ``field``; negative only for base-256. Raises ``ValueError``."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        if field[0] & 0x40:
            return value
        return value + (1 << (8 * len(field) - 1))
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise ValueError(f"the {what} field is not a number")
    return int(match[1], 8)


def _size(field: bytes, kind: bytes) -> int:
    if field[11] == 0 and field[:11].isdigit():
        return int(field[:11], 8)  # the way everybody writes it; an 8 or 9 is a ValueError just the same
    if not field.strip(b"\0") and kind not in (b"0", b"\0", b"7"):
        return 0
    size = _number(field, "size")
    if size < 0:
        raise ValueError(f"negative size {size}")
    return size


@lru_cache(maxsize=1024)
def _check_ids(fields: bytes) -> None:
    """Check mode, owner and device numbers, eight bytes each. Never used, but junk here means junk elsewhere."""
    for start in range(0, len(fields), 8):
        field = fields[start : start + 8]
        if field.strip(b"\0") and not 0 <= _number(field, "mode, owner or device") <= _LARGEST_ID:
            raise ValueError("a mode, owner or device number is out of range")


@lru_cache(maxsize=1024)
def _check_time(field: bytes) -> None:
    # Times before 1970 are honest (GNU tar writes them as negative base-256), times beyond the year 36,000 are not.
    if field.strip(b"\0") and abs(_number(field, "time")) >= _TIME_CEILING:
        raise ValueError("the modification time is out of range")


def _text(field: bytes, what: str) -> bytes:
    text, _, rest = field.partition(b"\0")
    # Readers that stop at the NUL and readers that strip NULs from the end would see two names.
    if rest.strip(b"\0"):
        raise ValueError(f"bytes after the NUL in the {what} field")
    return text


def parse_pax(data: bytes, offset: int, where: str = "", *, everywhere: bool = False) -> PaxFields:
    """Parse the records of the pax header at byte ``offset``; ``everywhere`` marks a global one.

    Takes linear time. Unknown keys are ignored. Raises ``Refused`` ``E_HEADER`` for a malformed record, a repeated key,
    a value that is not UTF-8 or absurd, sparse keys, and for a name or size in a global header.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(data):
            match = _RECORD.match(data, at)
            end = at + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(data) or data[end - 1] != 0x0A:
                raise ValueError(f"malformed pax record at byte {at} of its data")
            key, equals, value = data[match.end() : end - 1].partition(b"=")
            if not equals or not key:
                raise ValueError(f"pax record without a key at byte {at} of its data")
            if key in records:
                raise ValueError(f"pax key {_key_shown(key)} appears twice")
            _check_record(key, value)
            records[key] = value
            at = end
        fields = PaxFields(records.get(b"path"), records.get(b"linkpath"), _pax_size(records.get(b"size")))
        if everywhere and fields != (None, None, None):
            raise ValueError("a global pax header sets a name or a size for every entry")
    except ValueError as error:
        raise header_fault(str(error), offset, where) from None
    return fields


def _key_shown(key: bytes) -> str:
    return ascii(key[:80].decode("utf-8", "replace"))


def _check_record(key: bytes, value: bytes) -> None:
    if key.startswith(_XATTRS):
        return  # attribute values are binary by nature, and never applied to anything
    try:
        key.decode()
        value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"pax record {_key_shown(key)} is not UTF-8") from None
    if b"\0" in value or b"\0" in key:
        raise ValueError(f"NUL in pax record {_key_shown(key)}")
    if key in (b"path", b"linkpath"):
        fine = value != b""
    elif key in (b"uid", b"gid"):
        fine = _COUNT.fullmatch(value) is not None and int(value) <= _LARGEST_ID
    elif key in (b"mtime", b"atime", b"ctime"):
        match = _TIME.fullmatch(value)
        fine = match is not None and int(match[1]) < _TIME_CEILING
    elif key == b"hdrcharset":
        fine = value in _CHARSETS
    else:
        # GNU.sparse.*, GNU.volume.* and star's realsize make the data mean something else than its bytes.
        fine = not key.startswith(b"GNU.") and key != b"SCHILY.realsize"
    if not fine:
        raise ValueError(f"pax record {_key_shown(key)} is not acceptable here")


def _pax_size(value: bytes | None) -> int | None:
    if value is None:
        return None
    if _COUNT.fullmatch(value) is None or int(value) > _LARGEST_SIZE:
        raise ValueError("the pax size is not a number of bytes")
    return int(value)


def settled_size(header_size: int, pax_size: int | None) -> int:
    """Return the size that counts when the header and a pax record both give one.

    The pax value wins only where ustar could not have said it, or where both agree: anything else lets two readers find
    the next header at two places. Raises ``ValueError``.
    """
    if pax_size is None or pax_size == header_size:
        return header_size
    if pax_size < USTAR_SIZE_CEILING:
        raise ValueError(f"pax says {pax_size} bytes, the header says {header_size}")
    return pax_size


def parse_long_name(data: bytes, offset: int, where: str = "") -> bytes:
    """Return the name in the ``data`` of a GNU long-name header at byte ``offset``. Raises ``Refused`` ``E_HEADER``."""
    try:
        name = _text(data, "long name")
        if not name:
            raise ValueError("empty GNU long name")
    except ValueError as error:
        raise header_fault(str(error), offset, where) from None
    return name


def has_controls(text: str) -> bool:
    """Say whether ``text`` has control characters, line separators or marks that turn the writing direction."""
    return not (text.isascii() and text.isprintable()) and _UNSAFE.search(text) is not None


def clean_name(raw: bytes, *, directory: bool = False) -> str:
    """Return an entry name in its one clean spelling: relative, no ``.`` or empty parts, no slash at the end.

    A ``directory`` that means the root itself gives the empty string. Names are judged alike on every platform. Raises
    ``ValueError`` whose text says what the name does wrong, fitting after "the name …".
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if has_controls(text):
        raise ValueError("has control characters")
    if directory:
        text = text.rstrip("/")
        if text in ("", "."):
            return ""
    elif not text:
        raise ValueError("is empty")
    if "\\" in text:
        raise ValueError("has a backslash")
    if text[0] == "/":
        raise ValueError("is absolute")
    head, _, tail = text.rpartition("/")
    parent = _clean_parent(head) if head else ""
    if tail in ("", "."):
        if not directory:
            raise ValueError("means a directory")
        clean = parent[:-1]
    else:
        _check_part(tail)
        clean = parent + tail
    if clean[1:2] == ":" and clean[0].isascii() and clean[0].isalpha():
        raise ValueError("has a drive letter")
    return clean


@lru_cache(maxsize=1024)
def _clean_parent(head: str) -> str:
    parts = [part for part in head.split("/") if part not in ("", ".")]
    for part in parts:
        _check_part(part)
    return "".join(part + "/" for part in parts)


def _check_part(part: str) -> None:
    if part == "..":
        raise ValueError('has a ".." part')
    if part[-1] in ". ":
        raise ValueError("has a part that ends in a dot or a space")
    if _DEVICE.fullmatch(part):
        raise ValueError("has a part that is a Windows device")
