"""Repair: a damaged store comes back, nothing is deleted, and what cannot be had is said."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.builders.images import docker_files, hybrid_files, make_image, make_index, oci_archive, oci_files
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "app:2"), 1, seed=2, base=BASE)
ARM = make_image("app:1", 1, platform="linux/arm64", seed=5)
MULTI = make_index(BASE, ARM)
ARCHIVE = oci_archive([BASE, APP])


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(ARCHIVE).ok()
    return imgtar


def blob(imgtar: Imgtar, digest: str) -> Path:
    return imgtar.store / "blobs" / "sha256" / digest.partition(":")[2]


def spoil(path: Path) -> bytes:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    return bytes(raw)


def aside(imgtar: Imgtar) -> dict[str, bytes]:
    """What was set aside: path below imgtar/damaged to content."""
    top = imgtar.store / "imgtar" / "damaged"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def archive_of(imgtar: Imgtar, data: bytes, name: str = "help.tar") -> Path:
    path = imgtar.home / name
    path.write_bytes(data)
    return path


# -- the index -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b'{"schemaVersion":2,"mani', b"\0" * 300, "{}".encode("utf-16"), None])
def test_a_damaged_or_lost_index_comes_back_from_its_copy_with_every_name(filled: Imgtar, damage: bytes | None) -> None:
    index = filled.store / "index.json"
    before, images = index.read_bytes(), filled.images()
    index.unlink() if damage is None else index.write_bytes(damage)
    assert filled("images").code == 7
    assert "imgtar repair" in filled("images").errors
    done = filled("repair", "--json").ok().json()
    assert done["index"]["state"] == "restored"
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


# -- blobs -----------------------------------------------------------------------------------------------------------


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


# -- verify in parts -------------------------------------------------------------------------------------------------


def test_the_parts_of_a_check_are_the_whole_of_it(filled: Imgtar) -> None:
    paths = sorted((filled.store / "blobs/sha256").iterdir())
    layers = {layer.digest for image in (BASE, APP) for layer in image.layers}
    for digest in layers:
        spoil(blob(filled, digest))
    stray = filled.store / "blobs/sha256" / ("0" * 64)
    stray.write_bytes(b"unreferenced and wrong")
    found: list[str] = []
    checked = 0
    for part in range(1, 8):
        done = filled("verify", "--subset", f"{part}/7", "--json").json()
        assert done["subset"] == {"part": part, "of": 7}
        found += [finding["subject"] for finding in done["findings"]]
        checked += done["archives"][0]["blobs_checked"]
    assert len(found) == len(set(found)) == len(layers) + 1
    assert checked == len(paths) + 1


@pytest.mark.parametrize("text", ["0/7", "8/7", "1", "1/0", "a/b", "1/7/2", "-1/7", "1/100000"])
def test_a_part_that_is_none_is_refused(filled: Imgtar, text: str) -> None:
    assert filled("verify", f"--subset={text}").code == 2


def test_a_part_is_for_the_store(filled: Imgtar) -> None:
    assert filled("verify", "--subset", "1/2", archive_of(filled, ARCHIVE)).code == 2


# -- what a second pair of eyes found ----------------------------------------------------------------------------------


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


def sectors(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Make files unreadable, as bad sectors do."""
    bad = [os.stat(path).st_ino for path in paths]
    real = os.preadv

    def failing(fd: int, *arguments: object) -> int:
        if os.fstat(fd).st_ino in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", failing)


def test_verify_goes_on_after_a_bad_sector_and_names_what_it_hurts(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [blob(filled, BASE.layers[0].digest), blob(filled, APP.layers[-1].digest), blob(filled, BASE.digest)]
    sectors(monkeypatch, *bad)
    done = filled("verify", "--json")
    assert done.code == 7
    for path in bad:
        assert path.name in done.errors
    assert {image["ok"] for image in done.json()["archives"][0]["images"]} == {False}


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
    done = filled("repair", "-i", archive_of(filled, ARCHIVE)).ok()
    filled("verify").ok()
    filled("tag", "app:1", "more:1").ok()
    assert done.code == 0


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


def test_a_dry_run_leaves_a_layout_of_another_tool_as_it_is(imgtar: Imgtar) -> None:
    imgtar.store.mkdir()
    for name, raw in dir_layout().items():
        (imgtar.store / name).parent.mkdir(parents=True, exist_ok=True)
        (imgtar.store / name).write_bytes(raw)
    before = stored(imgtar.store)
    assert imgtar("repair", "--dry-run", "--json").ok().json()["ok"] is None
    assert stored(imgtar.store) == before


def dir_layout() -> dict[str, bytes]:
    files = oci_files([BASE])
    return {member.name: member.data for member in files.members if member.kind != b"5"}
