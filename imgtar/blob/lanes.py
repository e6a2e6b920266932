"""One stream in several hands: who reads, who works on the bytes and who writes them, each on a thread of its own.

Bytes lie in big buffers that go round: filled by the reader, worked on, taken by the writer, and back. They need not be
copied on the way, and whoever is fastest waits for a buffer, so memory is bounded.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from imgtar.blob.stream import BUFFER_SIZE, Readable
from imgtar.blob.workers import joined, started

__all__ = ["InOrder", "ReadAhead", "Release", "WriteBehind"]

_PATIENCE = 0.2
"""Seconds that the end of a read is waited for: one from a file takes less, one from a silent pipe has no end."""

_ENOUGH = 1 << 19
"""Bytes that are worth handing on before a buffer is full."""

Release = Callable[[memoryview], object]
"""Takes a whole buffer back when nobody needs what is in it any more."""
Step = Callable[[memoryview], object]
_Work = TypeVar("_Work")
_Done = TypeVar("_Done")


class ReadAhead:
    """Reads another stream on a thread of its own, up to ``depth`` buffers ahead.

    Take what was read whole with :meth:`take` and give each buffer back with :meth:`release`, or let :meth:`readinto`
    copy it. What the source raises is raised at its place in the stream, every time from then on.
    """

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
        self._ended = self._stopped = False
        self._then: Callable[[], object] | None = None
        self._thread = started(self._run, "imgtar-read")

    def _run(self) -> None:
        try:
            self._read()
        finally:
            with self._ending:
                self._ended = True
            if self._then is not None:
                self._then()

    def _read(self) -> None:
        ended, enough = False, 1  # What is no archive shows at once, and must be told even if no more ever comes.
        while not ended and (view := self._free.get()) is not None:
            filled = 0
            # A pipe gives 64 KiB at a time, some decompressors less: handing each of these on would cost more than hashing it.
            while filled < enough and not self._stopped:
                try:
                    count = self._source.readinto(view[filled:])
                except BaseException as error:  # noqa: BLE001 - it is handed to the reader, whose thread decides
                    if filled:
                        self._full.put((view, filled))
                    self._full.put(error)
                    return
                filled += count
                if not count:
                    ended = True
                    break
            if filled:
                self._full.put((view, filled))
            enough = min(2 * max(enough, filled), _ENOUGH)
        if ended:
            self._full.put((memoryview(b""), 0))

    def take(self) -> tuple[memoryview, int]:
        """The next buffer and how many bytes of it are filled: 0 at the end."""
        if self._failure is not None:
            raise self._failure
        item = self._full.get()
        if isinstance(item, BaseException):
            self._failure = item
            raise item
        if not item[1]:
            self._full.put(item)  # Whoever asks again is told again.
        return item

    def release(self, buffer: memoryview) -> None:
        """Give a buffer of :meth:`take` back, from any thread."""
        self._free.put(buffer)

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target`` from what was read ahead."""
        if self._current is None:
            self._current, self._taken = self.take(), 0
        view, count = self._current
        size = min(len(target), count - self._taken)
        target[:size] = view[self._taken : self._taken + size]
        self._taken += size
        if self._taken == count:
            self._current = None
            if count:
                self.release(view)
        return size

    def close(self, then: Callable[[], object] = lambda: None) -> None:
        """Stop reading ahead, and do ``then`` (close the source) once nobody reads from it any more.

        A descriptor that was closed under a reader could be another file's by the time it is read. A read that waits
        for a silent pipe is not waited for: it may take for ever. Then the thread closes the source when it ends.
        """
        self._stopped = True
        with suppress(queue.Empty):
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
    """Does ``steps`` with every piece, each on a thread of its own: the next piece is read while the last is written.

    :meth:`write` copies into big buffers, so the caller may reuse his at once, and small pieces are joined;
    :meth:`hand_over` takes a buffer as it is. After a step has failed no further step sees anything more. ``then`` is done
    once the last step will not be done again: it may close what that writes to.
    """

    def __init__(self, *steps: Step, depth: int = 4, then: Callable[[], object] = lambda: None) -> None:
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._depth = depth
        self._current: memoryview | None = None
        self._filled = 0
        self._failure: BaseException | None = None
        self._dropped = False
        self._then = then
        self._queues = [queue.SimpleQueue[tuple[memoryview, int, Release] | None]() for _ in steps]
        self._threads: list[threading.Thread] = []
        try:
            for position, step in enumerate(steps):
                self._threads.append(started(self._runner(position, step), "imgtar-write"))
        except BaseException:
            if len(self._threads) < len(steps):
                then()  # Nobody else will.
            self.abandon()
            raise

    def _runner(self, position: int, step: Step) -> Callable[[], None]:
        incoming = self._queues[position]
        outgoing = self._queues[position + 1] if position + 1 < len(self._queues) else None

        def run() -> None:
            while (item := incoming.get()) is not None:
                view, count, release = item
                if self._failure is None and not self._dropped:
                    try:
                        step(view[:count])
                    except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
                        self._failure = error
                if outgoing is not None:
                    outgoing.put(item)
                else:
                    release(view)
            if outgoing is not None:
                outgoing.put(None)
            else:
                self._then()

        return run

    def write(self, data: bytes | memoryview) -> None:
        """Take a copy of ``data``; raises what an earlier step raised."""
        if self._failure is not None:
            raise self._failure
        view = memoryview(data)
        while view:
            current = self._current if self._current is not None else self._buffer()
            count = min(len(view), BUFFER_SIZE - self._filled)
            current[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
            if self._filled == BUFFER_SIZE:
                self._pass_on()

    def hand_over(self, buffer: memoryview, count: int, release: Release) -> None:
        """Take the first ``count`` bytes of ``buffer`` as they are; ``release`` gets it back after the last step."""
        self._pass_on()
        self._queues[0].put((buffer, count, release))
        if self._failure is not None:
            raise self._failure

    def _buffer(self) -> memoryview:
        if self._depth:
            self._depth -= 1
            self._current = memoryview(bytearray(BUFFER_SIZE))
        else:
            self._current = self._free.get()
        return self._current

    def _pass_on(self) -> None:
        if self._current is not None:
            self._queues[0].put((self._current, self._filled, self._free.put))
            self._current, self._filled = None, 0

    def flush(self) -> None:
        """Wait until every step is done with everything up to now; raises what a step raised."""
        done: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self.hand_over(memoryview(b""), 0, done.put)
        done.get()
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until every step is done with everything; raises what a step raised."""
        self._pass_on()
        self._queues[0].put(None)
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def abandon(self, patience: float | None = None) -> None:
        """Stop: what no step has begun with is dropped. Waits for what has begun, at most ``patience`` seconds. Idempotent.

        Who does not wait to the end must leave it to ``then`` to close what is written to.
        """
        self._dropped = True
        self._queues[0].put(None)  # After the end of the queue a second end means nothing.
        joined(self._threads, patience)


class InOrder(Generic[_Work, _Done]):
    """Does ``work`` on up to ``jobs`` threads, and hands the results to ``deliver`` in the order of :meth:`put`.

    ``deliver`` is called on the caller's thread, in :meth:`put` and :meth:`finish`. With one job there are no threads.
    """

    def __init__(self, work: Callable[[_Work], _Done], deliver: Callable[[_Done], object], jobs: int) -> None:
        self._work = work
        self._deliver = deliver
        self._jobs = jobs
        self._todo: queue.SimpleQueue[tuple[_Work, queue.SimpleQueue[_Done | BaseException]] | None] = (
            queue.SimpleQueue()
        )
        self._pending: deque[queue.SimpleQueue[_Done | BaseException]] = deque()
        self._threads: list[threading.Thread] = []

    def _run(self) -> None:
        while (item := self._todo.get()) is not None:
            work, answer = item
            try:
                answer.put(self._work(work))
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is taken
                answer.put(error)

    def put(self, work: _Work) -> None:
        """Take one piece of work; raises what an earlier one raised."""
        if self._jobs <= 1:
            self._deliver(self._work(work))
            return
        if len(self._threads) < self._jobs:
            self._threads.append(started(self._run, "imgtar-pack"))
        answer: queue.SimpleQueue[_Done | BaseException] = queue.SimpleQueue()
        self._pending.append(answer)
        self._todo.put((work, answer))
        while len(self._pending) > self._jobs + 2:
            self._take()

    def _take(self) -> None:
        done = self._pending.popleft().get()
        if isinstance(done, BaseException):
            raise done
        self._deliver(done)

    def finish(self) -> None:
        """Deliver everything; raises what work raised."""
        while self._pending:
            self._take()
        self.abandon()

    def abandon(self) -> None:
        """Let the threads end, without delivering what is still in hand. Idempotent."""
        self._pending.clear()
        for _ in self._threads:
            self._todo.put(None)
        self._threads.clear()
