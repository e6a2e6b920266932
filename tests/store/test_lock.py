"""Locks between processes: who waits for whom, how long, and that the dead block nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_h229_a_dead_owner_blocks_nobody(how: str, tmp_path: Path) -> None:
    with another(tmp_path / "lock", how) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert attempt(tmp_path / "lock", shared=False)


@pytest.mark.parametrize("content", [b"process 1", b"process 99999999", b"host-b 4711", b"\xff\x00" * 4096])
def test_h230_what_a_lock_file_says_is_never_believed(content: bytes, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_bytes(content)
    assert attempt(lock, shared=False)
    assert attempt(lock, shared=True)
    with another(lock, "alone") as process, pytest.raises(StoreTrouble) as caught:  # noqa: SIM117
        with locked(str(lock), shared=True, timeout=0.05):
            pass
    assert f"process {process.pid} (" in caught.value.message
    assert lock.read_bytes() == content


@pytest.mark.parametrize("locks", [None, b"", b"garbage\n1: FLOCK\n\xff\n", b"1: FLOCK ADVISORY WRITE 0 %s 0 EOF\n"])
def test_h230_a_holder_on_another_host_or_in_another_container_is_another_process(
    locks: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    status = lock.stat()
    if locks is not None:
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}".encode()
        (tmp_path / "locks").write_bytes(locks.replace(b"%s", place))
    real = open

    def fake(path: Any, *arguments: Any, **more: Any) -> Any:
        return real(tmp_path / "locks" if path == "/proc/locks" else path, *arguments, **more)

    monkeypatch.setattr("builtins.open", fake)
    with another(lock, "shared"), pytest.raises(StoreTrouble) as caught, locked(str(lock), shared=False, timeout=0.05):
        pass
    assert "in use by another process," in caught.value.message


def test_h231_who_waits_for_several_is_told_how_many(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    messages = []
    with another(lock, "shared") as first, another(lock, "shared") as second:
        for _ in range(20):  # The kernel's list may be long and change while it is read: one of two can be overlooked.
            with pytest.raises(StoreTrouble) as caught, locked(str(lock), shared=False, timeout=0.01):
                pass
            messages.append(caught.value.message)
    told = [message for message in messages if "and 1 more" in message]
    assert told, messages
    assert all(any(f"process {one.pid} (" in message for one in (first, second)) for message in told)


def test_h231_the_command_of_a_holder_is_shown_safely_and_short(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), "alone", "60", "\x1b[2J\n\u202e", "x" * 1000]
    with subprocess.Popen(["imgtar", *command[1:]], executable=sys.executable, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            with pytest.raises(StoreTrouble) as caught, locked(str(tmp_path / "lock"), shared=False, timeout=0.05):
                pass
        finally:
            process.kill()
    assert f"process {process.pid} (imgtar -c " in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_h239_a_file_system_without_locks_is_said_and_nothing_is_changed(
    fault: int, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    imgtar.load(docker_archive([make_image("app:1", seed=1)])).ok()
    before = stored(imgtar.store)

    def refuse(fd: int, mode: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for command in (["images"], ["prune"], ["tag", "app:1", "app:2"], ["save", "app:1"]):
        done = imgtar(*command)
        assert done.code == 7
        assert "cannot lock files" in done.errors
        assert "hint: choose a store on a local disk" in done.errors
    done = imgtar.load(docker_archive([make_image("more:1", seed=2)]))
    assert done.code == 7
    assert "cannot lock files" in done.errors
    assert stored(imgtar.store) == before


# -- turns -----------------------------------------------------------------------------------------------------------

AGAIN = """
import os, sys, time
from imgtar.store.lock import locked
lock, shared, gate = sys.argv[1], sys.argv[2] == "shared", sys.argv[3]
print("ready", flush=True)
while True:
    with locked(lock, shared=shared, timeout=60, gate=gate):
        time.sleep(0.1)
"""


@contextmanager
def crowd(folder: Path, how: str, gate: str) -> Iterator[None]:
    """Four processes that take the lock, hold it for a while, and take it again at once."""
    command = [sys.executable, "-c", AGAIN, str(folder / "lock"), how, gate]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("theirs", "ours"), [("shared", "alone"), ("alone", "shared"), ("alone", "alone")])
def test_everybody_gets_his_turn_in_a_crowd(theirs: str, ours: str, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with crowd(tmp_path, theirs, gate):
        for _ in range(2):
            with locked(str(tmp_path / "lock"), shared=ours == "shared", timeout=60, gate=gate):
                pass


def test_who_is_in_already_does_not_queue_behind_one_who_waits_for_him(tmp_path: Path) -> None:
    lock, gate = str(tmp_path / "lock"), str(tmp_path / "gate")
    with (
        locked(lock, shared=True, gate=gate),
        subprocess.Popen([sys.executable, "-c", AGAIN, lock, "alone", gate], stdout=subprocess.PIPE) as process,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.3)
            start = time.monotonic()
            with locked(lock, shared=True, gate=gate):
                assert time.monotonic() - start < 8
        finally:
            process.kill()


def test_a_reader_waits_only_so_long_for_one_who_himself_has_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune that waits for a load of an hour must not keep everybody from looking at the store for an hour."""
    monkeypatch.setattr("imgtar.store.lock._PATIENCE", 0.5)
    lock, gate = tmp_path / "lock", str(tmp_path / "gate")
    events: list[Event] = []
    with (
        another(lock, "shared"),
        subprocess.Popen([sys.executable, "-c", AGAIN, str(lock), "alone", gate], stdout=subprocess.PIPE) as process,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.3)
            with locked(str(lock), shared=True, timeout=60, gate=gate, report=events.append):
                pass
        finally:
            process.kill()
    assert [event.kind for event in events] == ["wait"]
    assert str(process.pid) in events[0].text


@pytest.mark.parametrize(
    ("number", "command"), [(signal.SIGINT, "prune"), (signal.SIGTERM, "rmi"), (signal.SIGTERM, "load")]
)
def test_h231_who_is_interrupted_while_he_waits_ends_at_once_and_changes_nothing(
    number: signal.Signals, command: str, filled: Imgtar
) -> None:
    archive = filled.home / "more.tar"
    archive.write_bytes(docker_archive([make_image("more:1", seed=2)]))
    words = {"prune": ["prune"], "rmi": ["rmi", "app:1"], "load": ["load", "-i", str(archive)]}[command]
    before = stored(filled.store)
    with another(filled.store / "imgtar" / "blobs.lock", "alone"):
        process = subprocess.Popen(
            [sys.executable, "-m", "imgtar", *words, "--store", str(filled.store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "waiting for process" in process.stderr.readline()
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 20
    assert process.returncode == 130
    assert "nothing was committed" in errors
    assert stored(filled.store) == before


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path / "lock"), shared=False):
        raise ZeroDivisionError
    with another(tmp_path / "lock", "alone"):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(StoreTrouble, match="no regular file"), locked(str(tmp_path / "lock"), shared=False):
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
    "command",
    ["save app:1", "verify", "inspect app:1", "images", "history app:1", "deps", "inventory", "tag app:1 app:2"],
)
def test_whoever_reads_waits_for_a_deletion_and_says_so(command: str, filled: Imgtar) -> None:
    with another(filled.store / "imgtar" / "blobs.lock", "alone") as process:
        done = filled(*command.split(), "--lock-timeout", "0.05")
    assert done.code == 7
    assert f"waiting for process {process.pid} (" in done.errors
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
    with another(filled.store / "imgtar" / "index.lock", "alone", 3):
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
