"""Where a store lies and who may do what there: read-only, forbidden, odd file systems, odd paths, odd clocks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.builders.images import docker_archive, make_image, oci_archive
from tests.conftest import Imgtar, snapshot, stored
from tests.program import mounted, need_root, program, words

APP = make_image("app:1", 2, seed=1)
MORE = make_image("more:1", 1, seed=2)


@pytest.fixture
def full(imgtar: Imgtar, tmp_path: Path) -> Imgtar:
    imgtar.load(oci_archive([APP])).ok()
    (tmp_path / "more.tar").write_bytes(oci_archive([MORE]))
    return imgtar


def without_privilege(command: list[str]) -> list[str]:
    """The command as an owner who may not ignore modes."""
    need_root("giving up privileges")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]


# -- not to be written -----------------------------------------------------------------------------------------------


def test_h220_a_load_into_a_read_only_store_is_refused_before_the_archive_is_looked_at(
    full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access

    def access(path: Any, mode: int, **options: Any) -> bool:
        return not (mode & os.W_OK and str(path).startswith(str(full.store))) and real(path, mode, **options)

    monkeypatch.setattr(os, "access", access)
    os.mkfifo(tmp_path / "silent")  # Nobody writes to it: whoever opens it waits for ever.
    done = full("load", "-i", tmp_path / "silent")
    assert (done.code, "E_PERMISSION" in done.errors) == (6, True), done.errors
    assert "the store is read-only" in done.errors
    assert "hint:" in done.errors
    full("load", "--dry-run", "-i", tmp_path / "more.tar").ok()


@pytest.mark.interop
@pytest.mark.parametrize("how", ["mount", "mode"])
def test_h220_a_read_only_store_is_read_and_never_written(how: str, full: Imgtar, tmp_path: Path) -> None:
    before = snapshot(full.store)
    folders = [full.store, *(path for path in full.store.rglob("*") if path.is_dir())]

    def run(*arguments: object) -> Any:
        command = words(full.store, *arguments)
        if how == "mode":
            return program(without_privilege(command)).clean()
        here = f"'{full.store}'"
        return program(mounted(f"mount --bind {here} {here}; mount -o remount,bind,ro {here}", command)).clean()

    if how == "mode":
        for folder in folders:
            folder.chmod(0o555)
    try:
        run("images").ok()
        run("inspect", "app:1").ok()
        run("verify").ok()
        run("save", "-o", tmp_path / "out.tar", "app:1").ok()
        run("load", "--dry-run", "-i", tmp_path / "more.tar").ok()
        os.mkfifo(tmp_path / "silent")
        done = run("load", "-i", tmp_path / "silent")
        assert (done.code, "the store is read-only" in done.errors) == (6, True), done.errors
        # With modes alone the lock can be taken, and a prune that finds nothing to delete has succeeded.
        for change in (["tag", "app:1", "app:2"], ["rmi", "app:1"], *([["prune"]] if how == "mount" else [])):
            done = run(*change)
            assert (done.code, "E_PERMISSION" in done.errors) == (6, True), done.errors
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert snapshot(full.store) == before


@pytest.mark.interop
@pytest.mark.parametrize("folder", ["blobs", "blobs/sha256", "imgtar", "imgtar/staging", "."])
def test_h221_a_folder_that_may_not_be_entered_is_named_and_nothing_is_committed(
    folder: str, full: Imgtar, tmp_path: Path
) -> None:
    before = stored(full.store)
    closed = full.store / folder
    for mode in (0o000, 0o555):
        closed.chmod(mode)
        try:
            done = program(without_privilege(words(full.store, "load", "-i", tmp_path / "more.tar"))).clean()
            listed = program(without_privilege(words(full.store, "images"))).clean()
        finally:
            closed.chmod(0o755)
        if mode == 0 or folder in ("blobs/sha256", "imgtar/staging"):
            assert (done.code, "E_PERMISSION" in done.errors) == (6, True), done.errors
            assert os.path.normpath(closed) in done.errors
            assert stored(full.store) == before
        assert listed.code in (0, 6)
    full("verify").ok()


# -- file systems ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("command", [["images"], ["tag", "app:1", "app:2"]], ids=" ".join)
def test_h239_a_file_system_without_locks_is_said(
    number: int, command: list[str], full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = stored(full.store)
    monkeypatch.setattr(fcntl, "flock", refuse)
    done = full(*command)
    assert (done.code, "E_STORE" in done.errors) == (7, True), done.errors
    assert "cannot lock" in done.errors
    assert "hint: choose a store on a local disk" in done.errors
    loaded = full.load(oci_archive([MORE]))
    assert (loaded.code, "cannot lock" in loaded.errors) == (7, True), loaded.errors
    assert stored(full.store) == before


def test_h239_every_lock_is_one_that_nfs_passes_on_to_other_hosts(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    # flock(2): NFS makes byte-range locks of them: on files only, and an exclusive one on a file open for writing.
    real = fcntl.flock
    taken: list[int] = []

    def as_nfs(fd: int, operation: int) -> None:
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if not stat.S_ISREG(os.fstat(fd).st_mode) or (operation & fcntl.LOCK_EX and not writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        taken.append(fd)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    os.mkdir(full.store / "imgtar" / "staging" / "00000000000dead0")
    full.load(oci_archive([MORE])).ok()
    full("save", "--layers", "gzip", "-o", full.home / "out.tar", "app:1").ok()
    full("rmi", "app:1").ok()
    full("prune").ok()
    assert len(taken) > 8
    assert os.listdir(full.store / "imgtar" / "staging") == []


def test_h240_nothing_is_asked_of_a_file_system_that_fat_does_not_have(
    imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def no_directories(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fsync", no_directories)
    for name in ("link", "symlink", "chmod", "chown", "fchmod", "fchown", "mkfifo", "setxattr"):
        monkeypatch.setattr(os, name, refuse)
    imgtar.load(oci_archive([APP])).ok()
    imgtar.load(docker_archive([MORE])).ok()
    imgtar("tag", "app:1", "registry.example:5000/team/app:2").ok()
    imgtar("save", "-o", tmp_path / "out.tar", "app:1").ok()
    imgtar("save", "--format", "oci-dir", "-o", tmp_path / "out", "app:1").ok()
    imgtar("verify").ok()
    for top in (imgtar.store, tmp_path / "out"):
        names = [str(path.relative_to(top)) for path in top.rglob("*")]
        assert len({name.lower() for name in names}) == len(names)
        for name in names:
            assert not set(name) & set('\\:*?"<>|'), name
            assert not any(part.endswith((".", " ")) for part in name.split("/")), name
            assert not any(path.is_symlink() for path in top.rglob("*"))


def test_h240_another_trouble_in_syncing_a_directory_is_an_error(
    full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def broken(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", broken)
    assert full.load(oci_archive([MORE])).code == 6
    assert full("save", "-o", tmp_path / "out.tar", "app:1").code == 6


def _fat(kind: str, image: Path, place: Path) -> list[str]:
    """Mount a new FAT file system at ``place``; return the command that unmounts it."""
    need_root("a mount")
    with open(image, "wb") as file:
        file.truncate(24 << 20)

    def works(*command: object) -> bool:
        tool = shutil.which(str(command[0]), path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if tool is None:
            return False
        return subprocess.run([tool, *map(str, command[1:])], capture_output=True, timeout=60).returncode == 0

    if not works(f"mkfs.{kind}", image):
        _unavailable(f"mkfs.{kind} is not installed")
    if works("mount", "-t", kind, "-o", "loop", image, place):
        return ["umount", str(place)]
    if kind == "vfat" and works("fusefat", "-o", "rw+", image, place):
        return ["fusermount", "-u", str(place)]
    return _unavailable(f"neither the kernel nor fusefat mounts {kind} here")


def _unavailable(reason: str) -> NoReturn:
    pytest.skip(reason)  # No engine or tool is what is tested here: a kernel without FAT and FUSE cannot be helped.


def test_h240_a_store_and_an_archive_on_a_fat_stick(imgtar: Imgtar, tmp_path: Path) -> None:
    place = tmp_path / "stick"
    place.mkdir()
    unmount = _fat("vfat", tmp_path / "image", place)
    try:
        store = place / "store"
        imgtar.load(oci_archive([APP]), store=store).ok()
        imgtar.load(docker_archive([MORE]), store=store).ok()
        imgtar("tag", "app:1", "app:2", store=store).ok()
        imgtar("rmi", "app:1", store=store).ok()
        imgtar("prune", store=store).ok()
        imgtar("verify", store=store).ok()
        imgtar("save", "-o", place / "out.tar", "app:2", store=store).ok()
        imgtar("save", "-o", place / "out.tar", "app:2", "more:1", store=store).ok()
        imgtar("verify", place / "out.tar").ok()
        imgtar("load", "-i", place / "out.tar").ok()
        assert set(imgtar.names()) == {"app:2", "more:1"}
        assert sorted(os.listdir(place)) == ["out.tar", "store"]
    finally:
        subprocess.run(unmount, check=True, timeout=60)


@pytest.mark.interop
def test_h241_a_store_of_two_file_systems_is_refused_before_anything_is_read(full: Imgtar, tmp_path: Path) -> None:
    before = stored(full.store)
    for part in ("imgtar/staging", "blobs/sha256"):
        command = words(full.store, "load", "-i", tmp_path / "more.tar")
        done = program(mounted(f"mount -t tmpfs -o size=1m tmpfs '{full.store / part}'", command)).clean()
        assert (done.code, "E_STORE" in done.errors) == (7, True), done.errors
        assert part in done.errors
        assert "one file system" in done.errors
        assert stored(full.store) == before


def test_h241_what_cannot_be_moved_into_place_is_said_and_nothing_is_committed(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two mounts of one file system have one device number; only the rename tells.
    real = os.replace

    def replace(source: Any, target: Any, **options: Any) -> None:
        if "staging" in str(source):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        real(source, target, **options)

    before = stored(full.store)
    monkeypatch.setattr(os, "replace", replace)
    done = full.load(oci_archive([MORE]))
    assert (done.code, "one file system" in done.errors) == (6, True), done.errors
    assert stored(full.store) == before


# -- paths -----------------------------------------------------------------------------------------------------------

NAMES = {
    "spaces": "  a store  ",
    "newline": "a\nstore",
    "unicode": "ein Lager für Öl 日本",
    "no text": os.fsdecode(b"a\xff\xfestore"),
    "shell": "$(touch x);'\"`|&*?",
    "dash": "-rf",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_h242_a_store_may_be_called_anything(name: str, imgtar: Imgtar, tmp_path: Path) -> None:
    store = tmp_path / name
    imgtar.load(oci_archive([APP]), store=store).ok()
    assert set(imgtar.names(store=store)) == {"app:1"}
    done = imgtar("verify", store=store).ok()
    imgtar("save", "-o", store.parent / f"{name}.tar", "app:1", store=store).ok()
    assert imgtar("save", "gone:1", store=store).code == 3
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"{name}.tar", "home"])
    assert all(line.isprintable() for line in done.text.splitlines())


def test_h242_a_link_to_a_store_is_the_store(full: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(full.store)
    full.load(oci_archive([MORE]), store=tmp_path / "link").ok()
    assert set(full.names()) == {"app:1", "more:1"}
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    done = full.load(oci_archive([MORE]), store=tmp_path / "nowhere")
    assert done.code in (6, 7)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("length", [3900, 4000, 4090, 5000])
def test_h242_a_path_of_thousands_of_bytes_works_or_is_said_to_be_too_long(
    length: int, imgtar: Imgtar, tmp_path: Path
) -> None:
    text = str(tmp_path)
    while len(text) < length:
        text += "/" + "d" * min(200, max(1, length - len(text) - 1))
    done = imgtar.load(oci_archive([APP]), store=Path(text))
    if length <= 3900:
        done.ok()
        imgtar("verify", store=Path(text)).ok()
    else:
        assert done.code in (0, 6), done.errors
        assert done.code == 0 or "hint: choose a shorter" in done.errors


def test_h242_the_root_folder_is_no_store(imgtar: Imgtar) -> None:
    before = sorted(os.listdir("/"))
    done = imgtar.load(oci_archive([APP]), store=Path("/"))
    assert (done.code, "neither empty nor a store" in done.errors) == (7, True), done.errors
    assert sorted(os.listdir("/")) == before


def test_h243_a_working_folder_that_was_deleted_does_not_matter(
    full: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    full("load", "-i", tmp_path / "more.tar").ok()
    full("save", "-o", tmp_path / "out.tar", "more:1").ok()
    full("verify", tmp_path / "out.tar").ok()
    for words_ in (["save", "-o", "out.tar", "app:1"], ["verify", "out.tar"], ["load", "-i", "out.tar"]):
        done = full(*words_)
        assert done.code in (3, 6), done.errors
        assert "Traceback" not in done.errors
    assert full("images", store=Path("relative")).code in (0, 3, 6)


def test_h243_what_lies_in_the_working_folder_is_not_taken_for_the_stores_or_for_a_module(
    full: Imgtar, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    (trap / "blobs" / "sha256").mkdir(parents=True)
    for name in ("typer.py", "zstandard.py", "pydantic.py", "imgtar.py"):
        (trap / name).write_text("raise SystemExit('trapped')")
    for digest in APP.document.blobs():
        (trap / "blobs" / digest.replace(":", "/")).write_bytes(b"trap")
    (trap / "index.json").write_text("{}")
    (trap / "oci-layout").write_text("{}")
    before = snapshot(trap)
    assert b"app:1" in program(words(full.store, "verify"), cwd=trap).ok().out
    assert snapshot(trap) == before


# -- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [-(1 << 31), 4102444800])
def test_h244_no_decision_hangs_on_the_time_of_files(now: int, full: Imgtar) -> None:
    staging = full.store / "imgtar" / "staging"
    dead, alive = "00000000000dead0", "0000000000a11fe0"
    (staging / dead).mkdir()
    (staging / alive).mkdir()
    with open(staging / alive / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in (full.store, *full.store.rglob("*")):
            os.utime(path, (now, now))
        full.load(oci_archive([APP])).ok()
        full.load(oci_archive([MORE])).ok()
        assert os.listdir(staging) == [alive], "the lock decides who is alive, not the age"
    full("verify").ok()
    full("prune").ok()
    assert os.listdir(staging) == []


def test_h244_a_clock_that_runs_backwards_or_is_wrong_changes_nothing(
    imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [4102444800.0]

    def backwards() -> float:
        now[0] -= 86400.0
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    imgtar.load(oci_archive([APP])).ok()
    now[0] = 0.0
    imgtar.load(oci_archive([MORE])).ok()
    imgtar("images").ok()
    imgtar("verify").ok()
    assert set(imgtar.names()) == {"app:1", "more:1"}
