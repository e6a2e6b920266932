"""What is the most that one megabyte can cost? A search for the worst input, by hill climbing over measured time and memory.

Every input below a megabyte must end within ten seconds of processor time and 256 MiB of memory on top of the interpreter,
whichever command meets it in whichever form. The quick form holds the inputs to that which were bad once; the long one
climbs from these and from random ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.images import make_image, oci_archive
from tests.campaigns.conftest import Campaign
from tests.campaigns.worst import LIMIT, SEEDS, Recipe, build, changed, drawn
from tests.hostile.sandbox import MEMORY, SECONDS, Run, Sandbox

COMMANDS: dict[str, tuple[str, ...]] = {
    "load": ("load", "--store", "STORE", "-i", "INPUT"),
    "plan": ("load", "--dry-run", "--json", "--store", "STORE", "-i", "INPUT"),
    "verify": ("verify", "--json", "INPUT"),
    "against": ("verify", "--against", "store", "--store", "STORE", "INPUT"),
    "inspect": ("inspect", "--json", "INPUT"),
    "deps": ("deps", "--json", "INPUT"),
    "inventory": ("inventory", "--of", "INPUT", "-o", "LIST"),
    "history": ("history", "--json", "INPUT"),
}
FORMS = ("file", "pipe")
LONG = os.environ.get("IMGTAR_CAMPAIGN") == "long"
RAW = 200 << 20
"""What an input may be made of before it is compressed: more takes the search too long."""


class Scale:
    """Runs commands on inputs and tells what they cost, as a part of what they may cost."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        scratch = folder / "sandbox"
        scratch.mkdir()
        self._box = Sandbox(scratch)
        self.close = self._box.close
        self._count = 0
        small = self.run("verify", oci_archive([make_image("small:1", seed=1)]), "file")
        self._base = small.peak

    def run(self, command: str, data: bytes, form: str) -> Run:
        """One command on one input, in a folder of its own."""
        self._count += 1
        place = self._folder / str(self._count)
        place.mkdir()
        path = place / "input"
        path.write_bytes(data)
        words = {
            "STORE": str(place / "store"),
            "LIST": str(place / "list"),
            "INPUT": str(path) if form == "file" else "-",
        }
        arguments = [words.get(word, word) for word in COMMANDS[command]]
        try:
            stdin = data if form == "pipe" else None
            return self._box.run(*arguments, stdin=stdin, cwd=place, memory=4 * MEMORY, seconds=12 * SECONDS)
        finally:
            for left in sorted(place.rglob("*"), reverse=True):
                left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()
            place.rmdir()

    def memory(self, done: Run) -> int:
        """Bytes on top of what a small archive takes."""
        return max(0, done.peak - self._base)

    def of(self, done: Run) -> float:
        """How much of the ceilings a run took: over 1 is too much."""
        return max(done.cpu / SECONDS, self.memory(done) / MEMORY)


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scale]:
    measured = Scale(tmp_path_factory.mktemp("worst"))
    yield measured
    measured.close()


def fault_of(scale: Scale, done: Run, what: object, size: int) -> str:
    """What is wrong with a run, empty if nothing is."""
    said = f"{done.cpu:.1f} s, {scale.memory(done) >> 20} MiB for {size} bytes: {what}\n{done}"
    if done.status < 0 or done.status in (1, 6) or b"Traceback" in done.stderr:
        return f"crashes: {said}"
    return said if scale.of(done) > 1 else ""


QUICK = ("blobs that nobody refers to", "labels", "pax records", "one opaque document", "long labels")


@pytest.mark.parametrize("seed", SEEDS if LONG else QUICK)
def test_h284_what_was_the_worst_once_stays_below_the_ceilings(seed: str, scale: Scale, campaign: Campaign) -> None:
    data = build(SEEDS[seed], RAW)
    assert data is not None, "the recipe makes no input of this size"
    assert len(data) <= LIMIT
    runs = [(command, form) for command in COMMANDS for form in FORMS]
    if not campaign.long:
        runs = [("load", "pipe"), ("inspect", "file")]
    faults = []
    for command, form in runs:
        done = scale.run(command, data, form)
        campaign.count("runs")
        faults.append(fault_of(scale, done, f"{command} of a {form}: {seed}", len(data)))
    assert not any(faults), "\n".join(filter(None, faults))[:6000]


def test_h284_no_input_that_the_search_finds_goes_over_the_ceilings(scale: Scale, campaign: Campaign) -> None:
    lots = campaign.random()
    until = time.monotonic() + campaign.pick(4, int(os.environ.get("IMGTAR_SEARCH_SECONDS", "1200")))
    best: dict[str, tuple[float, Recipe, str]] = {}
    faults: list[str] = []
    starts: list[Recipe] = [drawn(lots) for _ in range(4)] if not campaign.long else [*SEEDS.values()]
    tried = 0
    while (time.monotonic() < until or not tried) and len(faults) < 5:
        command = lots.choice(list(COMMANDS))
        if starts:
            recipe = starts.pop(0)
        elif lots.random() < 0.75 and best:
            recipe = changed(best.get(command, lots.choice(list(best.values())))[1], lots)
        else:
            recipe = drawn(lots) if lots.random() < 0.5 else changed(lots.choice(list(SEEDS.values())), lots)
        data = build(recipe, RAW if campaign.long else 8 << 20)
        campaign.count("inputs")
        if data is None:
            campaign.count("inputs that are too large")
            continue
        form = lots.choice(FORMS)
        done = scale.run(command, data, form)
        tried += 1
        campaign.count("runs")
        campaign.count(f"exit {done.status}")
        shown = {name: value for name, value in recipe.items() if value}
        fault = fault_of(scale, done, f"{command} of a {form}: {shown}", len(data))
        if fault:
            faults.append(fault[:1500])
        share = scale.of(done)
        if share > best.get(command, (0.0,))[0]:
            best[command] = share, recipe, f"{form}: {done.cpu:.1f} s, {scale.memory(done) >> 20} MiB: {shown}"
    for command, (share, _, said) in sorted(best.items()):
        campaign.count(f"percent of the ceilings at most, {command} of a {said}", round(100 * share))
    assert not faults, "\n".join(faults)
