"""Threads let go of what they read before it is closed."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtar.blob.lanes import ReadAhead, WriteBehind
from imgtar.ops.verify import verify
from tests.builders.images import make_image, oci_files


class Waiting:
    """A stream whose reads wait until they are let go."""

    def __init__(self) -> None:
        self.reading, self.go = threading.Event(), threading.Event()
        self.reads = 0

    def readinto(self, buffer: memoryview, /) -> int:
        self.reads += 1
        self.reading.set()
        assert self.go.wait(30)
        buffer[:1] = b"x"
        return 1


def test_a_source_is_not_closed_while_it_is_read() -> None:
    source, closed = Waiting(), threading.Event()
    ahead = ReadAhead(source)
    assert source.reading.wait(30)
    ahead.close(closed.set)
    assert not closed.is_set(), "closed under a reader: the descriptor may be another file's by now"
    source.go.set()
    assert closed.wait(30), "nobody closes it"
    assert source.reads == 1, "it is read on after it was closed"


def test_a_source_that_nobody_reads_is_closed_at_once() -> None:
    source, closed = Waiting(), threading.Event()
    source.go.set()
    ahead = ReadAhead(source)
    while source.reads < 4:
        source.reading.wait(0.01)
    ahead.close(closed.set)
    assert closed.is_set()


class Trickle:
    """A stream of ``total`` bytes that gives a few at a time, and then ends or fails."""

    def __init__(self, total: int, step: int, error: Exception | None = None) -> None:
        self.left, self.step, self.error, self.asked_after_end = total, step, error, 0

    def readinto(self, target: memoryview, /) -> int:
        if not self.left:
            self.asked_after_end += 1
            if self.error is not None:
                raise self.error
            return 0
        count = min(self.left, self.step, len(target))
        target[:count] = b"x" * count
        self.left -= count
        return count


@pytest.mark.parametrize("total", [0, 1, 65_536, 3_000_000])
def test_little_pieces_are_handed_on_together_and_the_end_is_asked_for_once(total: int) -> None:
    source = Trickle(total, 65_536)
    ahead = ReadAhead(source)
    sizes = []
    while True:
        view, count = ahead.take()
        if not count:
            break
        sizes.append(count)
        ahead.release(view)
    assert ahead.take()[1] == 0, "whoever asks again is told again"
    assert sum(sizes) == total
    assert len(sizes) <= 5 + total / (1 << 19)
    assert source.asked_after_end == 1
    ahead.close()


def test_the_first_bytes_are_handed_on_though_no_more_come() -> None:
    """What is no archive must be refused even when whoever sent it keeps the pipe open."""
    source = Waiting()
    ahead = ReadAhead(source)
    source.go.set()
    _, count = ahead.take()
    assert count == 1
    ahead.close()


def test_an_error_comes_after_what_was_read_before_it() -> None:
    ahead = ReadAhead(Trickle(100_000, 10, OSError(5, "gone")))
    taken = 0
    with pytest.raises(OSError, match="gone"):  # noqa: PT012 - where it comes is what is tested
        while True:
            view, count = ahead.take()
            taken += count
            ahead.release(view)
    assert taken == 100_000
    with pytest.raises(OSError, match="gone"):
        ahead.take()
    ahead.close()


def test_pieces_are_written_in_order_whether_they_are_copied_or_handed_over() -> None:
    one, two = bytearray(), bytearray()
    behind = WriteBehind(one.extend, two.extend)
    expected, free = bytearray(), []
    for number in range(50):
        if number % 3:
            behind.write(bytes([number]) * 100_001)
            expected += bytes([number]) * 100_001
        else:
            behind.hand_over(memoryview(bytearray([number]) * 70_000), 60_000, free.append)
            expected += bytes([number]) * 60_000
        if number == 25:
            behind.flush()
            assert one == two == expected
    behind.finish()
    assert one == two == expected
    assert len(free) == 17


@pytest.mark.parametrize("failing", [0, 1])
def test_after_a_step_has_failed_no_step_sees_more_and_the_error_is_raised(failing: int) -> None:
    seen: list[list[int]] = [[], []]

    def step(which: int) -> Callable[[memoryview], None]:
        def take(piece: memoryview) -> None:
            seen[which].append(piece[0])
            if which == failing and piece[0] == 3:
                raise OSError(28, "full")

        return take

    behind = WriteBehind(step(0), step(1))
    with pytest.raises(OSError, match="full"):  # noqa: PT012 - when it is told depends on the threads
        for number in range(9):
            behind.hand_over(memoryview(bytearray([number])), 1, lambda _: None)
        behind.finish()
    assert seen[failing] == [0, 1, 2, 3]
    assert 3 not in seen[1 - failing] or failing == 1
    behind.abandon()


@pytest.mark.parametrize("patience", [None, 0.05])
def test_after_an_interruption_what_no_step_has_begun_with_is_dropped(patience: float | None) -> None:
    """The caller closes the file next: who still wrote to it would write into whatever is opened then."""
    begun, go, closed = threading.Event(), threading.Event(), threading.Event()
    written: list[int] = []

    def write(piece: memoryview) -> None:
        assert not closed.is_set()
        begun.set()
        assert go.wait(30)
        written.append(piece[0])

    behind = WriteBehind(write, then=closed.set)
    for number in range(4):
        behind.hand_over(memoryview(bytearray([number])), 1, lambda _: None)
    assert begun.wait(30)
    timer = threading.Timer(0.3, go.set)
    timer.start()
    behind.abandon(patience)
    if patience is None:
        assert closed.is_set(), "it was not waited for"
    else:
        assert not go.is_set(), "it was waited for"
    assert closed.wait(30)
    behind.abandon(patience)
    assert written == [0]


def test_what_is_interrupted_at_the_end_is_stopped_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the queue had been told already: that must not make the stop a thing that was done."""
    go, written = threading.Event(), []

    def write(piece: memoryview) -> None:
        assert go.wait(30)
        written.append(piece[0])

    behind = WriteBehind(write)
    for number in range(4):
        behind.hand_over(memoryview(bytearray([number])), 1, lambda _: None)
    real = threading.Thread.join

    def interrupt(thread: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        behind.finish()
    threading.Timer(0.2, go.set).start()
    behind.abandon()
    assert written in ([], [0])
    assert not [thread for thread in threading.enumerate() if thread.name == "imgtar-write"]


def test_an_archive_is_judged_alike_after_a_compressed_one_that_was_refused(tmp_path: Path) -> None:
    """The reader of the first went on with the descriptor when it was the second's: found by the campaign of mutations."""
    bad, good = tmp_path / "bad.tar.gz", tmp_path / "good.tar.gz"
    data = oci_files([make_image("demo:1")]).tar()
    bad.write_bytes(gzip.compress(gzip.compress(data)))
    good.write_bytes(gzip.compress(data))
    for _ in range(20):
        verdict = verify([str(bad), str(good)], jobs=1)
        assert [bool(one.findings) for one in verdict.archives] == [True, False], verdict.findings
