"""How each form is read: the Docker view, the OCI view, both together, and archives from before Docker 1.10."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders.images import (
    Files,
    Member,
    blob_name,
    dir_files,
    docker_files,
    dumps,
    hexed,
    hybrid_files,
    legacy_files,
    make_image,
    make_index,
    oci_files,
    oci_layout,
    sha256,
)
from tests.conftest import Imgtar

BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)
TOOL = make_image("tool:1", 2, seed=3)


def refused(imgtar: Imgtar, files: Files, code: str, *options: str) -> str:
    done = imgtar.load(files.tar(), *options)
    assert done.code == 5, done.errors
    assert f"error[{code}]" in done.errors, done.errors
    assert not imgtar.images()
    return done.errors


def edited(files: Files, key: str, value: Any) -> Files:
    def change(items: Any) -> None:
        items[0][key] = value

    return files.edited("manifest.json", change)


# -- docker ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["podman", "crane", "v1"])
@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_every_style_of_docker_archive_gives_the_same_image_id(
    style: str, compression: str | None, imgtar: Imgtar
) -> None:
    image = make_image("app:1", compression=compression)
    imgtar.load(docker_files([image], style).tar()).ok()
    assert imgtar.names() == {"app:1": image.image_id}


@pytest.mark.parametrize("path", ["../x.tar", "/x.tar", "a/../../x.tar", "a\\x.tar"])
@pytest.mark.parametrize("key", ["Config", "Layers"])
def test_a_path_that_leaves_the_archive_is_refused(key: str, path: str, imgtar: Imgtar) -> None:
    files = docker_files([APP])
    value = path if key == "Config" else [path, *json.loads(files["manifest.json"])[0]["Layers"][1:]]
    refused(imgtar, edited(files, key, value), "E_PATH")


def test_a_config_whose_name_claims_another_digest_is_refused(imgtar: Imgtar) -> None:
    files = docker_files([APP])
    name = f"{hexed(APP.image_id)}.json"
    refused(imgtar, files.put(name, files[name].replace(b"/bin/demo", b"/bin/evil")), "E_DIGEST")


def test_a_config_that_is_a_link_is_refused(imgtar: Imgtar) -> None:
    files = docker_files([APP])
    name = f"{hexed(APP.image_id)}.json"
    real = files.put("real.json", files[name])
    refused(imgtar, real.linked(name, "real.json"), "E_LINK")


@pytest.mark.parametrize("change", [lambda names: names[:-1], lambda names: [*names, names[0]]], ids=["fewer", "more"])
def test_another_number_of_layers_than_the_config_says_is_refused(change: Any, imgtar: Imgtar) -> None:
    files = docker_files([APP])
    refused(imgtar, edited(files, "Layers", change(json.loads(files["manifest.json"])[0]["Layers"])), "E_DIFFID")


def test_layers_in_another_order_are_refused(imgtar: Imgtar) -> None:
    files = docker_files([APP])
    refused(imgtar, edited(files, "Layers", json.loads(files["manifest.json"])[0]["Layers"][::-1]), "E_DIFFID")


def test_keys_in_lower_case_are_read_and_colliding_ones_refused(imgtar: Imgtar) -> None:
    files = docker_files([APP])
    (item,) = json.loads(files["manifest.json"])
    refused(imgtar, files.put("manifest.json", dumps([{**item, "config": "x"}])), "E_JSON")
    lower = dumps([{"config": item["Config"], "repoTags": item["RepoTags"], "layers": item["Layers"]}])
    imgtar.load(files.put("manifest.json", lower).tar()).ok()
    assert imgtar.names() == {"app:1": APP.image_id}


@pytest.mark.parametrize("tags", [None, [], "absent"])
def test_an_image_without_tags_is_loaded_by_its_id(tags: Any, imgtar: Imgtar) -> None:
    def change(items: Any) -> None:
        if tags == "absent":
            del items[0]["RepoTags"]
        else:
            items[0]["RepoTags"] = tags

    done = imgtar.load(docker_files([APP]).edited("manifest.json", change).tar()).ok()
    assert done.text == f"Loaded image ID: {APP.image_id}\n"


def test_a_tag_without_a_tag_is_latest_with_a_warning(imgtar: Imgtar) -> None:
    done = imgtar.load(edited(docker_files([APP]), "RepoTags", ["app"]).tar()).ok()
    assert set(imgtar.names()) == {"app:latest"}
    assert "warning[E_NAME]" in done.errors


@pytest.mark.parametrize("name", ["UPPER:1", "a b:1", "../x:1", "app:", "", "app:1\n", "x" * 300 + ":1", "sha256:1"])
def test_a_tag_that_is_no_name_is_refused(name: str, imgtar: Imgtar) -> None:
    refused(imgtar, edited(docker_files([APP]), "RepoTags", [name]), "E_NAME")


def test_the_order_of_members_does_not_matter(imgtar: Imgtar) -> None:
    for n, files in enumerate((docker_files([BASE, APP]), hybrid_files([BASE, APP]), oci_files([BASE, APP]))):
        for order in (files, files.reversed()):
            store = imgtar.home / f"{n}-{order is files}"
            imgtar.load(order.tar(), store=store).ok()
            imgtar("load", stdin=order.tar(), store=imgtar.home / f"piped-{n}-{order is files}").ok()
            assert set(imgtar.names(store=store)) == {"base:1", "app:1"}


# -- oci -------------------------------------------------------------------------------------------------------------


def test_a_missing_oci_layout_file_is_a_warning_and_with_strict_a_refusal(imgtar: Imgtar) -> None:
    files = oci_files([APP]).without("oci-layout")
    refused(imgtar, files, "E_TYPE", "--strict")
    assert "warning[E_TYPE]" in imgtar.load(files.tar()).ok().errors


@pytest.mark.parametrize("version", [b'{"imageLayoutVersion":"2.0.0"}', b"{}", b"[]", b"x"])
def test_a_layout_of_another_version_is_refused(version: bytes, imgtar: Imgtar) -> None:
    code = "E_JSON" if version == b"x" else "E_TYPE"
    refused(imgtar, oci_files([APP]).put("oci-layout", version), code)


def test_a_manifest_of_other_bytes_is_refused(imgtar: Imgtar) -> None:
    files = oci_files([APP])
    name = "blobs/" + APP.digest.replace(":", "/")
    refused(imgtar, files.put(name, files[name].replace(b"2", b"3", 1)), "E_DIGEST")


def test_a_layout_in_a_folder_that_holds_everything_is_read_with_a_warning(imgtar: Imgtar) -> None:
    files = oci_files([APP]).mapped(lambda name: f"bundle/{name}")
    assert "bundle" in imgtar.load(files.tar()).ok().errors
    imgtar("load", stdin=files.tar(), store=imgtar.home / "piped").ok()
    assert imgtar.names() == imgtar.names(store=imgtar.home / "piped") == {"app:1": APP.image_id}


def test_dot_slash_before_every_name_is_fine_and_a_second_spelling_is_not(imgtar: Imgtar) -> None:
    files = oci_files([APP])
    refused(imgtar, files.plus(Member("./index.json", files["index.json"])), "E_DUP")
    imgtar.load(files.mapped(lambda name: f"./{name}").tar()).ok()


def test_a_bare_tag_is_no_name_and_the_hint_says_how_to_give_one(imgtar: Imgtar) -> None:
    def bare(index: Any) -> None:
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "1"}

    files = oci_files([APP]).edited("index.json", bare)
    done = imgtar.load(files.tar()).ok()
    assert "--tag" in done.errors
    assert imgtar.names() == {}
    imgtar.load(files.tar(), "--tag", "app").ok()
    assert imgtar.names() == {"app:1": APP.image_id}


def test_the_dir_form_of_skopeo_is_read(imgtar: Imgtar) -> None:
    dir_files(APP).directory(imgtar.home / "dir")
    imgtar("load", "-i", imgtar.home / "dir", "--tag", "app:1").ok()
    assert imgtar.names() == {"app:1": APP.image_id}
    imgtar.load(dir_files(TOOL).tar(), "--tag", "tool:1").ok()


@pytest.mark.parametrize("what", ["link", "fifo"])
def test_a_directory_with_a_link_or_a_fifo_in_it_is_refused_and_does_not_hang(what: str, imgtar: Imgtar) -> None:
    import os

    path = oci_layout([APP]).directory(imgtar.home / "layout")
    victim = path / "blobs" / APP.layers[0].digest.replace(":", "/")
    victim.unlink()
    if what == "link":
        victim.symlink_to("/etc/passwd")
    else:
        os.mkfifo(victim)
    done = imgtar("load", "-i", path)
    assert done.code == 5
    assert "E_LINK" in done.errors


# -- hybrid ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifests", [None, []])
def test_a_hybrid_whose_index_is_empty_is_read_by_its_docker_view(manifests: Any, imgtar: Imgtar) -> None:
    def empty(index: Any) -> None:
        index["manifests"] = manifests

    done = imgtar.load(hybrid_files([APP]).edited("index.json", empty).tar()).ok()
    assert "warning" in done.errors
    assert imgtar.names() == {"app:1": APP.image_id}


def test_an_image_that_only_the_docker_view_lists_comes_along_with_a_warning(imgtar: Imgtar) -> None:
    def drop(index: Any) -> None:
        index["manifests"] = [each for each in index["manifests"] if each["digest"] == APP.digest]

    done = imgtar.load(hybrid_files([APP, TOOL]).edited("index.json", drop).tar()).ok()
    assert "tool:1" in done.errors
    assert imgtar.names() == {"app:1": APP.image_id, "tool:1": TOOL.image_id}


def test_one_name_for_two_images_in_the_two_views_is_refused(imgtar: Imgtar) -> None:
    files = hybrid_files([APP, TOOL])
    message = refused(imgtar, edited(files, "RepoTags", ["tool:1"]), "E_TYPE")
    assert APP.image_id in message
    assert TOOL.image_id in message


def test_layers_that_the_views_order_differently_are_those_of_the_docker_view(imgtar: Imgtar) -> None:
    def swap(manifest: Any) -> None:
        manifest["layers"].reverse()

    swapped = APP.with_manifest(swap)
    files = oci_layout([swapped], hybrid=True).plus(Member("manifest.json", hybrid_files([APP])["manifest.json"]))
    done = imgtar.load(files.tar()).ok()
    assert "warning" in done.errors
    (row,) = imgtar.images()
    assert row["digest"] == APP.digest
    imgtar("verify").ok()


def test_an_index_may_list_the_image_of_another_entry(imgtar: Imgtar) -> None:
    inner = make_image("other:2", seed=2)
    files = oci_layout([inner, (make_index(inner), ["multi:1"])])
    imgtar.load(files.tar()).ok()
    saved = imgtar("save", "-o", "-", "other:2", "multi:1").ok().out
    (imgtar.home / "saved.tar").write_bytes(saved)
    imgtar("verify", imgtar.home / "saved.tar").ok()
    again = imgtar.home / "again"
    imgtar("load", "-i", imgtar.home / "saved.tar", store=again).ok()
    assert imgtar("save", "-o", "-", "other:2", "multi:1", store=again).ok().out == saved


def test_a_name_that_only_manifest_json_knows_is_that_of_the_image_and_not_of_the_index_around_it(
    imgtar: Imgtar,
) -> None:
    one, other = make_image("app:1", seed=1), make_image("app:1", platform="linux/arm64", seed=2)
    files = oci_layout([(make_index(one, other), ["app:1"])], hybrid=True)
    items = [
        {"Config": blob_name(image.image_id), "RepoTags": [name], "Layers": [blob_name(x.digest) for x in image.layers]}
        for image, name in ((one, "app:1"), (other, "new:1"))
    ]
    imgtar.load(files.put("manifest.json", dumps(items)).tar()).ok()
    rows = {(row["name"], row["image_id"]) for row in imgtar.images()}
    assert rows == {("app:1", one.image_id), ("app:1", other.image_id), ("new:1", other.image_id)}
    saved = imgtar("save", "-o", "-", "app:1", "new:1").ok().out
    (imgtar.home / "saved.tar").write_bytes(saved)
    imgtar("verify", imgtar.home / "saved.tar").ok()
    again = imgtar.home / "again"
    imgtar("load", "-i", imgtar.home / "saved.tar", store=again).ok()
    assert {(row["name"], row["image_id"]) for row in imgtar.images(store=again)} == rows


def test_names_of_both_views_are_joined(imgtar: Imgtar) -> None:
    files = edited(hybrid_files([APP]), "RepoTags", ["app:1", "extra:1"])
    imgtar.load(files.tar()).ok()
    assert set(imgtar.names()) == {"app:1", "extra:1"}


@pytest.mark.parametrize("key", ["os", "architecture"])
def test_half_a_platform_in_the_index_is_made_whole_by_the_config(key: str, imgtar: Imgtar) -> None:
    """A bit flipped in the key ``os`` made an image of the platform ``/amd64``: found by the campaign on flips."""

    def spoil(index: Any) -> None:
        del index["manifests"][0]["platform"][key]

    imgtar.load(hybrid_files([APP]).edited("index.json", spoil).tar()).ok()
    assert imgtar.images()[0]["platform"] == "linux/amd64"


@pytest.mark.parametrize("key", ["Config", "Layers"])
def test_a_hybrid_whose_docker_view_lost_a_file_loads_with_a_warning(key: str, imgtar: Imgtar) -> None:
    """A bit flipped in a path of ``manifest.json`` went unseen: found by the campaign on flips."""

    def spoil(items: Any) -> None:
        place = items[0][key]
        wrong = (place if isinstance(place, str) else place[0]).replace("blobs/", "clobs/")
        items[0][key] = wrong if isinstance(place, str) else [wrong, *place[1:]]

    files = hybrid_files([APP]).edited("manifest.json", spoil)
    done = imgtar.load(files.tar(), "--json").ok()
    assert imgtar.names() == {"app:1": APP.image_id}
    assert [(found["code"], found["severity"]) for found in done.json()["findings"]] == [("E_MISSING", "warning")]
    assert "clobs/" in done.json()["findings"][0]["message"]


def test_a_sparse_hybrid_loads_the_platform_that_is_there(imgtar: Imgtar) -> None:
    index = make_index(APP, sparse=[make_image((), seed=9, platform="linux/arm64")])
    item = hybrid_files([APP])["manifest.json"]
    files = oci_layout([(index, ["app:1"])], hybrid=True).plus(Member("manifest.json", item))
    assert "linux/arm64" in imgtar.load(files.tar()).ok().errors
    assert imgtar.names() == {"app:1": APP.image_id}


# -- before Docker 1.10 ----------------------------------------------------------------------------------------------


def test_a_legacy_archive_gives_images_with_the_layers_it_holds(imgtar: Imgtar) -> None:
    files = legacy_files([BASE, APP])
    imgtar.load(files.tar()).ok()
    assert set(imgtar.names()) == {"base:1", "app:1"}
    (image,) = imgtar("inspect", "app:1", "--json").ok().json()["images"]
    assert [row["diff_id"] for row in image["layers"]] == [layer.diff_id for layer in APP.layers]
    imgtar("verify").ok()
    imgtar.load(files.tar(), store=imgtar.home / "again").ok()
    assert imgtar.names(store=imgtar.home / "again") == imgtar.names(), "the made config is always the same"


def _jsons(files: Files) -> list[str]:
    return [name for name in files.names if name.endswith("/json")]


def test_a_parent_chain_that_loops_is_refused(imgtar: Imgtar) -> None:
    files = legacy_files([APP])
    first, *_, last = _jsons(files)

    def loop(value: Any) -> None:
        value["parent"] = last.partition("/")[0]

    refused(imgtar, files.edited(first, loop), "E_GRAPH")


def test_a_parent_chain_that_is_cut_is_missing(imgtar: Imgtar) -> None:
    files = legacy_files([APP])
    first = _jsons(files)[0]
    done = imgtar.load(files.without(first).tar())
    assert done.code == 4
    assert "E_MISSING" in done.errors


def test_a_tag_of_an_unknown_id_is_refused(imgtar: Imgtar) -> None:
    files = legacy_files([APP])
    refused(imgtar, files.put("repositories", dumps({"app": {"1": "f" * 64}})), "E_GRAPH")


def test_the_config_of_a_legacy_image_keeps_what_its_last_json_said(imgtar: Imgtar) -> None:
    files = legacy_files([APP])

    def describe(value: Any) -> None:
        value.update(
            docker_version="1.9.1", architecture="amd64", os="linux", author="<me & you>", config={"Env": ["A=1"]}
        )

    imgtar.load(files.edited(_jsons(files)[-1], describe).tar()).ok()
    raw = imgtar("inspect", "--raw", "config", "app:1").ok().out
    assert sha256(raw) == imgtar.names()["app:1"]
    config = json.loads(raw)
    assert (config["architecture"], config["author"], config["config"]) == ("amd64", "<me & you>", {"Env": ["A=1"]})
    assert not {"id", "parent", "Size"} & set(config)
    assert b"\\u003cme \\u0026 you\\u003e" in raw, "as Go writes it"
    assert list(config) == sorted(config)
