"""H218, H219: the power goes at any moment, and the disk holds any of what it may then hold (see disk.py).

Every command is recorded with strace. After each of its calls the states are built that a crash there may leave, and
"After" is checked on each; when the command had said that it is done, the new state must be there. The notes of what
was verified are made to fit the files that are found, as if inode and times were the same: they must do no harm.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.crash import SCENARIOS, Place, copy_home, match_notes
from tests.campaigns.crash_server import Outcome
from tests.campaigns.disk import Disk, is_cache
from tests.campaigns.trace import WRITING, Call, calls

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("strace")]

_RECORD = ("-y", "-xx", "-s", "10000000", "-e", f"trace={','.join([*WRITING, 'fcntl'])}")
_CRASHED = -9


class Cuts:
    """A scenario that is recorded, and the checks of what a power cut leaves of it."""

    def __init__(self, name: str, place: Place, campaign: Campaign) -> None:
        self.runner, self.scenario, self.bench = place.runner, SCENARIOS[name], place.bench(name)
        self.campaign = campaign
        self.chance = campaign.random(name)
        self.states = place.folder / name / "states"
        self._number = 0

    def record(self, home: Path, *options: str) -> Outcome:
        return self.runner.run(*self.scenario.words(home), stdin=self.scenario.stdin, strace=(*_RECORD, *options))

    def cut(self, disk: Disk, most: int, what: str) -> None:
        """Check up to ``most`` states that a cut now may leave."""
        choices, possible = disk.outcomes(most, self.chance)
        self.campaign.count("states possible", possible)
        for choice in choices:
            self._number += 1
            home = self.states / str(self._number)
            disk.build(choice, home)
            match_notes(home / "store")
            self.campaign.count("states built")
            outcome = Outcome((what,), _CRASHED, "told" if disk.told else "", "", "", 0)
            self.campaign.count("different states checked", self.bench.check(home, outcome))


@pytest.mark.parametrize("name", SCENARIOS)
def test_h218_after_a_power_cut_every_change_is_whole_or_absent_and_what_was_reported_is_there(
    name: str, place: Place, campaign: Campaign
) -> None:
    cuts = Cuts(name, place, campaign)
    home = cuts.bench.home()
    disk = Disk(home)
    outcome = cuts.record(home)
    assert outcome.status == 0, outcome
    made = [call for call in calls(outcome.log) if call.writes or call.duplicates]
    campaign.count("calls", len(made))
    points = set(range(len(made) + 1))
    if not campaign.long:
        # The end, the moments around the commit, and some others.
        commits = [n for n, call in enumerate(made) if call.name == "rename" and not is_cache(_inside(call, home))]
        points = {len(made), *(n + 1 for n in commits[-1:]), cuts.chance.choice(sorted(points))}
    for number in range(len(made) + 1):
        if number in points:
            before = (
                f"before call {number} of {len(made)}: {made[number].text[:300]}"
                if number < len(made)
                else "at the end"
            )
            # A call that touches only caches gives no new state of anything else.
            again = number and is_cache(_inside(made[number - 1], home))
            cuts.cut(disk, campaign.pick(2, 1 if again else 24), before)
        if number < len(made):
            disk.apply(made[number])
    assert disk.told or not outcome.stdout


@pytest.mark.parametrize("name", ["load-first", "load-moves", "load-several", "load-pipe", "tag-moves", "save"])
def test_h218_what_a_killed_command_left_unsafe_is_safe_when_the_next_one_has_reported_success(
    name: str, place: Place, campaign: Campaign
) -> None:
    """Killed, run again, told that it is done, and then the power goes."""
    cuts = Cuts(name, place, campaign)
    outcome = cuts.record(home := cuts.bench.home())
    made = [call for call in calls(outcome.log) if call.writes or call.duplicates]
    points = list(range(1, len(made) + 1))
    if not campaign.long:
        # After the last renaming the next command finds everything as it wants it.
        renames = [n for n, call in enumerate(made) if call.name == "rename" and not is_cache(_inside(call, home))]
        points = [renames[-1] + 1]
    for number in points:
        cuts.bench.done(home)
        copy_home(cuts.bench.template, home)
        disk = Disk(home)
        for call in made[:number]:
            disk.apply(call)
        disk.told = False
        cuts.bench.done(home)
        disk.build(disk.unharmed(), home)  # A killed process loses nothing that it did.
        match_notes(home / "store")
        again = cuts.record(home)
        assert again.status in cuts.scenario.again, again
        for call in calls(again.log):
            if call.writes or call.duplicates:
                disk.apply(call)
        assert disk.told or not again.stdout
        disk.told = True
        campaign.count("kills")
        cuts.cut(disk, campaign.pick(3, 16), f"killed before call {number} of {len(made)}, run again, and at the end")
    cuts.bench.done(home)


def _inside(call: Call, home: Path) -> str:
    return call.paths[-1].removeprefix(str(home))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name.startswith("load")])
def test_h219_a_load_syncs_blobs_names_and_index_in_that_order_and_then_says_so(
    name: str, place: Place, campaign: Campaign
) -> None:
    cuts = Cuts(name, place, campaign)
    home = cuts.bench.home()
    outcome = cuts.record(home)
    assert outcome.status == 0, outcome
    made = list(calls(outcome.log))
    index = f"{home}/store/index.json"
    committed = max(
        (n for n, call in enumerate(made) if call.name == "rename" and call.paths[1] == index), default=None
    )
    blobs = [n for n, call in enumerate(made) if call.name == "rename" and "/store/blobs/" in call.paths[1]]
    assert blobs
    synced = {path: n for n, call in enumerate(made) if call.name == "fsync" for path in call.paths}
    for n in blobs:
        source, target = made[n].paths
        assert synced[source] < n < synced[str(Path(target).parent)], made[n].text
    names = max(synced[f"{home}/store/blobs/sha256"], synced[f"{home}/store/blobs"])
    if committed is not None and not cuts.scenario.damaged:
        assert max(blobs) < names < synced[made[committed].paths[0]] < committed < synced[f"{home}/store"]
    said = [n for n, call in enumerate(made) if call.name == "write" and call.fd == 1]
    assert said
    assert max(names, synced[f"{home}/store"]) < min(said)
    campaign.count("orders")


@pytest.mark.parametrize("name", ["save", "save-gzip", "save-dir"])
def test_h219_a_save_syncs_what_it_wrote_and_then_the_name(name: str, place: Place, campaign: Campaign) -> None:
    cuts = Cuts(name, place, campaign)
    home = cuts.bench.home()
    outcome = cuts.record(home)
    assert outcome.status == 0, outcome
    made = list(calls(outcome.log))
    target = f"{home}/{cuts.scenario.output}"
    (renamed,) = (n for n, call in enumerate(made) if call.name == "rename" and call.paths[1] == target)
    temporary = made[renamed].paths[0]
    written = {call.paths[0] for call in made if call.name == "write" and call.paths[0].startswith(temporary)}
    assert written
    synced = {path: n for n, call in enumerate(made) if call.name == "fsync" for path in call.paths}
    for path in written | {str(Path(path).parent) for path in written if path != temporary}:
        assert synced[path] < renamed, path
    assert renamed < synced[str(home)]
    campaign.count("orders")
