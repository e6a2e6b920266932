"""H275: another thing than imgtar's own in the place of each folder and file of a store, for every command."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.builders.images import make_image, oci_archive
from tests.conftest import Imgtar, snapshot
from tests.hostile.conftest import LONG

APP = make_image("app:1", 2, seed=1, compression="gzip")
MORE = make_image("more:1", 1, seed=2, compression="gzip")
GONE = make_image("gone:1", 1, seed=3)
DEAD = "0123456789abcdef"
LAYER = APP.layers[0].digest.partition(":")[2]
NOTE = APP.layers[0].diff_id.partition(":")[2]

FOLDERS = [
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "imgtar",
    "imgtar/damaged",
    "imgtar/damaged/blobs",
    "imgtar/damaged/blobs/sha256",
    "imgtar/damaged/imgtar",
    "imgtar/held",
    "imgtar/held/sha256",
    "imgtar/held/sha512",
    "imgtar/layers",
    "imgtar/layers/sha256",
    "imgtar/staging",
    f"imgtar/staging/{DEAD}",
]
FILES = [
    "index.json",
    "oci-layout",
    "imgtar/version",
    "imgtar/index.kept",
    "imgtar/index.lock",
    "imgtar/blobs.lock",
    "imgtar/gate.lock",
    "imgtar/images",
    "imgtar/roots",
    "imgtar/index.json.new",
    "imgtar/index.kept.new",
    "imgtar/oci-layout.new",
    "imgtar/version.new",
    f"imgtar/staging/{DEAD}/lock",
    f"imgtar/held/sha256/{LAYER}",
    f"imgtar/layers/sha256/{NOTE}",
    f"blobs/sha256/{LAYER}",
    f"imgtar/damaged/blobs/sha256/{LAYER}",
]
COMMANDS = [
    "images -a",
    "inspect app:1",
    "deps",
    "verify",
    "save -o ../out.tar --layers zstd app:1",
    "inventory -o ../out.inventory",
    "load --dry-run -i ../more.tar",
    "load -i ../more.tar",
    "load -i ../app.tar",
    "tag app:1 other:1",
    "rmi other:1",
    "prune --dry-run",
    "prune --untagged",
    "repair --dry-run",
    "repair -i ../app.tar -i ../more.tar -i ../gone.tar",
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything that one can hold."""
    home = tmp_path_factory.mktemp("own")
    imgtar = Imgtar(home)
    imgtar.load(oci_archive([APP])).ok()
    imgtar("tag", "app:1", "app:2").ok()
    imgtar.load(oci_archive([GONE])).ok()
    store = imgtar.store
    layer = store / "blobs" / "sha256" / LAYER
    layer.write_bytes(layer.read_bytes()[:-1])
    (store / "imgtar" / "version").write_bytes(b"?")
    home.joinpath("app.tar").write_bytes(oci_archive([APP]))
    imgtar("repair", "-i", home / "app.tar").ok()
    imgtar("rmi", "app:2").ok()
    (store / "blobs" / "sha512").mkdir()
    (store / "imgtar" / "held" / "sha512").mkdir()
    for place in ("staging", "staging/" + DEAD):
        (store / "imgtar" / place).mkdir(exist_ok=True)
    (store / "imgtar" / "staging" / DEAD / "lock").touch()
    (store / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"nobody's")
    return store


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is nobody's business, with names that are like those of a store."""
    top = tmp_path / "outside"
    for name in ("blobs/sha256", "sha256", "staging/fedcba9876543210", "fedcba9876543210", "held/sha256", "imgtar"):
        (top / "folder" / name).mkdir(parents=True)
    for name in ("0" * 64, LAYER, f"sha256/{'0' * 64}", f"sha256/{LAYER}", f"blobs/sha256/{LAYER}", "imgtar/version"):
        (top / "folder" / name).write_bytes(b"canary")
    for name in ("fedcba9876543210", "staging/fedcba9876543210", "imgtar"):
        (top / "folder" / name / "lock").write_bytes(b"canary")
    (top / "folder" / f"{GONE.layers[0].digest.partition(':')[2]}").write_bytes(GONE.layers[0].blob)
    (top / "file").write_bytes(b"canary")
    return top


def _link_to_a_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "folder")


def _link_to_a_file(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def _link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing")


def _fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, _: Path) -> None:
    path.mkdir()
    (path / "somebody's").write_bytes(b"canary")


def _file(path: Path, _: Path) -> None:
    path.write_bytes(b"odd")


LINKS = [_link_to_a_folder, _link_to_a_file, _link_to_nothing]


@contextmanager
def _watched(what: str) -> Iterator[None]:
    def hangs(*_: object) -> NoReturn:
        raise AssertionError(f"hangs: {what}")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _spoil(path: Path, make: Callable[[Path, Path], None], outside: Path) -> None:
    """Put what ``make`` makes in the place of ``path``, unless it is there (still)."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    if path.parent.is_dir():
        make(path, outside)


def test_h275_the_list_names_everything_that_a_store_holds(pristine: Path) -> None:
    there = {str(path.relative_to(pristine)) for path in pristine.rglob("*")}
    known = {*FOLDERS, *FILES}
    for name in sorted(there - known):
        parent, _, last = name.rpartition("/")
        like = {other.rpartition("/")[0] for other in FILES if len(other.rpartition("/")[2]) == len(last)}
        assert parent in like or parent == "imgtar/damaged/imgtar", f"{name} is not tried"


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_h275_what_stands_in_the_place_of_the_stores_own_is_not_followed_and_nobody_waits_for_it(
    name: str, pristine: Path, outside: Path, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    for archive, image in (("app", APP), ("more", MORE), ("gone", GONE)):
        (imgtar.home / f"{archive}.tar").write_bytes(oci_archive([image]))
    before = snapshot(outside)
    times = {path: path.lstat().st_mtime_ns for path in (outside, *outside.rglob("*"))}
    kinds = [*LINKS, _fifo, _file if name in FOLDERS else _folder]
    if not LONG:
        kinds = [kinds[0], kinds[1 + [*FOLDERS, *FILES].index(name) % 4]]
    for make in kinds:
        shutil.rmtree(imgtar.store, ignore_errors=True)
        shutil.copytree(pristine, imgtar.store)
        monkeypatch.chdir(imgtar.store)
        path = imgtar.store / name
        for command in COMMANDS:
            _spoil(path, make, outside)
            what = f"{name} {make.__name__} {command}"
            with _watched(what):
                done = imgtar(*command.split())
            may = (0, 3, 7) if command == "rmi other:1" else (0, 7)  # It has no such name when the tag was refused.
            assert done.code in may, f"{what}: {done.code} {done.errors}"
            assert done.code != 7 or "E_STORE" in done.errors, f"{what}: {done.errors}"
            assert not done.code or "hint: " in done.errors or command.startswith(("verify", "repair")), what
            assert snapshot(outside) == before, f"{what} changed what is outside"
            assert {path: path.lstat().st_mtime_ns for path in times} == times, f"{what} touched what is outside"
        shut = name in ("blobs", "blobs/sha256", "blobs/sha512") and make is _link_to_a_folder
        left = imgtar("verify")
        assert left.code == (7 if shut else 0), f"{name} {make.__name__}: after a repair {left.errors}"
        if shut:
            assert path.is_symlink(), "a link to where somebody may have put the blobs stays"


def test_h275_a_sweep_touches_only_folders_with_names_that_we_give(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([APP])).ok()
    staging = imgtar.store / "imgtar" / "staging"
    kept = ["mine", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", ".0123456789abcdef"]
    for name in (*kept, DEAD):
        (staging / name / "inner").mkdir(parents=True)
    (staging / DEAD / "link").symlink_to(staging / "mine")
    imgtar("prune").ok()
    imgtar.load(oci_archive([MORE])).ok()
    assert sorted(os.listdir(staging)) == sorted(kept)
    assert all((staging / name / "inner").is_dir() for name in kept)
    assert stat.S_ISDIR(os.lstat(staging / "mine").st_mode)


def test_h275_blobs_moved_to_another_place_with_a_link_are_refused_and_not_set_aside(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    imgtar.load(oci_archive([APP])).ok()
    (imgtar.store / "blobs").rename(tmp_path / "elsewhere")
    (imgtar.store / "blobs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "sha512").write_bytes(b"somebody's file")
    before = snapshot(tmp_path / "elsewhere")
    for command in ("images", "verify", "save app:1", "prune", "repair", "rmi app:1", "repair --dry-run"):
        done = imgtar(*command.split())
        assert (done.code, "E_STORE" in done.errors) == (7, True), (command, done.errors)
        assert "hint: put the folder itself there" in done.errors
    assert snapshot(tmp_path / "elsewhere") == before
    (imgtar.store / "blobs").unlink()
    (tmp_path / "elsewhere" / "sha512").unlink()
    (tmp_path / "elsewhere").rename(imgtar.store / "blobs")
    imgtar("verify").ok()


def test_h275_what_a_link_called_lost_and_found_leads_to_is_not_brought_home(imgtar: Imgtar, outside: Path) -> None:
    imgtar.load(oci_archive([GONE])).ok()
    layer = imgtar.store / "blobs" / "sha256" / GONE.layers[0].digest.partition(":")[2]
    layer.unlink()
    before = snapshot(outside)
    for place in ("lost+found", "imgtar/damaged/blobs"):
        (imgtar.store / place).parent.mkdir(exist_ok=True)
        (imgtar.store / place).symlink_to(outside / "folder")
    assert (imgtar("repair", "--dry-run").code, imgtar("repair").code) == (0, 7)
    assert not layer.exists()
    assert snapshot(outside) == before


def test_h275_an_empty_place_with_links_for_folders_becomes_no_store(imgtar: Imgtar, outside: Path) -> None:
    before = snapshot(outside)
    imgtar.store.mkdir()
    for name in ("blobs", "imgtar"):
        (imgtar.store / name).symlink_to(outside / "folder")
        done = imgtar.load(oci_archive([APP]))
        assert (done.code, "neither empty nor a store" in done.errors) == (7, True), done.errors
        (imgtar.store / name).unlink()
    assert snapshot(outside) == before
