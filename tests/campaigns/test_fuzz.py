"""Campaign: any bytes at all for everything that reads bytes. ``make campaign-fuzz``, ``FUZZ_SECONDS=600`` for longer.

The quick form gives each target its seeds and random changes of them. The long form lets atheris (libFuzzer) look for
inputs that reach new code; the make target installs it. The promises are in fuzz/targets.py.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.fuzz.targets import SEEDS, TARGETS

TOP = Path(__file__).resolve().parents[2]
COSTLY = ("inspect",)
"""Targets of which one execution takes milliseconds."""


def mutant(seed: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A few changes as libFuzzer makes them: bits, bytes, cuts, copies, joints of two inputs."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(data) + 1)
        end = place + chance.choice((1, 1, 4, 30, 512))
        how = chance.randrange(7)
        if how == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif how == 1 and place < len(data):
            data[place] = chance.choice(b'\0\x01\x7f\x80\xff 019{}[]",:/.@\\')
        elif how == 2:
            del data[place:end]
        elif how == 3:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif how == 4:
            source = chance.randrange(len(data) + 1)
            data[place:place] = data[source : source + end - place]
        elif how == 5:
            other = chance.choice(others)
            data[place:] = other[chance.randrange(len(other) + 1) :]
        else:
            data[place:end] = bytes(min(end, len(data)) - place)
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_promise_of_a_target_holds_for_its_seeds_and_changes_of_them(campaign: Campaign, name: str) -> None:
    seeds, target, chance = SEEDS[name](), TARGETS[name], campaign.random(name)
    number = campaign.pick(120, 5_000) if name in COSTLY else campaign.pick(800, 30_000)
    for data in [*seeds, b"", *(mutant(chance.choice(seeds), seeds, chance) for _ in range(number))]:
        campaign.count("inputs")
        try:
            target(data)
        except BaseException as error:
            error.add_note(
                f"input: {data!r}" if len(data) < 2000 else f"input of {len(data)} bytes, seed {campaign.seed}"
            )
            raise


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_promise_of_a_target_holds_where_coverage_leads(campaign: Campaign, name: str, tmp_path: Path) -> None:
    if not campaign.long:
        pytest.skip("only in the long form: make campaign-fuzz")
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: make campaign-fuzz installs it")
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    options = [f"-max_total_time={seconds}", f"-seed={campaign.seed}", "-print_final_stats=1", "-rss_limit_mb=2048"]
    command = [
        sys.executable,
        "-m",
        "tests.campaigns.fuzz.run",
        name,
        str(tmp_path / "corpus"),
        *options,
        "-max_len=20000",
    ]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=seconds + 300, check=False)
    tail = done.stderr[-4000:]
    found = [path.read_bytes() for path in tmp_path.glob("corpus-*")]
    assert done.returncode == 0, f"{tail}\ninputs: {found}"
    executions = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    assert executions, tail
    assert coverage, tail
    campaign.count("executions", int(executions[1]))
    campaign.count("seconds", seconds)
    campaign.count("edges covered", int(coverage[-1]))
