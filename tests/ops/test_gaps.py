"""What is missing is told truly, all of it, in one run, wherever it should have been."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.images import Files, Image, docker_archive, docker_files, make_image, oci_archive, oci_files
from tests.conftest import Imgtar


def docker_without(image: Image, *names: str) -> Files:
    return docker_files([image]).without(*names)


def test_a_config_that_the_archive_lacks_comes_from_another_archive_or_the_store(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    image = make_image("app:1", 2, seed=1)
    config = f"{image.image_id[7:]}.json"
    (tmp_path / "cut.tar").write_bytes(docker_without(image, config, f"{image.layers[0].digest[7:]}.tar").tar())
    (tmp_path / "full.tar").write_bytes(docker_archive([image.named("full:1")]))
    for order in (("cut", "full"), ("full", "cut")):
        store = tmp_path / order[0]
        imgtar("load", *(part for name in order for part in ("-i", tmp_path / f"{name}.tar")), store=store).ok()
        assert imgtar.names(store=store) == {"app:1": image.image_id, "full:1": image.image_id}
        imgtar("verify", store=store).ok()
    imgtar("load", "-i", tmp_path / "full.tar").ok()
    imgtar("load", "-i", tmp_path / "cut.tar").ok()
    assert imgtar.names()["app:1"] == image.image_id


def test_beside_a_missing_config_the_missing_layers_are_named_too(imgtar: Imgtar) -> None:
    image = make_image("app:1", 2, seed=1)
    layer = f"{image.layers[0].digest[7:]}.tar"
    done = imgtar.load(docker_without(image, f"{image.image_id[7:]}.json", layer).tar(), "--json")
    gaps = done.json()["error"]["details"]["missing"]
    assert [(gap["kind"], gap["digest"]) for gap in gaps] == [("config", image.image_id), ("layer", None)]
    assert gaps[1]["expected_in"].endswith(layer)


def test_a_missing_parent_is_told_in_the_same_run_as_the_missing_layers(imgtar: Imgtar) -> None:
    base = make_image("base:1", 1, seed=1)
    image = make_image("app:1", 1, seed=2, base=base)
    files = docker_without(image, f"{base.layers[0].digest[7:]}.tar")
    files = files.edited("manifest.json", lambda items: [{**item, "Parent": base.image_id} for item in items])
    gaps = imgtar.load(files.tar(), "--dry-run", "--json").json()["missing"]
    assert [(gap["kind"], gap["digest"], gap["diff_id"]) for gap in gaps] == [
        ("layer", None, base.layers[0].diff_id),
        ("parent", base.image_id, None),
    ]


def test_a_parent_that_comes_incomplete_is_not_called_absent_and_its_child_needs_what_it_lacks(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    base = make_image("base:1", 1, seed=1)
    child = make_image("kid:1", 1, seed=2, base=base)
    (tmp_path / "cut.tar").write_bytes(docker_without(base, f"{base.layers[0].digest[7:]}.tar").tar())
    whole = docker_files([child]).edited(
        "manifest.json", lambda items: [{**item, "Parent": base.image_id} for item in items]
    )
    # The child carries the layer under its own name: with it the base would be whole, so it is taken away here.
    (tmp_path / "kid.tar").write_bytes(whole.without(f"{base.layers[0].digest[7:]}.tar").tar())
    inputs = ["-i", tmp_path / "cut.tar", "-i", tmp_path / "kid.tar"]
    (gap,) = imgtar("load", "--dry-run", "--json", *inputs).json()["missing"]
    assert (gap["kind"], gap["diff_id"]) == ("layer", base.layers[0].diff_id)
    assert set(gap["needed_by"]) == {"base:1", "kid:1"}
    assert ["kid:1", "base:1", "layer 1"] in gap["through"]


@pytest.mark.parametrize("order", [("plain", "packed"), ("packed", "plain")])
def test_one_image_in_two_forms_is_one_image(order: tuple[str, str], imgtar: Imgtar, tmp_path: Path) -> None:
    packed = make_image("app:1", 2, "linux/amd64", "gzip", seed=1)
    plain = make_image("app:1", [layer.plain() for layer in packed.layers], seed=1)
    assert packed.image_id == plain.image_id
    (tmp_path / "packed").write_bytes(oci_archive([packed]))
    (tmp_path / "plain").write_bytes(oci_archive([plain]))
    inputs = [part for name in order for part in ("-i", tmp_path / name)]
    done = imgtar("load", "--json", *inputs).ok().json()
    assert [image["digest"] for image in done["images"]] == [min(packed.digest, plain.digest)]
    assert any("2 forms of one image" in finding["message"] for finding in done["findings"])
    # What cannot be had in one form is taken in the other.
    files = oci_files([packed if packed.digest < plain.digest else plain])
    better = plain if packed.digest < plain.digest else packed
    name = next(
        member.name
        for member in files.members
        if member.name.endswith((packed if packed.digest < plain.digest else plain).layers[0].digest[7:])
    )
    (tmp_path / ("packed" if packed.digest < plain.digest else "plain")).write_bytes(files.without(name).tar())
    other = tmp_path / "other"
    done = imgtar("load", "--json", *inputs, store=other).ok().json()
    assert [image["digest"] for image in done["images"]] == [better.digest]


def test_what_is_left_behind_is_said_however_quiet_the_run(imgtar: Imgtar) -> None:
    cut = oci_files([make_image("cut:1", 1, seed=1), make_image("whole:1", 1, seed=2)])
    layer = make_image("cut:1", 1, seed=1).layers[0].digest[7:]
    done = imgtar.load(cut.without(f"blobs/sha256/{layer}").tar(), "--partial", "-q").ok()
    assert done.text == "Loaded image: whole:1\n"
    assert "left behind: cut:1" in done.errors
