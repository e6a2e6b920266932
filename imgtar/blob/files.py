"""Files as the rest wants them: random-access windows to read, and writes that are complete."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imgtar.errors import Refused

__all__ = [
    "FileWindow",
    "FileWriter",
    "is_damage",
    "opened",
    "read_into",
    "read_small",
    "read_window",
    "same_file",
    "sync_directory",
    "there",
    "write_all",
]


_WRITE_BACK = 8 << 20
"""Bytes after which the disk is asked to begin. Less would cost calls, more leaves a longer wait at the end."""

_DAMAGE = {
    errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO
}  # fmt: skip


def is_damage(error: OSError) -> bool:
    """Whether the file itself is what is wrong: a bad sector, a broken file system, another kind of thing in its place.

    Not a right that is lacking, nor memory or descriptors, nor a server that does not answer: with those it may be whole.
    """
    return error.errno in _DAMAGE


class FileWindow:
    """``size`` bytes of a file from ``offset``, read with ``pread``: many threads may share one descriptor."""

    __slots__ = ("_fd", "_left", "_offset", "_where")

    def __init__(self, fd: int, offset: int, size: int, where: str) -> None:
        self._fd = fd
        self._offset = offset
        self._left = size
        self._where = where

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target``. Raises ``E_TRUNC`` when the file has become shorter than it was."""
        if not self._left:
            return 0
        count = os.preadv(self._fd, [target if len(target) <= self._left else target[: self._left]], self._offset)
        if count == 0:
            message = f"the file ends at byte {self._offset}, {self._left} bytes early: it changed while it was read"
            raise Refused("E_TRUNC", message, where=self._where, hint="copy it again and check the medium")
        self._offset += count
        self._left -= count
        return count


def read_window(fd: int, offset: int, size: int, where: str) -> bytes:
    """Return ``size`` bytes; the caller has capped ``size``."""
    window = FileWindow(fd, offset, size, where)
    data = bytearray(size)
    view = memoryview(data)
    filled = 0
    while filled < size:
        filled += window.readinto(view[filled:])
    return bytes(data)


@contextmanager
def opened(path: str, size: int, where: str) -> Iterator[FileWindow]:
    """Open a whole file of known size for one sequential reading."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield FileWindow(fd, 0, size, where)
    finally:
        os.close(fd)


def read_into(fd: int, target: memoryview) -> int:
    """Fill ``target`` from a descriptor that is read in order. Whoever made a pipe may have made it non-blocking: then wait."""
    while True:
        try:
            return os.readv(fd, [target])
        except BlockingIOError:
            _wait(fd, select.POLLIN)


def read_small(path: str, cap: int) -> bytes:
    """Return up to ``cap`` bytes of a regular file. Raises ``OSError``, also for what is none: a fifo would never answer."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return read_window(fd, 0, min(cap, os.fstat(fd).st_size), path)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte of ``data``, also to a pipe that its maker made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait(fd, select.POLLOUT)


class FileWriter:
    """Writes to a descriptor from where it stands, and lets the disk begin at once instead of at the sync in the end."""

    __slots__ = ("_asked", "_fd", "_offset")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self._offset = os.lseek(fd, 0, os.SEEK_CUR) if regular else 0
        self._asked = self._offset if regular else -1

    def write(self, data: bytes | memoryview) -> None:
        """Write every byte."""
        write_all(self._fd, data)
        if self._asked < 0:
            return
        self._offset += len(data)
        if self._offset - self._asked >= _WRITE_BACK:
            # What is dirty the kernel begins to write when told that it is not needed, and keeps until that is done
            # (Linux mm/fadvise.c). It is advice: a file system that will not take it takes the data all the same.
            with suppress(OSError):
                os.posix_fadvise(self._fd, self._asked, self._offset - self._asked, os.POSIX_FADV_DONTNEED)
            self._asked = self._offset


def _wait(fd: int, what: int) -> None:
    poll = select.poll()
    poll.register(fd, what)
    poll.poll()


def same_file(path: str, fd: int) -> bool:
    """Whether ``path`` still names what is open as ``fd``. A disk that cannot tell is an error, not a no."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def there(path: str) -> bool:
    """Whether something is at ``path``, be it a dangling link. A disk that cannot tell is an error, not a no."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def sync_directory(path: str) -> None:
    """Make names in ``path`` durable. File systems that cannot sync a directory say EINVAL, which is no error (vfat)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)
