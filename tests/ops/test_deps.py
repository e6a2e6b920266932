"""``imgtar deps`` from outside: archives from a file and a pipe, the store, one image; as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import (
    Image,
    attestation,
    docker_archive,
    docker_files,
    hybrid_archive,
    make_image,
    make_index,
    oci_archive,
    sha256,
)
from tests.conftest import Imgtar, snapshot

FIXTURES = Path(__file__).parents[2] / "fixtures"
BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "app:latest"), 2, seed=2, base=BASE)
TOP = make_image("top:1", 1, seed=3, base=APP)
OTHER = make_image("other:1", 1, seed=4)
NOBODY = "sha256:" + "ab" * 32


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(oci_archive([TOP, OTHER, APP, BASE])).ok()
    return imgtar


def document(imgtar: Imgtar, *arguments: object, stdin: bytes | None = None) -> dict[str, Any]:
    value: dict[str, Any] = imgtar("deps", *arguments, "--json", stdin=stdin).ok().json()
    assert value["schema"] == "imgtar.deps/1"
    return value


def names(value: dict[str, Any]) -> list[str]:
    return [image["names"][0] for image in value["images"]]


def declaring(images: list[Image], parents: dict[str, str]) -> bytes:
    """A docker archive whose manifest.json names parents: image name to the parent's ID."""

    def edit(items: Any) -> None:
        for item in items:
            parent = parents.get(item["RepoTags"][0])
            if parent:
                item["Parent"] = parent

    return docker_files(images).edited("manifest.json", edit).tar()


def short(identity: str) -> str:
    return identity[:19]


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [docker_archive, hybrid_archive, oci_archive])
def test_an_archive_is_drawn_the_same_from_a_file_and_from_a_pipe(imgtar: Imgtar, tmp_path: Path, write: Any) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(write([TOP, APP, BASE, OTHER]))
    from_file = document(imgtar, path)
    from_pipe = document(imgtar, "-", stdin=path.read_bytes())
    assert from_file["images"] == from_pipe["images"]
    assert names(from_file) == ["base:1", "app:1", "top:1", "other:1"]
    assert from_file["where"] == str(path)
    assert from_file["missing"] == []
    assert not imgtar.store.exists()


def test_the_document_says_all_there_is_to_say_of_an_image(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(oci_archive([APP, BASE]))
    base, app = document(imgtar, path)["images"]
    size = sum(len(layer.blob) for layer in BASE.layers)
    assert app == {
        "names": ["app:1", "app:latest"],
        "image_id": APP.image_id,
        "digest": APP.digest,
        "platform": "linux/amd64",
        "size": len(APP.config) + sum(len(layer.blob) for layer in APP.layers),
        "own_bytes": sum(len(layer.blob) for layer in APP.layers[2:]),
        "parent": {
            "image_id": BASE.image_id,
            "digest": BASE.digest,
            "name": "base:1",
            "learned_from": "layers",
            "present": True,
        },
        "base": None,
        "children": [],
        "layers": [
            {
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "size": len(layer.blob),
                "present": True,
                "shared_with": ["base:1"] if place < 2 else [],
            }
            for place, layer in enumerate(APP.layers)
        ],
        "shared": [{"names": ["base:1"], "image_id": BASE.image_id, "layers": 2, "bytes": size}],
    }
    assert base["children"] == [APP.image_id]


def test_the_trees_of_a_real_archive(imgtar: Imgtar) -> None:
    done = imgtar("deps", FIXTURES / "docker-20.10.24" / "three-images.tar").ok()
    assert done.text.splitlines() == [
        "base:1  sha256:4414d4a0d818  18.5 kB in 1 layer",
        "├─ app:1  sha256:83f6b46dbaef  33.9 kB, 13.8 kB in 3 layers on top",
        "└─ app:2  sha256:b233ad95794c  33.9 kB, 13.8 kB in 3 layers on top",
        "",
        "shared layers:",
        "  1 layer, 16.9 kB: base:1, app:1, app:2",
        "  2 layers, 10.8 kB: app:1, app:2",
    ]


def test_the_branches_of_a_deep_tree_are_drawn(filled: Imgtar) -> None:
    filled.load(oci_archive([make_image("web:1", 1, seed=9, base=BASE)])).ok()
    lines = filled("deps").ok().text.splitlines()
    assert [line.partition("  sha256:")[0] for line in lines] == [
        "base:1",
        "├─ app:1, app:latest",
        "│  └─ top:1",
        "└─ web:1",
        "other:1",
    ]


def test_ids_are_whole_with_no_trunc(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(oci_archive([BASE]))
    assert BASE.image_id in imgtar("deps", "--no-trunc", path).ok().text
    assert BASE.image_id not in imgtar("deps", path).ok().text


def test_an_absent_parent_is_named_with_how_it_was_learned(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(declaring([BASE, APP], {"app:1": NOBODY}))
    line = imgtar("deps", path).ok().text.splitlines()[1]
    assert line.startswith("└─ app:1")
    assert line.endswith(f"; built on {short(NOBODY)} (not here: Parent in manifest.json)")
    app = document(imgtar, path)["images"][1]
    assert (app["parent"]["image_id"], app["parent"]["present"]) == (NOBODY, False)
    assert app["base"]["image_id"] == BASE.image_id


def test_a_circle_of_parents_is_drawn_and_said(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(declaring([BASE, APP], {"app:1": BASE.image_id, "base:1": APP.image_id}))
    value = document(imgtar, path)
    assert names(value) == ["base:1", "app:1"]
    assert [image["parent"]["image_id"] for image in value["images"]] == [APP.image_id, BASE.image_id]
    assert [image["children"] for image in value["images"]] == [[APP.image_id], []]
    assert [finding["code"] for finding in value["findings"]] == ["E_GRAPH"]
    text = imgtar("deps", path).ok().text
    assert f"its parents lead back to it, app:1 {short(APP.image_id)} (Parent in manifest.json)" in text
    assert "error[E_GRAPH]" in text


def test_the_platforms_of_an_index_are_images_of_their_own(imgtar: Imgtar, tmp_path: Path) -> None:
    arm = make_image((), 1, seed=7, platform="linux/arm64")
    index = make_index(BASE.named(), arm, attestation(arm))
    path = tmp_path / "a.tar"
    path.write_bytes(oci_archive([(index, ["multi:1"]), APP]))
    value = document(imgtar, path)
    assert [(image["names"], image["platform"]) for image in value["images"]] == [
        (["multi:1"], "linux/amd64"),
        (["app:1", "app:latest"], "linux/amd64"),
        (["multi:1"], "linux/arm64"),
    ]
    assert value["images"][1]["layers"][0]["shared_with"] == ["multi:1 (linux/amd64)"]
    text = imgtar("deps", path).ok().text
    assert f"multi:1  {short(arm.image_id)}  linux/arm64" in text


def test_what_an_archive_lacks_is_told(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    lost = APP.layers[3]
    path.write_bytes(docker_files([BASE, APP]).without(f"{lost.digest[7:]}.tar").tar())
    value = document(imgtar, path)
    assert [gap["diff_id"] for gap in value["missing"]] == [lost.diff_id]
    assert [layer["present"] for layer in value["images"][1]["layers"]] == [True, True, True, False]
    text = imgtar("deps", path).ok().text
    assert f"missing: layer {lost.diff_id}, needed by app:1, app:latest (absent)" in text


def test_a_broken_archive_is_refused(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(oci_archive([APP])[:-2048])
    assert imgtar("deps", path).code == 5


# -- the store ---------------------------------------------------------------------------------------------------------


def test_the_store_is_drawn_whole_and_nothing_in_it_changes(filled: Imgtar) -> None:
    before = snapshot(filled.store)
    value = document(filled)
    assert names(value) == ["base:1", "app:1", "top:1", "other:1"]
    assert value["where"] == str(filled.store)
    assert "shared layers" not in filled("deps").ok().text
    assert {path: data for path, data in snapshot(filled.store).items() if ".lock" not in path} == {
        path: data for path, data in before.items() if ".lock" not in path
    }


def test_without_a_store_the_tree_is_empty_and_an_image_is_not_found(imgtar: Imgtar) -> None:
    assert document(imgtar)["images"] == []
    assert imgtar("deps").ok().out == b""
    assert imgtar("deps", "app:1").code == 3
    assert not imgtar.store.exists()


def test_an_image_of_the_store_comes_with_ancestors_and_descendants(filled: Imgtar) -> None:
    filled.load(oci_archive([make_image("web:1", 1, seed=9, base=BASE)])).ok()
    value = document(filled, "app:1")
    assert names(value) == ["base:1", "app:1", "top:1"]
    assert value["images"][0]["children"] == [APP.image_id]
    assert value["images"][0]["layers"][0]["shared_with"] == ["app:1", "top:1", "web:1"]
    lines = filled("deps", "app:1").ok().text.splitlines()
    assert [line.partition("  sha256:")[0] for line in lines[:3]] == ["base:1", "└─ app:1, app:latest", "   └─ top:1"]
    assert any("layers" in line and "base:1, app:1, top:1, web:1" in line for line in lines[4:])


@pytest.mark.parametrize("text", ["app", "app:latest", APP.image_id, APP.digest, APP.image_id[7:20]])
def test_an_image_may_be_named_in_every_way(filled: Imgtar, text: str) -> None:
    assert names(document(filled, text)) == ["base:1", "app:1", "top:1"]


def test_a_name_without_a_tag_means_all_its_tags(filled: Imgtar) -> None:
    filled.load(oci_archive([make_image("other:2", 1, seed=5)])).ok()
    assert names(document(filled, "other")) == ["other:1", "other:2"]


def test_one_platform_of_an_index_may_be_named_by_its_id(imgtar: Imgtar) -> None:
    arm = make_image((), 1, seed=7, platform="linux/arm64")
    imgtar.load(oci_archive([(make_index(BASE.named(), arm), ["multi:1"])])).ok()
    assert [image["image_id"] for image in document(imgtar, arm.image_id)["images"]] == [arm.image_id]


@pytest.mark.parametrize(("text", "status"), [("nobody:1", 3), ("UPPER CASE", 2)])
def test_what_is_not_there_is_an_error_as_in_inspect(filled: Imgtar, text: str, status: int) -> None:
    assert filled("deps", text).code == status == filled("inspect", text).code


def test_the_store_remembers_a_declared_parent(imgtar: Imgtar) -> None:
    imgtar.load(declaring([BASE, APP], {"app:1": BASE.image_id})).ok()
    parent = document(imgtar, "app:1")["images"][1]["parent"]
    assert (parent["image_id"], parent["learned_from"], parent["present"]) == (BASE.image_id, "the store", True)


def blob(imgtar: Imgtar, digest: str) -> Path:
    return imgtar.store / "blobs" / "sha256" / digest[7:]


def test_a_damaged_manifest_hides_no_other_image(filled: Imgtar) -> None:
    blob(filled, OTHER.digest).write_bytes(b"{}" + b" " * (len(OTHER.manifest) - 2))
    value = document(filled)
    assert names(value) == ["base:1", "app:1", "top:1"]
    assert f"error[E_STORE]: {OTHER.digest}: the manifest of other:1 is missing or damaged" in filled("deps").ok().text
    about = document(filled, "app:1")
    assert names(about) == ["base:1", "app:1", "top:1"]
    assert about["findings"] == []
    assert filled("deps", "other:1").code == 7


def test_a_damaged_config_leaves_its_image_in_the_tree(filled: Imgtar) -> None:
    blob(filled, OTHER.image_id).write_bytes(b"{}" + b" " * (len(OTHER.config) - 2))
    value = document(filled)
    assert names(value) == ["base:1", "app:1", "top:1", "other:1"]
    assert [finding["subject"] for finding in value["findings"]] == [OTHER.image_id]
    assert value["images"][3]["layers"][0]["diff_id"] is None


def test_a_manifest_that_contradicts_itself_hides_no_other_image(filled: Imgtar) -> None:
    bad = OTHER.named("bad:1").with_manifest(lambda manifest: manifest["layers"].pop())
    index = filled.store / "index.json"
    entry = f'{{"mediaType":"{bad.document.media_type}","digest":"{bad.digest}","size":{len(bad.manifest)}}}'
    index.write_bytes(index.read_bytes().replace(b'"manifests":[', b'"manifests":[' + entry.encode() + b",", 1))
    blob(filled, bad.digest).write_bytes(bad.manifest)
    value = document(filled)
    assert names(value) == ["base:1", "app:1", "top:1", "other:1"]
    assert bad.digest in {finding["subject"] for finding in value["findings"]}
    done = filled("deps", bad.digest)
    assert done.code == 7
    assert "error[E_STORE]" in done.errors


def test_a_lost_layer_is_absent_and_missing(filled: Imgtar) -> None:
    blob(filled, OTHER.layers[0].digest).unlink()
    value = document(filled)
    assert names(value) == ["base:1", "app:1", "top:1", "other:1"]
    assert [(gap["kind"], gap["digest"], gap["needed_by"]) for gap in value["missing"]] == [
        ("layer", OTHER.layers[0].digest, ["other:1"])
    ]
    assert [layer["present"] for layer in value["images"][3]["layers"]] == [False]
    assert document(filled, "app:1")["missing"] == []


def test_images_of_a_store_that_contradict_each_other_are_shown_with_what_is_wrong(imgtar: Imgtar) -> None:
    imgtar.load(declaring([OTHER], {"other:1": BASE.image_id}), "--parents", "ignore").ok()
    imgtar.load(oci_archive([BASE])).ok()
    value = document(imgtar)
    assert names(value) == ["base:1", "other:1"]
    assert [finding["code"] for finding in value["findings"]] == ["E_GRAPH"]
    assert value["missing"] == []


def test_nothing_from_an_archive_can_steer_the_terminal(imgtar: Imgtar, tmp_path: Path) -> None:
    evil = "\x1b[31mred\u202e"

    def poison(config: Any) -> None:
        config["os"] = evil

    def annotate(manifest: Any) -> None:
        manifest["annotations"] = {"org.opencontainers.image.base.name": evil}

    image = APP.with_config(poison).with_manifest(lambda manifest: annotate(manifest))
    image = image.with_manifest(lambda manifest: manifest["config"].update(digest=sha256(image.config)))
    path = tmp_path / "a.tar"
    path.write_bytes(oci_archive([image, BASE]))
    for arguments in ([path], [path, "--json"]):
        done = imgtar("deps", *arguments).ok()
        assert not set(done.text + done.errors) & set("\x1b\u202e")
    assert "\\x1b[31mred\\u202e (not here: base annotations)" in imgtar("deps", path).text
