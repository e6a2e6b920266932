"""imgtar, podman and buildah: podman loads what imgtar saves, and imgtar loads what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from family import SECOND_NAME, docker_view, familiar, layout_view, tar_bytes, untar

pytestmark = pytest.mark.interop

FAMILY = ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"]


def filled(imgtar: Any, docker_engine: Any, tmp_path: Path, *names: str) -> None:
    docker_engine.run("save", "--output", tmp_path / "saved.tar", *names)
    imgtar.loads(tmp_path / "saved.tar")


def seen(podman: Any) -> dict[str, str]:
    return {familiar(name): image for name, image in podman.images().items()}


@pytest.mark.parametrize("layers", ["keep", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["hybrid", "docker", "oci"])
def test_podman_loads_one_image_with_the_same_name_and_id(
    docker_engine, family, imgtar, podman, tmp_path, form, layers
):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    imgtar("save", "--format", form, "--layers", layers, "-o", tmp_path / "carried.tar", "app:2")
    podman.run("load", "--input", tmp_path / "carried.tar")
    assert seen(podman) == family.named("app:2")


@pytest.mark.parametrize("form", ["hybrid", "docker"])
def test_podman_loads_the_whole_family_with_the_same_names_and_ids(
    docker_engine, family, imgtar, podman, tmp_path, form
):
    filled(imgtar, docker_engine, tmp_path, *FAMILY)
    imgtar("save", "--format", form, "-o", tmp_path / "carried.tar", *FAMILY)
    podman.run("load", "--input", tmp_path / "carried.tar")
    assert seen(podman) == family.named(*FAMILY)


def test_podman_loads_an_oci_layout_directory_with_the_same_id(docker_engine, family, imgtar, podman, tmp_path):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    imgtar("save", "--format", "oci-dir", "-o", tmp_path / "carried", "app:2")
    podman.run("load", "--input", tmp_path / "carried")
    # podman names an image from a directory by the directory, whatever the annotations say
    assert podman.image_ids() == {family.app2}


def test_podman_loads_an_untagged_image_with_the_same_id(docker_engine, family, imgtar, podman, tmp_path):
    filled(imgtar, docker_engine, tmp_path, family.untagged)
    imgtar("save", "-o", tmp_path / "carried.tar", family.untagged)
    podman.run("load", "--input", tmp_path / "carried.tar")
    assert podman.image_ids() == {family.untagged}


def test_podman_loads_a_hybrid_from_a_pipe(docker_engine, family, imgtar, podman, tmp_path):
    filled(imgtar, docker_engine, tmp_path, "base:1", "app:1")
    podman.run("load", input=imgtar("save", "base:1", "app:1").stdout)
    assert seen(podman) == family.named("base:1", "app:1")


@pytest.fixture
def holding(docker_engine, family, podman, tmp_path) -> dict[str, str]:
    """podman's own names and IDs of what it holds: the family, loaded from the docker engine."""
    docker_engine.run("save", "--output", tmp_path / "docker.tar", *FAMILY)
    podman.run("load", "--input", tmp_path / "docker.tar")
    assert seen(podman) == family.named(*FAMILY)
    return podman.images()


def full_names(names: dict[str, str]) -> dict[str, str]:
    """Names as imgtar shows them: ``docker.io/library`` is left out, ``localhost`` is a host like others."""
    return {name.removeprefix("docker.io/library/"): image for name, image in names.items()}


def test_a_docker_archive_by_podman_loads_with_the_same_id(family, imgtar, podman, holding, tmp_path):
    podman.run("save", "--format", "docker-archive", "--output", tmp_path / "by-podman.tar", "app:2")
    assert docker_view(tmp_path / "by-podman.tar") == family.named("app:2")
    assert imgtar.loads(tmp_path / "by-podman.tar") == {"localhost/app:2": family.app2}


def test_a_multi_image_archive_by_podman_loads_with_the_same_names_and_ids(family, imgtar, podman, holding, tmp_path):
    podman.run("save", "--multi-image-archive", "--output", tmp_path / "by-podman.tar", *holding)
    assert imgtar.loads(tmp_path / "by-podman.tar") == full_names(holding)


def test_an_oci_archive_by_podman_loads_with_the_id_that_podman_gave_it(imgtar, podman, holding, tmp_path):
    podman.run("save", "--format", "oci-archive", "--output", tmp_path / "by-podman.tar", "app:2")
    (image,) = layout_view(untar(tmp_path / "by-podman.tar", tmp_path / "seen")).values()
    assert imgtar.loads(tmp_path / "by-podman.tar") == {"localhost/app:2": image}


def test_an_oci_directory_by_podman_loads_untagged_or_named(imgtar, podman, holding, tmp_path):
    podman.run("save", "--format", "oci-dir", "--output", tmp_path / "by-podman", "app:2")
    view = layout_view(tmp_path / "by-podman")
    imgtar.loads(tmp_path / "by-podman")
    assert imgtar.image_ids() == set(view.values())


def test_an_image_by_buildah_goes_through_imgtar_into_podman(buildah, imgtar, podman, tmp_path):
    (tmp_path / "context.tar").write_bytes(tar_bytes({"srv/": b"", "srv/file": b"by buildah\n"}))
    container = buildah.run("from", "scratch").stdout.strip()
    buildah.run("add", container, tmp_path / "context.tar", "/")
    buildah.run("config", "--label", "note=<&>", "--cmd", "/srv/file", "--author", "Jö <j@example.test>", container)
    buildah.run("commit", "--quiet", "--rm", container, "built:1")
    for form in ("oci-archive", "docker-archive"):
        archive, store = tmp_path / f"{form}.tar", tmp_path / f"store-{form}"
        buildah.run("push", "--quiet", "built:1", f"{form}:{archive}:example.test/built:1")
        if form == "oci-archive":
            expected = set(layout_view(untar(archive, tmp_path / "seen")).values())
        else:
            expected = set(docker_view(archive).values())
        assert imgtar.json("verify", archive)["ok"] is True
        imgtar("load", "-i", archive, store=store)
        names = imgtar.images(store=store)
        assert "example.test/built:1" in names
        assert set(names.values()) == expected
        imgtar("save", "-o", tmp_path / f"carried-{form}.tar", "example.test/built:1", store=store)
        podman.wipe()
        podman.run("load", "--input", tmp_path / f"carried-{form}.tar")
        assert podman.images() == {"example.test/built:1": expected.pop()}
    buildah.run("rmi", "--all", "--force")
