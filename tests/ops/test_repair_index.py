"""Repair of the index and of the marks: names come back where anything knows them, and no image is forgotten."""

from __future__ import annotations

import json
import os

import pytest

from tests.builders.images import docker_files, make_image, make_index, oci_archive
from tests.conftest import Imgtar, stored
from tests.ops.rotten import APP, ARCHIVE, BASE, archive_of, aside, blob, sectors, spoil

ARM = make_image("app:1", 1, platform="linux/arm64", seed=5)
MULTI = make_index(BASE, ARM)


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(ARCHIVE).ok()
    return imgtar


@pytest.mark.parametrize("damage", [b"", b'{"schemaVersion":2,"mani', b"\0" * 300, "{}".encode("utf-16"), None])
def test_a_damaged_or_lost_index_comes_back_from_its_copy_with_every_name(filled: Imgtar, damage: bytes | None) -> None:
    index = filled.store / "index.json"
    before, images = index.read_bytes(), filled.images()
    index.unlink() if damage is None else index.write_bytes(damage)
    assert filled("images").code == 7
    assert "imgtar repair" in filled("images").errors
    done = filled("repair", "--json").ok().json()
    assert done["index"]["state"] == "restored"
    assert done["index"]["set_aside"] == ("" if damage is None else "imgtar/damaged/index.json")
    assert index.read_bytes() == before
    assert filled.images() == images
    assert aside(filled) == ({} if damage is None else {"index.json": damage})
    filled("verify").ok()


def test_an_index_that_became_something_else_than_a_file_is_set_aside(filled: Imgtar) -> None:
    index = filled.store / "index.json"
    before = index.read_bytes()
    for make in (lambda: index.mkdir(), lambda: os.mkfifo(index), lambda: index.symlink_to("/etc/passwd")):
        index.unlink()
        make()
        assert filled("repair").ok()
        assert index.read_bytes() == before
    assert sorted(path.name for path in (filled.store / "imgtar/damaged").iterdir()) == [
        "index.json",
        "index.json.1",
        "index.json.2",
    ]


def test_an_index_and_its_copy_lost_is_rebuilt_without_names_from_the_blobs(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([(MULTI, ["multi:1"]), APP])).ok()
    digests = {row["digest"] for row in imgtar.images()}
    (imgtar.store / "index.json").unlink()
    (imgtar.store / "imgtar/index.kept").write_bytes(b"sha256:00\n{}")
    done = imgtar("repair", "--json").ok()
    assert done.json()["index"]["state"] == "rebuilt"
    assert {row["digest"] for row in imgtar.images()} == digests
    assert not imgtar.names()
    imgtar("verify").ok()
    assert imgtar("prune", "--dry-run", "--json").ok().json()["blobs_deleted"] == 0


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_names_of_a_rebuilt_index_come_back_from_an_archive_of_the_same_images(imgtar: Imgtar, form: str) -> None:
    data = ARCHIVE if form == "oci" else docker_files([BASE, APP]).tar()
    imgtar.load(data).ok()
    names = imgtar.names()
    (imgtar.store / "index.json").unlink()
    (imgtar.store / "imgtar/index.kept").unlink()
    done = imgtar("repair", "-i", archive_of(imgtar, data), "--json").ok().json()
    assert done["names"] == ["app:1", "app:2", "base:1"]
    assert imgtar.names() == names


def test_a_flipped_bit_in_a_digest_of_the_index_is_undone(filled: Imgtar) -> None:
    index = filled.store / "index.json"
    before = index.read_bytes()
    place = before.index(APP.digest.encode()) + 12
    index.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
    assert filled("verify").code == 7
    assert filled("repair", "--json").ok().json()["index"]["state"] == "restored"
    assert json.loads(index.read_bytes()) == json.loads(before)


def test_an_index_that_another_tool_wrote_stays_as_it_is(filled: Imgtar) -> None:
    index = filled.store / "index.json"
    value = json.loads(index.read_bytes())
    value["manifests"].pop()
    value["annotations"] = {"x": "y"}
    index.write_text(json.dumps(value, indent=3))
    before = index.read_bytes()
    assert "another tool has changed it" in filled("verify").ok().errors
    assert filled("repair", "--json").ok().json()["index"]["state"] == "whole"
    assert index.read_bytes() == before


def test_what_imgtar_wrote_itself_is_not_remarked_upon(filled: Imgtar) -> None:
    for change in (["tag", "app:1", "more:1"], ["rmi", "app:2"], ["prune"]):
        filled(*change).ok()
        assert not filled("verify").ok().errors


def test_a_store_that_lost_its_index_and_its_mark_is_not_made_anew(filled: Imgtar) -> None:
    names = filled.names()
    for name in ("index.json", "oci-layout"):
        (filled.store / name).unlink()
    for command in (["verify"], ["images"], ["load", "-i", archive_of(filled, ARCHIVE)], ["prune"]):
        done = filled(*command)
        assert (done.code, "imgtar repair" in done.errors) == (7, True), done.errors
    filled("repair").ok()
    assert filled.names() == names


def test_what_can_be_read_of_a_damaged_copy_still_gives_the_names(filled: Imgtar) -> None:
    names = filled.names()
    (filled.store / "index.json").unlink()
    kept = filled.store / "imgtar/index.kept"
    bad = kept.read_bytes().replace(b'"schemaVersion"', b'"schemaVersiom"').replace(b"app:2", b"app:3")
    kept.write_bytes(bad.replace(b'"schemaVersiom"', b'"schemaVersion"'))
    bad = kept.read_bytes()
    done = filled("repair", "--json").ok().json()
    assert done["index"]["state"] == "rebuilt"
    assert set(filled.names()) == (set(names) - {"app:2"}) | {"app:3"}
    assert aside(filled)["imgtar/index.kept"] == bad


def test_a_rebuilt_index_that_may_lack_images_is_no_whole_store(filled: Imgtar) -> None:
    (filled.store / "index.json").unlink()
    (filled.store / "imgtar/index.kept").unlink()
    spoil(blob(filled, APP.digest))
    done = filled("repair", "--json")
    assert (done.code, done.json()["ok"]) == (7, False)
    assert "before you prune" in done.errors


def test_a_manifest_in_a_wrong_place_is_found_for_a_rebuilt_index(filled: Imgtar) -> None:
    (filled.store / "index.json").unlink()
    (filled.store / "imgtar/index.kept").unlink()
    (filled.store / "lost+found").mkdir()
    blob(filled, APP.digest).rename(filled.store / "lost+found" / "#12")
    filled("repair").ok()
    assert {row["image_id"] for row in filled.images()} == {BASE.image_id, APP.image_id}


def test_images_that_the_copy_does_not_know_are_kept_without_a_name(filled: Imgtar) -> None:
    older = (filled.store / "imgtar/index.kept").read_bytes()
    new = make_image("new:1", 1, seed=31)
    filled.load(oci_archive([new])).ok()
    (filled.store / "imgtar/index.kept").write_bytes(older)
    (filled.store / "index.json").write_bytes(b"{")
    assert filled("repair", "--json").ok().json()["index"]["found"] == 1
    assert new.image_id in {row["image_id"] for row in filled.images()}
    assert filled("prune", "--json").ok().json()["blobs_deleted"] == 0


def test_a_copy_that_cannot_be_read_but_is_needed_is_not_given_up(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = filled.names()
    (filled.store / "index.json").write_bytes(b"{")
    with monkeypatch.context() as patch:
        sectors(patch, filled.store / "imgtar/index.kept")
        done = filled("repair")
    assert (done.code, "names are lost" in done.errors) == (6, True), done.errors
    filled("repair").ok()
    assert filled.names() == names


def test_a_tag_that_another_tool_moved_is_not_moved_back_because_a_manifest_rots(filled: Imgtar) -> None:
    older = (filled.store / "imgtar/index.kept").read_bytes()
    newer = make_image("app:1", 1, seed=41)
    data = oci_archive([newer])
    filled.load(data).ok()
    (filled.store / "imgtar/index.kept").write_bytes(older)
    spoil(blob(filled, newer.digest))
    done = filled("repair", "-i", archive_of(filled, data), "--json").ok().json()
    assert done["index"]["state"] == "whole"
    assert filled.names()["app:1"] == newer.image_id


def test_names_that_another_process_gave_meanwhile_are_not_given_twice(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgtar.ops import repair as module

    newer = make_image("app:1", 1, seed=51)
    archive = archive_of(filled, ARCHIVE)
    (filled.store / "index.json").unlink()
    (filled.store / "imgtar/index.kept").unlink()
    real = module.examine_blobs

    def examine(*arguments: object, **options: object) -> object:
        filled.load(oci_archive([newer])).ok()
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "examine_blobs", examine)
    assert "app:1" not in filled("repair", "-i", archive, "--json").ok().json()["names"]
    assert filled.names()["app:1"] == newer.image_id
    filled("verify").ok()


@pytest.mark.parametrize("name", ["oci-layout", "imgtar/version"])
@pytest.mark.parametrize("damage", [b"", b"\xff\xff", None])
def test_the_marks_of_the_store_are_written_again(filled: Imgtar, name: str, damage: bytes | None) -> None:
    path = filled.store / name
    before = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage)
    filled("repair").ok()
    assert path.read_bytes() == before
    filled("verify").ok()


def test_the_store_of_a_newer_imgtar_is_not_touched(filled: Imgtar) -> None:
    (filled.store / "imgtar/version").write_text("2\n")
    (filled.store / "index.json").write_bytes(b"")
    before = stored(filled.store)
    done = filled("repair", "--json")
    assert (done.code, done.json()["error"]["code"]) == (7, "E_VERSION")
    assert stored(filled.store) == before
