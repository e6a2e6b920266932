"""The only place with threads: hashing, inflating and writing let go of the interpreter lock, so two cores pay."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from imgtar.blob.stream import BUFFER_SIZE, Readable
from imgtar.errors import LocalTrouble

if TYPE_CHECKING:  # It brings logging along: imported where work is handed out.
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Beside", "Checkpoint", "ReadAhead", "WriteBehind", "default_jobs", "each"]

_T = TypeVar("_T")
_PATIENCE = 0.2
"""Seconds that the end of a read is waited for: one from a file takes less, one from a silent pipe has no end."""


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
    todo = list(items)
    if jobs <= 1 or len(todo) <= 1:
        for item in todo:
            work(item, _go_on)
        return
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    stopped = threading.Event()

    def checkpoint() -> None:
        if stopped.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(jobs, thread_name_prefix="imgtar") as pool:
        futures: list[Future[object]] = []
        unfinished: set[Future[object]] = set()
        try:
            for item in todo:
                futures.append(_submit(pool, work, item, checkpoint))
            unfinished = wait(futures, return_when=FIRST_EXCEPTION).not_done
        except BaseException:
            unfinished = set(futures)
            raise
        finally:
            if unfinished:
                stopped.set()
                for future in unfinished:
                    future.cancel()
    failures = [error for future in futures if not future.cancelled() and (error := future.exception()) is not None]
    for error in failures:
        if not isinstance(error, _StoppedError):
            raise error
    if failures:
        raise AssertionError("workers stopped without a cause")


def _submit(pool: ThreadPoolExecutor, work: Callable[..., _T], *arguments: object) -> Future[_T]:
    try:
        return pool.submit(work, *arguments)
    except RuntimeError:
        raise _no_thread() from None


def _started(thread: threading.Thread) -> threading.Thread:
    try:
        thread.start()
    except RuntimeError:
        raise _no_thread() from None
    return thread


def _no_thread() -> LocalTrouble:
    # Python says RuntimeError for both reasons, and not which one it was.
    return LocalTrouble(
        "cannot start another thread: out of memory or of processes",
        hint="raise the limits (ulimit -u, ulimit -v) or stop other programs",
    )


def _go_on() -> None:
    """The checkpoint of work that nobody else can stop."""


class Beside(Generic[_T]):
    """Work that runs on a thread of its own beside what the caller does."""

    def __init__(self, work: Callable[[], _T]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(1, thread_name_prefix="imgtar-beside")
        self._future = _submit(self._pool, work)

    def result(self) -> _T:
        """Wait for it; return what it returned or raise what it raised."""
        try:
            return self._future.result()
        finally:
            self._pool.shutdown()


class ReadAhead:
    """Reads another stream on a thread of its own, some buffers ahead: decompressing and hashing then overlap."""

    def __init__(self, source: Readable, depth: int = 4) -> None:
        self._source = source
        self._free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | BaseException] = queue.SimpleQueue()
        for _ in range(depth):
            self._free.put(memoryview(bytearray(BUFFER_SIZE)))
        self._current: tuple[memoryview, int] | None = None
        self._taken = 0
        self._failure: BaseException | None = None
        self._ending = threading.Lock()
        self._ended = False
        self._then: Callable[[], object] | None = None
        self._thread = _started(threading.Thread(target=self._run, name="imgtar-read", daemon=True))

    def _run(self) -> None:
        try:
            self._read()
        finally:
            with self._ending:
                self._ended = True
            if self._then is not None:
                self._then()

    def _read(self) -> None:
        while (view := self._free.get()) is not None:
            try:
                count = self._source.readinto(view)
            except BaseException as error:  # noqa: BLE001 - it is handed to the reader, whose thread decides
                self._full.put(error)
                return
            self._full.put((view, count))
            if not count:
                return

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target`` from what was read ahead; raises what the source raised, at its place in the stream."""
        if self._failure is not None:
            raise self._failure
        if self._current is None:
            item = self._full.get()
            if isinstance(item, BaseException):
                self._failure = item
                raise item
            self._current, self._taken = item, 0
        view, count = self._current
        if not count:
            return 0
        size = min(len(target), count - self._taken)
        target[:size] = view[self._taken : self._taken + size]
        self._taken += size
        if self._taken == count:
            self._free.put(view)
            self._current = None
        return size

    def close(self, then: Callable[[], object]) -> None:
        """Stop reading ahead, and do ``then`` (close the source) once nobody reads from it any more.

        A descriptor that was closed under a reader could be another file's by the time it is read. A read that waits
        for a silent pipe is not waited for: it may take for ever. Then the thread closes the source when it ends.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait()
        self._free.put(None)
        self._thread.join(_PATIENCE)
        with self._ending:
            if not self._ended:
                self._then = then
                return
        then()


class WriteBehind:
    """Runs a writer on a thread of its own: reading and hashing the next piece overlaps with writing the last.

    Data is copied into big buffers, so the caller may reuse its own at once, and small writes are joined.
    """

    def __init__(self, write: Callable[[memoryview], object], depth: int = 4) -> None:
        self._write = write
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for _ in range(depth):
            self._free.put(memoryview(bytearray(BUFFER_SIZE)))
        self._current = self._free.get()
        self._filled = 0
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = _started(threading.Thread(target=self._run, name="imgtar-write", daemon=True))

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            view, count = item
            if self._failure is None:
                try:
                    self._write(view[:count])
                except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
                    self._failure = error
            self._free.put(view)

    def write(self, data: bytes | memoryview) -> None:
        """Take ``data``; raises what an earlier write raised."""
        if self._failure is not None:
            raise self._failure
        view = memoryview(data)
        while view:
            count = min(len(view), BUFFER_SIZE - self._filled)
            self._current[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
            if self._filled == BUFFER_SIZE:
                self._pass_on()

    def _pass_on(self) -> None:
        self._full.put((self._current, self._filled))
        self._current = self._free.get()
        self._filled = 0

    def finish(self) -> None:
        """Wait until everything is written; raises what a write raised."""
        if self._filled:
            self._pass_on()
        self.abandon()
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Stop without writing what is still in hand. Idempotent."""
        if not self._stopped:
            self._stopped = True
            self._full.put(None)
            self._thread.join()
