"""Campaign: a small archive of every family, cut off at every byte. ``make campaign-truncation``.

Promised: every cut is refused, by verify and by load, from a file and through a pipe, and leaves no image behind. A cut
that only takes NULs after the end (of the tar, or of the compressed stream around it) is no damage: nothing is lost,
and the images are proved to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.independent import stored_images
from tests.campaigns.specimens import FAMILIES, archive, judged, loaded, meaning, memory

REFUSALS = ("E_TRUNC", "E_TYPE", "E_COMPRESS")
"""What a cut may be called. E_TYPE: so little is left that nothing says what it was."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory() as path:
        yield path


@pytest.mark.parametrize("family", FAMILIES)
def test_an_archive_cut_off_anywhere_is_refused(campaign: Campaign, folder: Path, family: str) -> None:
    data, path = archive(family), folder / "cut.tar"
    verification = judged(path, data)
    assert verification.ok, verification.findings
    whole = meaning(path)
    stride = campaign.pick(max(len(data) // 24, 1), 1)
    for length in range(campaign.random(family).randrange(stride), len(data), stride):
        campaign.count("cuts")
        verification = judged(path, data[:length])
        if verification.ok:
            assert not data[length:].strip(b"\0"), f"cut after {length} of {len(data)} bytes goes unseen"
            assert meaning(path) == whole, f"cut after {length} bytes: other images"
            campaign.count("harmless")
            continue
        assert verification.exit_code == 5, verification.findings
        assert verification.faults[0].code in REFUSALS, f"cut after {length}: {verification.findings}"
        campaign.count("refused")


@pytest.mark.parametrize("family", FAMILIES)
def test_load_refuses_each_cut_that_verify_refuses(campaign: Campaign, folder: Path, family: str) -> None:
    data, path, store = archive(family), folder / "cut.tar", folder / "store"
    base = FAMILIES[family].base
    before = 0 if base is None else 1
    chance = campaign.random(f"load {family}")
    # Near the end is where a reader is most likely to think that it has everything.
    lengths = {len(data), *chance.sample(range(len(data)), campaign.pick(2, 400))}
    lengths |= {len(data) - chance.randrange(1, min(1600, len(data))) for _ in range(campaign.pick(1, 200))}
    for length in sorted(lengths):
        cut = data[:length]
        verification = judged(path, cut)
        for given in (str(path), cut):
            campaign.count("loads")
            status = loaded(given, store, base)
            how = "file" if given is not cut else "pipe"
            assert status == verification.exit_code, (
                f"cut after {length} of {len(data)}, {how}: {verification.findings}"
            )
            found = stored_images(store) if (store / "index.json").exists() else set()
            if status:
                assert len(found) == before, f"cut after {length}: a refused load left something"
                campaign.count("refused")
            else:
                assert len(found) > before, f"cut after {length}: a load that brought nothing"
