"""Campaign: a small archive of every family with one bit flipped, in every byte. ``make campaign-flips``.

``IMGTAR_EVERY_BIT=1`` flips all eight bits of each byte in the long form, instead of one that the seed chooses.

Promised: a flip is refused, or it is *harmless*. Harmless means one of these, and each is proved by readers that are
not imgtar's (``tarfile``, ``json``, the decompressors; see :func:`explained`):

- *packing*: what the outer compression holds is still the same to the byte;
- *padding*: every member of the tar has its name, type, link and content, so only unused bytes between them changed;
- *one view of two*: a hybrid's ``manifest.json`` names a file that is not there; ``index.json`` is whole and counts;
- *unread*: a member that has no meaning in this layout, see :data:`UNREAD`;
- *packing of a layer*: a docker archive says no digest of a compressed layer, and what it holds is the same;
- *platform*: what ``index.json`` says of the platform of an image, against the config, which a warning tells;
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
from tests.campaigns.independent import Meaning, changes, members, plain, sha256, stored_images
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
KNOWN = frozenset(
    """config layers repotags manifests mediatype digest size urls data platform annotations schemaversion os
    architecture variant subject artifacttype bases images requires names image_id kind diff_id base""".split()
)
"""Keys that mean something. What a flip makes of another key, and all below it, is passed over by readers."""
UNREAD = re.compile(r"[0-9a-f]{64}/(VERSION|json)")
"""Members of the layout of Docker 1.10 to 24 that have no meaning beside ``manifest.json``."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory() as path:
        yield path


def contents(images: Meaning, *, platforms: bool = True, layer_digests: bool = True) -> list[Any]:
    """What may never change: image IDs, manifest digests, platforms, and the digests and diff IDs of layers."""
    return sorted(
        (
            image_id,
            layer_digests and digest,
            platforms and platform,
            [pair if layer_digests else pair[1] for pair in layers],
        )
        for _, image_id, digest, platform, layers in images
    )


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
    # Without a checksum one bit in zstandard's literals may stand for several bytes, in several members.
    reasons = {_reason(*one, hybrid="index.json" in {row[0] for row in ours}) for one in changed}
    # "Linux" is the platform that "linux" is.
    if "one view of two" in reasons or repr(contents(before)).lower() != repr(contents(after)).lower():
        assert warned or "packing of a layer" in reasons, f"{reasons} without a warning"
    same = contents(before, platforms="platform" not in reasons, layer_digests="packing of a layer" not in reasons)
    now_ = contents(after, platforms="platform" not in reasons, layer_digests="packing of a layer" not in reasons)
    assert same == now_, "another image is accepted"
    if not reasons & {"words", "platform"}:
        assert {image[0] for image in before} == {image[0] for image in after}
    text = " ".join(now.decode("utf-8", "replace") for _, _, now in changed if now[:1] in (b"{", b"["))
    for shown in {one for image in after for one in image[0]} - {one for image in before for one in image[0]}:
        repository, _, tag = shown.rpartition(":")
        assert repository in text, f"the name {shown} is nowhere"
        assert tag in text or (tag == "latest" and warned), f"the name {shown} is nowhere"
    return "+".join(sorted(reasons))


def _reason(name: str, was: bytes, now: bytes, *, hybrid: bool) -> str:
    """Why a member may change, by its name and by what changed in it."""
    if UNREAD.fullmatch(name):
        return "unread"
    if name.endswith(".tar.gz"):
        # No digest of a compressed layer is said in a docker archive: the diff ID proves what it holds.
        assert plain(was) == plain(now), f"{name} has another content"
        return "packing of a layer"
    assert name in UNCOVERED, f"damage in {name} goes unseen"
    # Go takes keys in any case: another case is no loss.
    lost, come = changes(json.loads(was, object_hook=_lower), json.loads(now, object_hook=_lower))
    reason = "words"
    for place in lost:
        if hybrid and name == "manifest.json" and re.fullmatch(OTHER_VIEW, place):
            reason = "one view of two"
            continue
        assert re.fullmatch(UNCOVERED[name], place, re.I), f"{place} of {name} was lost unseen"
        if place in come and "/platform/" in place:
            reason = "platform"
    for place in come:
        meant = all(part.isdigit() or part in KNOWN for part in place.strip("/").split("/"))
        if not (reason == "one view of two" and re.fullmatch(OTHER_VIEW, place)):
            assert not meant or re.fullmatch(UNCOVERED[name], place, re.I), f"{place} of {name} came unseen"
    return reason


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
    places = range(len(data)) if campaign.long else sorted(chance.sample(range(len(data)), 30))
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
            if chance.random() < (campaign.pick(0.2, 0.5) if verification.ok else 0.02):
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
