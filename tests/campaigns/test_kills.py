"""H212, H249: killed at every system call that can change a disk, every command leaves the old state or the new one.

strace counts each kind of call, and for each thread of its own: the n-th fsync of the first thread hides behind the n-th
of a helper that came earlier. So first every kind is counted through. Then the places where a kill fell are compared
with those that an undisturbed run passes, and those that were left out are hit by their path. None may be left then.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.crash import SCENARIOS, Place, plain_name
from tests.campaigns.crash_server import Outcome
from tests.campaigns.trace import WRITING, Call, calls, killed_at

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("strace")]

QUICK = 2
"""Kills of each scenario in the quick form."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_h212_killed_at_every_call_a_command_has_done_all_or_nothing(
    name: str, place: Place, campaign: Campaign
) -> None:
    scenario, bench, runner = SCENARIOS[name], place.bench(name), place.runner

    def run(kinds: Iterable[str], *options: str) -> tuple[Path, Outcome]:
        home = bench.home()
        which = ",".join(kinds)
        words = [option.format(home=home, which=which) for option in ("-y", "-e", "trace={which}", *options)]
        return home, runner.run(*scenario.words(home), stdin=scenario.stdin, strace=tuple(words), settled=True)

    home, undisturbed = run(WRITING)
    assert undisturbed.status == 0, undisturbed
    made = list(calls(undisturbed.log))
    wanted = {_place(call, home): _path(call, home) for call in made if call.writes}
    campaign.count("calls", len(made))
    campaign.count("places", len(wanted))
    bench.check(home, undisturbed)
    covered: set[tuple[str, ...]] = set()

    def kill(kind: str, number: int, path: str | None = None) -> bool:
        only = ("-P", path) if path is not None else ()
        home, outcome = run([kind], *only, "-e", f"inject={{which}}:signal=KILL:when={number}")
        try:
            if outcome.status != -9:
                assert outcome.status == 0, outcome
                bench.done(home)
                return False
            at = killed_at(outcome.log)
            if at is not None:
                covered.add(_place(at, home))
            campaign.count("kills")
            campaign.count("different states checked", bench.check(home, outcome))
        except AssertionError as error:
            raise AssertionError(f"killed at {kind} number {number} {path or ''}: {error}") from None
        return True

    if not campaign.long:
        for at in campaign.random(name).sample([n for n, call in enumerate(made) if call.writes], QUICK):
            call = made[at]
            number = sum(before.name == call.name for before in made[: at + 1])
            # By its file, and if strace does not know that (a name in an open folder) by its number.
            assert kill(call.name, 1, _path(call, home)) or kill(call.name, number)
        return
    for kind in dict.fromkeys(call.name for call in made):
        for number in count(1):
            if not kill(kind, number):
                break
    for place_, path in wanted.items():
        for number in count(1) if place_ not in covered else ():
            if place_ in covered or not kill(place_[0], number, path):
                break
    missed = wanted.keys() - covered
    assert not missed, f"no kill fell at {sorted(missed)}"


def _path(call: Call, home: Path) -> str:
    """The file by which a call can be told from others, for ``-P`` of strace."""
    return call.paths[0].replace(str(home), "{home}")  # Of the two of a rename strace looks at the first.


def _place(call: Call, home: Path) -> tuple[str, ...]:
    """What a call is about, without what is random; the files that are being staged are alike."""
    names = (plain_name(path.replace(str(home), "")) for path in call.paths)
    what = ["staged" if "staging/*/" in name else name for name in names]
    # In which order staged files become blobs is chance.
    return (call.name, "staged", "blob") if call.name == "rename" and what[0] == "staged" else (call.name, *what)
