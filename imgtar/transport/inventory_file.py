"""Inventory files: written whole or not at all, zstd when the name says so; recognised by their bytes when read."""

from __future__ import annotations

import os
import stat

from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.decompress import plain
from imgtar.blob.files import FileWindow, write_all
from imgtar.errors import Refused, local_trouble
from imgtar.graph.listing import SCHEMA, Listing, parse_listing
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable
from imgtar.transport.target import whole_file

__all__ = ["is_inventory", "read_inventory", "write_inventory"]

_LARGEST = 64 << 20
_START = b'{"schema":'
_MARK = f'"{SCHEMA.partition("/")[0]}/'.encode()


def is_inventory(path: str) -> bool:
    """Whether a file is an inventory, plain or compressed. What cannot be read as one is none.

    A pipe is not looked at: who reads it afterwards would miss the beginning.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            head = file.read(SNIFF_BYTES)
            if sniff(head) is not Compression.NONE:
                size = os.fstat(file.fileno()).st_size
                content = plain(FileWindow(file.fileno(), 0, size, path))
                view = memoryview(bytearray(64))
                head = bytes(view[: content.readinto(view)])
            else:
                head += file.read(64)
    except (OSError, Refused):
        return False
    return head.translate(None, b" \r\n\t").startswith(_START + _MARK)


def read_inventory(path: str, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """Read an inventory file. Raises :class:`Refused` when it is damaged, truncated or of another kind."""
    label = printable(path, limit=None)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused("E_LINK", "changed while it was read: it was an inventory file", where=label)
            size = os.fstat(fd).st_size
            content = plain(FileWindow(fd, 0, size, label), where=label, limits=limits)
            raw = bytearray()
            view = memoryview(bytearray(1 << 20))
            while count := content.readinto(view):
                raw += view[:count]
                if len(raw) > _LARGEST:
                    raise Refused("E_LIMIT", f"the inventory has more than {_LARGEST} bytes", where=label)
        finally:
            os.close(fd)
    except OSError as error:
        raise local_trouble(error, f"reading {label}") from None
    return parse_listing(raw, label, limits)


def write_inventory(listing: Listing, path: str) -> int:
    """Write ``listing`` to ``path``, compressed when that ends in ``.zst``; return the size of the file in bytes."""
    raw = listing.encode()
    if path.endswith(".zst"):
        raw = _compressed(raw)
    with whole_file(path) as fd:
        write_all(fd, raw)
    return len(raw)


def _compressed(raw: bytes) -> bytes:
    from imgtar.blob.compress import compressing

    packed = bytearray()
    compressor = compressing(Compression.ZSTD, 19, packed.extend, jobs=1)
    compressor.write(raw)
    compressor.finish()
    return bytes(packed)
