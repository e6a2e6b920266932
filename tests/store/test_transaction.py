"""Loads beside each other, loads that die, blobs that rot, disks that refuse: names and images are never lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imgtar.model.digest import Digest
from imgtar.store.held import HeldCache
from imgtar.store.store import Store
from tests.builders.images import (
    Image,
    docker_archive,
    docker_files,
    hexed,
    make_image,
    make_layer,
    oci_archive,
    oci_files,
)
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)


def blob_path(imgtar: Imgtar, digest: str) -> Path:
    return imgtar.store / "blobs" / digest.replace(":", "/")


def spoil(path: Path, *, keep_times: bool = False) -> None:
    """Change one bit of a file, in place."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def start(imgtar: Imgtar, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "imgtar", "--store", str(imgtar.store), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_loads_by_several_processes_at_once_keep_every_tag(imgtar: Imgtar, tmp_path: Path) -> None:
    images = [make_image((f"app:{n}", f"shared{n % 2}:latest"), 2, seed=n, base=BASE) for n in range(2, 8)]
    running = []
    for n, image in enumerate(images):
        path = tmp_path / f"{n}.tar"
        path.write_bytes(docker_archive([image]))
        running.append(start(imgtar, "load", "-i", str(path)))
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    names = imgtar.names()
    assert {name: names[name] for name in names if name.startswith("app:")} == {
        image.names[0]: image.image_id for image in images
    }
    assert names["shared0:latest"] in {image.image_id for image in images[0::2]}
    assert names["shared1:latest"] in {image.image_id for image in images[1::2]}
    assert {row["image_id"] for row in imgtar.images()} == {image.image_id for image in images}
    imgtar("verify").ok()
    assert os.listdir(imgtar.store / "imgtar" / "staging") == []


def test_loads_and_removals_at_once_leave_a_whole_store(imgtar: Imgtar, tmp_path: Path) -> None:
    images = [make_image(f"app:{n}", 1, seed=n, base=BASE) for n in range(2, 6)]
    for n, image in enumerate(images):
        (tmp_path / f"{n}.tar").write_bytes(docker_archive([image]))
    imgtar("load", *(word for n in (0, 1) for word in ("-i", tmp_path / f"{n}.tar"))).ok()
    running = [
        start(imgtar, "load", "-i", str(tmp_path / "2.tar")),
        start(imgtar, "rmi", "app:2"),
        start(imgtar, "load", "-i", str(tmp_path / "3.tar")),
        start(imgtar, "rmi", "app:3"),
        start(imgtar, "prune"),
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert set(imgtar.names()) == {"app:4", "app:5"}
    imgtar("verify").ok()


KILLED = """
import os, shutil, sys  # shutil first: it asks once what the functions of os can do
name, count = sys.argv[1], int(sys.argv[2])
real = getattr(os, name)
calls = 0
def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == count:
        os._exit(77)
    return real(*arguments, **options)
setattr(os, name, dying)
from imgtar.cli.main import run
sys.exit(run(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("call", "count"), [("replace", 1), ("replace", 6), ("fsync", 1), ("fsync", 7), ("rmdir", 1), ("pwrite", 1)]
)
def test_a_load_that_is_killed_leaves_the_old_images_or_the_new_ones_and_no_damage(
    call: str, count: int, imgtar: Imgtar, tmp_path: Path
) -> None:
    imgtar.load(docker_archive([BASE])).ok()
    (tmp_path / "app.tar").write_bytes(docker_archive([APP]))
    command = ["--store", str(imgtar.store), "load", "-i", str(tmp_path / "app.tar")]
    done = subprocess.run([sys.executable, "-c", KILLED, call, str(count), *command], capture_output=True, timeout=60)
    assert done.returncode in (77, 0), done.stderr
    names = imgtar.names()
    assert names in ({"base:1": BASE.image_id}, {"base:1": BASE.image_id, "app:1": APP.image_id})
    imgtar("verify").ok()
    imgtar.load(docker_archive([APP])).ok()
    assert imgtar.names() == {"base:1": BASE.image_id, "app:1": APP.image_id}
    imgtar("verify").ok()
    imgtar("prune").ok()
    assert os.listdir(imgtar.store / "imgtar" / "staging") == [], "the next load sweeps what the dead one left"
    assert not list(imgtar.store.glob("*.tmp")), "nor does it leave files beside index.json for ever"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(("call", "count"), [("fsync", 1), ("fsync", 5), ("write", 2), ("replace", 1)])
def test_a_disk_that_refuses_stops_the_load_and_changes_nothing_that_is_seen(
    call: str, count: int, number: int, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    imgtar.load(docker_archive([BASE])).ok()
    index = (imgtar.store / "index.json").read_bytes()
    real: Any = getattr(os, call)
    calls = 0

    def refusing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing)
        done = imgtar.load(docker_archive([APP]), "-j", "1")
    if calls >= count and done.code != 0:
        assert done.code == 6, done.errors
        assert "Traceback" not in done.errors
        assert (imgtar.store / "index.json").read_bytes() == index
    imgtar("verify").ok()
    assert os.listdir(imgtar.store / "imgtar" / "staging") == []
    imgtar.load(docker_archive([APP])).ok()
    assert set(imgtar.names()) == {"base:1", "app:1"}


@pytest.mark.parametrize("free", [0, 1, 300_000, (1 << 20) - 1])
def test_h279_what_is_staged_or_held_already_needs_no_space(
    free: int, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    imgtar.load(oci_archive([BASE])).ok()
    big = make_image("big:1", [make_layer(bytes(600_000))], seed=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, free))  # type: ignore[attr-defined]
    imgtar("load", "-i", "-", stdin=oci_archive([big])).ok()
    imgtar("load", "-i", "-", stdin=gzip.compress(docker_archive([APP]), 1)).ok()
    for name, again in (
        ("big:1", oci_archive([big])),
        ("app:1", docker_archive([APP])),
        ("base:1", oci_archive([BASE])),
    ):
        imgtar.load(again, "--tag", f"{name}=held:{name[0]}").ok()
    imgtar("verify").ok()
    assert set(imgtar.names()) >= {"base:1", "app:1", "big:1"}
    refused = imgtar.load(oci_archive([make_image("new:1", [make_layer(bytes(1 << 20))], seed=10)]))
    assert (refused.code, "E_SPACE" in refused.errors) == (6, True), refused.errors


def test_h279_the_margin_is_no_more_than_what_a_load_needs(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    archive = oci_archive([make_image("small:1", [make_layer(bytes(100_000))], seed=11)])
    for free, code in ((90_000, 6), (150_000, 6), (300_000, 0)):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(1 << 30, 0, free))  # type: ignore[attr-defined]
            done = imgtar.load(archive)
        assert done.code == code, (free, done.errors)


def test_a_full_disk_is_seen_before_the_first_byte_is_written(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    imgtar.load(docker_archive([BASE])).ok()
    before = stored(imgtar.store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
        done = imgtar.load(docker_archive([APP]))
    assert done.code == 6
    assert "E_SPACE" in done.errors
    assert stored(imgtar.store) == before


# -- blobs that rot --------------------------------------------------------------------------------------------------

victims = pytest.mark.parametrize(
    "victim",
    [APP.layers[0].digest, APP.layers[3].digest, APP.image_id, APP.digest],
    ids=["shared", "own", "config", "manifest"],
)


@victims
@pytest.mark.parametrize("how", ["changed", "gone", "empty", "longer"])
def test_a_damaged_blob_is_found_counts_as_missing_and_is_repaired_by_the_next_load(
    victim: str, how: str, imgtar: Imgtar
) -> None:
    imgtar.load(oci_archive([APP])).ok()
    path = blob_path(imgtar, victim)
    if how == "changed":
        spoil(path)
    elif how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    found = imgtar("verify")
    assert found.code == 7
    assert victim in found.errors
    saved = imgtar("save", "-o", imgtar.home / "out.tar", "app:1")
    assert saved.code == 7, saved.errors
    assert not (imgtar.home / "out.tar").exists()
    files = oci_files([APP])
    without = imgtar.load(files.without(f"blobs/{victim.replace(':', '/')}").tar())
    assert without.code == 4
    done = imgtar.load(files.tar(), "--json").ok().json()
    assert done["blobs_written"] == 1
    imgtar("verify").ok()
    imgtar("save", "-o", imgtar.home / "out.tar", "app:1").ok()


def test_a_damaged_shared_layer_is_not_reused_by_another_image(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([BASE])).ok()
    spoil(blob_path(imgtar, BASE.layers[0].digest))
    done = imgtar.load(oci_archive([APP]), "--json").ok().json()
    assert done["blobs_reused"] == 1
    imgtar("verify").ok()
    assert set(imgtar.names()) == {"base:1", "app:1"}


def test_a_thin_docker_archive_is_not_completed_with_a_rotten_layer(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE])).ok()
    files = docker_files([APP]).without(f"{hexed(BASE.layers[0].digest)}.tar")
    spoil(blob_path(imgtar, BASE.layers[0].digest))
    assert imgtar.load(files.tar()).code == 4
    imgtar.load(docker_archive([BASE])).ok()
    imgtar.load(files.tar()).ok()
    imgtar("verify").ok()


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_something_else_in_the_place_of_a_blob_is_damage_and_does_not_hang(kind: str, imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([APP])).ok()
    path = blob_path(imgtar, APP.layers[0].digest)
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        (imgtar.home / "elsewhere").write_bytes(APP.layers[0].blob)
        path.symlink_to(imgtar.home / "elsewhere")
    assert imgtar("verify").code == 7
    assert imgtar("save", "app:1").code == 7
    imgtar("images").ok()
    again = imgtar.load(oci_archive([APP]))
    assert again.code == (7 if kind == "directory" else 0), again.errors
    if kind != "directory":
        imgtar("verify").ok()
        assert not path.is_symlink()


# -- what was verified -----------------------------------------------------------------------------------------------


def inventory(imgtar: Imgtar) -> Any:
    return Store(str(imgtar.store)).inventory()


def test_a_blob_that_changed_is_verified_again_even_when_size_and_times_were_put_back(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([APP])).ok()
    digest = Digest.parse(APP.layers[0].digest)
    assert inventory(imgtar).holding(digest).sound
    spoil(blob_path(imgtar, str(digest)), keep_times=True)
    assert not inventory(imgtar).holding(digest).sound


def test_a_verified_blob_is_not_read_again(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    imgtar.load(oci_archive([APP])).ok()
    import imgtar.store.inventory as module

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(module, "measure", never)
    assert inventory(imgtar).holding(Digest.parse(APP.layers[0].digest)).sound
    assert imgtar.load(oci_archive([APP]), "--json").ok().json()["blobs_written"] == 0


@pytest.mark.parametrize(
    "content", [b"", b"1 2 3 4", b"\xff\xff", b"1 2 3 4\n\n", b"1 2 3 4\nsha256:zz\n00000000", b"x" * 99]
)
def test_a_torn_note_is_no_knowledge(content: bytes, imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([APP])).ok()
    for note in (imgtar.store / "imgtar").glob("held/**/*"):
        if note.is_file():
            note.write_bytes(content)
    for note in (imgtar.store / "imgtar").glob("layers/**/*"):
        if note.is_file():
            note.write_bytes(content)
    assert inventory(imgtar).holding(Digest.parse(APP.layers[0].digest)).sound
    spoil(blob_path(imgtar, APP.layers[1].digest))
    assert not inventory(imgtar).holding(Digest.parse(APP.layers[1].digest)).sound
    imgtar.load(oci_archive([APP])).ok()
    imgtar("verify").ok()


def test_the_cache_may_be_deleted_or_impossible_to_write(imgtar: Imgtar) -> None:
    import shutil

    imgtar.load(oci_archive([APP])).ok()
    for name in ("held", "layers"):
        shutil.rmtree(imgtar.store / "imgtar" / name, ignore_errors=True)
        (imgtar.store / "imgtar" / name).write_text("in the way")
    imgtar("verify").ok()
    imgtar.load(oci_archive([make_image("more:1", seed=5, compression="gzip")])).ok()
    imgtar("rmi", "app:1").ok()
    imgtar("verify").ok()


def test_a_lie_in_the_layer_cache_is_found_out(imgtar: Imgtar) -> None:
    """The cache says which compressed blob has which diff ID; a wrong word there must not put a wrong layer in place."""
    zipped = make_image("zipped:1", 2, seed=7, compression="gzip")
    imgtar.load(oci_archive([zipped])).ok()
    cache = HeldCache(str(imgtar.store / "imgtar"))
    wrong, right = (Digest.parse(layer.digest) for layer in zipped.layers)
    diff_id = Digest.parse(zipped.layers[1].diff_id)
    path = Path(HeldCache._path(str(imgtar.store / "imgtar" / "layers"), diff_id))
    path.write_text(f"{wrong}\nend")
    assert cache.layers_of(diff_id) == [wrong]
    found = inventory(imgtar).layer_for(diff_id)
    assert found is not None
    assert found.digest == right


# -- a store that cannot be written ----------------------------------------------------------------------------------


@pytest.fixture
def read_only(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> Imgtar:
    """A store on a medium that refuses every write, as far as this process can tell."""
    imgtar.load(oci_archive([APP])).ok()
    inside = str(imgtar.store)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def guard(name: str) -> None:
        real: Any = getattr(os, name)

        def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
            places = [str(path), *(str(each) for each in arguments[:1] if isinstance(each, str))]
            reads = name == "open" and not (arguments and arguments[0] & writing)
            if not reads and any(place.startswith(inside) for place in places):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, refuse)

    for name in ("open", "mkdir", "unlink", "rename", "replace", "rmdir"):
        guard(name)
    return imgtar


@pytest.mark.parametrize(
    "command",
    [
        ["images"],
        ["verify"],
        ["inspect", "app:1"],
        ["history", "app:1"],
        ["save", "app:1"],
        ["save", "--layers", "gzip", "--dry-run", "app:1"],
        ["prune", "--dry-run"],
    ],
    ids=" ".join,
)
def test_a_store_that_cannot_be_written_can_be_read(command: list[str], read_only: Imgtar) -> None:
    read_only(*command).ok()


@pytest.mark.parametrize("command", [["tag", "app:1", "app:2"], ["rmi", "app:1"], ["prune"]])
def test_changing_a_store_that_cannot_be_written_is_local_trouble(command: list[str], read_only: Imgtar) -> None:
    done = read_only(*command)
    assert done.code == 6, done.errors
    assert "E_PERMISSION" in done.errors
    assert "Traceback" not in done.errors


def test_a_load_of_what_a_read_only_store_holds_already_is_at_most_local_trouble(read_only: Imgtar) -> None:
    done = read_only.load(oci_archive([APP]))
    assert done.code in (0, 6)
    assert "Traceback" not in done.errors


# -- names -----------------------------------------------------------------------------------------------------------


def test_an_image_whose_last_name_moves_away_stays_untagged(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([APP])).ok()
    newer = make_image("app:1", seed=9)
    done = imgtar.load(docker_archive([newer])).ok()
    assert APP.image_id in done.errors
    assert newer.image_id in done.errors
    rows = {row["image_id"]: row["name"] for row in imgtar.images()}
    assert rows == {newer.image_id: "app:1", APP.image_id: None}
    imgtar("verify").ok()


def test_a_parent_that_docker_declared_is_remembered(imgtar: Imgtar) -> None:
    def declare(items: Any) -> None:
        items[1]["Parent"] = BASE.image_id

    imgtar.load(docker_files([BASE, APP]).edited("manifest.json", declare).tar()).ok()
    (image,) = imgtar("inspect", "app:1", "--json").ok().json()["images"]
    assert image["parent"]["image_id"] == BASE.image_id
    imgtar("tag", "app:1", "app:2").ok()
    (image,) = imgtar("inspect", "app:2", "--json").ok().json()["images"]
    assert image["parent"]["image_id"] == BASE.image_id, "another name, the same image: the same parent"


def test_the_index_is_the_same_whatever_order_images_came_in(imgtar: Imgtar, tmp_path: Path) -> None:
    images: list[Image] = [APP, BASE, make_image(("x:1", "a:1"), seed=5)]
    indexes = []
    for order in (images, images[::-1]):
        store = tmp_path / str(len(indexes))
        for image in order:
            imgtar.load(oci_archive([image]), store=store).ok()
        indexes.append(json.loads((store / "index.json").read_bytes()))
    assert indexes[0] == indexes[1]


def test_h214_a_disk_that_cannot_tell_what_stands_in_staging_stops_a_load_and_does_not_hold_it_for_ever(
    imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    imgtar.load(docker_archive([BASE])).ok()
    real, asked = os.stat, 0

    def refusing(path: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal asked
        if "/staging/" in str(path):
            asked += 1
            assert asked < 100, "asked again and again"
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refusing)
        done = imgtar.load(docker_archive([APP]))
    assert done.code == 6, done.errors
    assert set(imgtar.names()) == {"base:1"}
    assert os.listdir(imgtar.store / "imgtar" / "staging") == []


@pytest.mark.parametrize("form", ["hybrid", "oci-dir"])
def test_h249_a_save_removes_what_a_dead_one_left_beside_the_target_and_nothing_else(form: str, imgtar: Imgtar) -> None:
    import fcntl

    imgtar.load(docker_archive([APP])).ok()
    stem = ".out"
    dead, living = imgtar.home / f"{stem}.0123abcd.part", imgtar.home / f"{stem}.89abcdef.part"
    other = [imgtar.home / name for name in (f"{stem}2.0123abcd.part", f"{stem}.0123abcd.part2", f"{stem}.mine.part")]
    for path in (dead, living, *other):
        if form == "oci-dir":
            path.mkdir()
            (path / "blobs").mkdir()
        else:
            path.write_bytes(b"half an archive")
    fd = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        imgtar("save", "--format", form, "-o", imgtar.home / "out", "app:1").ok()
    finally:
        os.close(fd)
    assert not dead.exists()
    assert all(path.exists() for path in (living, *other, imgtar.home / "out"))
    assert len(list(imgtar.home.glob(f"{stem}.*.part"))) == 2, "its own is gone too"
