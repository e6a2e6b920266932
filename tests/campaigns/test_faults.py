"""H214-H217, H249: every system call that touches a disk fails, once and from then on, and a disk that is full at every size.

The command says so (exit 6, or 7 where the store is at fault) or did not need the call; then "After" holds. What is
told as done is done.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.campaigns.conftest import Campaign
from tests.campaigns.crash import SCENARIOS, Bench, Place, copy_home, leftovers, needs, place_in
from tests.campaigns.crash_server import Outcome
from tests.campaigns.trace import calls

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("strace")]

_SPACE = ("ENOSPC", "EDQUOT")
FAULTS = {
    "openat": ("EIO", "EACCES", "EMFILE", "ENOSPC", "EINTR"),
    "read": ("EIO", "EINTR"),
    "pread64": ("EIO",),
    "preadv": ("EIO", "EINTR"),
    "getdents64": ("EIO",),
    "newfstatat": ("EIO", "EACCES"),
    "write": ("EIO", *_SPACE, "EINTR"),
    "pwrite64": ("EIO", *_SPACE),
    "fsync": ("EIO", *_SPACE),
    "rename": ("EIO", "EACCES", *_SPACE),
    "mkdir": ("EIO", "EACCES", *_SPACE),
    "unlink": ("EIO", "EACCES"),
    "unlinkat": ("EIO", "EACCES"),
    "rmdir": ("EIO", "EACCES"),
    "ftruncate": ("EIO",),
    "truncate": ("EIO",),
    "flock": ("EIO", "ENOLCK", "EINTR"),
}
QUICK = 2
"""Faults of each scenario in the quick form."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_h214_h217_a_call_that_fails_is_told_or_did_not_matter(name: str, place: Place, campaign: Campaign) -> None:
    scenario, bench, runner = SCENARIOS[name], place.bench(name), place.runner

    def run(kind: str, *options: str) -> tuple[Path, Outcome]:
        home = bench.home()
        strace = ("-y", "-e", f"trace={kind}", *options)
        return home, runner.run(*scenario.words(home), stdin=scenario.stdin, strace=strace)

    def fail(kind: str, error: str, when: str) -> bool:
        home, outcome = run(kind, "-e", f"inject={kind}:error={error}:when={when}")
        if "(INJECTED)" not in outcome.log:
            bench.done(home)
            return False
        campaign.count("faults")
        campaign.count("told" if outcome.status else "did not matter")
        try:
            assert "Traceback" not in outcome.stderr, outcome
            assert outcome.status in (0, 6, 7), outcome
            assert outcome.status or not outcome.stdout or "error[" not in outcome.stderr, outcome
            if kind == "fsync":
                _synced_once(bench, home, outcome)
            campaign.count("different states checked", bench.check(home, outcome))
        except AssertionError as problem:
            raise AssertionError(f"{error} from {kind} number {when}: {problem}\n{outcome}") from None
        return True

    home, undisturbed = run(",".join(FAULTS))
    assert undisturbed.status == 0, undisturbed
    bench.check(home, undisturbed)
    made = list(calls(undisturbed.log))
    campaign.count("calls", len(made))
    kinds = list(dict.fromkeys(call.name for call in made))
    if not campaign.long:
        chance = campaign.random(name)
        for _ in range(QUICK):
            kind = chance.choice(kinds)
            # At least one thread makes so many.
            number = chance.randint(1, sum(call.name == kind and call.thread == made[0].thread for call in made) or 1)
            error = chance.choice(FAULTS[kind])
            assert fail(kind, error, f"{number}{chance.choice(['', '+']) if error != 'EINTR' else ''}")
        return
    for kind in kinds:
        for error in FAULTS[kind]:
            for number in count(1):
                if not fail(kind, error, str(number)):
                    break
                if error != "EINTR":  # What is interrupted for ever is tried again for ever.
                    fail(kind, error, f"{number}+")


def _synced_once(bench: Bench, home: Path, outcome: Outcome) -> None:
    """H217: the second sync of a file may succeed without its data ("fsyncgate"): it must not be tried."""
    failed: list[str] = []
    for call in calls(outcome.log):
        assert call.paths[0] not in failed, f"synced again after a failure: {call.text}"
        if call.injected:
            failed.append(call.paths[0])
    assert failed
    assert outcome.status in (6, 7), outcome
    if not any(Path(path).is_dir() for path in failed):
        assert bench.state(home) == bench.before, "committed, though a file was not synced"


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Path]]:
    """A place, and a disk in memory, which only this process and its children see."""
    tmp_path = tmp_path_factory.mktemp("small")
    if os.geteuid() != 0:
        needs("mount", "mounting a disk needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000) != 0:  # CLONE_NEWNS
        needs("unshare", f"no private mounts here: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "imgtar-test", disk], check=True)
    try:
        for place in place_in(tmp_path):
            yield place, disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "name", ["load-first", "load-moves", "load-pipe", "load-mends", "tag", "save", "save-gzip", "save-dir"]
)
def test_h215_h216_h249_a_disk_that_is_full_at_any_size_is_told_and_nothing_is_half_there(
    name: str, small_disk: tuple[Place, Path], campaign: Campaign
) -> None:
    """The program is made to believe that there is space when it asks, so that it runs into the end of it."""
    place, disk = small_disk
    scenario, bench, runner = SCENARIOS[name], place.bench(name), place.runner

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)

    failures = 0
    for pages in count(0, campaign.pick(9, 1)):
        resize("64m")
        home = copy_home(bench.template, disk / f"home{pages}")
        free = os.statvfs(disk)
        resize(f"{(free.f_blocks - free.f_bfree + pages) * free.f_frsize // 1024}k")
        outcome = runner.run(*scenario.words(home), stdin=scenario.stdin, spacious=True)
        resize("64m")
        campaign.count("sizes")
        assert "Traceback" not in outcome.stderr, outcome
        if outcome.status:
            assert outcome.status == 6, outcome
            assert "E_SPACE" in outcome.stderr, outcome
            assert bench.state(home) == bench.before, outcome
            assert not leftovers(home), outcome
            failures += 1
        bench.check(home, outcome)
        if outcome.status == 0:
            break
    assert failures or name == "tag", "the disk was never full"
