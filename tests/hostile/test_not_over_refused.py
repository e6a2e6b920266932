"""Archives that must be read: a tool that refuses everything passes every other test of this folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import rawtar
from tests.builders.images import (
    Files,
    Member,
    attestation,
    blob_name,
    dir_files,
    docker_files,
    hybrid_files,
    layer_tar,
    legacy_files,
    make_image,
    make_index,
    make_layer,
    oci_files,
    random_layer,
)
from tests.hostile.conftest import PLAIN, World

Assert = Callable[..., None]

ONE = make_image("demo:1", layers=2)
TWO = make_image("demo:2", layers=1, base=ONE, seed=3)
GZIP = make_image("demo:1", layers=2, compression="gzip")
ZSTD = make_image("demo:1", layers=2, compression="zstd")
ARM = make_image("demo:1", platform="linux/arm64/v8", seed=5)
FAMILIES = {
    "docker-1.10-to-24": docker_files([ONE, TWO], "v1"),
    "podman": docker_files([ONE, TWO]),
    "crane": docker_files([GZIP], "crane"),
    "docker-25": hybrid_files([ONE, TWO]),
    "oci": oci_files([ONE, TWO]),
    "oci-gzip": oci_files([GZIP]),
    "oci-zstd": oci_files([ZSTD]),
    "before-1.10": legacy_files([ONE, TWO]),
}
NAMES = {name: ["demo:1"] if name in ("crane", "oci-gzip", "oci-zstd") else ["demo:1", "demo:2"] for name in FAMILIES}


def folders(files: Files) -> Files:
    """With an entry for every directory."""
    every = {name.rpartition("/")[0] for name in files.names if "/" in name.rstrip("/")}
    every |= {"/".join(name.split("/")[:depth]) for name in every for depth in range(1, name.count("/") + 1)}
    known = {name.rstrip("/") for name in files.names}
    return files.plus(*(Member(f"{name}/", kind=b"5") for name in sorted(every - known)), first=True)


SHAPES: dict[str, Callable[[Files], bytes]] = {
    "as-written": Files.tar,
    "reversed": lambda files: files.reversed().tar(),
    "dotted": lambda files: files.mapped(lambda name: f"./{name}").tar(),
    "dotted-with-folders": lambda files: folders(files).mapped(lambda n: f"./{n}").plus(Member("./", kind=b"5")).tar(),
    "folders": lambda files: folders(files).tar(),
    "no-folders": lambda files: Files(tuple(member for member in files.members if member.kind != b"5")).tar(),
    "padded-10-KiB": lambda files: files.tar(record=10240),
    "padded-1-MiB": lambda files: files.tar(record=1 << 20),
    "global-comment": lambda files: rawtar.pax((b"comment", b"0123456789abcdef"), kind=b"g") + files.tar(),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_family_in_every_shape(assert_accepted: Assert, family: str, shape: str) -> None:
    data = SHAPES[shape](FAMILIES[family])
    runs = [("load", "file"), ("verify", "pipe"), ("inspect", "file")] if shape != "as-written" else None
    assert_accepted(data, names=NAMES[family], **({"runs": runs} if runs else {}))


def test_repositories_beside_manifest_json(assert_accepted: Assert) -> None:
    assert_accepted(docker_files([ONE], repositories=True).tar(), names=["demo:1"], forms=PLAIN)


def test_manifest_json_first(assert_accepted: Assert) -> None:
    files = docker_files([ONE])
    assert_accepted(
        files.without("manifest.json").plus(Member("manifest.json", files["manifest.json"]), first=True).tar(),
        names=["demo:1"],
        forms=PLAIN,
    )


def test_no_layers(assert_accepted: Assert) -> None:
    image = make_image("empty:1", layers=0)
    for files in (docker_files([image]), oci_files([image]), hybrid_files([image])):
        assert_accepted(files.tar(), names=["empty:1"], forms=PLAIN)


def test_an_empty_layer_many_times(assert_accepted: Assert) -> None:
    empty = make_layer(layer_tar({}))
    image = make_image("same:1", layers=[empty, random_layer(1), empty, empty])
    for files in (docker_files([image]), docker_files([image], "v1"), oci_files([image]), hybrid_files([image])):
        assert_accepted(files.tar(), names=["same:1"], forms=PLAIN)


def test_no_names(assert_accepted: Assert) -> None:
    for files in (docker_files([ONE.named()]), oci_files([ONE.named()]), hybrid_files([ONE.named()])):
        assert_accepted(files.tar(), names=[], ids=[ONE.image_id], forms=PLAIN)


def test_several_names(assert_accepted: Assert) -> None:
    image = ONE.named("demo:1", "demo:latest", "host.example:5000/team/demo:1")
    for files in (docker_files([image]), oci_files([image]), hybrid_files([image])):
        assert_accepted(files.tar(), names=list(image.names), forms=PLAIN)


def test_an_index_with_attestations(assert_accepted: Assert) -> None:
    index = make_index(ONE, attestation(ONE), ARM, attestation(ARM))
    assert_accepted(oci_files([(index, ["multi:1"])]).tar(), names=["multi:1"])


def test_an_index_some_of_whose_platforms_did_not_come(assert_accepted: Assert) -> None:
    index = make_index(ONE, attestation(ONE), sparse=[ARM])
    assert_accepted(oci_files([(index, ["sparse:1"])]).tar(), names=["sparse:1"], warning="E_MISSING", strict=False)


def test_unknown_annotations_and_properties(assert_accepted: Assert) -> None:
    image = ONE.with_manifest(lambda value: value.update(annotations={"x.example/y": "z"}, future={"a": [1]}))
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], forms=PLAIN)


def test_sha512_blobs(assert_accepted: Assert) -> None:
    layer = ONE.layers[0]
    digest = "sha512:" + hashlib.sha512(layer.blob).hexdigest()
    image = ONE.with_manifest(lambda value: value["layers"][0].update(digest=digest))
    files = oci_files([image]).renamed(blob_name(layer.digest), blob_name(digest))
    assert_accepted(files.tar(), names=["demo:1"], forms=PLAIN)
    nobody = Member("blobs/sha512/" + hashlib.sha512(b"x").hexdigest(), b"x")
    assert_accepted(oci_files([ONE]).plus(nobody).tar(), names=["demo:1"], forms=PLAIN)


def test_mixed_compressions_in_one_image(assert_accepted: Assert) -> None:
    image = make_image("mix:1", layers=[random_layer(1), random_layer(2, "gzip"), random_layer(3, "zstd")])
    for files in (docker_files([image]), oci_files([image]), hybrid_files([image])):
        assert_accepted(files.tar(), names=["mix:1"], forms=PLAIN)


@pytest.mark.parametrize("name", ["oci", "podman", "docker-25", "docker-1.10-to-24"])
def test_unpacked_archives(assert_accepted: Assert, tmp_path: Path, name: str) -> None:
    assert_accepted(FAMILIES[name].directory(tmp_path / "folder"), names=NAMES[name])


def test_a_dir_layout(assert_accepted: Assert, tmp_path: Path) -> None:
    assert_accepted(dir_files(ONE).directory(tmp_path / "folder"), names=[], ids=[ONE.image_id])


@pytest.mark.parametrize("platform", ["windows/amd64", "wasip1/wasm", "linux/riscv64", "freebsd/arm64"])
def test_other_platforms(assert_accepted: Assert, platform: str) -> None:
    image = make_image("other:1", platform=platform)
    assert_accepted(oci_files([image]).tar(), names=["other:1"], forms=PLAIN)


def test_a_member_of_more_than_8_gib_is_stepped_over(world: World) -> None:
    size = 9 << 30
    path = world.incoming / "large.tar"
    good = docker_files([ONE]).tar(end=b"")
    head = rawtar.header(b"ballast", size=rawtar.base256(size, 12))
    with open(path, "wb") as file:
        file.write(head)
        file.seek(size, 1)
        file.write(good + rawtar.END)
    for command in ("load", "plan", "inspect"):
        done = world.run(command, path)
        assert done.status == 0, done
