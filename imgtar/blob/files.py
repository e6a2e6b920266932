"""Files as the rest wants them: random-access windows to read, and writes that are complete."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from imgtar.errors import Refused

__all__ = [
    "FileWindow",
    "FileWriter",
    "can_share",
    "inside",
    "is_damage",
    "opened",
    "read_into",
    "read_small",
    "read_window",
    "same_file",
    "sync_directory",
    "there",
    "widen_pipe",
    "write_all",
]


_WRITE_BACK = 8 << 20
"""Bytes after which the disk is asked to begin. Less would cost calls, more leaves a longer wait at the end."""

_BLOCK = 4096
_WORTH_SHARING = 64 << 10
"""Bytes below which a copy costs less than what the file system writes down about shared blocks."""
_FICLONERANGE = 0x4020940D  # linux/fs.h, on x86, arm and most others; elsewhere it is an ioctl that is not known

_PIPE = 1 << 20  # as much as anybody may ask for (pipe(7), pipe-max-size)

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

    __slots__ = ("fd", "left", "offset", "where")

    def __init__(self, fd: int, offset: int, size: int, where: str) -> None:
        self.fd = fd
        self.offset = offset
        self.left = size
        self.where = where

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target``. Raises ``E_TRUNC`` when the file has become shorter than it was."""
        if not self.left:
            return 0
        count = os.preadv(self.fd, [target if len(target) <= self.left else target[: self.left]], self.offset)
        if count == 0:
            message = f"the file ends at byte {self.offset}, {self.left} bytes early: it changed while it was read"
            raise Refused("E_TRUNC", message, where=self.where, hint="copy it again and check the medium")
        self.offset += count
        self.left -= count
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
    # O_NONBLOCK: it was a file when its size was asked; nobody waits for what may stand there now.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return read_window(fd, 0, min(cap, os.fstat(fd).st_size), path)
    finally:
        os.close(fd)


def widen_pipe(fd: int) -> None:
    """Give a pipe room for a mebibyte, if ``fd`` is one: with the usual 64 KiB both ends wait for each other all the time."""
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        with suppress(OSError):  # The user has enough of them already (pipe(7), pipe-user-pages-soft).
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte of ``data``, also to a pipe that its maker made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait(fd, select.POLLOUT)


class FileWriter:
    """Writes to a descriptor from where it stands; ``early`` lets the disk begin at once instead of at the sync in the end."""

    __slots__ = ("_asked", "_early", "_fd", "_regular", "offset")

    def __init__(self, fd: int, *, early: bool = True) -> None:
        self._fd = fd
        self._early = early
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self.offset = os.lseek(fd, 0, os.SEEK_CUR) if self._regular else 0
        self._asked = self.offset

    def write(self, data: bytes | memoryview) -> None:
        """Write every byte."""
        write_all(self._fd, data)
        self.offset += len(data)
        if self._early and self._regular and self.offset - self._asked >= _WRITE_BACK:
            # What is dirty the kernel begins to write when told that it is not needed, and keeps until that is done
            # (Linux mm/fadvise.c). It is advice: a file system that will not take it takes the data all the same.
            with suppress(OSError):
                os.posix_fadvise(self._fd, self._asked, self.offset - self._asked, os.POSIX_FADV_DONTNEED)
            self._asked = self.offset

    def clone(self, window: FileWindow) -> int:
        """Put the beginning of ``window`` here by sharing its blocks, where the file system can; return how many bytes.

        What was shared is passed over: the next write comes behind it, and ``window`` still has all of it to be read.
        """
        readable = self._regular and fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        size = _share(window, self._fd, self.offset) if readable else 0
        if size:
            self.offset = self._asked = os.lseek(self._fd, self.offset + size, os.SEEK_SET)
        return size


def can_share(window: FileWindow, fd: int) -> bool:
    """Whether the blocks of ``window`` can be shared with the empty file ``fd``, found out by doing it."""
    size = _share(window, fd, 0)
    os.ftruncate(fd, 0)
    return size > 0


def _share(window: FileWindow, fd: int, offset: int) -> int:
    """Clone whole blocks (Linux ioctl_ficlonerange(2): btrfs, xfs and others); 0 when that cannot be."""
    size = window.left // _BLOCK * _BLOCK
    if size < _WORTH_SHARING or window.offset % _BLOCK or offset % _BLOCK:
        return 0
    try:
        fcntl.ioctl(fd, _FICLONERANGE, struct.pack("=qQQQ", window.fd, window.offset, size, offset))
    except OSError:
        return 0  # Another file system, one that cannot, or no space: then it is copied, and errors are told.
    return size


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


def inside(path: str, folders: Iterable[str]) -> bool:
    """Whether a file at ``path`` would lie in one of ``folders``, or below, by whatever way that is reached.

    A bind mount shows a folder under another path: device and inode are the same.
    """
    own = {_identity(folder) for folder in folders} - {None}
    place = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    while _identity(place) not in own:
        if place == os.path.dirname(place):
            return False
        place = os.path.dirname(place)
    return True


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
