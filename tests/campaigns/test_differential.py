"""Campaign: changed archives for imgtar and for skopeo (containers/image). ``make campaign-differential``.

imgtar may refuse more: that is counted. It may also accept more: skopeo does not follow links between layers, for one. Whatever both accept must mean the same: the image of a name has the same image
ID and the same diff IDs in both. skopeo's copy to ``dir:`` is read here by hashing it, not by asking anybody.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtar.errors import ImgtarError
from imgtar.ops.inspect import inspect_archive
from tests.campaigns.conftest import Campaign
from tests.campaigns.independent import plain, sha256
from tests.campaigns.mutants import mutant
from tests.campaigns.specimens import judged, memory

pytestmark = pytest.mark.interop

Images = dict[str, tuple[str, tuple[str, ...]]]
"""Names to image IDs and diff IDs."""
READERS = {
    "docker": "docker-archive",
    "v1": "docker-archive",
    "crane": "docker-archive",
    "oci": "oci-archive",
    "hybrid": "docker-archive",
}
"""How skopeo is told to read each family. It knows no archives from before Docker 1.10."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory() as path:
        yield path


@pytest.fixture
def skopeo() -> str:
    found = shutil.which("skopeo")
    if found is None:
        if os.environ.get("IMGTAR_INTEROP") == "required":
            pytest.fail("interop is required, but skopeo is not installed")
        pytest.skip("skopeo is not installed")
    return found


def ours(path: Path, data: bytes) -> Images | None:
    """What imgtar says; ``None`` when it refuses."""
    if not judged(path, data).ok:
        return None
    try:
        document = inspect_archive(str(path)).document
    except ImgtarError:
        return None
    return {
        name: (one["image_id"], tuple(layer["diff_id"] for layer in one["layers"]))
        for one in document["images"]
        if "manifests" not in one
        for name in one["names"]
    }


def theirs(skopeo: str, source: str, path: Path, name: str, out: Path) -> tuple[str, tuple[str, ...]] | None:
    """What skopeo makes of one image; ``None`` when it refuses."""
    shutil.rmtree(out, ignore_errors=True)
    words = [skopeo, "--insecure-policy", "copy", "--quiet", f"{source}:{path}:{name}", f"dir:{out}"]
    environment = {**os.environ, "HOME": str(out.parent), "TMPDIR": str(out.parent)}
    done = subprocess.run(words, capture_output=True, env=environment, timeout=60, check=False)
    if done.returncode:
        return None
    manifest = json.loads((out / "manifest.json").read_bytes())
    if "config" not in manifest:
        return None
    layers = [(out / layer["digest"].partition(":")[2]).read_bytes() for layer in manifest["layers"]]
    config = (out / manifest["config"]["digest"].partition(":")[2]).read_bytes()
    # Out of a docker archive skopeo hands layers uncompressed. One that was packed twice looks compressed still.
    try:
        claimed = json.loads(config)["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError):
        claimed = []
    return sha256(config), tuple(
        digest if (digest := sha256(layer)) in (claimed or ()) else sha256(plain(layer)) for layer in layers
    )


@pytest.mark.parametrize("family", READERS)
def test_what_skopeo_and_imgtar_both_accept_means_the_same(
    campaign: Campaign, folder: Path, skopeo: str, family: str
) -> None:
    path, out = folder / "mutant.tar", folder / "out"
    for number in range(campaign.pick(8, 420)):
        _, data, done = mutant(campaign.random(f"{family} {number}"), [family], most=2)
        campaign.count("inputs")
        said = ours(path, data)
        names = sorted(said) if said else ["demo:1"]
        for name in names:
            other = theirs(skopeo, READERS[family], path, name, out)
            if said is None or not said:
                campaign.count("refused by both" if other is None else "refused by imgtar only")
            elif other is None:
                campaign.count("refused by skopeo only")
            else:
                campaign.count("accepted by both")
                assert said[name] == other, f"{family} number {number} of seed {campaign.seed} ({done}): {name}"
