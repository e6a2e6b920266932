"""imgtar and skopeo: archives and the store are read by skopeo, and what skopeo writes is loaded by imgtar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from family import SECOND_NAME, docker_view, familiar, layout_view, sha256, untar

pytestmark = pytest.mark.interop

# How skopeo is told to read each form.
READ_AS = {
    "hybrid": ["docker-archive:{path}", "oci-archive:{path}"],
    "docker": ["docker-archive:{path}"],
    "oci": ["oci-archive:{path}"],
    "oci-dir": ["oci:{path}"],
}
PAIRS = [(form, source) for form, sources in READ_AS.items() for source in sources]


def filled(imgtar: Any, docker_engine: Any, tmp_path: Path, *names: str) -> None:
    docker_engine.run("save", "--output", tmp_path / "saved.tar", *names)
    imgtar.loads(tmp_path / "saved.tar")


def image_of_dir(directory: Path) -> str:
    """The image ID of what skopeo copied to a ``dir:``, with every blob checked against its digest."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    for blob in [manifest["config"], *manifest["layers"]]:
        data = (directory / blob["digest"].removeprefix("sha256:")).read_bytes()
        assert sha256(data) == blob["digest"]
        assert len(data) == blob["size"]
    return manifest["config"]["digest"]


# --- what imgtar saves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "source"), PAIRS)
@pytest.mark.parametrize("name", ["base:1", "app:2"])
def test_skopeo_copies_one_image_out_of_each_form_with_the_same_id(
    docker_engine, family, imgtar, skopeo, tmp_path, form, source, name
):
    filled(imgtar, docker_engine, tmp_path, name)
    path = tmp_path / "carried"
    imgtar("save", "--format", form, "-o", path, name)
    facts = json.loads(skopeo.run("inspect", source.format(path=path)).stdout)
    assert facts["Os"] == "linux"
    assert len(facts["Layers"]) == len(
        docker_engine.run("image", "inspect", name, "-f", "{{.RootFS.Layers}}").stdout.split()
    )
    skopeo.run("copy", "--quiet", source.format(path=path), f"dir:{tmp_path}/out")
    assert image_of_dir(tmp_path / "out") == family.named(name)[name]


@pytest.mark.parametrize("form", ["hybrid", "docker"])
def test_skopeo_finds_each_image_of_a_docker_archive_by_its_name(docker_engine, family, imgtar, skopeo, tmp_path, form):
    names = ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"]
    filled(imgtar, docker_engine, tmp_path, *names)
    path = tmp_path / "carried.tar"
    imgtar("save", "--format", form, "-o", path, *names)
    tags = json.loads(skopeo.run("list-tags", f"docker-archive:{path}").stdout)["Tags"]
    assert {familiar(tag) for tag in tags} == set(names)
    for number, name in enumerate(names):
        skopeo.run("copy", "--quiet", f"docker-archive:{path}:{name}", f"dir:{tmp_path}/{number}")
        assert image_of_dir(tmp_path / str(number)) == family.named(name)[name]


@pytest.mark.parametrize(("form", "source"), [("oci", "oci-archive:{path}"), ("oci-dir", "oci:{path}")])
@pytest.mark.parametrize("layers", ["gzip", "zstd", "none"])
def test_skopeo_reads_compressed_layers_in_oci_forms(
    docker_engine, family, imgtar, skopeo, tmp_path, form, source, layers
):
    filled(imgtar, docker_engine, tmp_path, "app:1")
    path = tmp_path / "carried"
    imgtar("save", "--format", form, "--layers", layers, "-o", path, "app:1")
    skopeo.run("copy", "--quiet", source.format(path=path), f"dir:{tmp_path}/out")
    assert image_of_dir(tmp_path / "out") == family.app1
    media_types = {
        layer["mediaType"] for layer in json.loads((tmp_path / "out" / "manifest.json").read_bytes())["layers"]
    }
    ending = "" if layers == "none" else f"+{layers}"
    assert media_types == {f"application/vnd.oci.image.layer.v1.tar{ending}"}


def test_skopeo_copies_an_imgtar_archive_into_a_docker_engine(
    docker_engine, receiver, family, imgtar, skopeo, tmp_path
):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    imgtar("save", "-o", tmp_path / "carried.tar", "app:2")
    host = receiver.words[receiver.words.index("--host") + 1]
    target = "docker-daemon:app:2"
    skopeo.run("copy", "--quiet", "--dest-daemon-host", host, f"docker-archive:{tmp_path}/carried.tar", target)
    assert receiver.images() == family.named("app:2")


# --- what skopeo writes -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(docker_engine, family, tmp_path) -> str:
    docker_engine.run("save", "--output", tmp_path / "docker.tar", "app:2")
    return f"docker-archive:{tmp_path}/docker.tar"


def test_a_docker_archive_by_skopeo_loads_with_the_same_id(family, imgtar, skopeo, saved, tmp_path):
    skopeo.run("copy", "--quiet", saved, f"docker-archive:{tmp_path}/by-skopeo.tar:app:2")
    assert docker_view(tmp_path / "by-skopeo.tar") == family.named("app:2")
    assert imgtar.loads(tmp_path / "by-skopeo.tar") == family.named("app:2")


def test_a_docker_archive_by_skopeo_with_more_tags_loads_with_all_of_them(family, imgtar, skopeo, saved, tmp_path):
    more = ["--additional-tag", "app:latest", "--additional-tag", SECOND_NAME]
    skopeo.run("copy", "--quiet", *more, saved, f"docker-archive:{tmp_path}/by-skopeo.tar:app:2")
    assert imgtar.loads(tmp_path / "by-skopeo.tar") == dict.fromkeys(["app:2", "app:latest", SECOND_NAME], family.app2)


def test_an_untagged_docker_archive_by_skopeo_loads_untagged(family, imgtar, skopeo, saved, tmp_path):
    skopeo.run("copy", "--quiet", saved, f"docker-archive:{tmp_path}/by-skopeo.tar")
    assert imgtar.loads(tmp_path / "by-skopeo.tar") == {}
    assert imgtar.image_ids() == {family.app2}


@pytest.mark.parametrize("compression", [[], ["--dest-compress-format", "zstd"]], ids=["gzip", "zstd"])
def test_an_oci_archive_by_skopeo_loads_with_the_id_that_skopeo_gave_it(
    family, imgtar, skopeo, saved, tmp_path, compression
):
    skopeo.run("copy", "--quiet", *compression, saved, f"oci-archive:{tmp_path}/by-skopeo.tar:app:2")
    view = layout_view(untar(tmp_path / "by-skopeo.tar", tmp_path / "seen"))
    assert view["app:2"] != family.app2, "skopeo writes the config anew"
    assert imgtar.loads(tmp_path / "by-skopeo.tar") == view


def test_an_oci_layout_directory_by_skopeo_with_two_images_loads(docker_engine, family, imgtar, skopeo, tmp_path):
    for name in ("base:1", "app:1"):
        docker_engine.run("save", "--output", tmp_path / "docker.tar", name)
        skopeo.run("copy", "--quiet", f"docker-archive:{tmp_path}/docker.tar", f"oci:{tmp_path}/layout:{name}")
    view = layout_view(tmp_path / "layout")
    assert set(view) == {"base:1", "app:1"}
    assert imgtar.loads(tmp_path / "layout") == view


def test_an_oci_image_goes_through_imgtar_and_skopeo_without_losing_a_byte(family, imgtar, skopeo, saved, tmp_path):
    skopeo.run("copy", "--quiet", saved, f"oci-archive:{tmp_path}/by-skopeo.tar:app:2")
    before = json.loads(skopeo.run("inspect", f"oci-archive:{tmp_path}/by-skopeo.tar").stdout)["Digest"]
    imgtar.loads(tmp_path / "by-skopeo.tar")
    imgtar("save", "--format", "oci", "-o", tmp_path / "carried.tar", "app:2")
    after = json.loads(skopeo.run("inspect", f"oci-archive:{tmp_path}/carried.tar").stdout)["Digest"]
    assert before == after


# --- the store as it lies ---------------------------------------------------------------------------------------------


def test_skopeo_reads_the_store_as_it_lies(docker_engine, family, imgtar, skopeo, tmp_path):
    names = ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"]
    filled(imgtar, docker_engine, tmp_path, *names)
    digests = {row["name"]: row["digest"] for row in imgtar.json("images")["images"]}
    for number, name in enumerate(names):
        facts = json.loads(skopeo.run("inspect", f"oci:{imgtar.store}:{name}").stdout)
        assert facts["Digest"] == digests[name]
        skopeo.run("copy", "--quiet", f"oci:{imgtar.store}:{name}", f"dir:{tmp_path}/{number}")
        assert image_of_dir(tmp_path / str(number)) == family.named(name)[name]
