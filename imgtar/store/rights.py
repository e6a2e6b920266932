"""Who may use what is made inside the store, whatever the umask of the user who makes it.

Nothing is ever writable for the world. A folder that is setgid and writable for its group is shared, and so is what
is made in it: one user's umask must not lock the others out. What root makes belongs to whoever owns the folder it is
in: a load with sudo must not lock the owner out of his own store.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

__all__ = ["FILE", "FOLDER", "make_folders", "new_file", "settle", "settle_folder"]

FILE = 0o664
"""What the umask is taken from."""
FOLDER = 0o775

_SHARED = stat.S_ISGID | stat.S_IWGRP
_FILE_OF_GROUP = stat.S_IRGRP | stat.S_IWGRP
_FOLDER_OF_GROUP = stat.S_ISGID | stat.S_IRWXG


def new_file(path: str) -> int:
    """Make a file of our own and open it for reading and writing. What a killed process left under that name goes.

    It is never opened: it may belong to another user, and be a link to what is nobody's business.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, FILE)
    except FileExistsError:
        os.unlink(path)
        fd = os.open(path, flags, FILE)
    settle(fd, path)
    return fd


def make_folders(path: str) -> None:
    """Make a folder, and those above it, unless they are there."""
    if os.path.isdir(path):
        return
    try:
        try:
            os.mkdir(path, FOLDER)
        except FileNotFoundError:
            # Not asked before: a disk that cannot tell what is there would be asked all the way up, and then for ever.
            make_folders(os.path.dirname(path))
            os.mkdir(path, FOLDER)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return  # Another process was quicker.
    settle_folder(path)


def settle_folder(path: str) -> None:
    """:func:`settle` a folder that was made just now."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        settle(fd, path)
    finally:
        os.close(fd)


def settle(fd: int, path: str) -> None:
    """Give what is open as ``fd`` the owner and the group rights that its folder asks for, as far as that is allowed."""
    mine, above = os.fstat(fd), os.stat(os.path.dirname(path))
    folder = stat.S_ISDIR(mine.st_mode)
    if not folder and mine.st_nlink != 1:
        return  # Somebody linked another file to this name: root must not give that away.
    with suppress(OSError):
        if os.geteuid() == 0 and (mine.st_uid, mine.st_gid) != (above.st_uid, above.st_gid):
            os.fchown(fd, above.st_uid, above.st_gid)
        wanted = _FOLDER_OF_GROUP if folder else _FILE_OF_GROUP
        if above.st_mode & _SHARED == _SHARED and mine.st_mode & wanted != wanted:
            os.fchmod(fd, stat.S_IMODE(mine.st_mode) | wanted)
