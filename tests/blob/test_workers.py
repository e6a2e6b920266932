"""Work on several threads: what is done at once, in which order, and what becomes of an error."""

from __future__ import annotations

import threading

import pytest

from imgtar.blob.workers import Beside, Checkpoint, each, each_blob

MIB = 1 << 20


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_item_is_done_once(jobs: int) -> None:
    done: list[int] = []
    each(lambda item, _: done.append(item), range(100), jobs)
    assert sorted(done) == list(range(100))


def test_the_first_error_stops_the_rest_at_their_next_checkpoint_and_is_raised() -> None:
    begun, stopped = threading.Barrier(3), []

    def work(item: int, checkpoint: Checkpoint) -> None:
        if item > 2:
            raise AssertionError("this was begun after the error")
        begun.wait(30)
        if item == 1:
            raise KeyError("one")
        try:
            while True:
                checkpoint()
        finally:
            stopped.append(item)

    with pytest.raises(KeyError, match="one"):
        each(work, range(50), 3)
    assert sorted(stopped) == [0, 2]


@pytest.mark.parametrize(
    ("sizes", "jobs", "wide"),
    [
        ([700], 2, [True]),
        ([700], 1, [False]),
        ([3], 2, [False]),  # too small to be worth it
        ([80] * 8, 2, [False] * 7 + [True]),
        ([500, 80, 80, 80], 2, [True, False, False, True]),
        ([80, 500, 80], 2, [False, True, True]),
        ([100] * 4, 8, [True, True, False, True]),
        ([100] * 40, 64, [True] * 21 + [False] * 18 + [True]),
    ],
)
def test_blobs_that_leave_cores_idle_get_threads_of_their_own(sizes: list[int], jobs: int, wide: list[bool]) -> None:
    seen: dict[int, bool] = {}

    def work(place: int, _: Checkpoint, lanes: bool) -> None:
        seen[place] = lanes

    each_blob(work, range(len(sizes)), lambda place: sizes[place] * MIB, jobs)
    assert [seen[place] for place in range(len(sizes))] == wide


def test_little_work_starts_no_thread() -> None:
    names = []
    each_blob(lambda *_: names.append(threading.current_thread().name), range(9), lambda _: 1000, 8)
    assert set(names) == {threading.current_thread().name}


def test_work_beside_gives_its_result_or_its_error() -> None:
    assert Beside(lambda _: 5).result() == 5

    def fail(_: Checkpoint) -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        Beside(fail).result()


def test_work_beside_can_be_abandoned() -> None:
    going = threading.Event()

    def work(checkpoint: Checkpoint) -> None:
        while True:
            going.set()
            checkpoint()

    beside = Beside(work)
    assert going.wait(30)
    beside.abandon()
    beside.abandon()
    assert not [thread for thread in threading.enumerate() if thread.name == "imgtar-beside"]
