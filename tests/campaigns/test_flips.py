"""Campaign: a small archive of every family with one bit flipped, in every byte. ``make campaign-flips``.

``IMGTAR_EVERY_BIT=1`` flips all eight bits of each byte in the long form, instead of one that the seed chooses.

Promised: a flip is refused, or it is *harmless*. Harmless means one of these, and each is proved by readers that are
not imgtar's (``tarfile``, ``json``, the decompressors; see :func:`explained`):

- *packing*: what the outer compression holds is still the same to the byte;
- *padding*: every member of the tar has its name, type, link and content, so only unused bytes between them changed;
- *one view of two*: a hybrid's ``manifest.json`` names a file that is not there; ``index.json`` is whole and counts;
- *unread*: a member that has no meaning in this layout, see :data:`UNREAD`;
- *words*: only fields in :data:`UNCOVERED` changed, which no digest covers. Then image IDs, manifest digests, layer digests and
  diff IDs are those of the whole archive, and every name that is shown stands in the damaged one.

An archive from before Docker 1.10 has no digests: its image ID is computed from what is there. Promised is only that
its chain of v1 layers is whole, that what is shown is true of the bytes as they are, and that a load keeps them so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.independent import Meaning, changes, members, sha256, stored_images
from tests.campaigns.specimens import FAMILIES, archive, judged, loaded, meaning, memory

UNCOVERED = {
    # Names. A flip in a key makes it another key, which readers pass over: the image then has no name.
    "manifest.json": r"/\d+/repotags(/\d+)?",
    # Beside the names: what the documents themselves say, or their bytes show, of their version, type and platform.
    "index.json": r"/schemaVersion|/mediaType|/manifests/\d+/(mediaType|platform/(os|architecture)|annotations/[^/]+)",
    "repositories": r"/[^/]+/[^/]+",
    # What a sender says of the blobs that are left out. It chooses the words of a gap and is never believed.
    "imgtar.json": r"/bases/\d+/(names/\d+|image_id|digest|inventory)"
    r"|/images/\d+/(names/\d+|digest|image_id|platform|layers(/\d+)?)"
    r"|/requires/\d+/(mediaType|size|diff_id|base)",
}
"""Fields of the documents that no digest covers, by member."""
OTHER_VIEW = r"/\d+/(config|layers/\d+)"
"""What the Docker view of a hybrid says beside names: when the OCI view is whole, it counts, and a warning is given."""
KNOWN = re.compile(r"/(config|layers|repotags|manifests|digest|size|urls|data)\b", re.I)
"""Keys that would mean something. What a flip makes of another key must not be one of these."""
UNREAD = re.compile(r"[0-9a-f]{64}/(VERSION|json)")
"""Members of the layout of Docker 1.10 to 24 that have no meaning beside ``manifest.json``."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory() as path:
        yield path


def without_names(images: Meaning) -> list[Any]:
    """What may never change."""
    return sorted(repr(image[1:]) for image in images)


def explained(family: str, damaged: bytes, before: Meaning, after: Meaning, *, warned: bool) -> str:
    """Why it is right to accept ``damaged``; fails when it is not."""
    unpack = FAMILIES[family].unpack or bytes
    old, new = unpack(archive(family)), unpack(damaged)
    if old == new:
        assert before == after
        return "packing"
    theirs, ours = members(old), members(new)
    assert [one[:3] for one in theirs] == [one[:3] for one in ours], "another list of members is accepted"
    changed = [(name, was, now) for (name, _, _, was), (_, _, _, now) in zip(theirs, ours, strict=True) if was != now]
    if not changed:
        assert before == after, "unused bytes changed the meaning"
        return "padding"
    if not FAMILIES[family].hashed:
        return "words"
    assert without_names(before) == without_names(after), "another image is accepted"
    assert len(changed) == 1
    name, was, now = changed[0]
    if UNREAD.fullmatch(name):
        assert before == after
        return "unread"
    assert name in UNCOVERED, f"damage in {name} goes unseen"
    # Go takes the keys of manifest.json in any case, and so does imgtar: another case is no loss.
    hook = _lower if name == "manifest.json" else None
    lost, come = changes(json.loads(was, object_hook=hook), json.loads(now, object_hook=hook))
    for place in lost:
        if "manifest.json" in name and "index.json" in {one[0] for one in ours} and re.fullmatch(OTHER_VIEW, place):
            assert before == after
            assert warned, f"{place} of {name} was lost without a warning"
            return "one view of two"
        assert re.fullmatch(UNCOVERED[name], place), f"{place} of {name} was lost unseen"
    for place in come:
        assert re.fullmatch(UNCOVERED[name], place) or not KNOWN.search(place), f"{place} of {name} came unseen"
    same = {one for image in before for one in image[0]}
    text = now.decode()
    for shown in {one for image in after for one in image[0]} - same:
        repository, _, tag = shown.rpartition(":")
        assert repository in text, f"the name {shown} is nowhere in {name}"
        assert tag in text, f"the name {shown} is nowhere in {name}"
    return "words"


def _lower(value: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): item for key, item in value.items()}


def true_to_the_bytes(damaged: bytes, after: Meaning) -> None:
    """Assert that an archive from before Docker 1.10 is shown as it is: each layer by its hash, as many as there are."""
    layers = {sha256(content) for name, _, _, content in members(damaged) if name.endswith("/layer.tar")}
    assert {digest for image in after for pair in image[4] for digest in pair} == layers


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flipped_bit_is_refused_or_provably_harmless(campaign: Campaign, folder: Path, family: str) -> None:
    data, path, store = archive(family), folder / "flipped.tar", folder / "store"
    assert judged(path, data).ok
    before = meaning(path)
    chance = campaign.random(family)
    every = campaign.long and os.environ.get("IMGTAR_EVERY_BIT") == "1"
    places = range(len(data)) if campaign.long else sorted(chance.sample(range(len(data)), 40))
    for place in places:
        for bit in range(8) if every else [chance.randrange(8)]:
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            campaign.count("flips")
            verification = judged(path, bytes(damaged))
            what = f"bit {bit} of byte {place}"
            if verification.ok:
                after = meaning(path)
                warned = any(finding.severity == "warning" for finding in verification.findings)
                try:
                    reason = explained(family, bytes(damaged), before, after, warned=warned)
                    campaign.count(f"harmless ({reason})")
                    if not FAMILIES[family].hashed:
                        true_to_the_bytes(bytes(damaged), after)
                except AssertionError as error:
                    raise AssertionError(f"{what} of {family}: {error}") from error
            else:
                assert verification.exit_code in (4, 5), f"{what}: {verification.findings}"
                campaign.count("refused")
            if verification.ok or chance.random() < campaign.pick(0.05, 0.02):
                _load_agrees(campaign, family, bytes(damaged), path, store, verification.exit_code, what)


def _load_agrees(
    campaign: Campaign, family: str, damaged: bytes, path: Path, store: Path, wanted: int, what: str
) -> None:
    for given in (str(path), damaged):
        campaign.count("loads")
        status = loaded(given, store, FAMILIES[family].base)
        assert status == wanted, f"{what}: verify says {wanted}, load of {given[:20]!r} says {status}"
        if not status:
            known = {image[1] for image in meaning(path)}
            assert known <= {image_id for image_id, _ in stored_images(store)}, what
