"""Thin archives: carry what the receiver lacks, load there as if all had come, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.images import (
    Image,
    docker_archive,
    make_image,
    make_index,
    oci_archive,
    oci_files,
    random_layer,
)
from tests.conftest import Imgtar, command_line, stored

FORMS = ["hybrid", "docker", "oci", "oci-dir"]

BASE = make_image("base:1", 1, seed=1)
RUNTIME = make_image("runtime:1", 2, seed=2, base=BASE)
APP1 = make_image("app:1", 1, seed=3, base=RUNTIME)
APP2 = make_image("app:2", 1, seed=4, base=RUNTIME)
FAMILY = [BASE, RUNTIME, APP1, APP2]


@pytest.fixture
def sender(imgtar: Imgtar) -> Imgtar:
    """A store with the whole family."""
    imgtar.load(oci_archive(FAMILY)).ok()
    return imgtar


@pytest.fixture
def site(imgtar: Imgtar, tmp_path: Path) -> Path:
    """A receiver that has everything up to app:1."""
    store = tmp_path / "site"
    imgtar.load(oci_archive([BASE, RUNTIME, APP1]), store=store).ok()
    return store


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def carried(imgtar: Imgtar, archive: Path) -> set[str]:
    """The layers that an archive holds, as inspect sees it."""
    images = imgtar("inspect", archive, "--json").ok().json()["images"]
    return {layer["digest"] for image in images for layer in image["layers"] if layer["present"]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("base", ["an image", "an archive", "a layout", "an inventory", "a store"])
def test_only_the_top_layer_travels_and_the_image_is_whole_at_the_other_end(
    form: str, base: str, sender: Imgtar, site: Path, tmp_path: Path
) -> None:
    where: object = "app:1"
    if base == "an archive":
        where = tmp_path / "base.tar"
        Path(str(where)).write_bytes(docker_archive([APP1]))
    elif base == "a layout":
        where = oci_files([APP1]).directory(tmp_path / "layout")
    elif base == "an inventory":
        where = tmp_path / "site.inv"
        sender("inventory", "-o", where, store=site).ok()
    elif base == "a store":
        where = site
    thin = tmp_path / "thin"
    done = sender("save", "--base", where, "--format", form, "-o", thin, "--json", "app:2").ok().json()
    assert {row["digest"] for row in done["left_out"]} == {layer.digest for layer in RUNTIME.layers}
    assert carried(sender, thin) == {APP2.layers[-1].digest}
    sender("verify", thin).ok()
    sender("load", "-i", thin, store=site).ok()
    sender("verify", store=site).ok()
    (row,) = [row for row in sender.images(store=site) if row["name"] == "app:2"]
    assert (row["image_id"], row["digest"]) == (APP2.image_id, APP2.digest)
    assert sender("save", "app:2", store=site).ok().out == sender("save", "app:2").ok().out


@pytest.mark.parametrize("form", FORMS)
def test_a_thin_archive_is_refused_where_the_base_is_not(form: str, sender: Imgtar, site: Path, tmp_path: Path) -> None:
    thin, empty = tmp_path / "thin", tmp_path / "empty"
    sender("save", "--base", "app:1", "--format", form, "-o", thin, "app:2").ok()
    sender.load(oci_archive([make_image("other:1", seed=9)]), store=empty).ok()
    before = stored(empty)
    done = sender("load", "-i", thin, "--json", store=empty)
    assert done.code == 4
    gaps = done.json()["error"]["details"]["missing"]
    assert {gap["digest"] for gap in gaps} == {layer.digest for layer in RUNTIME.layers}
    for place, layer in enumerate(RUNTIME.layers, 1):
        (gap,) = [gap for gap in gaps if gap["digest"] == layer.digest]
        assert gap["class"] == "promised-by-base"
        assert gap["kind"] == "layer"
        assert (gap["diff_id"], gap["size"]) == (layer.diff_id, len(layer.blob))
        assert gap["needed_by"] == ["app:2"]
        assert gap["through"] == [["app:2", f"layer {place}"]]
        assert gap["base"]["names"] == ["app:1"]
        assert gap["base"]["image_id"] == APP1.image_id
    assert f"bring app:1 ({APP1.image_id}), or save app:2 without --base" in done.errors
    assert stored(empty) == before
    sender("rmi", "app:1", "runtime:1", "base:1", store=site).ok()
    after_removal = stored(site)
    assert sender("load", "-i", thin, store=site).code == 4
    assert stored(site) == after_removal


def test_the_missing_base_may_come_with_the_same_load_in_any_order(sender: Imgtar, tmp_path: Path) -> None:
    thin, base = tmp_path / "thin.tar", tmp_path / "base.tar"
    sender("save", "--base", "app:1", "-o", thin, "app:2").ok()
    base.write_bytes(docker_archive([APP1]))
    for number, order in enumerate(([thin, base], [base, thin])):
        store = tmp_path / f"store{number}"
        sender("load", "-i", order[0], "-i", order[1], store=store).ok()
        assert sender.names(store=store) == {"app:1": APP1.image_id, "app:2": APP2.image_id}
        sender("verify", store=store).ok()


def test_a_medium_with_archives_and_an_inventory_loads_as_one(sender: Imgtar, tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    sender("save", "--base", "app:1", "-o", medium / "a-thin.tar", "app:2").ok()
    (medium / "b-base.tar").write_bytes(docker_archive([APP1]))
    sender("inventory", "-o", medium / "site.inv").ok()
    sender("inventory", "-o", medium / "site.inv.zst").ok()
    done = sender("load", "-i", medium, store=tmp_path / "store").ok()
    assert sorted(done.text.splitlines()) == ["Loaded image: app:1", "Loaded image: app:2"]
    assert "site.inv" in done.errors


def test_a_new_tag_on_old_content_costs_nothing_and_a_moved_tag_travels(
    sender: Imgtar, site: Path, tmp_path: Path
) -> None:
    inventory = tmp_path / "site.inv"
    sender("inventory", "-o", inventory, store=site).ok()
    sender("tag", "app:1", "app:stable").ok()
    done = sender("save", "--base", inventory, "-o", tmp_path / "tag.tar", "--json", "app:stable").ok().json()
    assert done["blobs"] == 0
    sender("load", "-i", tmp_path / "tag.tar", store=site).ok()
    assert sender.names(store=site)["app:stable"] == APP1.image_id
    sender("tag", "app:2", "app:1").ok()
    done = sender("save", "--base", inventory, "-o", tmp_path / "moved.tar", "--json", "app:1").ok().json()
    assert done["bytes"] >= len(APP2.layers[-1].blob)
    sender("load", "-i", tmp_path / "moved.tar", store=site).ok()
    assert sender.names(store=site)["app:1"] == APP2.image_id


def test_an_image_that_stays_at_home_altogether_is_named_whole_when_the_receiver_lost_it(
    sender: Imgtar, tmp_path: Path
) -> None:
    thin, empty = tmp_path / "thin.tar", tmp_path / "empty"
    sender("save", "--base", "app:1", "-o", thin, "app:1").ok()
    (image,) = sender("inspect", thin, "--json").ok().json()["images"]
    assert image["names"] == ["app:1"]
    assert image["image_id"] == APP1.image_id
    assert [layer["digest"] for layer in image["layers"]] == [layer.digest for layer in APP1.layers]
    (drawn,) = sender("deps", thin, "--json").ok().json()["images"]
    assert (drawn["names"], drawn["image_id"]) == (["app:1"], APP1.image_id)
    listed = [json.loads(line) for line in sender("inventory", "--of", thin).ok().out.splitlines()]
    assert [line["image_id"] for line in listed if "complete" in line] == [APP1.image_id]
    sender("verify", thin).ok()
    done = sender("load", "-i", thin, "--json", store=empty)
    assert done.code == 4
    gaps = done.json()["error"]["details"]["missing"]
    assert {gap["digest"] for gap in gaps} == set(APP1.document.blobs())
    ways = {gap["digest"]: gap["through"] for gap in gaps}
    assert ways[APP1.layers[-1].digest] == [["app:1", f"layer {len(APP1.layers)}"]]
    inventory = tmp_path / "here.inv"
    sender("inventory", "-o", inventory).ok()
    sender("verify", "--against", inventory, thin).ok()


def test_several_receivers_get_what_any_of_them_lacks(sender: Imgtar, site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    sender.load(oci_archive([BASE]), store=other).ok()
    for name, store in (("a.inv", site), ("b.inv", other)):
        sender("inventory", "-o", tmp_path / name, store=store).ok()
    thin = tmp_path / "thin.tar"
    done = sender("save", "--for", tmp_path / "a.inv", "--for", tmp_path / "b.inv", "-o", thin, "--json", "app:2")
    assert {row["digest"] for row in done.ok().json()["left_out"]} == {BASE.layers[0].digest}
    sender("verify", "--against", tmp_path / "a.inv", "--against", tmp_path / "b.inv", thin).ok()
    for store in (site, other):
        sender("load", "-i", thin, store=store).ok()
        sender("verify", store=store).ok()
    sender("save", "--base", tmp_path / "a.inv", "-o", thin, "app:2").ok()
    verdict = sender("verify", "--json", "--against", tmp_path / "a.inv", "--against", tmp_path / "b.inv", thin)
    assert verdict.code == 4
    assert [bool(place["missing"]) for place in verdict.json()["against"]["places"]] == [False, True]


@pytest.mark.parametrize("held", ["gzip", "zstd"])
@pytest.mark.parametrize("form", FORMS)
def test_a_plain_layer_stays_at_home_when_the_receiver_has_it_compressed(
    held: str, form: str, imgtar: Imgtar, tmp_path: Path
) -> None:
    packed = [random_layer(seed, held) for seed in (1, 2)]
    plain = [layer.plain() for layer in packed]
    image = make_image("app:1", [*plain, random_layer(3)], seed=5)
    imgtar.load(oci_archive([image])).ok()
    site = tmp_path / "site"
    imgtar.load(oci_archive([make_image("base:1", packed, seed=6)]), store=site).ok()
    imgtar("inventory", "-o", tmp_path / "site.inv", store=site).ok()
    thin = tmp_path / "thin"
    done = imgtar("save", "--base", tmp_path / "site.inv", "--format", form, "-o", thin, "--json", "app:1").ok().json()
    assert {row["digest"] for row in done["left_out"]} == {layer.digest for layer in plain}
    plan = imgtar("load", "-i", thin, "--dry-run", "--json", store=site).ok().json()
    real = imgtar("load", "-i", thin, "--json", store=site).ok().json()
    assert plan["bytes_written"] == real["bytes_written"]
    imgtar("verify", store=site).ok()
    assert imgtar("save", "app:1", store=site).ok().out == imgtar("save", "app:1").ok().out


def test_a_compressed_layer_travels_when_the_receiver_has_it_plain_and_the_reason_is_told(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    packed = random_layer(1, "gzip")
    image = make_image("app:1", [packed, random_layer(3)], seed=5)
    imgtar.load(oci_archive([image])).ok()
    site = tmp_path / "site"
    imgtar.load(docker_archive([make_image("base:1", [packed.plain()], seed=6)]), store=site).ok()
    imgtar("inventory", "-o", tmp_path / "site.inv", store=site).ok()
    why = imgtar("save", "--base", tmp_path / "site.inv", "--explain", packed.digest, "app:1").ok().text
    assert "goes in" in why
    assert "--layers none" in why
    thin = tmp_path / "thin.tar"
    imgtar("save", "--base", tmp_path / "site.inv", "-o", thin, "app:1").ok()
    imgtar("load", "-i", thin, store=site).ok()
    assert imgtar("save", "app:1", store=site).ok().out == imgtar("save", "app:1").ok().out
    # and what the advice says is so
    done = (
        imgtar("save", "--base", tmp_path / "site.inv", "--layers", "none", "-o", thin, "--json", "app:1").ok().json()
    )
    assert [row["digest"] for row in done["left_out"]] == [packed.diff_id]
    imgtar("load", "-i", thin, store=site).ok()
    assert imgtar.names(store=site)["app:1"] == image.image_id


def test_the_order_of_the_receivers_does_not_matter_whatever_form_each_holds(imgtar: Imgtar, tmp_path: Path) -> None:
    packed = random_layer(1, "gzip")
    image = make_image("app:1", [packed.plain(), random_layer(3)], seed=5)
    imgtar.load(oci_archive([image])).ok()
    for name, layer in (("a", packed), ("b", packed.plain())):
        imgtar.load(oci_archive([make_image("base:1", [layer], seed=6)]), store=tmp_path / name).ok()
    runs = [
        imgtar(
            "save", *(part for name in order for part in ("--for", tmp_path / name)), "app:1", "-o", tmp_path / order
        )
        for order in ("ab", "ba")
    ]
    assert [run.code for run in runs] == [0, 0]
    for order in ("ab", "ba"):
        assert packed.diff_id not in carried(imgtar, tmp_path / order)
        for name in ("a", "b"):
            imgtar("verify", "--against", tmp_path / name, tmp_path / order).ok()


def test_a_base_that_does_not_help_is_told_with_the_reasons(imgtar: Imgtar, tmp_path: Path) -> None:
    packed = random_layer(1, "gzip")
    imgtar.load(
        oci_archive([make_image("app:1", [packed], seed=5), make_image("base:1", [packed.plain()], seed=6)])
    ).ok()
    assert "--layers none" in imgtar("save", "--base", "base:1", "--dry-run", "app:1").ok().text
    done = imgtar("save", "--base", "base:1", "-o", tmp_path / "x.tar", "app:1").ok()
    assert "nothing could be left out" in done.errors


def test_more_images_than_a_reader_takes_are_not_written(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtar.model.limits import Limits
    from imgtar.ops import save

    imgtar.load(oci_archive(FAMILY)).ok()
    monkeypatch.setattr(save, "DEFAULT_LIMITS", Limits(images=3))
    done = imgtar("save", "-o", imgtar.home / "x.tar", "base:1", "runtime:1", "app:1", "app:2")
    assert done.code == 2
    assert not (imgtar.home / "x.tar").exists()


def test_explain_says_of_each_blob_why_it_is_in_or_out(sender: Imgtar) -> None:
    out = sender("save", "--base", "app:1", "--explain", BASE.layers[0].digest[7:20], "app:2").ok().text
    assert "left out: held by app:1" in out
    assert "needed by app:2" in out
    assert (
        "goes in: app:1 does not hold it"
        in sender("save", "--base", "app:1", "--explain", APP2.layers[-1].digest, "app:2").ok().text
    )
    assert sender("save", "--base", "app:1", "--explain", "0" * 64, "app:2").code == 3
    plan = sender("save", "--base", "app:1", "--dry-run", "--json", "app:2").ok().json()
    assert {row["digest"]: row["carried"] for row in plan["contents"]} == {
        **{layer.digest: False for layer in RUNTIME.layers},
        APP2.layers[-1].digest: True,
        APP2.image_id: True,
        APP2.digest: True,
    }


def test_the_dry_run_of_a_thin_save_counts_the_bytes_that_the_archive_carries(sender: Imgtar, tmp_path: Path) -> None:
    plan = sender("save", "--base", "runtime:1", "--dry-run", "--json", "app:1", "app:2").ok().json()
    done = sender(
        "save", "--base", "runtime:1", "-o", tmp_path / "x", "--format", "oci-dir", "--json", "app:1", "app:2"
    )
    assert plan["bytes"] == done.ok().json()["bytes"]
    assert plan["bytes"] == size_of(tmp_path / "x" / "blobs")
    assert plan["left_out"] == done.json()["left_out"]


def test_a_save_against_a_base_that_has_nothing_of_it_is_a_full_save(sender: Imgtar, tmp_path: Path) -> None:
    sender.load(oci_archive([make_image("other:1", seed=9)])).ok()
    assert sender("save", "--base", "other:1", "app:2").ok().out == sender("save", "app:2").ok().out


def test_a_thin_archive_is_the_same_bytes_every_time(sender: Imgtar, site: Path, tmp_path: Path) -> None:
    for name, store in (("one.inv", site), ("two.inv", site)):
        sender("inventory", "-o", tmp_path / name, store=store).ok()
    runs = {
        sender("save", "--base", tmp_path / name, "-j", jobs, *order).ok().out
        for name in ("one.inv", "two.inv")
        for jobs in (1, 4)
        for order in (("app:1", "app:2"), ("app:2", "app:1"))
    }
    assert len(runs) == 1


def test_a_delta_on_a_delta_is_based_on_what_its_loading_left_there(sender: Imgtar, site: Path, tmp_path: Path) -> None:
    """A thin archive as base stands for a receiver that has loaded it: with what it carries and what it required."""
    first = tmp_path / "first.tar"
    sender("save", "--base", "app:1", "-o", first, "app:2").ok()
    app3 = make_image("app:3", 1, seed=7, base=APP2)
    sender.load(oci_archive([app3])).ok()
    second = tmp_path / "second.tar"
    done = sender("save", "--base", first, "-o", second, "--json", "app:3").ok().json()
    assert {row["digest"] for row in done["left_out"]} == {layer.digest for layer in APP2.layers}
    assert sender("load", "-i", second, store=site).code == 4
    sender("load", "-i", second, "-i", first, store=site).ok()
    assert sender.names(store=site)["app:3"] == app3.image_id


def test_a_rotten_base_counts_as_missing_and_is_repaired_by_a_full_archive(
    sender: Imgtar, site: Path, tmp_path: Path
) -> None:
    thin, whole = tmp_path / "thin.tar", tmp_path / "whole.tar"
    sender("save", "--base", "app:1", "-o", thin, "app:2").ok()
    sender("save", "-o", whole, "app:2").ok()
    path = site / "blobs" / BASE.layers[0].digest.replace(":", "/")
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    done = sender("load", "-i", thin, "--json", store=site)
    assert done.code == 4
    (gap,) = done.json()["error"]["details"]["missing"]
    assert (gap["digest"], gap["class"]) == (BASE.layers[0].digest, "damaged")
    sender("load", "-i", thin, "-i", whole, store=site).ok()
    sender("verify", store=site).ok()


def test_an_index_travels_thin_and_a_lost_platform_is_a_gap_not_a_platform_that_was_never_shipped(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    amd, arm = make_image((), 2, seed=1), make_image((), 2, "linux/arm64", seed=2)
    newer = make_image((), 1, seed=3, base=amd)
    imgtar.load(oci_archive([(make_index(amd, arm), ["multi:1"])])).ok()
    imgtar.load(oci_archive([(make_index(newer, arm), ["multi:2"])])).ok()
    thin = tmp_path / "thin.tar"
    done = imgtar("save", "--base", "multi:1", "-o", thin, "--json", "multi:2").ok().json()
    assert {row["digest"] for row in done["left_out"]} == {
        layer.digest for image in (amd, arm) for layer in image.layers
    }
    site = tmp_path / "site"
    imgtar.load(oci_archive([(make_index(amd, sparse=[arm]), ["multi:1"])]), store=site).ok()
    done = imgtar("load", "-i", thin, "--json", store=site)
    assert done.code == 4
    gaps = done.json()["error"]["details"]["missing"]
    assert {gap["digest"] for gap in gaps} == {layer.digest for layer in arm.layers}
    assert all(gap["through"][0][1] == f"linux/arm64 {arm.digest}" for gap in gaps)
    imgtar.load(oci_archive([(make_index(amd, arm), ["multi:1"])]), store=site).ok()
    imgtar("load", "-i", thin, store=site).ok()
    assert imgtar("save", "multi:2", store=site).ok().out == imgtar("save", "multi:2").ok().out


def test_a_thin_archive_loads_from_a_pipe_and_compressed(sender: Imgtar, site: Path) -> None:
    for compression in ("none", "gzip", "zstd"):
        thin = sender("save", "--base", "app:1", "--compress", compression, "app:2").ok().out
        sender("load", stdin=thin, store=site).ok()
        assert sender.names(store=site)["app:2"] == APP2.image_id
        sender("rmi", "app:2", store=site).ok()


def test_the_record_says_what_is_required_by_whom_and_from_which_base(sender: Imgtar, tmp_path: Path) -> None:
    folder = tmp_path / "thin"
    sender("save", "--base", "app:1", "--format", "oci-dir", "-o", folder, "app:2").ok()
    record = json.loads((folder / "imgtar.json").read_bytes())
    assert record["schema"] == "imgtar.thin/1"
    assert [base["names"] for base in record["bases"]] == [["app:1"]]
    assert {one["digest"]: (one["size"], one["diff_id"], one["mediaType"]) for one in record["requires"]} == {
        layer.digest: (len(layer.blob), layer.diff_id, layer.media_type) for layer in RUNTIME.layers
    }
    (image,) = record["images"]
    assert image["names"] == ["app:2"]
    assert image["image_id"] == APP2.image_id
    assert len(image["requires"]) == len(RUNTIME.layers)
    document = sender("inspect", folder, "--json").ok().json()
    assert document["archive"]["thin"] is True
    assert {one["digest"] for one in document["requires"]} == {layer.digest for layer in RUNTIME.layers}
    assert all(one["needed_by"] == [APP2.image_id] for one in document["requires"])
    assert document["missing"] == []


# --- at random


KINDS = st.sampled_from([None, None, "gzip", "zstd"])
STACKS = st.lists(st.tuples(st.integers(0, 4), KINDS), max_size=4)
"""Layers of an image by their seeds, each in some compression: the same contents turn up in every one."""


def built(stacks: list[list[tuple[int, str | None]]], names: list[str], offset: int) -> list[Image]:
    return [
        make_image(
            name, [random_layer(seed, kind, size=700 if seed else 40_000) for seed, kind in stack], seed=offset + n
        )
        for n, (name, stack) in enumerate(zip(names, stacks, strict=False))
    ]


@given(
    st.lists(STACKS, min_size=1, max_size=3),
    st.lists(STACKS, max_size=2),
    st.sets(st.integers(0, 2), max_size=2),
    st.sampled_from(FORMS),
)
@settings(max_examples=10, deadline=None)
def test_a_thin_archive_does_at_its_receiver_what_the_full_one_does(
    stacks: list[list[tuple[int, str | None]]],
    others: list[list[tuple[int, str | None]]],
    common: set[int],
    form: str,
) -> None:
    sent = built(stacks, ["app:1", "app:2", "tool:1"], 0)
    held = [*built(others, ["base:1", "base:2"], 10), *(image for n, image in enumerate(sent) if n in common)]
    with command_line() as imgtar:
        imgtar.load(oci_archive(sent)).ok()
        site, twin, empty = (imgtar.home / name for name in ("site", "twin", "empty"))
        for store in (site, twin):
            imgtar.load(oci_archive(held or [make_image("seen:1", 1, seed=90)]), store=store).ok()
        imgtar.load(oci_archive([make_image("seen:1", 1, seed=90)]), store=empty).ok()
        inventory = imgtar.home / "site.inv.zst"
        imgtar("inventory", "-o", inventory, store=site).ok()
        names = sorted(image.name for image in sent)
        thin, full = imgtar.home / "thin", imgtar.home / "full"
        done = imgtar("save", "--base", inventory, "--format", form, "-o", thin, "--json", *names).ok().json()
        imgtar("save", "--format", form, "-o", full, *names).ok()
        imgtar("verify", thin).ok()
        held_digests = {digest for image in held for digest in image.document.blobs()}
        fresh = {d: len(raw) for image in sent for d, raw in image.document.blobs().items() if d not in held_digests}
        assert size_of(thin) <= sum(fresh.values()) * 1.01 + (64 << 10)
        against = imgtar("verify", "--json", "--against", inventory, thin).ok().json()["against"]
        imgtar("verify", "--against", site, thin).ok()
        plan = imgtar("load", "--dry-run", "--json", "-i", thin, store=site).ok().json()
        assert plan["bytes_written"] == against["places"][0]["bytes_to_write"]
        assert imgtar("load", "--json", "-i", thin, store=site).ok().json()["bytes_written"] == plan["bytes_written"]
        imgtar("load", "-i", full, store=twin).ok()
        imgtar("verify", store=site).ok()
        there = sorted(imgtar.names(store=twin))
        assert imgtar("save", *there, store=site).ok().out == imgtar("save", *there, store=twin).ok().out
        if form != "docker":
            assert imgtar("save", *names, store=site).ok().out == imgtar("save", *names).ok().out
        # elsewhere it lacks exactly what was left out
        lost = imgtar("load", "--json", "-i", thin, store=empty)
        left_out = {row["digest"] for row in done["left_out"]}
        missing = lost.json()["error"]["details"]["missing"] if lost.code else []
        named = {gap["digest"] for gap in missing}
        assert lost.code == (4 if named else 0), lost.errors
        assert named <= left_out
        if left_out:
            # What is not named can be had from what the archive carries: a plain layer out of a compressed one, and in
            # a docker archive, which has no manifest to insist, any layer by its diff ID.
            layers = {layer.digest: layer for image in sent for layer in image.layers}
            content = {layer.diff_id for layer in layers.values() if layer.digest not in left_out}
            for digest in left_out - named:
                assert layers[digest].diff_id in content
                assert form == "docker" or layers[digest].compression is None
