"""imgtar and umoci: OCI layouts and the store are listed and unpacked by umoci, and what umoci writes is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from family import SECOND_NAME, layout_view, tar_of_directory, untar

pytestmark = pytest.mark.interop


def filled(imgtar: Any, docker_engine: Any, tmp_path: Path, *names: str) -> None:
    docker_engine.run("save", "--output", tmp_path / "saved.tar", *names)
    imgtar.loads(tmp_path / "saved.tar")


def unpack(umoci: Any, image: str, bundle: Path) -> Path:
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    umoci.run("unpack", *rootless, "--image", image, bundle)
    return bundle / "rootfs"


def layout(imgtar: Any, tmp_path: Path, form: str, *arguments: str) -> Path:
    """What ``imgtar save`` wrote, as a directory."""
    path = tmp_path / f"carried-{form}"
    imgtar("save", "--format", form, "-o", path, *arguments)
    return path if form == "oci-dir" else untar(path, tmp_path / f"layout-{form}")


@pytest.mark.parametrize("layers", ["keep", "gzip", "none"])
@pytest.mark.parametrize("form", ["hybrid", "oci", "oci-dir"])
def test_umoci_unpacks_one_image_out_of_each_oci_form(docker_engine, family, imgtar, umoci, tmp_path, form, layers):
    filled(imgtar, docker_engine, tmp_path, "app:2")
    directory = layout(imgtar, tmp_path, form, "--layers", layers, "app:2")
    assert layout_view(directory) == family.named("app:2")
    (tag,) = umoci.run("ls", "--layout", directory).stdout.split()
    root = unpack(umoci, f"{directory}:{tag}", tmp_path / "bundle")
    assert (root / "srv/app").read_bytes() == b"app two\n"
    assert (root / "srv/daten-ü").read_bytes() == b"\x00\xff" * 100
    assert (root / "usr/lib/library").read_bytes() == b"library\n" * 512
    assert (root / "etc/base").read_bytes() == b"base\n"
    runtime = json.loads((tmp_path / "bundle/config.json").read_bytes())
    assert "VERSION=2" in runtime["process"]["env"]


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "tar"])
def test_a_layout_that_umoci_made_and_changed_loads(imgtar, umoci, tmp_path, packed):
    directory = tmp_path / "layout"
    umoci.run("init", "--layout", directory)
    umoci.run("new", "--image", f"{directory}:made:1")
    root = unpack(umoci, f"{directory}:made:1", tmp_path / "bundle")
    (root / "hello").write_text("hello\n")
    umoci.run("repack", "--image", f"{directory}:made:1", tmp_path / "bundle")
    umoci.run("config", "--image", f"{directory}:made:1", "--tag", "made:2", "--config.cmd", "/hello")
    umoci.run("gc", "--layout", directory)
    view = layout_view(directory)
    assert set(view) == {"made:1", "made:2"}
    source = tar_of_directory(directory, tmp_path / "layout.tar") if packed else directory
    assert imgtar.loads(source) == view


def test_an_image_without_layers_by_umoci_loads(imgtar, umoci, tmp_path):
    directory = tmp_path / "layout"
    umoci.run("init", "--layout", directory)
    umoci.run("new", "--image", f"{directory}:empty:1")
    assert imgtar.loads(directory) == layout_view(directory)


def test_umoci_lists_and_unpacks_the_store_as_it_lies(docker_engine, family, imgtar, umoci, tmp_path):
    names = ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"]
    filled(imgtar, docker_engine, tmp_path, *names)
    assert set(umoci.run("ls", "--layout", imgtar.store).stdout.split()) == set(names)
    root = unpack(umoci, f"{imgtar.store}:app:1", tmp_path / "bundle")
    assert (root / "srv/app").read_bytes() == b"app one\n"
