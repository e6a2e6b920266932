"""The surroundings of a run: limits, signals, streams, targets and the environment. Clean ends, and the truth about the commit."""

from __future__ import annotations

import errno
import lzma
import os
import random
import resource
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from imgtar.store import layout as layout_module
from imgtar.store import transaction as transaction_module
from tests.builders.images import make_image, make_layer, oci_archive
from tests.conftest import Imgtar, snapshot, stored
from tests.program import mounted, program, words

APP = make_image("app:1", 2, seed=1)
MORE = make_image("more:1", 2, seed=2)
BIG = make_image("big:1", [make_layer(bytes(2 << 20))], seed=3)


@pytest.fixture
def full(imgtar: Imgtar, tmp_path: Path) -> Imgtar:
    imgtar.load(oci_archive([APP, BIG])).ok()
    (tmp_path / "more.tar").write_bytes(oci_archive([MORE]))
    return imgtar


# -- H245: out of something ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [5, 7, 16])
def test_h245_few_file_descriptors_are_enough_or_it_is_said(files: int, full: Imgtar, tmp_path: Path) -> None:
    before = stored(full.store)
    done = program(
        words(full.store, "load", "-i", tmp_path / "more.tar"), limits={resource.RLIMIT_NOFILE: files}
    ).clean()
    assert done.code == (0 if files == 16 else 6), done.errors
    if done.code:
        assert "open files" in done.errors
        assert stored(full.store) == before
    full("verify").ok()


@pytest.mark.parametrize("megabytes", [44, 60])
def test_h245_little_memory_is_enough_or_it_is_said(megabytes: int, full: Imgtar, tmp_path: Path) -> None:
    before = stored(full.store)
    limits = {resource.RLIMIT_AS: megabytes << 20}
    done = program(words(full.store, "load", "-i", tmp_path / "more.tar"), limits=limits)
    assert done.code in (0, 6), done.errors
    if done.code:
        assert "memory" in done.errors
        assert stored(full.store) == before


@pytest.mark.parametrize("command", [["load", "-i", "-", "-j", "4"], ["save", "app:1"], ["verify", "-", "-j", "4"]])
def test_h245_threads_that_cannot_be_started_are_said(
    command: list[str], full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(full.store)
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("imgtar"):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = full(*command, stdin=None if command[0] == "save" else oci_archive([MORE]))
    assert (done.code, "cannot start another thread" in done.errors) == (6, True), done.errors
    assert "hint:" in done.errors
    assert stored(full.store) == before


@pytest.mark.parametrize("name", ["imgtar-read", "imgtar-write", "imgtar-work"])
def test_h245_what_is_good_is_called_good_where_no_thread_can_be_had(
    name: str, full: Imgtar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Most threads are only speed; and what a machine lacks is no damage of an archive or a store."""
    big = [make_layer(random.Random(seed).randbytes(5 << 20), kind) for seed, kind in ((1, None), (2, "gzip"))]
    archive = tmp_path / "big.tar"
    archive.write_bytes(oci_archive([make_image("huge:1", big)]))
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for command in (["verify", archive], ["load", "-i", archive], ["verify"]):
        full(*command, "-j", "3").ok()


@pytest.mark.parametrize("more", [["--compress", "gzip"], ["--layers", "gzip"]])
def test_threads_and_files_end_when_the_compressor_cannot_be_had(
    more: list[str], full: Imgtar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("imgtar.transport.writer.compressing", refuse)
    monkeypatch.setattr("imgtar.ops.recompress.compressing", refuse)
    files = len(os.listdir("/proc/self/fd"))
    assert full("save", *more, "-o", tmp_path / "out.tar", "app:1").code == 6
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("imgtar")]
    assert len(os.listdir("/proc/self/fd")) == files
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_h245_no_memory_is_said_and_changes_nothing(full: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    before = stored(full.store)
    monkeypatch.setattr(transaction_module, "measure", refuse)
    done = full.load(oci_archive([MORE]), "-j", "4")
    assert (done.code, "out of memory" in done.errors) == (6, True), done.errors
    assert stored(full.store) == before


# -- H246, H249: files that may not grow, signals --------------------------------------------------------------------


def test_h246_h249_a_file_that_may_not_grow_ends_the_work_and_keeps_the_old_target(
    full: Imgtar, tmp_path: Path
) -> None:
    (tmp_path / "big.tar").write_bytes(oci_archive([make_image("huge:1", [make_layer(bytes(3 << 20))])]))
    before = stored(full.store)
    limits = {resource.RLIMIT_FSIZE: 1 << 20}
    done = program(words(full.store, "load", "-i", tmp_path / "big.tar"), limits=limits).clean()
    assert (done.code, "ulimit -f" in done.errors) == (6, True), done.errors
    assert stored(full.store) == before
    (tmp_path / "out.tar").write_bytes(b"what was there")
    there = sorted(os.listdir(tmp_path))
    done = program(words(full.store, "save", "-o", tmp_path / "out.tar", "big:1"), limits=limits).clean()
    assert (done.code, "FAT holds 4 GiB" in done.errors) == (6, True), done.errors
    assert (tmp_path / "out.tar").read_bytes() == b"what was there"
    assert sorted(os.listdir(tmp_path)) == there, "no temporary file is left"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("form", ["hybrid", "oci-dir"])
def test_h249_a_save_onto_a_full_disk_leaves_the_old_target_and_nothing_else(
    number: int, form: str, full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    target = tmp_path / "out"
    if form == "hybrid":
        target.write_bytes(b"what was there")
    there = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(os, "fsync", refuse)
    done = full("save", "--format", form, "-o", target, "app:1")
    assert done.code == 6, done.errors
    assert sorted(os.listdir(tmp_path)) == there
    assert form == "oci-dir" or target.read_bytes() == b"what was there"


@pytest.mark.parametrize("signals", [["SIGHUP"], ["SIGINT", "SIGINT"]], ids=" ".join)
def test_h246_signals_end_a_load_cleanly(signals: list[str], full: Imgtar, tmp_path: Path) -> None:
    before = full.images()
    staging = full.store / "imgtar" / "staging"

    def undisturbed() -> None:
        for each in (signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)

    reader, writer = os.pipe()
    process = subprocess.Popen(
        words(full.store, "load"),
        stdin=reader,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=undisturbed,
    )
    os.close(reader)
    try:
        os.write(writer, oci_archive([MORE])[:4096])
        deadline = time.monotonic() + 60
        while not os.listdir(staging) and time.monotonic() < deadline:
            time.sleep(0.01)
        for name in signals:
            process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        os.close(writer)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert b"interrupted" in errors
    assert full.images() == before
    full.load(oci_archive([MORE])).ok()
    assert os.listdir(staging) == []


@pytest.mark.parametrize("command", [["load", "-i", "-"], ["tag", "app:1", "app:2"]], ids=" ".join)
def test_h246_an_interruption_after_the_commit_point_is_told_as_such(
    command: list[str], full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = layout_module.sync_directory

    def interrupt(path: str) -> None:
        if path == str(full.store):
            raise KeyboardInterrupt
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(layout_module, "sync_directory", interrupt)
        done = full(*command, stdin=None if command[0] == "save" else oci_archive([MORE]))
    assert done.code == 130
    assert "it stays" in done.errors
    assert "nothing was committed" not in done.errors
    assert {"more:1", "app:2"} & set(full.names()), "and so it is"


def test_h246_an_interruption_before_the_commit_point_changed_nothing(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = stored(full.store)
    with monkeypatch.context() as patch:
        patch.setattr(layout_module.Layout, "_replace", interrupt)
        done = full("tag", "app:1", "app:2")
    assert (done.code, "nothing was committed" in done.errors) == (130, True), done.errors
    assert stored(full.store) == before


# -- H247: standard streams ------------------------------------------------------------------------------------------


def closed(*numbers: int) -> Any:
    """Close standard streams in the child, as ``>&-`` does."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def test_h247_a_closed_standard_output_is_no_success_and_the_commit_is_told(full: Imgtar, tmp_path: Path) -> None:
    done = program(words(full.store, "load", "-i", tmp_path / "more.tar"), preexec_fn=closed(1)).clean()
    assert (done.code, "what was asked for is done" in done.errors) == (6, True), done.errors
    assert "more:1" in full.names()
    before = stored(full.store)
    done = program(words(full.store, "save", "app:1"), preexec_fn=closed(1)).clean()
    assert (done.code, done.out) == (6, b""), done.errors
    assert stored(full.store) == before, "no file of the store took the number of standard output"


def test_h247_without_standard_input_and_error_the_work_is_done(full: Imgtar, tmp_path: Path) -> None:
    done = program(words(full.store, "load", "-i", tmp_path / "more.tar"), preexec_fn=closed(0, 2)).ok()
    assert b"Loaded image: more:1" in done.out
    full("verify").ok()
    refused = program(words(full.store, "load"), preexec_fn=closed(0)).clean()
    assert (refused.code, "standard input is closed" in refused.errors) == (2, True), refused.errors


def test_h247_a_full_standard_output_after_a_load_says_that_the_load_is_done(full: Imgtar, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as target:
        done = program(words(full.store, "load", "-i", tmp_path / "more.tar"), stdout=target).clean()
    assert (done.code, "what was asked for is done" in done.errors) == (6, True), done.errors
    assert "more:1" in full.names()


# -- H248: where a file is to be written -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "new.tar", "blobs/sha256/new", "imgtar/images"])
def test_h248_nothing_is_saved_into_the_store(name: str, full: Imgtar, tmp_path: Path) -> None:
    before = stored(full.store)
    (tmp_path / "link").symlink_to(full.store)
    for target in (full.store / name, tmp_path / "link" / name):
        for command in (
            ["save", "-o", target, "app:1"],
            ["inventory", "-o", target],
            ["verify", tmp_path / "more.tar", "--report", target],
        ):
            done = full(*command)
            assert (done.code, "inside the store" in done.errors) == (2, True), (command, done.errors)
    assert stored(full.store) == before


def test_h248_what_is_read_is_not_overwritten(full: Imgtar, tmp_path: Path) -> None:
    archive, folder = tmp_path / "more.tar", tmp_path / "layout"
    full("save", "--format", "oci-dir", "-o", folder, "app:1").ok()
    before = archive.read_bytes(), (folder / "index.json").read_bytes()
    (tmp_path / "hard.tar").hardlink_to(archive)
    for command in (
        ["verify", archive, "--report", archive],
        ["verify", archive, "--report", tmp_path / "hard.tar"],
        ["verify", tmp_path, "--report", archive],
        ["verify", folder, "--report", folder / "index.json"],
        ["inventory", "--of", archive, "-o", archive],
        ["inventory", "--of", f"oci-archive:{archive}", "-o", archive],
        ["save", "--base", archive, "-o", archive, "app:1"],
        ["save", "--for", archive, "-o", archive, "app:1"],
    ):
        done = full(*command)
        assert (done.code, "would destroy it" in done.errors) == (2, True), (command, done.errors)
    assert (archive.read_bytes(), (folder / "index.json").read_bytes()) == before
    full("verify", archive, "--report", tmp_path / "report.json").ok()
    full("verify", archive, "--report", tmp_path / "report.json").ok()


@pytest.mark.interop
@pytest.mark.parametrize("part", [".", "blobs", "blobs/sha256", "imgtar", "imgtar/held/sha256", "imgtar/damaged/blobs"])
def test_h276_nothing_is_saved_into_the_store_through_a_bind_mount(part: str, full: Imgtar, tmp_path: Path) -> None:
    (full.store / part).mkdir(parents=True, exist_ok=True)
    (full.store / "imgtar/damaged/blobs/deeper").mkdir(parents=True)
    before = stored(full.store)
    for name in ("mount", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("mount")
    script = f"mount --bind '{full.store / part}' '{tmp_path / 'mount'}'"
    below = ["index.json", "new", *(["deeper/new"] if part.endswith("damaged/blobs") else [])]
    for name in below:
        for command in (
            ["save", "-o", tmp_path / "mount" / name, "app:1"],
            ["save", "-o", tmp_path / "other" / ".." / "link" / name, "app:1"],
            ["save", "--format", "oci-dir", "-o", f"{tmp_path / 'mount' / name}/", "app:1"],
            ["inventory", "-o", tmp_path / "mount" / name],
            ["verify", tmp_path / "more.tar", "--report", tmp_path / "mount" / name],
        ):
            done = program(mounted(script, words(full.store, *command))).clean()
            assert done.code == 2, (command, done.errors)
            assert "inside the store" in done.errors or "exists already" in done.errors, (command, done.errors)
    assert stored(full.store) == before
    program(mounted(script, words(full.store, "save", "-o", tmp_path / "other" / "out.tar", "app:1"))).ok()


@pytest.mark.interop
def test_h276_a_layout_that_is_read_is_not_written_into_through_a_bind_mount(full: Imgtar, tmp_path: Path) -> None:
    layout, mount = tmp_path / "layout", tmp_path / "mount"
    full("save", "--format", "oci-dir", "-o", layout, "app:1").ok()
    mount.mkdir()
    before = snapshot(layout)
    for part, name in (
        (layout, "index.json"),
        (layout / "blobs" / "sha256", sorted(os.listdir(layout / "blobs/sha256"))[0]),
    ):
        script = f"mount --bind '{part}' '{mount}'"
        for command in (
            ["verify", layout, "--report", mount / name],
            ["inventory", "--of", layout, "-o", mount / name],
            ["save", "--base", layout, "-o", mount / name, "app:1"],
        ):
            done = program(mounted(script, words(full.store, *command))).clean()
            assert (done.code, "would destroy it" in done.errors) == (2, True), (command, done.errors)
    assert snapshot(layout) == before


NO_FILE = ["", ".", "..", "new/", "there/", "there/.", "there/..", "./", "/"]


@pytest.mark.parametrize("target", NO_FILE)
@pytest.mark.parametrize(
    "command",
    [
        "save {} app:1",
        "save {} --format docker app:1",
        "inventory {}",
        "inventory {} --of more.tar",
        "verify {} more.tar",
    ],
)
def test_h276_a_target_that_is_no_file_name_is_a_usage_error(
    command: str, target: str, full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    option = "--report" if command.startswith("verify") else "-o"
    for given in ([option, target], [f"--report={target}" if option == "--report" else f"--output={target}"]):
        line = [word for part in command.split() for word in (given if part == "{}" else [part])]
        done = full(*line)
        assert (done.code, "E_USAGE" in done.errors) == (2, True), (line, done.errors)
        assert "hint: give a file name" in done.errors or "hint: write to another" in done.errors
    assert {name: raw for name, raw in snapshot(tmp_path).items() if "/store/" not in name} == {
        name: raw for name, raw in before.items() if "/store/" not in name
    }


@pytest.mark.parametrize("target", ["", ".", "..", "there/..", "/", "full", "full/"])
def test_h276_a_target_that_can_be_no_new_folder_is_a_usage_error(
    target: str, full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("there", "full/inner"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    done = full("save", "--format", "oci-dir", "-o", target, "app:1")
    assert (done.code, "E_USAGE" in done.errors) == (2, True), done.errors
    assert "hint: give" in done.errors
    assert sorted(os.listdir(tmp_path)) == ["full", "home", "more.tar", "there"]


@pytest.mark.parametrize("target", ["new/", "there/", "new///", "there/../new"])
def test_h276_a_slash_behind_the_name_of_a_new_folder_is_fine(
    target: str, full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    full("save", "--format", "oci-dir", "-o", target, "app:1").ok()
    full("verify", target).ok()


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "日" * 85])
@pytest.mark.parametrize("form", ["hybrid", "oci-dir"])
def test_h248_the_longest_name_that_a_file_may_have_is_a_target(
    name: str, form: str, full: Imgtar, tmp_path: Path
) -> None:
    full("save", "--format", form, "-o", tmp_path / name, "app:1").ok()
    full("verify", tmp_path / name).ok()
    assert sorted(os.listdir(tmp_path)) == sorted([name, "home", "more.tar"])


@pytest.mark.parametrize("target", ["/dev/null", "/dev/full"])
def test_h248_a_device_is_written_to_and_stays_a_device(target: str, full: Imgtar) -> None:
    done = full("save", "-o", target, "app:1")
    assert done.code == (0 if target == "/dev/null" else 6), done.errors
    assert stat.S_ISCHR(os.stat(target).st_mode)


# -- H250: what is durable before success ----------------------------------------------------------------------------


def test_h250_the_archive_and_its_folder_are_synced_before_success(
    full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted(fd: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def moved(source: str, target: str, **options: Any) -> None:
        calls.append(("move", str(target)))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", moved)
    full("save", "-o", tmp_path / "out.tar", "app:1").ok()
    (first, second, third) = calls
    assert first[0] == "sync"
    assert first[1].endswith(".part")
    assert (second, third) == (("move", str(tmp_path / "out.tar")), ("sync", str(tmp_path)))


# -- H251: the environment -------------------------------------------------------------------------------------------


def test_h251_no_program_is_run_and_the_environment_changes_nothing(full: Imgtar, tmp_path: Path) -> None:
    traps = tmp_path / "traps"
    traps.mkdir()
    for name in ("zstd", "unpigz", "pigz", "gzip", "xz", "bzip2", "tar", "lz4", "sh", "which", "docker", "skopeo"):
        (traps / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/trapped\nexec cat\n")
        (traps / name).chmod(0o755)
    (traps / "start.py").write_text(f"open({str(tmp_path / 'trapped')!r}, 'w').close()")
    whole = oci_archive([make_image("z:1", 1, seed=5, compression="gzip")])
    (tmp_path / "a.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(whole))
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(oci_archive([make_image("x:1", 1, seed=6)])))
    hostile = {
        "PATH": str(traps),
        "TMPDIR": "/nonexistent",
        "TMP": "/nonexistent",
        "LANG": "C",
        "LC_ALL": "C",
        "PYTHONSTARTUP": str(traps / "start.py"),
        "LD_BIND_NOW": "1",
        "ZSTD_CLEVEL": "99",
        "GZIP": "--broken",
        "TAR_OPTIONS": "--checkpoint=1",
    }
    inputs = ["-i", tmp_path / "a.tar.zst", "-i", tmp_path / "a.tar.xz"]
    done = program(words(full.store, "load", *inputs), env=hostile, cwd=traps).ok()
    assert sorted(done.out.split()[2::3]) == [b"x:1", b"z:1"]
    save = words(full.store, "save", "--layers", "zstd", "--compress", "gzip", "-o", tmp_path / "a.tar", "app:1")
    program(save, env=hostile, cwd=traps).ok()
    full("save", "--layers", "zstd", "--compress", "gzip", "-o", tmp_path / "b.tar", "app:1").ok()
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert not (tmp_path / "trapped").exists()


def test_h214_a_scratch_folder_that_cannot_be_looked_at_ends_in_no_traceback(
    full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgtar.store.store import Store

    real = os.lstat

    def refusing(path: object, **options: object) -> os.stat_result:
        if ".imgtar-" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **options)  # type: ignore[arg-type]

    def read_only(_self: Store) -> object:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Store, "scratch", read_only)
    monkeypatch.setattr(os, "lstat", refusing)
    full("save", "--layers", "gzip", "-o", tmp_path / "out.tar", "app:1").ok()
