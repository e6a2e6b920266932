"""Campaign: archives changed with an eye for their structure. ``make campaign-mutation``.

Members, headers, documents and layers are changed, with the digests put right or not (see mutants.py). Promised for any
of them: no error but those of the error tree, an exit status for bad input, an answer in time; what verify finds good
loads, from a file and through a pipe; what is refused leaves the store as it was; and what loads leaves a store that is
proved good here without imgtar: each image has the diff IDs of its bytes, and all of them came in the archive.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tests.builders.images import make_image, sha256
from tests.campaigns import mutants
from tests.campaigns.conftest import Campaign
from tests.campaigns.independent import members, plain, stored_images
from tests.campaigns.specimens import judged, loaded, memory
from tests.conftest import stored
from tests.hostile.mutation import edited

KEPT = make_image("keep:1", 1, seed=9000)
SECONDS = 20
"""More than any of these archives of a few KiB may take, on a machine that is busy with other things."""
LONG = os.environ.get("IMGTAR_CAMPAIGN") == "long"
UNREFERENCED = ("the unreferenced blob", "the blob")
"""How verify calls what no image needs. It judges that, too; a load does not look at it."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with memory() as path:
        yield path


def check(campaign: Campaign, folder: Path, data: bytes) -> None:
    """Assert every promise for one archive."""
    path, store = folder / "mutant.tar", folder / "store"
    campaign.count("inputs")
    began = time.monotonic()
    verification = judged(path, data)
    assert verification.exit_code in (0, 3, 4, 5), verification.findings
    results = []
    for given_ in (str(path), data):
        status = loaded(given_, store, KEPT)
        results.append(status)
        if status:
            before = _pristine(folder)
            assert stored(store) == before, "a refused load changed the store"
        else:
            _proved(store, data)
    taken = time.monotonic() - began
    assert taken < SECONDS, f"{taken} s"
    if verification.ok:
        campaign.count("accepted")
        assert results == [0, 0], f"verify accepts, load says {results}: {verification.findings}"
        return
    ballast = all(any(mark in f"{one.subject} {one.message}" for mark in UNREFERENCED) for one in verification.faults)
    if ballast:
        campaign.count("refused by verify for what no image needs")
        return
    campaign.count("refused")
    assert all(results), f"verify refuses, load says {results}: {verification.faults}"


def _pristine(folder: Path) -> dict[str, bytes | None]:
    """What a store with :data:`KEPT` holds that nobody loaded into."""
    untouched = folder / "untouched"
    if not untouched.exists():
        shutil.copytree(folder / "with-base", untouched)
    return stored(untouched)


def _proved(store: Path, data: bytes) -> None:
    stored_images(store)
    rows = members(plain(data))
    contents = [row[3] for row in rows]
    # Before Docker 1.10 there were no configs: imgtar makes them.
    made = not any(row[0].rpartition("/")[2] in ("manifest.json", "index.json") for row in rows)
    brought = {sha256(one) for one in contents} | {sha256(_plain(one)) for one in contents}
    known = {sha256(KEPT.config), *(layer.digest for layer in KEPT.layers), KEPT.digest}
    for blob in store.glob("blobs/*/*"):
        digest = f"{blob.parent.name}:{blob.name}"
        raw = blob.read_bytes()
        written = b'"schemaVersion":2' in raw[:40] or made
        assert sha256(raw) in brought | known or (written and raw[:1] == b"{"), f"{digest} came from nowhere"


def _plain(data: bytes) -> bytes:
    try:
        return plain(data)
    except Exception:  # noqa: BLE001 - damaged on purpose
        return data


@pytest.mark.parametrize("family", mutants.BASES)
def test_a_changed_archive_is_refused_or_true(campaign: Campaign, folder: Path, family: str) -> None:
    for number in range(campaign.pick(10, 1500)):
        _, data, done = mutants.mutant(campaign.random(f"{family} {number}"), [family])
        try:
            check(campaign, folder, data)
        except BaseException as error:
            error.add_note(f"{family} number {number} of seed {campaign.seed}: {done}")
            raise


@settings(max_examples=1500 if LONG else 25)
@seed(int(os.environ.get("IMGTAR_SEED", "1")))
@given(data=st.data())
def _documents(campaign: Campaign, folder: Path, data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(sorted(mutants.BASES)))
    rows = list(mutants.BASES[family]().members)
    place = data.draw(st.sampled_from([n for n, row in enumerate(rows) if mutants.is_document(row)]))
    changed = edited(rows[place].data, data)
    mutants.put(rows, place, changed, told=data.draw(st.booleans()))
    check(campaign, folder, b"".join(row.block() for row in rows) + bytes(1024))


def test_an_archive_with_a_changed_document_is_refused_or_true(campaign: Campaign, folder: Path) -> None:
    _documents(campaign, folder)


def test_the_changes_are_many(campaign: Campaign) -> None:
    """A campaign that changes nothing would find nothing."""
    done = {mutants.mutant(random.Random(number))[2] for number in range(60)}
    assert len(done) > 30
