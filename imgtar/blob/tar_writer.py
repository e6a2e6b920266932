"""Write tar archives that every engine reads and that come out byte for byte the same every time.

Plain ustar headers, a pax record only where ustar has no room, nothing about the machine or the moment of writing.
Sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from imgtar.blob.tar_header import BLOCK, USTAR_SIZE_CEILING, clean_name, padding

__all__ = ["ALIGNMENT", "TarWriter"]

ALIGNMENT = 4096
"""Bytes of a block of most file systems."""
_MARKER = bytes(2 * BLOCK)
_PAX_NAME = b"PaxHeaders/entry"


class TarWriter:
    """Write an archive through ``write``, which must take all the bytes it is given or raise.

    Owner 0:0, no owner names, time 0, files 0644, directories 0755. Misuse (a name twice, data that does not match the
    announced size, calls out of order) is a ``ValueError``: it is a mistake in this program, never in someone's input.
    """

    def __init__(self, write: Callable[[bytes | memoryview], object]) -> None:
        self.offset = 0
        self._write = write
        self._names: set[str] = set()
        self._open = ""
        self._size = 0
        self._left = 0
        self._finished = False

    def directory(self, name: str) -> None:
        """Write a directory entry; ``name`` may end in a slash. Raises ``ValueError``."""
        name = name.removesuffix("/")
        self._begin(name, directory=True)
        self._put(_headers(name + "/", 0))

    def start_file(self, name: str, size: int, *, aligned: bool = False) -> None:
        """Begin a file of exactly ``size`` bytes. Raises ``ValueError``.

        With ``aligned`` its data begins at a multiple of ``ALIGNMENT``, so that file systems can share its blocks with
        other files instead of copying them. What fills the gap is a pax comment, which no reader may heed (POSIX pax,
        "pax Extended Header Keyword/Value Pairs").
        """
        if size < 0:
            raise ValueError(f"negative size {size} for {name!r}")
        self._begin(name, directory=False)
        headers = _headers(name, size)
        if aligned and (gap := -(self.offset + len(headers)) % ALIGNMENT):
            headers = _headers(name, size, gap)
        self._put(headers)
        self._open, self._size, self._left = name, size, size

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes of the file. Raises ``ValueError`` when they are more than announced."""
        count = memoryview(data).nbytes
        if not self._open:
            raise ValueError("no file is open")
        if count > self._left:
            raise ValueError(f"{count - self._left} bytes too many for {self._open!r} of {self._size} bytes")
        self._left -= count
        self._write(data)
        self.offset += count

    def end_file(self) -> None:
        """Finish the file with its padding. Raises ``ValueError`` when data is missing."""
        if not self._open:
            raise ValueError("no file is open")
        if self._left:
            raise ValueError(f"{self._left} bytes are missing for {self._open!r} of {self._size} bytes")
        self._open = ""
        self._put(bytes(padding(self._size)))

    def file(self, name: str, data: bytes) -> None:
        """Write a whole small file. Raises ``ValueError``."""
        self.start_file(name, len(data))
        if data:
            self.write(data)
        self.end_file()

    def finish(self) -> None:
        """Write the end-of-archive marker: two zero blocks and nothing more. Raises ``ValueError``."""
        self._check_idle()
        self._put(_MARKER)
        self._finished = True

    def _begin(self, name: str, *, directory: bool) -> None:
        self._check_idle()
        if clean_name(name.encode(), directory=directory) != name or not name:
            raise ValueError(f"{name!r} is not a clean entry name")
        if name in self._names:
            raise ValueError(f"{name!r} is already in the archive")
        self._names.add(name)

    def _check_idle(self) -> None:
        if self._finished:
            raise ValueError("the archive is finished")
        if self._open:
            raise ValueError(f"{self._open!r} is still open")

    def _put(self, data: bytes) -> None:
        if data:
            self._write(data)
            self.offset += len(data)


def _headers(name: str, size: int, gap: int = 0) -> bytes:
    """Return the header blocks for ``name``, a directory if it ends in a slash, with a pax header where needed.

    They are longer by ``gap`` bytes, or by ``ALIGNMENT`` more, than without it; it is a multiple of the block.
    """
    raw = name.encode()
    kind = b"5" if raw.endswith(b"/") else b"0"
    records = b""
    split = _split(raw) if name.isascii() else None
    if split is None:
        records += _record(b"path", raw)
        # What readers without pax see. Without the slash at the end none of them takes a cut name for a directory.
        split = (b"", name.encode("ascii", "replace")[:100].rstrip(b"/"))
    if size >= USTAR_SIZE_CEILING:
        records += _record(b"size", b"%d" % size)
        size = 0
    header = _block(*split, size, kind)
    if gap:
        # A pax header takes one block at least, and its records another; where there is one already, only records grow.
        before = len(records) + padding(len(records)) + BLOCK if records else 0
        room = before + gap - BLOCK
        if room <= len(records) + len(_record(b"comment", b"")):
            room += ALIGNMENT
        records += _filler(room - len(records))
    if not records:
        return header
    return _block(b"", _PAX_NAME, len(records), b"x") + records + bytes(padding(len(records))) + header


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return ustar's prefix and name fields, or ``None`` if the name does not fit. The longest prefix wins."""
    if len(raw) <= 100:
        return b"", raw
    cut = raw.rfind(b"/", 0, min(156, len(raw) - 1))
    if cut <= 0 or len(raw) - cut - 1 > 100:
        return None
    return raw[:cut], raw[cut + 1 :]


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    # The length counts its own digits; one more digit can push it over once, never twice.
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _filler(size: int) -> bytes:
    """A comment record of ``size`` bytes."""
    body = size - len(b"%d comment=\n" % size)
    return b"%d comment=%s\n" % (size, b" " * body)


def _block(prefix: bytes, name: bytes, size: int, kind: bytes) -> bytes:
    mode = b"0000755\0" if kind == b"5" else b"0000644\0"
    zero = b"0000000\0"
    front = b"".join((name.ljust(100, b"\0"), mode, zero, zero, b"%011o\0" % size, b"00000000000\0"))
    back = b"".join((kind, bytes(100), b"ustar\x0000", bytes(64), zero, zero, prefix.ljust(155, b"\0"), bytes(12)))
    return front + b"%06o\0 " % (sum(front) + sum(back) + 8 * 32) + back
