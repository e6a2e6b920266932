"""H212, H249: killed at every system call that can change a disk, every command leaves the old state or the new one.

strace counts for each thread of its own, so the n-th call of a helper thread may hide behind the n-th of the first
one. Therefore the calls are counted together and then each kind by itself, and in the long form the places where a
kill fell are compared with those that an undisturbed run passes: none may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.crash import SCENARIOS, Bench, needs, plain_name, scratch
from tests.campaigns.crash_server import Outcome, Runner
from tests.campaigns.trace import WRITING, Call, calls, killed_at

pytestmark = pytest.mark.interop

QUICK = 4
"""Kills of each scenario in the quick form."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Runner, Path]]:
    needs("strace")
    yield from scratch(tmp_path)


@pytest.mark.parametrize("name", SCENARIOS)
def test_h212_killed_at_every_call_a_command_has_done_all_or_nothing(
    name: str, place: tuple[Runner, Path], campaign: Campaign
) -> None:
    runner, folder = place
    scenario = SCENARIOS[name]
    bench = Bench(scenario, folder / "template", folder / "runs")

    def run(kinds: list[str], number: int) -> tuple[Path, Outcome]:
        home = bench.home()
        which = ",".join(kinds)
        kill = ("-e", f"inject={which}:signal=KILL:when={number}") if number else ()
        options = ("-y", "-e", f"trace={which}", *kill)
        return home, runner.run(*scenario.words(home), stdin=scenario.stdin, strace=options)

    home, undisturbed = run(WRITING, 0)
    assert undisturbed.status == 0, undisturbed
    wanted = {_place(call, home) for call in calls(undisturbed.log) if call.writes}
    seen = [call.name for call in calls(undisturbed.log)]
    campaign.count("calls", len(seen))
    bench.check(home, undisturbed)
    covered: set[tuple[str, ...]] = set()

    def kill(kinds: list[str], number: int) -> bool:
        home, outcome = run(kinds, number)
        try:
            if outcome.status != -9:
                assert outcome.status == 0, outcome
                return False
            at = killed_at(outcome.log)
            if at is not None:
                covered.add(_place(at, home))
            campaign.count("kills")
            campaign.count("states checked", bench.check(home, outcome))
        except AssertionError as error:
            raise AssertionError(f"killed at call {number} of {'all' if len(kinds) > 1 else kinds[0]}: {error}") from None
        return True

    if not campaign.long:
        most = max(sum(call.thread == thread for call in calls(undisturbed.log)) for thread in _threads(undisturbed))
        for number in campaign.random(name).sample(range(1, most + 1), QUICK):
            assert kill(WRITING, number)
        return
    for kinds in (WRITING, *([kind] for kind in WRITING if kind in seen)):
        number = 1
        while kill(kinds, number):
            number += 1
    missed = wanted - covered
    assert not missed, f"no kill fell at {sorted(missed)}"
    campaign.count("places", len(wanted))


def _threads(outcome: Outcome) -> set[int]:
    return {call.thread for call in calls(outcome.log)}


def _place(call: Call, home: Path) -> tuple[str, ...]:
    """What a call is about, without what is random; the files that are being staged are alike."""
    names = (plain_name(path.replace(str(home), "")) for path in call.paths)
    return (call.name, *("staged" if "staging/*/" in name else name for name in names))
