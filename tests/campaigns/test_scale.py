"""Scale with real sizes: a layer over 8 GiB, 20 GiB, a million files, 5,000 images (``make campaign-scale``).

The quick forms of these are in tests/hostile/test_scale.py; here only the frame is tried with small numbers.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders import rawtar
from tests.builders.images import make_image, make_layer, oci_archive
from tests.campaigns.conftest import Campaign
from tests.conftest import Imgtar
from tests.program import program, words
from tests.scale import many_files, sparse_archive

MEMORY = {resource.RLIMIT_AS: 224 << 20}
SECONDS = 3 * 3600


def _run(store: Path, *arguments: object) -> None:
    program(words(store, *arguments), limits=MEMORY, seconds=SECONDS).ok()


def test_h206_h207_a_huge_layer_goes_in_and_out_in_little_memory(campaign: Campaign, tmp_path: Path) -> None:
    for size in campaign.pick((1 << 20,), ((8 << 30) + 1, 20 << 30)):
        if shutil.disk_usage(tmp_path).free < 2 * size + (4 << 30):
            pytest.fail(f"{2 * size + (4 << 30)} bytes of free space are needed in {tmp_path}")
        archive, out, store = tmp_path / "big.tar", tmp_path / "out.tar", tmp_path / "store"
        digest = sparse_archive(archive, size, how="base-256")
        _run(store, "load", "-i", archive)
        archive.unlink()
        assert (store / "blobs" / digest.replace(":", "/")).stat().st_size == size
        _run(store, "save", "--format", "oci", "-o", out, "big:1")
        # The store is not needed any more: it is proved by what came out of it.
        shutil.rmtree(store)
        listed = subprocess.run(["tar", "-tvf", out], capture_output=True, check=True, timeout=SECONDS)
        assert f" {size} ".encode() in listed.stdout, "GNU tar reads the size that was written"
        _run(store, "verify", out)
        out.unlink()
        campaign.count("bytes of layers", size)


def test_h205_a_million_files_in_a_layer(campaign: Campaign, tmp_path: Path) -> None:
    count = campaign.pick(2_000, 1_000_000)
    layer = make_layer(b"".join(many_files(count)) + rawtar.END, "gzip")
    (tmp_path / "a.tar").write_bytes(oci_archive([make_image("many:1", [layer])]))
    _run(tmp_path / "store", "load", "-i", tmp_path / "a.tar")
    campaign.count("files", count)


def test_h208_thousands_of_images_in_a_store(campaign: Campaign, imgtar: Imgtar) -> None:
    count = campaign.pick(20, 5_000)
    shared = make_image("x", 1, seed=1).layers
    for start in range(0, count, 500):
        images = [make_image(f"app:{n}", shared, seed=n) for n in range(start, min(count, start + 500))]
        imgtar.load(oci_archive(images)).ok()
    spent = [os.times().user]

    def lap(what: str, most: float) -> None:
        spent.append(os.times().user)
        campaign.count(f"ms to {what}", int(1000 * (spent[-1] - spent[-2])))
        assert spent[-1] - spent[-2] < most, what

    assert len(imgtar.images()) == count
    lap("list", 60)
    imgtar.load(oci_archive([make_image("one:1", 1, seed=10**6)])).ok()
    lap("load one more", 60)
    imgtar("tag", "app:7", "app:seven").ok()
    imgtar("rmi", "app:8").ok()
    lap("tag and remove", 120)
    imgtar("prune").ok()
    lap("prune", 120)
    imgtar("verify").ok()
    lap("verify", 300)
    campaign.count("images", count)
