"""Verify of the store: all of it or a part, and on a disk with bad sectors."""

from __future__ import annotations

import json

import pytest

from tests.builders.images import make_image, oci_archive
from tests.conftest import Imgtar
from tests.ops.rotten import APP, ARCHIVE, BASE, archive_of, blob, sectors, spoil


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(ARCHIVE).ok()
    return imgtar


def test_verify_goes_on_after_a_bad_sector_and_names_what_it_hurts(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [blob(filled, BASE.layers[0].digest), blob(filled, APP.layers[-1].digest), blob(filled, BASE.digest)]
    sectors(monkeypatch, *bad)
    done = filled("verify", "--json")
    assert done.code == 7
    for path in bad:
        assert path.name in done.errors
    assert {image["ok"] for image in done.json()["archives"][0]["images"]} == {False}


def test_the_parts_of_a_check_are_the_whole_of_it(filled: Imgtar) -> None:
    paths = sorted((filled.store / "blobs/sha256").iterdir())
    layers = {layer.digest for image in (BASE, APP) for layer in image.layers}
    for digest in layers:
        spoil(blob(filled, digest))
    stray = filled.store / "blobs/sha256" / ("0" * 64)
    stray.write_bytes(b"unreferenced and wrong")
    found: list[str] = []
    checked = 0
    for part in range(1, 8):
        done = filled("verify", "--subset", f"{part}/7", "--json").json()
        assert done["subset"] == {"part": part, "of": 7}
        found += [finding["subject"] for finding in done["findings"]]
        checked += done["archives"][0]["blobs_checked"]
    assert len(found) == len(set(found)) == len(layers) + 1
    assert checked == len(paths) + 1


@pytest.mark.parametrize("text", ["0/7", "8/7", "1", "1/0", "a/b", "1/7/2", "-1/7", "1/100000"])
def test_a_part_that_is_none_is_refused(filled: Imgtar, text: str) -> None:
    assert filled("verify", f"--subset={text}").code == 2


def test_a_part_is_for_the_store(filled: Imgtar) -> None:
    assert filled("verify", "--subset", "1/2", archive_of(filled, ARCHIVE)).code == 2


@pytest.mark.parametrize("names", [["a:1"], ["a:1", "b:1"]], ids=" ".join)
def test_names_that_another_tool_gave_to_several_images_are_told_and_all_are_proved(
    imgtar: Imgtar, names: list[str]
) -> None:
    # The second shares the names with the first, for it is for another platform; the third can share them with neither.
    platforms = ["linux/amd64", "linux/arm64", "linux/arm64"]
    images = [make_image(f"{at}:1", 1, platform, seed=at) for at, platform in enumerate(platforms)]
    imgtar.load(oci_archive(images)).ok()
    path = imgtar.store / "index.json"
    index = json.loads(path.read_bytes())
    index["manifests"] = [
        {**entry, "annotations": {"org.opencontainers.image.ref.name": name}}
        for entry in index["manifests"]
        for name in names
    ]
    path.write_bytes(json.dumps(index).encode())
    done = imgtar("verify", "--json")
    assert done.code == 7, done.errors
    rows = done.json()["archives"][0]["images"]
    assert {row["image_id"] for row in rows if row["ok"]} == {image.image_id for image in images}
    assert sorted(name for row in rows if not row["ok"] for name in row["names"]) == names
