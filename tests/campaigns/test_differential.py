"""Campaign: spoiled documents for imgtar and for every engine that is here. ``make campaign-differential``.

Whatever imgtar accepts must be one image for all: every engine that accepts the archive shows the image IDs, diff IDs and names that imgtar lists,
for the archive as it was given and for each that imgtar writes from the store after the load, and no two engines show two images for one name. imgtar may
refuse more, that is counted; an engine may refuse, too. What imgtar refuses no engine is asked about.

The engines: docker (its classic store), docker of the next Debian (the containerd store), ctr, podman, skopeo.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaigns import documents, engines
from tests.campaigns.conftest import Campaign
from tests.campaigns.judge import Verdict, judge
from tests.campaigns.mutants import mutant
from tests.campaigns.specimens import memory
from tests.campaigns.trixie import trixie
from tests.conftest import Imgtar

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("engines")]


@dataclass
class Bench:
    """Everything that judges an archive, started once."""

    engines: list[engines.Engine]
    skopeo: engines.Skopeo
    folder: Path
    pool: ThreadPoolExecutor
    kept: Path
    """Where an archive that shows a fault is kept."""

    def __call__(self, data: bytes, campaign: Campaign, what: str, forms: tuple[str, ...]) -> Verdict:
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        verdict = judge(Imgtar(home), self.engines, self.skopeo, self.folder, data, self.pool, forms)
        campaign.count("archives")
        campaign.count("accepted by imgtar" if verdict.accepted else "refused by imgtar")
        for one, number in verdict.counts.items():
            campaign.count(one, number)
        if verdict.faults:
            (kept := self.kept / f"{len(os.listdir(self.kept))}.tar").write_bytes(data)
            pytest.fail(f"{what}, seed {campaign.seed}, kept as {kept}:\n" + "\n".join(verdict.faults), pytrace=False)
        return verdict


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(trixie())
        every: list[engines.Engine] = [
            stack.enter_context(engines.docker_on_containerd(root)),
            stack.enter_context(engines.docker_classic()),
            stack.enter_context(engines.containerd()),
            stack.enter_context(engines.podman()),
        ]
        if (root / "usr/bin/podman").exists():
            every.append(stack.enter_context(engines.newer_podman(root)))
        skopeo = stack.enter_context(engines.skopeo())
        folder = stack.enter_context(memory())
        pool = stack.enter_context(ThreadPoolExecutor(len(every) + 1))
        yield Bench(every, skopeo, folder, pool, tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("form", documents.FORMS)
def test_an_honest_archive_is_one_image_for_all(campaign: Campaign, bench: Bench, form: str) -> None:
    # What this shows besides: the engines are asked, and answer. An engine that refuses everything would prove nothing.
    verdict = bench(
        documents.world(form, 0).tar(), campaign, form, campaign.pick(("hybrid",), ("hybrid", "docker", "oci"))
    )
    assert verdict.accepted
    for one in [*(engine.name for engine in bench.engines), "skopeo docker-archive"]:
        assert verdict.counts[f"{one} accepted"], f"{one} shows nothing: {verdict.counts}"


@pytest.mark.parametrize("kind", documents.KINDS)
def test_spoiled_documents_are_one_image_for_all_or_refused(campaign: Campaign, bench: Bench, kind: str) -> None:
    for number in range(campaign.pick(2, 50)):
        chance = campaign.random(f"{kind} {number}")
        others = chance.sample([one for one in documents.KINDS if one != kind], chance.choice([0, 1, 2]))
        kinds = [kind, *(others if number % 2 == 0 else ())]
        case = documents.case(number, chance, kinds=tuple(kinds))
        form = campaign.pick("hybrid", chance.choice(["hybrid", "hybrid", "docker", "oci"]))
        bench(case.data, campaign, f"{case.form}: {', '.join(case.done)} (number {number})", (form,))


@pytest.mark.parametrize("family", ["docker", "v1", "crane", "oci", "index", "hybrid"])
def test_changed_archives_are_one_image_for_all_or_refused(campaign: Campaign, bench: Bench, family: str) -> None:
    for number in range(campaign.pick(2, 100)):
        chance = campaign.random(f"{family} {number}")
        _, data, done = mutant(chance, [family], most=2)
        form = campaign.pick("hybrid", chance.choice(["hybrid", "hybrid", "docker", "oci"]))
        bench(data, campaign, f"{family} number {number} ({done})", (form,))
