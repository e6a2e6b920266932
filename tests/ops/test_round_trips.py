"""Whatever goes in comes out the same: image IDs always, digests where the form carries them, bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.images import (
    Image,
    Layer,
    attestation,
    docker_archive,
    hybrid_archive,
    make_image,
    make_index,
    oci_archive,
    random_layer,
    sha256,
)
from tests.conftest import Imgtar, command_line, snapshot

NAMES = ["app:1", "app:2", "tool:latest", "registry.example:5000/team/app:1", "quay.io/x/y:z"]
FORMS = ["hybrid", "docker", "oci", "oci-dir"]


@st.composite
def families(draw: st.DrawFn) -> list[Image]:
    """A few images that share layers in every which way; each name once."""
    pool: list[Layer] = [
        random_layer(seed, draw(st.sampled_from([None, "gzip", "zstd"])), size=draw(st.sampled_from([0, 1, 700, 5000])))
        for seed in range(draw(st.integers(1, 4)))
    ]
    names = draw(st.permutations(NAMES))
    images: dict[str, Image] = {}
    for place in range(draw(st.integers(1, 4))):
        layers = draw(st.lists(st.integers(0, len(pool) - 1), max_size=4))
        platform = draw(st.sampled_from(["linux/amd64", "linux/arm64/v8", "windows/amd64"]))
        image = make_image(names[place], [pool[n] for n in layers], platform, seed=place)
        images[image.image_id] = image
    return list(images.values())


def by_name(imgtar: Imgtar, store: Path | None = None) -> dict[str, tuple[str, str]]:
    return {row["name"]: (row["image_id"], row["digest"]) for row in imgtar.images(store=store)}


@given(families(), st.sampled_from([docker_archive, oci_archive, hybrid_archive]), st.sampled_from(FORMS))
@settings(max_examples=12, deadline=None)
def test_load_save_load_keeps_every_image(family: list[Image], lay_out: Callable[..., bytes], form: str) -> None:
    with command_line() as imgtar:
        imgtar.load(lay_out(family)).ok()
        here = by_name(imgtar)
        assert here == {image.name: (image.image_id, image.digest) for image in family}
        first, second, there = imgtar.home / "first", imgtar.home / "second", imgtar.home / "there"
        imgtar("save", "--format", form, "-o", first, *here).ok()
        imgtar("save", "--format", form, "-o", second, *reversed(here)).ok()
        assert (snapshot(first) == snapshot(second)) if form == "oci-dir" else first.read_bytes() == second.read_bytes()
        imgtar("verify", first).ok()
        imgtar.load(first, store=there).ok()
        imgtar("verify", store=there).ok()
        if form != "docker":
            assert by_name(imgtar, there) == here
        assert imgtar.names(store=there) == imgtar.names()


@given(families(), st.sampled_from(["none", "gzip", "zstd:3"]))
@settings(max_examples=10, deadline=None)
def test_recompressing_keeps_image_ids_and_layer_contents(family: list[Image], layers: str) -> None:
    with command_line() as imgtar:
        imgtar.load(oci_archive(family)).ok()
        out, there = imgtar.home / "out.tar", imgtar.home / "there"
        imgtar("save", "--layers", layers, "-o", out, *imgtar.names()).ok()
        imgtar("verify", out).ok()
        imgtar.load(out, store=there).ok()
        assert imgtar.names(store=there) == imgtar.names()
        imgtar("verify", store=there).ok()
        magic = {"none": b"", "gzip": b"\x1f\x8b", "zstd:3": b"\x28\xb5\x2f\xfd"}[layers]
        for image in json.loads(imgtar("inspect", out, "--json").ok().out)["images"]:
            (original,) = [each for each in family if each.image_id == image["image_id"]]
            assert [row["diff_id"] for row in image["layers"]] == [layer.diff_id for layer in original.layers]
            for row in image["layers"]:
                assert row["media_type"].endswith(f"+{layers[:4]}" if layers != "none" else ".tar")
                blob = (there / "blobs" / row["digest"].replace(":", "/")).read_bytes()
                assert blob.startswith(magic)
                assert sha256(_plain(blob, layers)) == row["diff_id"]


def _plain(blob: bytes, layers: str) -> bytes:
    if layers == "gzip":
        return gzip.decompress(blob)
    if layers == "none":
        return blob
    return zstandard.ZstdDecompressor().decompressobj().decompress(blob)


PLAIN = [make_image("base:1", 2, seed=1), make_image("app:1", 2, seed=2, base=make_image("base:1", 2, seed=1))]


def test_decompressed_layers_are_those_of_the_plain_image_again(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive(PLAIN)).ok()
    plain = imgtar("save", "base:1", "app:1").ok().out
    zipped = imgtar("save", "--layers", "gzip", "base:1", "app:1").ok().out
    assert len(zipped) != len(plain)
    imgtar.load(zipped, store=tmp_path / "zipped").ok()
    again = imgtar("save", "--layers", "none", "base:1", "app:1", store=tmp_path / "zipped").ok().out
    assert again == plain


def test_layers_that_have_the_wanted_compression_are_left_alone(imgtar: Imgtar) -> None:
    image = make_image("app:1", compression="gzip")
    imgtar.load(oci_archive([image])).ok()
    assert imgtar("save", "--layers", "gzip", "app:1").ok().out == imgtar("save", "app:1").ok().out


def test_recompressing_is_the_same_with_one_job_and_with_many(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive(PLAIN)).ok()
    for layers in ("gzip", "zstd"):
        runs = {imgtar("save", "--layers", layers, "-j", jobs, "app:1", "base:1").ok().out for jobs in (1, 2, 8)}
        assert len(runs) == 1


def test_recompressing_an_index_keeps_its_platforms_and_leaves_out_attestations_of_what_changed(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    amd, arm = make_image((), seed=3), make_image((), seed=4, platform="linux/arm64/v8")
    index = make_index(amd, arm, attestation(amd))
    imgtar.load(oci_archive([(index, ["multi:1"])])).ok()
    done = imgtar("save", "--layers", "gzip", "-o", tmp_path / "x.tar", "multi:1").ok()
    assert "attestation" in done.errors
    (shown,) = imgtar("inspect", tmp_path / "x.tar", "--json").ok().json()["images"]
    assert [(image["platform"], image["image_id"]) for image in shown["manifests"]] == [
        ("linux/amd64", amd.image_id),
        ("linux/arm64/v8", arm.image_id),
    ]
    assert shown["other"] == []
    imgtar("verify", tmp_path / "x.tar").ok()


def test_a_rotten_layer_stops_the_recompression(imgtar: Imgtar, tmp_path: Path) -> None:
    for compression in (None, "gzip", "zstd"):
        image = make_image("app:1", compression=compression, seed=9)
        imgtar.load(oci_archive([image])).ok()
        path = imgtar.store / "blobs" / image.layers[1].digest.replace(":", "/")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        for layers in ("none", "gzip", "zstd"):
            done = imgtar("save", "--layers", layers, "-o", tmp_path / "x.tar", "app:1")
            assert done.code == 7, (compression, layers, done.errors)
            assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("beside", [True, False], ids=["with an image beside it", "alone"])
def test_an_index_within_an_index_is_recompressed_to_the_bottom(beside: bool, imgtar: Imgtar, tmp_path: Path) -> None:
    """A nested index refers to manifests that change: it must change with them, or the archive is not whole."""
    others = [make_image((), seed=4, platform="linux/arm64")] if beside else []
    outer = make_index(make_index(make_image((), seed=3)), *others)
    imgtar.load(oci_archive([(outer, ["multi:1"])])).ok()
    imgtar("save", "--layers", "gzip", "-o", tmp_path / "x.tar", "multi:1").ok()
    imgtar("verify", tmp_path / "x.tar").ok()
    (shown,) = imgtar("inspect", tmp_path / "x.tar", "--json").ok().json()["images"]
    flat = [*shown["manifests"][0]["manifests"], *shown["manifests"][1:]]
    assert len(flat) == 1 + len(others)
    assert {row["media_type"] for image in flat for row in image["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }


@pytest.mark.parametrize("outer", ["none", "gzip", "zstd", "bzip2", "xz"])
def test_any_outer_compression_gives_the_same_store(outer: str, imgtar: Imgtar, tmp_path: Path) -> None:
    import bz2
    import lzma

    pack: dict[str, Any] = {
        "none": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.ZstdCompressor().compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
    }
    data = docker_archive(PLAIN)
    imgtar.load(data, store=tmp_path / "plain").ok()
    imgtar.load(pack[outer](data)).ok()
    assert imgtar.images() == imgtar.images(store=tmp_path / "plain")
    imgtar("load", stdin=pack[outer](data), store=tmp_path / "piped").ok()
    assert imgtar.images() == imgtar.images(store=tmp_path / "piped")


def test_an_archive_rebuilt_by_another_tar_is_the_same_to_us(imgtar: Imgtar, tmp_path: Path) -> None:
    """Unpacked and packed again in another order, with ./ before every name: a common accident on the way."""
    imgtar.load(oci_archive(PLAIN)).ok()
    with tarfile.open(fileobj=io.BytesIO(imgtar("save", "app:1").ok().out)) as tar:
        tar.extractall(tmp_path / "x", filter="data")
    with tarfile.open(tmp_path / "again.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(tmp_path / "x", arcname=".")
    imgtar.load(tmp_path / "again.tar", store=tmp_path / "other").ok()
    assert imgtar.names(store=tmp_path / "other") == {"app:1": PLAIN[1].image_id}
    assert (
        hashlib.sha256((tmp_path / "again.tar").read_bytes()).hexdigest()
        in imgtar("verify", tmp_path / "again.tar").ok().text
    )
