"""Repair: damaged and misplaced blobs come back, nothing is deleted, and what cannot be had is said."""

from __future__ import annotations

import errno
import os

import pytest

from tests.builders.images import docker_files, hybrid_files, make_image, oci_archive, oci_files
from tests.conftest import Imgtar, stored
from tests.ops.rotten import APP, ARCHIVE, BASE, archive_of, aside, blob, sectors, spoil


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(ARCHIVE).ok()
    return imgtar


def test_damaged_blobs_are_set_aside_and_the_images_they_hurt_are_named(filled: Imgtar) -> None:
    path = blob(filled, BASE.layers[0].digest)
    bad = spoil(path)
    done = filled("repair", "--json")
    assert done.code == 7
    assert not path.exists()
    assert list(aside(filled).values()) == [bad]
    assert {name for image in done.json()["images"] if not image["ok"] for name in image["names"]} == {
        "base:1",
        "app:1",
        "app:2",
    }
    assert "imgtar repair -i ARCHIVE" in done.errors
    assert filled.names() == {"base:1": BASE.image_id, "app:1": APP.image_id, "app:2": APP.image_id}


@pytest.mark.parametrize("form", ["oci", "docker", "hybrid", "pipe"])
def test_every_damaged_and_missing_blob_comes_back_from_an_archive(filled: Imgtar, form: str) -> None:
    before = stored(filled.store)
    index = (filled.store / "index.json").read_bytes()
    paths = sorted((filled.store / "blobs/sha256").iterdir())
    for place, path in enumerate(paths):
        path.unlink() if place % 2 else spoil(path)
    data = {"docker": docker_files([BASE, APP]).tar(), "hybrid": hybrid_files([BASE, APP]).tar()}.get(form, ARCHIVE)
    if form == "pipe":
        done = filled("repair", "-i", "-", "--json", stdin=data).ok().json()
    else:
        done = filled("repair", "-i", archive_of(filled, data), "--json").ok().json()
    assert done["blobs_written"] == len(paths)
    assert len(done["set_aside"]) == (len(paths) + 1) // 2
    assert (filled.store / "index.json").read_bytes() == index
    assert {k: v for k, v in stored(filled.store).items() if k.startswith("blobs")} == {
        k: v for k, v in before.items() if k.startswith("blobs")
    }
    filled("verify").ok()


def test_an_archive_gives_only_what_images_of_the_store_lack(filled: Imgtar) -> None:
    other = make_image("other:1", 1, seed=77)
    blob(filled, APP.layers[-1].digest).unlink()
    done = filled("repair", "-i", archive_of(filled, oci_archive([other, APP])), "--json").ok().json()
    assert done["blobs_written"] == 1
    assert "other:1" not in filled.names()
    assert not blob(filled, other.layers[0].digest).exists()


def test_a_damaged_archive_gives_what_is_good_in_it(filled: Imgtar) -> None:
    lost = [APP.layers[-1].digest, BASE.layers[0].digest]
    for digest in lost:
        blob(filled, digest).unlink()
    data = bytearray(ARCHIVE)
    data[ARCHIVE.index(BASE.layers[0].blob) + 600] ^= 1
    done = filled("repair", "-i", archive_of(filled, bytes(data)), "--json")
    assert done.code == 7
    assert blob(filled, lost[0]).exists()
    assert not blob(filled, lost[1]).exists()
    assert "E_DIGEST" in [finding["code"] for finding in done.json()["findings"]]


def test_a_plain_layer_is_made_again_from_a_compressed_one(imgtar: Imgtar) -> None:
    squeezed = make_image("squeezed:1", 2, compression="gzip", seed=8)
    plain = make_image("plain:1", [layer.plain() for layer in squeezed.layers], seed=9)
    imgtar.load(oci_archive([plain])).ok()
    blob(imgtar, plain.layers[0].digest).unlink()
    imgtar("repair", "-i", archive_of(imgtar, oci_archive([squeezed]))).ok()
    assert blob(imgtar, plain.layers[0].digest).read_bytes() == plain.layers[0].blob


def test_content_under_a_wrong_name_goes_where_it_belongs(filled: Imgtar) -> None:
    one, two = blob(filled, APP.layers[-1].digest), blob(filled, BASE.layers[0].digest)
    raw = one.read_bytes(), two.read_bytes()
    keep = one.with_name("moving")
    one.rename(keep), two.rename(one), keep.rename(two)
    assert filled("verify").code == 7
    filled("repair").ok()
    assert (one.read_bytes(), two.read_bytes()) == raw
    filled("verify").ok()


def test_a_manifest_in_a_wrong_place_is_found_and_tells_of_its_layers(filled: Imgtar) -> None:
    strange = filled.store / "blobs" / "lost+found"
    strange.mkdir()
    for place, digest in enumerate([APP.digest, APP.image_id, APP.layers[-1].digest]):
        blob(filled, digest).rename(strange / f"#{place}")
    done = filled("verify", "--json")
    assert done.code == 7
    assert sum("among the blobs" in finding["message"] for finding in done.json()["findings"]) == 3
    assert len(filled("repair", "--json").ok().json()["moved"]) == 3
    filled("verify", "--strict").ok()


def test_a_file_that_nobody_needs_stays_where_it_is(filled: Imgtar) -> None:
    note = filled.store / "blobs" / "README"
    note.write_text("mine")
    done = filled("repair", "--json").ok().json()
    assert done["strange"] == ["blobs/README"]
    assert note.read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "empty"])
def test_what_stands_in_a_blobs_place_is_set_aside(filled: Imgtar, kind: str) -> None:
    path = blob(filled, APP.layers[-1].digest)
    path.rename(filled.home / "kept")
    if kind == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif kind == "link":
        path.symlink_to(filled.home / "kept")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
    filled("repair", "-i", archive_of(filled, ARCHIVE)).ok()
    assert path.read_bytes() == APP.layers[-1].blob
    assert os.path.lexists(filled.store / "imgtar/damaged/blobs/sha256" / path.name)


def test_set_aside_twice_keeps_both(filled: Imgtar) -> None:
    path = blob(filled, APP.layers[-1].digest)
    kept = []
    for _ in range(3):
        kept.append(spoil(path))
        filled("repair", "-i", archive_of(filled, ARCHIVE)).ok()
        path.write_bytes(path.read_bytes() + b"longer")
    kept.append(path.read_bytes())
    filled("repair")
    assert sorted(aside(filled).values()) == sorted(kept)


def test_nothing_wrong_changes_nothing(filled: Imgtar) -> None:
    before = stored(filled.store)
    done = filled("repair", "-i", archive_of(filled, ARCHIVE), "--json").ok().json()
    assert (done["ok"], done["moved"], done["set_aside"], done["blobs_written"]) == (True, [], [], 0)
    assert stored(filled.store) == before


def test_a_dry_run_says_the_same_and_changes_nothing(filled: Imgtar) -> None:
    spoil(blob(filled, APP.layers[-1].digest))
    blob(filled, BASE.layers[0].digest).unlink()
    (filled.store / "index.json").write_bytes(b"?")
    before = stored(filled.store)
    dry = filled("repair", "--dry-run", "-i", archive_of(filled, ARCHIVE), "--json").ok().json()
    assert stored(filled.store) == before
    wet = filled("repair", "-i", archive_of(filled, ARCHIVE), "--json").ok().json()
    for key in ("bytes_written", "blobs_written", "blobs_checked", "bytes_checked"):
        assert dry[key] == wet[key], key
    assert [one["path"] for one in dry["set_aside"]] == [one["path"] for one in wet["set_aside"]]
    assert dry["index"]["state"] == wet["index"]["state"] == "restored"


def test_without_a_store_there_is_nothing_to_repair(imgtar: Imgtar) -> None:
    assert imgtar("repair").code == 3
    assert not imgtar.store.exists()
    for name in ("file", "blobs", "imgtar"):
        (imgtar.home / "other").mkdir(exist_ok=True)
        (imgtar.home / "other" / name).write_text("somebody's")
        assert imgtar("repair", store=imgtar.home / "other").code == 3
    assert {path.name for path in (imgtar.home / "other").iterdir()} == {"file", "blobs", "imgtar"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("what", ["blob", "index.json", "index.kept"])
def test_what_may_not_be_read_is_not_called_damaged(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    real = os.open
    target = str(blob(filled, BASE.layers[0].digest)) if what == "blob" else what

    def refusing(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith(target):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    before = {name: raw for name, raw in stored(filled.store).items() if "lock" not in name}
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        done = filled("repair")
    assert done.code == 6, done.errors
    assert {name: raw for name, raw in stored(filled.store).items() if "lock" not in name} == before


def test_bad_sectors_are_repaired_from_an_archive(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [blob(filled, BASE.layers[0].digest), blob(filled, APP.digest)]
    help_ = archive_of(filled, ARCHIVE)
    sectors(monkeypatch, *bad)
    done = filled("repair", "-i", help_, "--json").ok().json()
    assert len(done["set_aside"]) == 2
    assert done["blobs_written"] == 2


def test_a_disk_that_reads_next_to_nothing_is_left_alone(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: raw for name, raw in stored(filled.store).items() if "lock" not in name}
    paths = sorted((filled.store / "blobs/sha256").iterdir())
    with monkeypatch.context() as patch:
        sectors(patch, *paths[1:])
        done = filled("repair")
    assert (done.code, "that is the disk" in done.errors) == (6, True), done.errors
    assert {name: raw for name, raw in stored(filled.store).items() if "lock" not in name} == before


def test_prune_leaves_what_may_be_the_lost_content_of_an_image(filled: Imgtar) -> None:
    lost = blob(filled, APP.layers[-1].digest)
    lost.rename(lost.with_name("0" * 64))
    assert filled("prune", "--json").ok().json()["blobs_deleted"] == 0
    filled("repair").ok()
    assert lost.exists()


def test_one_bad_archive_does_not_keep_the_others_from_helping(filled: Imgtar) -> None:
    spoil(blob(filled, APP.layers[-1].digest))
    cut, whole = archive_of(filled, ARCHIVE[:3000], "cut.tar"), archive_of(filled, ARCHIVE)
    done = filled("repair", "-i", cut, "-i", whole, "--json").ok().json()
    assert done["blobs_written"] == 1
    assert "E_TRUNC" in [finding["code"] for finding in done["findings"]]


def test_what_was_set_aside_comes_home_when_it_is_known_to_be_needed(filled: Imgtar) -> None:
    layer, manifest = blob(filled, APP.layers[-1].digest), blob(filled, APP.digest)
    layer.rename(layer.with_name("0" * 64))
    kept = manifest.read_bytes()
    manifest.unlink()
    assert filled("repair").code == 7
    manifest.write_bytes(kept)
    filled("repair").ok()
    assert layer.exists()


@pytest.mark.parametrize("name", ["blobs/sha256", "imgtar/staging", "imgtar/damaged", "imgtar/index.kept", "imgtar"])
def test_odd_things_in_the_place_of_the_stores_own_are_moved_away(filled: Imgtar, name: str) -> None:
    path = filled.store / name
    if path.is_dir():
        path.rename(filled.home / "was")
    path.unlink(missing_ok=True)
    path.mkdir() if name.endswith("kept") else path.write_bytes(b"odd")
    done = filled("repair", "-i", archive_of(filled, ARCHIVE), "--json").ok().json()
    if not name.endswith("kept"):
        (moved,) = [one for one in done["set_aside"] if one["path"] == name]
        assert (filled.store / moved["to"]).read_bytes() == b"odd"
    filled("verify").ok()
    filled("tag", "app:1", "more:1").ok()


def test_a_dry_run_leaves_a_layout_of_another_tool_as_it_is(imgtar: Imgtar) -> None:
    imgtar.store.mkdir()
    for member in oci_files([BASE]).members:
        if member.kind != b"5":
            path = imgtar.store / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.data)
    before = stored(imgtar.store)
    assert imgtar("repair", "--dry-run", "--json").ok().json()["ok"] is None
    assert stored(imgtar.store) == before
