"""Locks between processes: who waits for whom, how long, and that the dead block nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtar.errors import StoreTrouble
from imgtar.events import Event
from imgtar.store.lock import locked
from tests.builders.images import docker_archive, make_image
from tests.conftest import Imgtar, stored

HOLD = """
import sys, time
from imgtar.store.lock import locked
with locked(sys.argv[1], shared=sys.argv[2] == "shared", timeout=5):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@contextmanager
def another(path: Path, how: str, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock at ``path``, shared or alone."""
    command = [sys.executable, "-c", HOLD, str(path), how, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def attempt(path: Path, *, shared: bool, timeout: float = 0.05) -> bool:
    try:
        with locked(str(path), shared=shared, timeout=timeout):
            return True
    except StoreTrouble:
        return False


@pytest.mark.parametrize(
    ("theirs", "ours", "both"),
    [("shared", "shared", True), ("shared", "alone", False), ("alone", "shared", False), ("alone", "alone", False)],
)
def test_readers_share_and_who_is_alone_is_alone(theirs: str, ours: str, both: bool, tmp_path: Path) -> None:
    with another(tmp_path / "lock", theirs):
        assert attempt(tmp_path / "lock", shared=ours == "shared") is both
    assert attempt(tmp_path / "lock", shared=ours == "shared")


def test_waiting_ends_when_the_other_is_done(tmp_path: Path) -> None:
    with another(tmp_path / "lock", "alone", 0.4):
        assert attempt(tmp_path / "lock", shared=False, timeout=20)


def test_who_waits_is_told_for_whom_once(tmp_path: Path) -> None:
    events: list[Event] = []
    with another(tmp_path / "lock", "alone") as process, pytest.raises(StoreTrouble) as caught:  # noqa: SIM117
        with locked(str(tmp_path / "lock"), shared=True, timeout=0.2, report=events.append):
            pass
    assert [event.kind for event in events] == ["wait"]
    assert str(process.pid) in events[0].text
    assert str(process.pid) in caught.value.message
    assert caught.value.exit_code == 7
    assert "--lock-timeout" in caught.value.hint


def test_a_dead_owner_blocks_nobody(tmp_path: Path) -> None:
    with another(tmp_path / "lock", "alone") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert attempt(tmp_path / "lock", shared=False)
    (tmp_path / "lock").write_text("process 1")
    assert attempt(tmp_path / "lock", shared=False), "what a lock file says is for people, never believed"


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path / "lock"), shared=False):
        raise ZeroDivisionError
    with another(tmp_path / "lock", "alone"):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"), locked(str(tmp_path / "lock"), shared=False):
        pass
    assert target.read_text() == "content"


def test_the_wait_is_polite_and_does_not_burn_the_processor(tmp_path: Path) -> None:
    with another(tmp_path / "lock", "alone"):
        before = time.process_time()
        assert not attempt(tmp_path / "lock", shared=False, timeout=0.5)
        assert time.process_time() - before < 0.25


# -- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(docker_archive([make_image("app:1", seed=1)])).ok()
    return imgtar


@pytest.mark.parametrize("command", [["rmi", "app:1"], ["prune"]])
def test_nothing_is_deleted_while_somebody_reads(command: list[str], filled: Imgtar) -> None:
    before = stored(filled.store)
    with another(filled.store / "imgtar" / "blobs.lock", "shared"):
        done = filled(*command, "--lock-timeout", "0.05")
    assert done.code == 7
    assert "E_LOCKED" in done.errors
    assert stored(filled.store) == before
    filled(*command).ok()


@pytest.mark.parametrize(
    "command", [["save", "app:1"], ["verify"], ["inspect", "app:1"], ["images"], ["tag", "app:1", "app:2"]]
)
def test_whoever_reads_waits_for_a_deletion(command: list[str], filled: Imgtar) -> None:
    with another(filled.store / "imgtar" / "blobs.lock", "alone"):
        done = filled(*command, "--lock-timeout", "0.05")
    assert done.code == 7
    assert "E_LOCKED" in done.errors


def test_a_load_that_may_not_commit_leaves_the_store_as_it_was(filled: Imgtar) -> None:
    before = stored(filled.store)
    more = docker_archive([make_image("more:1", seed=2)])
    with another(filled.store / "imgtar" / "index.lock", "alone"):
        done = filled.load(more, "--lock-timeout", "0.05")
    assert done.code == 7
    assert stored(filled.store) == before
    filled.load(more).ok()


def test_a_load_waits_for_its_turn_and_says_so(filled: Imgtar) -> None:
    with another(filled.store / "imgtar" / "index.lock", "alone", 0.3):
        done = filled.load(docker_archive([make_image("more:1", seed=2)])).ok()
    assert "waiting for process" in done.errors
    assert "more:1" in filled.names()


@pytest.mark.parametrize("value", ["-1", "nan", "soon", "inf"])
def test_a_lock_timeout_that_makes_no_sense_is_a_usage_error_or_is_obeyed(value: str, filled: Imgtar) -> None:
    done = filled("images", "--lock-timeout", value)
    assert done.code in (0, 2)
    assert "Traceback" not in done.errors


def test_the_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    inside = 0
    most = 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(str(tmp_path / "lock"), shared=False, timeout=30):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
