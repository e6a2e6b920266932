"""Locks between processes: flock, so that a dead owner never blocks anybody.

Files in the store's own corner. ``index.lock`` is held, briefly, by whoever replaces ``index.json``.
``blobs.lock`` is shared by everybody who relies on blobs being there (load, save, verify) and held alone by whoever
deletes blobs (rmi, prune) or moves them (repair): so nothing that a running load reuses can vanish under it.

Nothing is written into these files. Who holds a lock is asked of the kernel, and only to tell the one who waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from imgtar.errors import StoreTrouble
from imgtar.events import Event, Report, silent
from imgtar.store.rights import FILE, settle
from imgtar.text import printable

__all__ = ["DEFAULT_LOCK_TIMEOUT", "locked", "try_flock"]

DEFAULT_LOCK_TIMEOUT = 300.0
"""Seconds to wait for another imgtar before giving up with E_LOCKED."""

_PATIENCE = 10.0
"""So many seconds those who share a lock let somebody go first who wants it alone, and who may wait for an hour."""

_NO_FILE = "a lock of the store is no regular file"
_AWAY = "imgtar repair moves it away"

_sharing: Counter[str] = Counter()
"""Lock files that this process shares. Who is in does not queue again: he would be waited for, and wait."""


@contextmanager
def locked(
    path: str, *, shared: bool, timeout: float = DEFAULT_LOCK_TIMEOUT, report: Report = silent, gate: str = ""
) -> Iterator[None]:
    """Hold the lock file at ``path``. Raises :class:`StoreTrouble` (``E_LOCKED``) after ``timeout`` seconds.

    ``gate`` is another file, through which everybody goes on his way to the lock. Who has to wait stands in it, so
    nobody overtakes him: else a stream of loads would keep a prune out for ever. A reader who may not write takes the
    locks on the files as they are; where there are none, nobody has ever deleted anything here with an imgtar.
    """
    fd = _opened(path, shared=shared)
    if fd is None:
        yield
        return
    try:
        with _open_gate(gate if not shared or not _sharing[path] else "", shared=shared) as queue:
            _acquire(fd, queue, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout, report)
        _sharing[path] += shared
        try:
            yield
        finally:
            _sharing[path] -= shared
    finally:
        os.close(fd)


def try_flock(fd: int, mode: int, path: str) -> bool:
    """Take a lock if nobody has it. Raises :class:`StoreTrouble` where the file system knows no locks."""
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL):
            raise
        raise StoreTrouble(
            f"the file system of the store cannot lock files: {error.strerror}",
            where=path,
            hint="choose a store on a local disk with --store, or have that file system mounted with locks",
        ) from None
    return True


def _opened(path: str, *, shared: bool) -> int | None:
    """The lock file at ``path``; ``None`` when a reader may not make it. Raises :class:`StoreTrouble` for no file."""
    try:
        fd = _open_or_make(path, shared=shared)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise StoreTrouble(_NO_FILE, where=path, hint=_AWAY) from None
    if fd is not None and not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreTrouble(_NO_FILE, where=path, hint=_AWAY)
    return fd


def _open_or_make(path: str, *, shared: bool) -> int | None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, FILE)
    except OSError as error:
        if not shared or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
            raise
        try:
            return os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return None
    settle(fd, path)
    return fd


@contextmanager
def _open_gate(path: str, *, shared: bool) -> Iterator[int]:
    fd = _opened(path, shared=shared) if path else None
    try:
        yield -1 if fd is None else fd
    finally:
        if fd is not None:
            os.close(fd)


def _acquire(fd: int, queue: int, path: str, mode: int, timeout: float, report: Report) -> None:
    start = time.monotonic()
    patience = timeout if mode == fcntl.LOCK_EX else min(_PATIENCE, timeout)
    told = False
    while True:
        waited = time.monotonic() - start
        busy = fd if queue < 0 or waited >= patience or try_flock(queue, mode, path) else queue
        if busy == fd and try_flock(fd, mode, path):
            return
        holder = _holder(busy) if waited >= timeout or not told else ""
        if waited >= timeout:
            raise StoreTrouble(
                f"the store is in use by {holder}, waited {timeout:g} s",
                code="E_LOCKED",
                where=path,
                hint="wait for it to end, or give a longer --lock-timeout",
            )
        if not told:
            report(Event("wait", f"waiting for {holder}, which is using the store"))
            told = True
        time.sleep(0.005)


def _holder(fd: int) -> str:
    """Who holds the lock on an open file, as far as the kernel tells: nothing of other hosts and containers."""
    status = os.fstat(fd)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    pids = _pids(file) or _pids(file)  # The list is read in pieces, between which it changes.
    if not pids:
        return "another process"
    others = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
    return f"process {pids[0]}{_command(pids[0])}{others}"


def _pids(file: str) -> list[str]:
    found: dict[str, None] = {}
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            for line in lines:
                # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF        who waits has an arrow before the kind
                words = line.split()
                if words[1:2] == ["FLOCK"] and words[5:6] == [file] and words[4].isdigit() and words[4] != "0":
                    found[words[4]] = None
    except OSError:
        pass  # No /proc here.
    return list(found)


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).decode("utf-8", "backslashreplace").rstrip("\0").split("\0")
    except OSError:
        return ""  # It ended just now, or it is somebody else's and hidden.
    for position, word in enumerate(words[:4]):
        if os.path.basename(word) == "imgtar":
            words = ["imgtar", *words[position + 1 :]]  # Without the interpreter.
            break
    return f" ({printable(' '.join(words), limit=100)})" if words != [""] else ""
