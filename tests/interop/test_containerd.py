"""imgtar and containerd: ``ctr`` imports what imgtar saves, and imgtar loads what ``ctr`` exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from family import SECOND_NAME, familiar, layout_view, member, tar_of_directory, untar

pytestmark = pytest.mark.interop

FAMILY = ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"]


def filled(imgtar: Any, docker_engine: Any, tmp_path: Path, *names: str) -> None:
    docker_engine.run("save", "--output", tmp_path / "saved.tar", *names)
    imgtar.loads(tmp_path / "saved.tar")


def carried(imgtar: Any, tmp_path: Path, form: str, *arguments: str) -> Path:
    """What ``imgtar save`` wrote, as the one file that ``ctr`` wants."""
    path = tmp_path / f"carried-{form}"
    imgtar("save", "--format", form, "-o", path, *arguments)
    return tar_of_directory(path, tmp_path / "carried.tar") if form == "oci-dir" else path


@pytest.mark.parametrize("form", ["hybrid", "docker", "oci", "oci-dir"])
def test_containerd_imports_the_whole_family_with_the_same_names_and_ids(
    docker_engine, containerd, family, imgtar, tmp_path, form
):
    filled(imgtar, docker_engine, tmp_path, *FAMILY)
    containerd.ctr("images", "import", "--no-unpack", carried(imgtar, tmp_path, form, *FAMILY))
    assert containerd.image_ids() == family.named(*FAMILY)
    assert {name for name in containerd.images() if name.startswith("docker.io/library/")} == {
        f"docker.io/library/{name}" for name in FAMILY if name != SECOND_NAME
    }


@pytest.mark.parametrize("layers", ["keep", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["hybrid", "oci"])
def test_containerd_unpacks_what_it_imported(docker_engine, containerd, family, imgtar, tmp_path, form, layers):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    archive = carried(imgtar, tmp_path, form, "--layers", layers, "app:2")
    containerd.ctr("images", "import", "--snapshotter", "native", archive)
    assert containerd.image_ids() == family.named("app:2")
    assert family.app2 in containerd.content()


@pytest.mark.parametrize("form", ["hybrid", "oci"])
def test_containerd_holds_the_manifest_that_imgtar_names(docker_engine, containerd, family, imgtar, tmp_path, form):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    containerd.ctr("images", "import", "--no-unpack", carried(imgtar, tmp_path, form, "app:2"))
    (row,) = imgtar.json("images")["images"]
    assert containerd.images() == {"docker.io/library/app:2": row["digest"]}


@pytest.mark.parametrize("names", [["app:1"], ["app:1", SECOND_NAME], ["base:1", "runtime:1", "app:2"]])
def test_what_ctr_exports_imgtar_loads_with_the_same_names_and_ids(
    docker_engine, containerd, family, imgtar, tmp_path, names
):
    docker_engine.run("save", "--output", tmp_path / "docker.tar", *names)
    containerd.ctr("images", "import", "--no-unpack", tmp_path / "docker.tar")
    full = list(containerd.images())
    containerd.ctr("images", "export", tmp_path / "exported.tar", *full)
    assert b'"io.containerd.image.name"' in member(tmp_path / "exported.tar", "index.json")
    assert layout_view(untar(tmp_path / "exported.tar", tmp_path / "seen")) == family.named(*names)
    assert imgtar.loads(tmp_path / "exported.tar") == family.named(*names)


@pytest.fixture
def exported(docker_engine, containerd, family, tmp_path) -> Path:
    """``app:2`` by ``ctr images export --skip-manifest-json``.

    containerd 1.6 writes the ``manifest.json`` all the same, but with ``RepoTags: null``; later ones leave it out.
    """
    docker_engine.run("save", "--output", tmp_path / "docker.tar", "app:2")
    containerd.ctr("images", "import", "--no-unpack", tmp_path / "docker.tar")
    (name,) = containerd.images()
    containerd.ctr("images", "export", "--skip-manifest-json", tmp_path / "exported.tar", name)
    return tmp_path / "exported.tar"


def test_an_export_with_names_in_the_oci_view_only_loads_with_them(family, imgtar, exported):
    assert imgtar.loads(exported) == family.named("app:2")


def test_an_export_without_a_docker_view_loads(family, imgtar, exported, tmp_path):
    layout = untar(exported, tmp_path / "layout")
    (layout / "manifest.json").unlink(missing_ok=True)
    assert imgtar.loads(tar_of_directory(layout, tmp_path / "oci-only.tar")) == family.named("app:2")


def test_an_oci_image_goes_through_imgtar_and_containerd_without_losing_a_byte(
    docker_engine, containerd, family, imgtar, skopeo, tmp_path
):
    docker_engine.run("save", "--output", tmp_path / "docker.tar", "app:2")
    target = f"oci-archive:{tmp_path}/by-skopeo.tar:app:2"
    skopeo.run("copy", "--quiet", f"docker-archive:{tmp_path}/docker.tar", target)
    imgtar.loads(tmp_path / "by-skopeo.tar")
    (row,) = imgtar.json("images")["images"]
    imgtar("save", "-o", tmp_path / "carried.tar", "app:2")
    containerd.ctr("images", "import", "--no-unpack", tmp_path / "carried.tar")
    (name,) = containerd.images()
    assert familiar(name) == "app:2"
    assert containerd.images()[name] == row["digest"]
    containerd.ctr("images", "export", tmp_path / "exported.tar", name)
    second = tmp_path / "second-store"
    imgtar("load", "-i", tmp_path / "exported.tar", store=second)
    (again,) = imgtar.json("images", store=second)["images"]
    assert (again["digest"], again["image_id"]) == (row["digest"], row["image_id"])
