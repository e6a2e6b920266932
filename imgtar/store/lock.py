"""Locks between processes: flock, so that a dead owner never blocks anybody.

Two files in the store's own corner. ``index.lock`` is held, briefly, by whoever replaces ``index.json``.
``blobs.lock`` is shared by everybody who relies on blobs being there (load, save, verify) and held alone by whoever
deletes blobs (rmi, prune): so nothing that a running load reuses can vanish under it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from imgtar.errors import StoreTrouble
from imgtar.events import Event, Report, silent
from imgtar.text import printable

__all__ = ["DEFAULT_LOCK_TIMEOUT", "locked", "no_locks"]

DEFAULT_LOCK_TIMEOUT = 300.0
"""Seconds to wait for another imgtar before giving up with E_LOCKED."""


@contextmanager
def locked(
    path: str, *, shared: bool, timeout: float = DEFAULT_LOCK_TIMEOUT, report: Report = silent
) -> Iterator[None]:
    """Hold the lock file at ``path``. Raises :class:`StoreTrouble` (``E_LOCKED``) after ``timeout`` seconds.

    A reader who may not write takes the shared lock on the file as it is; when there is none, nobody has ever deleted
    anything here with an imgtar.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if not shared or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
            raise
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield
            return
    try:
        _acquire(fd, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout, report)
        if not shared:
            # For the one who waits: who has it. What a killed holder left is not believed, see _holder.
            os.truncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}".encode(), 0)
        try:
            yield
        finally:
            if not shared:
                os.truncate(fd, 0)
    finally:
        os.close(fd)


def _acquire(fd: int, path: str, mode: int, timeout: float, report: Report) -> None:
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise no_locks(error, path) from None
        else:
            return
        holder = _holder(fd)
        if time.monotonic() >= deadline:
            raise StoreTrouble(
                f"the store is in use by {holder}, waited {timeout:.0f} s",
                code="E_LOCKED",
                where=path,
                hint="wait for it to end, or give a longer --lock-timeout",
            )
        if not told:
            report(Event("wait", f"waiting for {holder}, which is using the store"))
            told = True
        time.sleep(0.02)


def no_locks(error: OSError, path: str) -> StoreTrouble:
    """What to say when a file system has no locks (some network and FUSE mounts), or its lock server is away."""
    return StoreTrouble(
        f"the file system cannot lock: {error.strerror or error}",
        where=path,
        hint="keep the store on a local disk; NFS needs its lock service, and no mount option nolock",
    )


def _holder(fd: int) -> str:
    """Who holds the lock, as far as the file tells the truth: shared holders write nothing, dead ones clean nothing."""
    text = os.pread(fd, 100, 0).decode("utf-8", "replace")
    word, _, number = text.partition(" ")
    if word == "process" and number.isascii() and number.isdigit() and os.path.exists(f"/proc/{number}"):
        return printable(text)
    return "other processes"
