"""``imgtar inventory``: what a receiver holds, as a file; and what changed between two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from tests.builders.images import docker_archive, make_image, make_index, oci_archive, oci_files, random_layer
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 1, seed=1)
APP1 = make_image("app:1", 2, "linux/amd64", "gzip", seed=2, base=BASE)
APP2 = make_image("app:2", 1, seed=3, base=BASE)


def lines(raw: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in raw.splitlines()]


def test_the_inventory_of_a_store_lists_blobs_diff_ids_names_ids_and_completeness(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([BASE, APP1])).ok()
    head, *rest = lines(imgtar("inventory").ok().out)
    blobs = {line["digest"]: line for line in rest if "kind" in line}
    images = {line["name"]: line for line in rest if "complete" in line}
    assert set(blobs) == {digest for image in (BASE, APP1) for digest in image.document.blobs()}
    for layer in APP1.layers:
        assert blobs[layer.digest]["diff_id"] == layer.diff_id
        assert blobs[layer.digest]["size"] == len(layer.blob)
    assert {name: (line["image_id"], line["digest"], line["complete"]) for name, line in images.items()} == {
        image.name: (image.image_id, image.digest, True) for image in (BASE, APP1)
    }
    assert head["schema"] == "imgtar.inventory/1"
    assert head["blobs"] == len(blobs)


def test_the_same_content_gives_the_same_bytes_in_every_store_and_at_every_time(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE, APP1])).ok()
    for image in (APP1, BASE):
        imgtar.load(oci_archive([image]), store=tmp_path / "other").ok()
    (tmp_path / "other" / "imgtar" / "images").unlink(missing_ok=True)
    for name in ("a.inv", "a.inv.zst"):
        imgtar("inventory", "-o", tmp_path / name).ok()
        imgtar("inventory", "-o", tmp_path / f"b{name}", store=tmp_path / "other").ok()
        assert (tmp_path / name).read_bytes() == (tmp_path / f"b{name}").read_bytes()
    plain = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "a.inv.zst").read_bytes())
    assert plain == (tmp_path / "a.inv").read_bytes() == imgtar("inventory").ok().out


def test_a_thousand_blobs_take_less_than_a_hundred_kilobytes(imgtar: Imgtar, tmp_path: Path) -> None:
    base = random_layer(1, "gzip")
    family = [
        make_image(f"registry.example/team/app-{n}:1.{n}", [base, random_layer(10 + n, "gzip", size=40)], seed=n)
        for n in range(333)
    ]
    imgtar.load(oci_archive(family)).ok()
    imgtar("inventory", "-o", tmp_path / "big.inv.zst").ok()
    head = lines(imgtar("inventory").ok().out)[0]
    assert head["blobs"] == 1000
    assert (tmp_path / "big.inv.zst").stat().st_size < 100_000


def test_redacted_no_name_is_left_and_everything_else_is(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE.named("secret-project:7"), APP1.named("hidden.example/x:1")])).ok()
    raw = imgtar("inventory", "--redact").ok().out
    assert b"secret" not in raw
    assert b"hidden" not in raw
    assert str(imgtar.home).encode() not in raw
    whole, bare = lines(imgtar("inventory").ok().out), lines(raw)
    assert bare[0]["root"] == whole[0]["root"]
    assert [line for line in bare if "kind" in line] == [line for line in whole if "kind" in line]
    assert [line["name"] for line in bare if "complete" in line] == [None, None]
    (tmp_path / "x.inv").write_bytes(raw)
    imgtar("tag", "hidden.example/x:1", "new:1").ok()
    assert (
        imgtar("save", "--base", tmp_path / "x.inv", "-o", tmp_path / "t", "--json", "new:1").ok().json()["blobs"] == 0
    )


@pytest.mark.parametrize("form", ["docker", "oci", "layout", "gzip"])
def test_the_inventory_of_an_archive_lists_what_it_carries(form: str, imgtar: Imgtar, tmp_path: Path) -> None:
    import gzip

    plain = make_image("app:1", 2, seed=2, base=BASE)
    where = tmp_path / "archive"
    if form == "layout":
        oci_files([plain]).directory(where)
    else:
        raw = docker_archive([plain]) if form == "docker" else oci_archive([plain])
        where.write_bytes(gzip.compress(raw) if form == "gzip" else raw)
    _, *rest = lines(imgtar("inventory", "--of", where).ok().out)
    layers = {line["digest"] for line in rest if line.get("kind") == "layer"}
    assert layers == {layer.digest for layer in plain.layers}
    (image,) = [line for line in rest if "complete" in line]
    assert (image["name"], image["image_id"], image["complete"]) == ("app:1", plain.image_id, True)


def test_an_image_that_is_not_whole_is_listed_as_incomplete(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE, APP1])).ok()
    imgtar("save", "--base", "base:1", "-o", tmp_path / "thin.tar", "app:1").ok()
    rows = [line for line in lines(imgtar("inventory", "--of", tmp_path / "thin.tar").ok().out) if "complete" in line]
    assert [(row["name"], row["complete"]) for row in rows] == [("app:1", False)]
    path = imgtar.store / "blobs" / BASE.layers[0].digest.replace(":", "/")
    path.write_bytes(b"rotten" + path.read_bytes()[6:])
    rows = [line for line in lines(imgtar("inventory").ok().out) if "complete" in line]
    assert [(row["name"], row["complete"]) for row in rows] == [("app:1", False), ("base:1", False)]
    sparse = make_index(BASE.named(), sparse=[make_image((), 1, "linux/arm64", seed=9)])
    imgtar.load(oci_archive([(sparse, ["multi:1"])]), store=tmp_path / "other").ok()
    rows = [line for line in lines(imgtar("inventory", store=tmp_path / "other").ok().out) if "complete" in line]
    assert [(row["name"], row["complete"]) for row in rows] == [("multi:1", False)]


def test_as_json_it_is_one_document(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE])).ok()
    document = imgtar("inventory", "--json").ok().json()
    assert document["schema"] == "imgtar.inventory/1"
    assert {blob["digest"] for blob in document["blobs"]} == set(BASE.document.blobs())
    assert document["images"][0]["name"] == "base:1"
    assert imgtar("inventory", "-o", tmp_path / "x.inv", "--json").ok().json()["root"] == document["root"]


def test_a_receiver_without_a_store_holds_nothing_and_what_does_not_exist_is_not_found(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    empty = imgtar("inventory").ok()
    assert [json.loads(line)["blobs"] for line in empty.text.splitlines()] == [0]
    assert "holds nothing" in empty.errors
    assert not imgtar.store.exists()
    assert imgtar("inventory", "--of", tmp_path / "absent.tar").code == 3
    imgtar.load(oci_archive([BASE])).ok()
    assert imgtar("inventory", "--of", "absent:1").code == 3
    assert imgtar("inventory", "--of", tmp_path).code == 2
    assert imgtar("inventory", "--of", "docker://127.0.0.1:5000/x").code == 2


def test_the_one_document_and_a_gzipped_file_serve_as_a_base_too(imgtar: Imgtar, tmp_path: Path) -> None:
    import gzip

    imgtar.load(oci_archive([BASE, APP2])).ok()
    (tmp_path / "x.json").write_bytes(imgtar("inventory", "--json").ok().out)
    (tmp_path / "x.inv.gz").write_bytes(gzip.compress(imgtar("inventory").ok().out))
    for name in ("x.json", "x.inv.gz"):
        done = imgtar("save", "--base", tmp_path / name, "-o", tmp_path / "t", "--json", "app:2").ok().json()
        assert done["blobs"] == 0
    assert imgtar("inventory", "diff", tmp_path / "x.json", tmp_path / "x.inv.gz").ok().text == "they hold the same\n"
    (tmp_path / "x.json").write_bytes((tmp_path / "x.json").read_bytes().replace(b'"size": ', b'"size": 1', 1))
    assert imgtar("inventory", "diff", tmp_path / "x.json", "store").code == 5
    assert imgtar("inventory", "-o", tmp_path / "y.inv.gz").code == 2


def test_making_an_inventory_leaves_the_store_as_it_was(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([BASE, APP1])).ok()
    before = stored(imgtar.store)
    imgtar("inventory").ok()
    assert stored(imgtar.store) == before


def test_the_difference_of_two_inventories_is_told_by_digest_and_by_name(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE, APP1])).ok()
    imgtar("inventory", "-o", tmp_path / "before.inv").ok()
    assert imgtar("inventory", "diff", tmp_path / "before.inv", "store").ok().text == "they hold the same\n"
    imgtar.load(oci_archive([APP2])).ok()
    imgtar("tag", "app:2", "app:1").ok()
    imgtar("prune", "--untagged").ok()
    imgtar("inventory", "-o", tmp_path / "after.inv.zst").ok()
    done = imgtar("inventory", "diff", "--json", tmp_path / "before.inv", tmp_path / "after.inv.zst").ok().json()
    assert done["schema"] == "imgtar.inventory-diff/1"
    assert done["same"] is False
    assert {blob["digest"] for blob in done["added"]} == set(APP2.document.blobs()) - {BASE.layers[0].digest}
    assert {blob["digest"] for blob in done["removed"]} == set(APP1.document.blobs()) - {BASE.layers[0].digest}
    assert done["tags"] == [
        {"name": "app:1", "from": APP1.image_id, "to": APP2.image_id},
        {"name": "app:2", "from": None, "to": APP2.image_id},
    ]
    text = imgtar("inventory", "diff", tmp_path / "before.inv", tmp_path / "after.inv.zst").ok().text
    assert f"~ app:1  {APP1.image_id} -> {APP2.image_id}" in text
    assert f"+ app:2  {APP2.image_id}" in text


def test_a_tag_on_old_content_is_no_difference_in_content(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE])).ok()
    imgtar("inventory", "-o", tmp_path / "before.inv").ok()
    imgtar("tag", "base:1", "base:2").ok()
    done = imgtar("inventory", "diff", "--json", tmp_path / "before.inv", "store").ok().json()
    assert (done["added"], done["removed"]) == ([], [])
    assert done["from"]["root"] == done["to"]["root"]
    assert [tag["name"] for tag in done["tags"]] == ["base:2"]


def test_the_store_option_works_before_and_after_the_word_diff(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([BASE])).ok()
    imgtar("inventory", "-o", tmp_path / "x.inv").ok()
    for arguments in (
        ["--store", imgtar.store, "inventory", "diff", tmp_path / "x.inv", "store"],
        ["inventory", "--store", imgtar.store, "diff", tmp_path / "x.inv", "store"],
        ["inventory", "diff", "--store", imgtar.store, tmp_path / "x.inv", "store"],
    ):
        assert imgtar.bare(*arguments).ok().text == "they hold the same\n"
    assert imgtar("inventory", "--json", "diff", tmp_path / "x.inv", "store").ok().json()["same"] is True
    assert imgtar("inventory", "-o", tmp_path / "y.inv", "diff", tmp_path / "x.inv", "store").code == 2
