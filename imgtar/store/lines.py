"""A cache as a text file: lines that are only added, each after a checksum of itself. It may be deleted at any time.

Nothing here is synced or locked. Two processes may add at once, one may be killed while it writes, another may write
the file anew meanwhile: what comes of that is a line whose checksum is wrong, and that counts as none. Every failure to
read or write means "not known": a full or read-only disk must not fail a command over a cache.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from zlib import crc32

from imgtar.blob.files import read_window, write_all
from imgtar.errors import Refused
from imgtar.store.rights import FILE, new_file, settle

__all__ = ["LineFile"]

_MOST_BYTES = 256 << 20


class LineFile:
    """The file at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> tuple[list[bytes], int | None]:
        """Every good line without its checksum, and how many others there were; ``None`` for a file that is no use."""
        raw = self._bytes()
        if raw is None:
            return [], None
        good, bad = [], 0
        for line in raw.split(b"\n"):
            body = line[9:]
            if line[:9] == _mark(body):
                good.append(body)
            elif line:
                bad += 1
        return good, bad

    def _bytes(self) -> bytes | None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES:
                    return read_window(fd, 0, status.st_size, self.path)
            finally:
                os.close(fd)
        except (OSError, Refused):
            return b""  # None, or it became shorter meanwhile.
        return None

    def add(self, lines: list[bytes]) -> None:
        """Write ``lines`` at the end."""
        if not lines:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, FILE)
            try:
                status = os.fstat(fd)
                if status.st_nlink != 1 or not stat.S_ISREG(status.st_mode):
                    return  # Somebody linked another file to this name, or it is none: nothing of ours belongs there.
                settle(fd, self.path)
                # The first line break ends what another process may have left unfinished.
                write_all(fd, b"\n" + _joined(lines))
            finally:
                os.close(fd)
        except OSError:
            return

    def replace(self, lines: Iterable[bytes]) -> bool:
        """Write the file anew with nothing but ``lines``; return whether that was done."""
        # In place: a temporary file would stay for ever when this process is killed. What is lost then is read again.
        try:
            fd = new_file(self.path)
            try:
                write_all(fd, _joined(lines))
            finally:
                os.close(fd)
        except OSError:
            return False
        return True


def _mark(body: bytes) -> bytes:
    return b"%08x " % crc32(body)


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(_mark(body) + body + b"\n" for body in lines)
