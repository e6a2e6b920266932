"""Files and folders that appear whole or not at all: made under a temporary name beside the target, then renamed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from imgtar.blob.files import same_file, sync_directory
from imgtar.errors import NotFound, UsageError, local_trouble
from imgtar.text import shown

__all__ = ["check_file_name", "hidden", "new_folder", "temporary_beside", "whole_file"]


def check_file_name(path: str, *, more: str = "", folder: bool = False) -> None:
    """Raise :class:`UsageError` for a path that can name no new file, or with ``folder`` no new folder; ``more`` hints."""
    if not path:
        raise UsageError("the path to write to is empty", hint="give a file name; is a shell variable not set?")
    name = os.path.basename(path.rstrip("/") if folder else path)
    if name in ("", ".", ".."):
        what = "an existing directory" if folder else "a directory"
        raise UsageError(f"{shown(path)} is {what}", hint=f"give {'a new name' if folder else 'a file name'}{more}")


@contextmanager
def whole_file(path: str) -> Iterator[int]:
    """A file that appears whole or not at all: a temporary name beside it, fsync, rename, fsync of the directory.

    A symbolic link is replaced, not followed. What is no regular file (a device, a fifo), or is the file that standard
    output or error already is (``/dev/stdout``), is written to as it is.
    """
    check_file_name(path)
    if os.path.islink(path):
        existing = next((fd for fd in (1, 2) if _is_open_as(path, fd)), None)
        if existing is not None:
            yield existing
            return
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise UsageError(f"{shown(path)} is a directory", hint="give a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            raise UsageError(f"{shown(path)} is a socket", hint="give a file name, or -o - for a pipe")
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield fd
            if stat.S_ISBLK(os.fstat(fd).st_mode):
                os.fsync(fd)  # A medium written as it is; whoever sees success may pull it out.
        finally:
            os.close(fd)
        return
    stem = os.path.join(folder, hidden(os.path.basename(path)))
    temporary, fd = temporary_beside(
        stem, path, lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    )
    try:
        yield fd
        os.fsync(fd)
        os.replace(temporary, path)
        sync_directory(folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)  # Not before the rename: with it goes the lock.


def hidden(name: str) -> str:
    """The beginning of the name that it has until it is whole: no longer than a name may be, however long ``name`` is."""
    return "." + os.fsencode(name)[:200].decode("utf-8", "ignore")


def temporary_beside(stem: str, path: str, make: Callable[[str], int]) -> tuple[str, int]:
    """A new name beside the target and a descriptor of what ``make`` made there, locked while it is open.

    What runs for the same target left when they were killed is removed first: nobody holds the lock of that.
    """
    _remove_dead(stem)
    while True:
        temporary = f"{stem}.{os.urandom(4).hex()}.part"
        try:
            fd = make(temporary)
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(temporary)):
                continue  # Another process took it for a dead one's before it could be locked.
            raise NotFound(
                f"the folder of {shown(path)} is not there", hint="make it first, or check the mount"
            ) from None
        except OSError as error:
            raise local_trouble(error, f"creating {shown(path)}") from None
        with suppress(OSError):  # Where there are no locks nobody can take it for dead either.
            fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if same_file(temporary, fd):
                return temporary, fd
        except OSError as error:
            os.close(fd)
            with suppress(OSError):
                (os.rmdir if make is new_folder else os.unlink)(temporary)
            raise local_trouble(error, f"creating {shown(path)}") from None
        os.close(fd)


def _remove_dead(stem: str) -> None:
    folder, beginning = os.path.split(stem)
    pattern = re.compile(re.escape(beginning) + r"\.[0-9a-f]{8}\.part")
    try:
        names = [name for name in os.listdir(folder) if pattern.fullmatch(name)]
    except OSError:
        return  # It may be written to, but not listed.
    for name in names:
        dead = os.path.join(folder, name)
        try:
            fd = os.open(dead, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.isdir(dead):
                shutil.rmtree(dead, ignore_errors=True)
            else:
                os.unlink(dead)
        except OSError:
            continue  # It lives.
        finally:
            os.close(fd)


def _is_open_as(path: str, fd: int) -> bool:
    try:
        return same_file(path, fd)
    except OSError:
        return False  # The stream is closed, or the link leads nowhere that can be asked: then it is no stream of ours.


def new_folder(path: str) -> int:
    """Make a folder and open it."""
    os.mkdir(path)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
