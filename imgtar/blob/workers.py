"""Work on threads: hashing, inflating and writing let go of the interpreter lock, so two cores pay. See also lanes.py."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from imgtar.errors import LocalTrouble

__all__ = ["Beside", "Checkpoint", "default_jobs", "each", "each_blob", "joined", "started", "worth_lanes"]

_T = TypeVar("_T")
_WORTH_LANES = 4 << 20
"""Bytes of the smallest blob that is worth two or three threads of its own: starting them takes some 0.3 ms."""


def default_jobs() -> int:
    """How many blobs to handle at once: the cores this process may use, at most eight."""
    return max(1, min(8, len(os.sched_getaffinity(0))))


class _StoppedError(Exception):
    """Ends the other workers after one has failed; never leaves this module."""


Checkpoint = Callable[[], None]
"""Called by long work between pieces; raises when the work is no longer wanted."""


def each(work: Callable[[_T, Checkpoint], object], items: Iterable[_T], jobs: int) -> None:
    """Do ``work`` on every item, up to ``jobs`` at once, in order of start.

    The first error, or an interruption of the caller, stops the rest at their next checkpoint and is raised.
    """
    todo = deque(items)
    if jobs <= 1 or len(todo) <= 1:
        for item in todo:
            work(item, _go_on)
        return
    stopped = threading.Event()
    failures: list[BaseException] = []

    def checkpoint() -> None:
        if stopped.is_set():
            raise _StoppedError

    def run() -> None:
        while not stopped.is_set():
            try:
                item = todo.popleft()
            except IndexError:
                return
            try:
                work(item, checkpoint)
            except _StoppedError:
                return
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                failures.append(error)
                stopped.set()

    threads: list[threading.Thread] = []
    try:
        for _ in range(min(jobs, len(todo))):
            try:
                threads.append(started(run, "imgtar-work"))
            except LocalTrouble:  # Fewer are slower, and that is all.
                if not threads:
                    run()
                break
        for thread in threads:
            thread.join()
    except BaseException:
        stopped.set()
        joined(threads)
        raise
    if failures:
        raise failures[0]


def started(work: Callable[[], object], name: str) -> threading.Thread:
    """A running thread that does ``work``. It must not raise, and does not keep the process alive."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise _no_thread() from None
    return thread


def joined(threads: Sequence[threading.Thread], patience: float | None = None) -> None:
    """Wait until they have ended, at most ``patience`` seconds for each.

    An interruption does not end the waiting, for what they use is about to be closed; it is raised afterwards. The third one
    does: a disk that never answers must not hold the user.
    """
    interruption: BaseException | None = None
    for _ in range(3):
        try:
            for thread in threads:
                thread.join(patience)
            break
        except BaseException as error:  # noqa: BLE001 - raised when the waiting is over
            interruption = error
    if interruption is not None:
        raise interruption


def worth_lanes(size: int) -> bool:
    """Whether one blob of ``size`` bytes, while nothing else is done, should have threads of its own."""
    return size >= _WORTH_LANES and default_jobs() > 1


def each_blob(
    work: Callable[[_T, Checkpoint, bool], object], items: Sequence[_T], size: Callable[[_T], int], jobs: int
) -> None:
    """Do ``work`` on blobs of these sizes in bytes, up to ``jobs`` at once, in order; fails as :func:`each` does.

    The third argument of ``work`` is whether this blob is to have threads of its own (``measure(lanes=True)``): it is
    when nothing else will be left for the other cores, which is so for the last one, and for whichever is so large that
    all others together take less time. Not for many, as each has some buffers. Little work is done on this thread.
    """
    sizes = [size(item) for item in items]
    total, last = sum(sizes), len(sizes) - 1
    if total < _WORTH_LANES:
        jobs = 1
    large = [place for place, own in enumerate(sizes) if own * jobs > total][: max(1, jobs // 3)]

    def do(place: int, checkpoint: Checkpoint) -> None:
        wide = jobs > 1 and sizes[place] >= _WORTH_LANES and (place == last or place in large)
        work(items[place], checkpoint, wide)

    each(do, range(len(items)), jobs)


def _no_thread() -> LocalTrouble:
    # Python says RuntimeError for both reasons, and not which one it was.
    return LocalTrouble(
        "cannot start another thread: out of memory or of processes",
        hint="raise the limits (ulimit -u, ulimit -v) or stop other programs",
    )


def _go_on() -> None:
    """The checkpoint of work that nobody else can stop."""


class Beside(Generic[_T]):
    """Work that runs on a thread of its own beside what the caller does; end it with :meth:`result` or :meth:`abandon`."""

    def __init__(self, work: Callable[[Checkpoint], _T]) -> None:
        self._done: list[_T] = []
        self._failure: BaseException | None = None
        self._stopped = threading.Event()

        def checkpoint() -> None:
            if self._stopped.is_set():
                raise _StoppedError

        def run() -> None:
            try:
                self._done.append(work(checkpoint))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                self._failure = error

        self._thread = started(run, "imgtar-beside")

    def result(self) -> _T:
        """Wait for it; return what it returned or raise what it raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._done[0]

    def abandon(self) -> None:
        """Stop it at its next checkpoint, and wait until it has stopped. Idempotent, and harmless after the result."""
        self._stopped.set()
        self._thread.join()
