"""Staging areas: a folder inside the store for the work of one transaction, and the sweep of what dead ones left."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imgtar.blob.files import same_file
from imgtar.store.layout import Layout
from imgtar.store.lock import try_flock
from imgtar.store.rights import FILE, FOLDER, settle, settle_folder

__all__ = ["staging_area", "sweep"]


def sweep(layout: Layout) -> None:
    """Remove what dead transactions left. A living one holds the lock of its folder."""
    try:
        names = os.listdir(layout.staging)
    except FileNotFoundError:
        return
    for name in names:
        folder = os.path.join(layout.staging, name)
        try:
            fd = _open_lock(folder)
        except OSError:
            continue  # Gone meanwhile, or not a transaction's folder.
        try:
            # The file that is locked must still be the one in the folder: else another sweep has been here, and the
            # folder may be somebody's who lives.
            if try_flock(fd, fcntl.LOCK_EX, folder) and same_file(os.path.join(folder, "lock"), fd):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # A disk that does not answer: whoever comes next may have better luck.
        finally:
            os.close(fd)


def _open_lock(folder: str) -> int:
    # A file, open for writing: NFS passes only such locks on to other hosts, and knows none on directories.
    os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    path = os.path.join(folder, "lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE)
    try:
        settle(fd, path)
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
            shutil.rmtree(folder, ignore_errors=True)
            # Without a descriptor, of which there may be none left, it goes too if there is nothing else in it.
            with suppress(OSError):
                os.unlink(os.path.join(folder, "lock"))
            with suppress(OSError):
                os.rmdir(folder)
