"""Staging areas: a folder inside the store for the work of one transaction, and the sweep of what dead ones left."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imgtar.blob.files import same_file
from imgtar.store.layout import Layout
from imgtar.store.lock import try_flock
from imgtar.store.rights import FILE, FOLDER, settle, settle_folder

__all__ = ["staging_area", "sweep"]

_OURS = re.compile("[0-9a-f]{16}")


def sweep(layout: Layout) -> None:
    """Remove what dead transactions left. A living one holds the lock of its folder.

    Only folders with names as we give them, and nothing that a link leads to, not even one in the place of the staging
    folder: see :func:`_remove`.
    """
    with _opened(layout) as staging:
        if staging is None:
            return
        for name in filter(_OURS.fullmatch, os.listdir(staging)):
            folder = os.path.join(layout.staging, name)
            try:
                lock = _open_lock(folder, staging)
            except OSError:
                continue  # Gone meanwhile, or not a transaction's folder.
            try:
                # The file that is locked must still be the one in the folder: else another sweep has been here, and the
                # folder may be somebody's who lives.
                if try_flock(lock, fcntl.LOCK_EX, folder) and same_file(os.path.join(folder, "lock"), lock):
                    _remove(name, staging)
            except OSError:
                continue  # A disk that does not answer: whoever comes next may have better luck.
            finally:
                os.close(lock)


@contextmanager
def _opened(layout: Layout) -> Iterator[int | None]:
    """The staging folder, open; ``None`` when there is none. No link is followed on the way from the store to it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        corner = os.open(layout.corner, flags)
    except FileNotFoundError:
        yield None
        return
    try:
        staging = os.open("staging", flags, dir_fd=corner)
    except FileNotFoundError:
        staging = None
    finally:
        os.close(corner)
    try:
        yield staging
    finally:
        if staging is not None:
            os.close(staging)


def _remove(name: str, staging: int) -> None:
    """Remove the folder ``name`` in the open folder ``staging`` with all that is in it. Links are removed, not followed."""
    shutil.rmtree(name, ignore_errors=True, dir_fd=staging)


def _open_lock(folder: str, staging: int | None = None) -> int:
    name = folder if staging is None else os.path.basename(folder)
    # A file, open for writing: NFS passes only such locks on to other hosts, and knows none on directories.
    inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open("lock", flags, FILE, dir_fd=inside)
    finally:
        os.close(inside)
    try:
        settle(fd, os.path.join(folder, "lock"))
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def staging_area(layout: Layout) -> Iterator[str]:
    """A folder inside the store for work in progress, locked while it lives and gone afterwards."""
    folder, fd = "", -1
    # One try around everything: a signal may come between any two of these lines.
    try:
        while True:
            folder = os.path.join(layout.staging, os.urandom(8).hex())
            os.mkdir(folder, FOLDER)
            try:
                # At once: who finds it after a kill must have the right to sweep it.
                settle_folder(folder)
                fd = _open_lock(folder)
            except FileNotFoundError:
                continue  # A sweep by another process was quicker than our lock.
            if try_flock(fd, fcntl.LOCK_EX, folder) and same_file(os.path.join(folder, "lock"), fd):
                break
            os.close(fd)
            fd = -1
        yield folder
    finally:
        # Closed first: NFS keeps a file that is open, and with it the folder. Whoever sweeps meanwhile does the same.
        if fd >= 0:
            os.close(fd)
        if folder:
            with suppress(OSError), _opened(layout) as staging:
                if staging is not None:
                    _remove(os.path.basename(folder), staging)
            # Without a descriptor, of which there may be none left, it goes too if there is nothing else in it.
            with suppress(OSError):
                os.unlink(os.path.join(folder, "lock"))
            with suppress(OSError):
                os.rmdir(folder)
