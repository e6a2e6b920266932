"""Claims of one root about blobs of another: the liar is refused, or is the only one that is broken; notes are no proof."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from imgtar.store.layout import Layout
from tests.builders.images import (
    Document,
    docker_archive,
    hybrid_archive,
    make_image,
    oci_archive,
    sha256,
)
from tests.builders.liars import ALIVE, LIES, artifact, index_of, left_out
from tests.conftest import Imgtar, Result

BASE = make_image("base:1", 2, seed=1, compression="gzip")
HONEST = make_image("honest:1", 1, seed=2, base=BASE)
OTHER = make_image("other:1", 1, seed=3)
GZIP = make_image("gz:1", 2, seed=4, compression="gzip")

WRONG = sorted(set(LIES) - set(ALIVE))


def liar_of(lie: str, name: str = "liar:1") -> bytes:
    return oci_archive([(LIES[lie][0](HONEST), [name])])


def blob(store: Path, digest: str) -> Path:
    return store / "blobs" / digest.replace(":", "/")


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
        and "lock" not in path.name
        and "held" not in path.parts
        and path.name not in ("roots", "images")
    }


def rows(done: Result) -> dict[str, bool]:
    return {name: row["ok"] for row in done.json()["archives"][0]["images"] for name in row["names"]}


def fresh(imgtar: Imgtar, *archives: bytes) -> Path:
    """A clean store with these."""
    store = imgtar.home / "clean"
    shutil.rmtree(store, ignore_errors=True)
    for archive in archives:
        imgtar.load(archive, store=store).ok()
    return store


def assert_honest_works(imgtar: Imgtar, name: str = "honest:1", archive: bytes = oci_archive([HONEST])) -> None:
    """Everything that can be asked of an honest image is answered as in a store that holds nothing else."""
    clean = fresh(imgtar, archive)
    for form in ("hybrid", "oci", "docker"):
        assert (
            imgtar("save", "--format", form, name).ok().out
            == imgtar("save", "--format", form, name, store=clean).ok().out
        )
    for command in (["inspect", name, "--json"], ["history", name, "--json"]):
        mine, theirs = (imgtar(*command, store=store).ok().json() for store in (imgtar.store, clean))
        assert mine["images"] == theirs["images"]
    imgtar("deps", name, "--json").ok()
    imgtar("tag", name, "again:1").ok()
    imgtar("rmi", "again:1").ok()
    listed = {row["name"]: row for row in imgtar.images()}
    assert listed[name].get("problem") is None
    assert listed[name]["image_id"]
    imgtar.load(archive).ok()
    imgtar("inventory", "-o", imgtar.home / "inventory").ok()
    (imgtar.home / "inventory").unlink()


# -- H273: the honest image is there first


@pytest.mark.parametrize("form", [docker_archive, oci_archive, hybrid_archive])
@pytest.mark.parametrize("lie", LIES)
def test_h273_who_contradicts_what_is_held_is_refused(lie: str, form: Any, imgtar: Imgtar) -> None:
    imgtar.load(form([HONEST])).ok()
    before = contents(imgtar.store)
    codes = LIES[lie][1]
    honest_there = blob(imgtar.store, HONEST.digest).exists()
    done = imgtar.load(liar_of(lie), "--json")
    if not honest_there and done.code == 0:
        return  # A docker archive brings no manifest: nothing is held that the liar speaks of.
    assert done.code == 5, done
    error = done.json()["error"]
    assert error["code"] in codes, error
    assert contents(imgtar.store) == before
    dry = imgtar.load(liar_of(lie), "--dry-run", "--json")
    assert (dry.code, dry.json()["error"]["code"]) == (5, error["code"])
    if error["code"] in ("E_SIZE", "E_TYPE") and not isinstance(codes, tuple):
        assert error["hint"], error
    assert_honest_works(imgtar, archive=form([HONEST]))
    imgtar("verify").ok()


@pytest.mark.parametrize("lie", LIES)
def test_h273_two_archives_of_one_load_that_contradict_each_other_are_refused(
    lie: str, imgtar: Imgtar, tmp_path: Path
) -> None:
    paths = []
    for number, archive in enumerate((oci_archive([HONEST]), liar_of(lie))):
        paths.append(tmp_path / f"{number}.tar")
        paths[-1].write_bytes(archive)
    for one, other in (paths, paths[::-1]):
        done = imgtar("load", "-i", one, "-i", other, "--json")
        assert done.code == 5, (lie, done)
        assert done.json()["error"]["code"] in LIES[lie][1]
        assert not imgtar.store.exists() or imgtar.images() == []


# -- H273: the liar is there first


@pytest.fixture(params=WRONG)
def poisoned(request: pytest.FixtureRequest, imgtar: Imgtar) -> Imgtar:
    imgtar.load(oci_archive([OTHER])).ok()
    imgtar.load(liar_of(request.param)).ok()
    assert len(imgtar.images()) == 2
    imgtar.load(oci_archive([HONEST])).ok()
    return imgtar


def test_h273_a_liar_that_came_first_hurts_nobody_else(poisoned: Imgtar) -> None:
    assert_honest_works(poisoned)
    assert_honest_works(poisoned, "other:1", oci_archive([OTHER]))


def test_h273_a_liar_that_came_first_is_what_is_broken(poisoned: Imgtar) -> None:
    listed = {row["name"]: row for row in poisoned.images()}
    assert listed["liar:1"]["problem"]
    liar = listed["liar:1"]["digest"]
    for command in (
        ["save", "liar:1"],
        ["save", liar],
        ["save", "liar:1", "honest:1"],
        ["inspect", "liar:1"],
        ["history", "liar:1"],
        ["tag", "liar:1", "new:1"],
        ["deps", "liar:1"],
    ):
        done = poisoned(*command)
        assert done.code == 7, (command, done)
        assert "imgtar rmi removes it" in done.errors, done.errors
    for command in (["verify", "--json"], ["verify", "--fast", "--json"]):
        done = poisoned(*command)
        assert done.code == 7
        assert rows(done) == {"liar:1": False, "honest:1": True, "other:1": True}
        errors = [finding for finding in done.json()["findings"] if finding["severity"] == "error"]
        assert {finding["subject"] for finding in errors} == {liar}, errors
        assert all("liar:1" in finding["message"] and "rmi" in finding["hint"] for finding in errors)
        assert done.json()["archives"][0]["unreferenced_blobs"] == 0
    assert poisoned("deps", "--json").json()["findings"]


def test_h273_prune_and_repair_work_beside_a_liar(poisoned: Imgtar, tmp_path: Path) -> None:
    junk = sha256(b"junk")
    blob(poisoned.store, junk).write_bytes(b"junk")
    before = contents(poisoned.store)
    poisoned("prune", "--dry-run").ok()
    poisoned("prune").ok()
    after = contents(poisoned.store)
    assert set(before) - set(after) == {f"blobs/{junk.replace(':', '/')}"}
    victim = blob(poisoned.store, HONEST.layers[0].digest)
    victim.write_bytes(b"damaged")
    archive = tmp_path / "honest.tar"
    archive.write_bytes(oci_archive([HONEST]))
    done = poisoned("repair", "-i", archive, "--json")
    assert done.code == 7  # For the liar's sake.
    assert done.json()["blobs_written"] == 1
    assert rows(poisoned("verify", "--json"))["honest:1"]
    assert_honest_works(poisoned)


def test_h273_a_lost_index_is_rebuilt_with_the_honest_image_although_a_liar_lists_it(poisoned: Imgtar) -> None:
    for name in ("index.json", "imgtar/index.kept"):
        (poisoned.store / name).unlink()
    poisoned("repair")
    assert any(row["image_id"] == HONEST.image_id for row in poisoned.images())
    poisoned("save", HONEST.image_id).ok()


@pytest.mark.parametrize("by", ["name", "digest", "prefix"])
def test_h273_a_liar_can_be_removed_and_leaves_a_clean_store(by: str, poisoned: Imgtar) -> None:
    liar = next(row["digest"] for row in poisoned.images() if row["name"] == "liar:1")
    done = poisoned("rmi", {"name": "liar:1", "digest": liar, "prefix": liar[7:19]}[by]).ok()
    assert "liar:1" in done.text
    poisoned("verify", "--strict").ok()
    wanted = set(HONEST.document.blobs()) | set(OTHER.document.blobs())
    assert {f"sha256:{path.name}" for path in (poisoned.store / "blobs" / "sha256").iterdir()} == wanted
    assert_honest_works(poisoned)


@pytest.mark.parametrize("by", ["honest:1", HONEST.image_id, HONEST.digest])
def test_h273_the_honest_image_can_be_removed_beside_a_liar(by: str, poisoned: Imgtar) -> None:
    poisoned("rmi", by).ok()
    assert "honest:1" not in poisoned.names()
    poisoned("rmi", "liar:1", "other:1").ok()
    poisoned("prune").ok()
    assert not list((poisoned.store / "blobs" / "sha256").iterdir())


def test_h273_what_the_listing_knows_of_a_liar_does_not_depend_on_the_cache(poisoned: Imgtar) -> None:
    before = poisoned.images()
    (poisoned.store / "imgtar" / "roots").unlink()
    assert poisoned.images() == before


@pytest.mark.parametrize("lie", ALIVE)
def test_h273_what_may_be_true_by_itself_is_only_kept_from_going_into_one_archive(lie: str, imgtar: Imgtar) -> None:
    imgtar.load(liar_of(lie)).ok()
    imgtar.load(oci_archive([HONEST])).ok()
    assert_honest_works(imgtar)
    imgtar("verify").ok()
    assert imgtar("save", "liar:1", "honest:1").code == 7
    imgtar.load(imgtar("save", "liar:1").ok().out, store=imgtar.home / "elsewhere").ok()


def test_h273_an_artifact_that_carries_a_manifest_as_a_file_is_not_saved_beside_it(imgtar: Imgtar) -> None:
    about = artifact(HONEST.manifest, subject=HONEST)
    imgtar.load(oci_archive([(about, [])])).ok()
    imgtar.load(oci_archive([HONEST])).ok()
    done = imgtar("save", "honest:1").ok()
    assert "stays behind" in done.errors
    imgtar.load(done.out, store=imgtar.home / "elsewhere").ok()
    imgtar("verify").ok()


# -- diff IDs


def false_diff_id() -> tuple[Document, bytes]:
    """An index of which one platform has a config that names false diff IDs for layers of the honest image; that config."""
    config = json.dumps(
        {
            "architecture": "s390x",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in GZIP.layers]},
        }
    ).encode()
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(config),
        "size": len(config),
    }
    entry, below = left_out(descriptor, [layer.descriptor() for layer in GZIP.layers])
    return index_of(entry, below=below), config


def test_h273_a_false_diff_id_of_a_platform_that_is_left_out_is_refused_where_the_layer_is_held(imgtar: Imgtar) -> None:
    liar, config = false_diff_id()
    carried = Document(liar.raw, liar.media_type, None, {}, {**liar.below, sha256(config): config})
    imgtar.load(oci_archive([GZIP])).ok()
    for options in ([], ["--platform", "linux/riscv64"]):
        done = imgtar.load(oci_archive([(carried, ["liar:1"])]), *options, "--json")
        assert (done.code, done.json()["error"]["code"]) == (5, "E_DIFFID")
    imgtar("verify").ok()


def test_h273_a_false_diff_id_that_came_first_breaks_only_who_claims_it(imgtar: Imgtar) -> None:
    liar, config = false_diff_id()
    imgtar.load(oci_archive([(liar, ["liar:1"])])).ok()
    imgtar.load(oci_archive([GZIP])).ok()
    imgtar.load(oci_archive([(artifact(config), ["config:1"])])).ok()
    done = imgtar("verify", "--json")
    assert (done.code, rows(done)["gz:1"], rows(done)["liar:1"]) == (7, True, False)
    assert imgtar("save", "liar:1").code == 7
    assert next(row for row in imgtar.images() if row["name"] == "liar:1")["problem"]
    assert_honest_works(imgtar, "gz:1", oci_archive([GZIP]))
    imgtar("save", "gz:1", "config:1").ok()
    imgtar("prune").ok()
    shutil.rmtree(imgtar.store / "imgtar" / "held")
    done = imgtar("verify", "--json")
    assert (done.code, rows(done)["gz:1"], rows(done)["liar:1"]) == (7, True, False)
    assert_honest_works(imgtar, "gz:1", oci_archive([GZIP]))
    imgtar("rmi", "liar:1").ok()
    imgtar("verify").ok()


def test_h273_a_false_diff_id_is_found_although_an_artifact_lists_the_layer_first(imgtar: Imgtar) -> None:
    layer = GZIP.layers[0]
    image = GZIP.with_config(lambda value: value["rootfs"]["diff_ids"].__setitem__(0, sha256(b"something else")))
    carrier = artifact(layer.blob)
    for roots in ([(carrier, ["a:1"]), image], [image, (carrier, ["a:1"])]):
        for command in ("load", "verify"):
            path = imgtar.home / "two.tar"
            path.write_bytes(oci_archive(roots))
            done = imgtar(*(["load", "-i", path] if command == "load" else ["verify", path]))
            assert (done.code, "E_DIFFID" in done.errors) == (5, True), (command, done)


# -- stores of 0.1.0 whose roots are refused now


def test_h273_a_root_that_no_reader_takes_any_more_is_told_of_and_removed_with_all_it_needs(imgtar: Imgtar) -> None:
    """As if an older version, less strict, had let it in: the manifest has a key twice, once in an escape."""
    imgtar.load(oci_archive([HONEST])).ok()
    old = make_image("old:1", 2, seed=77, compression="gzip")
    layers = json.dumps([layer.descriptor() for layer in old.layers[:1]]).replace("sha256:", "sha\\u003256:")
    raw = old.manifest[:-1] + b',"layers":' + layers.encode() + b"}"
    for digest, data in {**old.document.below, sha256(raw): raw}.items():
        blob(imgtar.store, digest).write_bytes(data)
    index = json.loads((imgtar.store / "index.json").read_bytes())
    index["manifests"].append(
        {
            **old.document.descriptor(),
            "digest": sha256(raw),
            "size": len(raw),
            "annotations": {"io.containerd.image.name": "docker.io/library/old:1"},
        }
    )
    (imgtar.store / "index.json").write_text(json.dumps(index))
    assert next(row for row in imgtar.images() if row["name"] == "old:1")["problem"]
    done = imgtar("verify", "--json")
    assert (done.code, rows(done)) == (7, {"old:1": False, "honest:1": True})
    before = contents(imgtar.store)
    imgtar("prune").ok()
    assert contents(imgtar.store) == before, "what it may need is kept"
    assert imgtar("repair").code == 7
    assert_honest_works(imgtar)
    imgtar("rmi", "old:1").ok()
    imgtar("verify").ok()
    assert not blob(imgtar.store, old.layers[1].digest).exists()


def test_h273_a_damaged_document_below_a_liar_hides_what_is_needed(imgtar: Imgtar) -> None:
    inner = make_image("inner:1", 1, seed=5, platform="linux/arm64")
    entry = {**HONEST.document.descriptor(), "size": 1 + len(HONEST.manifest)}
    imgtar.load(
        oci_archive([(index_of(entry, inner.document.descriptor(), below=inner.document.blobs()), ["liar:1"])])
    ).ok()
    imgtar.load(oci_archive([HONEST])).ok()
    imgtar("prune").ok()
    blob(imgtar.store, inner.digest).write_bytes(b"x" + inner.manifest[1:])
    assert imgtar("prune").code == 7
    assert blob(imgtar.store, inner.layers[0].digest).exists()


def test_h273_removing_a_liar_takes_no_referrer_of_an_honest_image_away(imgtar: Imgtar) -> None:
    signature = artifact(b"signed", subject=HONEST)
    imgtar.load(oci_archive([(index_of(HONEST.document.descriptor()), ["liar:1"])])).ok()
    imgtar.load(oci_archive([HONEST, (signature, [])])).ok()
    imgtar("rmi", "liar:1").ok()
    assert blob(imgtar.store, sha256(b"signed")).exists()
    imgtar("rmi", "honest:1").ok()
    assert not blob(imgtar.store, sha256(b"signed")).exists()


# -- H274: notes


def note_of(store: Path, digest: str) -> Path:
    return store / "imgtar" / "held" / digest.replace(":", "/")


def falsify(store: Path, digest: str, diff_id: str, *, marked: bool) -> None:
    """Let a note name another diff ID; ``marked``: with the checksum that belongs to that."""
    path = note_of(store, digest)
    look, _, mark = path.read_text().split("\n")
    if marked:
        mark = f"{crc32(f'{digest} {look} {diff_id}'.encode()):08x}"
    path.write_text(f"{look}\n{diff_id}\n{mark}")


LAYER = GZIP.layers[0]
FALSE = LAYER.diff_id[:-1] + ("0" if LAYER.diff_id[-1] != "0" else "1")
SIBLING = make_image("sibling:1", 1, seed=6, base=GZIP)


@pytest.fixture(params=[False, True], ids=["a flipped digit", "with its checksum"])
def misled(request: pytest.FixtureRequest, imgtar: Imgtar) -> Iterator[Imgtar]:
    imgtar.load(oci_archive([GZIP])).ok()
    falsify(imgtar.store, LAYER.digest, FALSE, marked=request.param)
    return imgtar


@pytest.mark.parametrize("form", [docker_archive, oci_archive, hybrid_archive])
def test_h274_no_archive_is_refused_on_a_notes_word(form: Any, misled: Imgtar) -> None:
    misled.load(form([SIBLING])).ok()
    assert LAYER.diff_id in note_of(misled.store, LAYER.digest).read_text(), "the note was renewed"
    misled("verify").ok()


@pytest.mark.parametrize("misled", [False], indirect=True)
def test_h274_a_false_claim_is_refused_although_a_damaged_note_agrees(misled: Imgtar) -> None:
    liar = GZIP.with_config(lambda value: value["rootfs"]["diff_ids"].__setitem__(0, FALSE)).named("liar:1")
    done = misled.load(oci_archive([liar]), "--json")
    assert (done.code, done.json()["error"]["code"]) == (5, "E_DIFFID")


def test_h274_an_inventory_tells_no_diff_id_that_the_content_does_not_have(misled: Imgtar) -> None:
    listed = misled("inventory", "--json").ok().json()
    assert {one["diff_id"] for one in listed["blobs"] if "diff_id" in one} == {layer.diff_id for layer in GZIP.layers}
    misled("save", "gz:1", "--dry-run").ok()


def test_h274_verify_renews_a_wrong_note_and_says_so(misled: Imgtar) -> None:
    marked = misled("verify", "--json").ok().json()["findings"]
    assert LAYER.diff_id in note_of(misled.store, LAYER.digest).read_text()
    assert {finding["severity"] for finding in marked} <= {"info"}
    assert misled("verify", "--json").ok().json()["findings"] == []


def test_h274_repair_renews_a_wrong_note_and_counts_it(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([GZIP])).ok()
    falsify(imgtar.store, LAYER.digest, FALSE, marked=True)
    assert imgtar("repair", "--json").ok().json()["notes_renewed"] == 1
    assert LAYER.diff_id in note_of(imgtar.store, LAYER.digest).read_text()
    assert imgtar("repair", "--json").ok().json()["notes_renewed"] == 0


def test_h274_every_flipped_bit_of_every_note_is_harmless(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([GZIP])).ok()
    chance = random.Random(274)
    notes = [path for folder in ("held", "layers") for path in (imgtar.store / "imgtar" / folder / "sha256").iterdir()]
    assert len(notes) == 6
    archive = docker_archive([SIBLING])
    for turn in range(40):
        path = chance.choice(notes)
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        imgtar.load(archive, "--dry-run").ok()
        listed = imgtar("inventory", "--json").ok().json()
        claimed = {one["digest"]: one["diff_id"] for one in listed["blobs"] if "diff_id" in one}
        assert claimed == {layer.digest: layer.diff_id for layer in GZIP.layers}, turn


def test_h274_notes_without_a_checksum_count_as_none_and_are_renewed(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([GZIP])).ok()
    look = note_of(imgtar.store, LAYER.digest).read_text().split("\n")[0]
    note_of(imgtar.store, LAYER.digest).write_text(f"{look}\n{FALSE}\nend")
    imgtar.load(docker_archive([SIBLING])).ok()
    assert not note_of(imgtar.store, LAYER.digest).read_text().endswith("end")


def test_h274_a_note_of_another_blob_counts_as_none(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([GZIP])).ok()
    first, second = (note_of(imgtar.store, layer.digest) for layer in GZIP.layers)
    second.write_bytes(first.read_bytes())
    imgtar.load(docker_archive([SIBLING])).ok()
    assert first.read_bytes() != second.read_bytes()


@pytest.mark.parametrize("command", ["verify", "repair"])
@pytest.mark.parametrize("cache", ["images", "roots"])
def test_h274_a_false_line_of_a_cache_is_dropped(cache: str, command: str, imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([GZIP])).ok()
    imgtar.images()
    path = imgtar.store / "imgtar" / cache
    right = path.read_bytes()
    body = next(line for line in right.split(b"\n") if line)[9:]
    old = (LAYER.diff_id if cache == "images" else GZIP.image_id).encode()
    assert old in body
    wrong = body.replace(old, FALSE.encode())
    path.write_bytes(b"%08x %s\n" % (crc32(wrong), wrong))
    done = imgtar(command, "--json").ok().json()
    assert FALSE.encode() not in path.read_bytes()
    if command == "repair":
        assert done["notes_renewed"] == 1
    else:
        (finding,) = done["findings"]
        assert finding["severity"] == "info"
        assert "caches" in finding["message"]
    assert [row["image_id"] for row in imgtar.images()] == [GZIP.image_id]
    imgtar.load(docker_archive([SIBLING])).ok()


# -- roots that another tool wrote


def listed_by_another_tool(imgtar: Imgtar, *entries: dict[str, Any]) -> None:
    index = json.loads((imgtar.store / "index.json").read_bytes())
    index["manifests"] += entries
    (imgtar.store / "index.json").write_text(json.dumps(index))


def named(document: Document, name: str) -> dict[str, Any]:
    return {**document.descriptor(), "annotations": {"io.containerd.image.name": f"docker.io/library/{name}"}}


def test_h273_a_root_that_cannot_be_planned_keeps_no_other_from_being_verified(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([HONEST])).ok()
    listed_by_another_tool(imgtar, {**named(OTHER.document, "strange:1"), "digest": "blake3:" + "0" * 64})
    done = imgtar("verify", "--json")
    assert (done.code, rows(done)) == (7, {"honest:1": True, "strange:1": False})


def test_h273_a_name_of_two_images_keeps_no_third_from_being_verified(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([HONEST, OTHER])).ok()
    listed_by_another_tool(imgtar, named(OTHER.document, "honest:1"))
    done = imgtar("verify", "--json")
    assert done.code == 7
    by_id = {row["image_id"]: row["ok"] for row in done.json()["archives"][0]["images"]}
    assert by_id[HONEST.image_id]
    assert by_id[OTHER.image_id]
    assert any("E_NAME" in finding["message"] for finding in done.json()["findings"])


def test_h273_what_an_older_version_noted_of_a_root_is_read_again(imgtar: Imgtar) -> None:
    """What it took may be refused now, though no file has changed."""
    imgtar.load(oci_archive([HONEST])).ok()
    imgtar.images()
    path = imgtar.store / "imgtar" / "roots"
    body = next(line for line in path.read_bytes().split(b"\n") if line)[9:]
    bare = Layout(str(imgtar.store)).read_index()[0].bare
    old = hashlib.sha256(bare.encode()).hexdigest()[:32].encode()
    assert old not in body, "the key of the line tells by which rules it was made"
