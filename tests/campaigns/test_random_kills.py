"""H213: killed at any moment, again and again, on one store that nobody cleans in between.

``IMGTAR_ROUNDS`` says how often (1,000 in the long form). No strace, so the moments fall between calls too.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

from tests.builders.images import docker_archive, hybrid_archive, make_image, oci_archive
from tests.campaigns.conftest import Campaign
from tests.campaigns.crash import BASE, BIG, Place, copy_home, leftovers, state_of
from tests.conftest import Imgtar

FAMILY = [
    make_image(
        (f"app:{n}", f"latest{n % 3}:1"),
        2,
        seed=n,
        base=BASE,
        compression=(None, "gzip", "zstd")[n % 3],
    )
    for n in range(20, 26)
]


def _command(chance: random.Random, home: Path, names: list[str]) -> tuple[str, ...]:
    """A command that makes sense with these names in the store."""
    archives = sorted(str(path) for path in home.glob("*.in"))
    which = chance.choice(["load"] * 5 + (["tag", "rmi", "rmi", "prune", "save", "save"] if names else []))
    if which == "load":
        # Two of the family would claim the same name.
        paths = [chance.choice(archives), *chance.choice([[], [str(home / "big.in")]])]
        return ("load", *(word for path in paths for word in ("-i", path)))
    if which == "tag":
        return ("tag", chance.choice(names), chance.choice([*names, "new:1", "new:2"]))
    if which == "rmi":
        return ("rmi", chance.choice(names))
    if which == "prune":
        return ("prune", *chance.choice([[], ["--untagged"]]))
    layers = chance.choice([[], ["--layers", "gzip"]])
    return ("save", *layers, "-o", str(home / "out.tar"), *chance.sample(names, min(2, len(names))))


def test_h213_killed_at_random_a_store_keeps_every_image_and_every_command_is_whole_or_absent(
    place: Place, campaign: Campaign
) -> None:
    runner, folder = place.runner, place.folder
    rounds = int(os.environ.get("IMGTAR_ROUNDS", campaign.pick(60, 1000)))
    chance = campaign.random()
    home = folder / "home"
    home.mkdir()
    for n, image in enumerate(FAMILY):
        make = (docker_archive, oci_archive, hybrid_archive)[n % 3]
        (home / f"{n}.in").write_bytes(make([image]))
    (home / "big.in").write_bytes(docker_archive([BIG, BASE]))
    (home / "out.tar").write_bytes(b"what was there before")
    imgtar = Imgtar(home)
    took: dict[str, float] = {}
    contents: dict[tuple[str, str], str] = {}
    for number in range(rounds):
        before = state_of(home, "out.tar")
        command = _command(chance, home, before.names)
        # What it would do is seen on a copy.
        copy = copy_home(home, folder / "copy")
        expected = runner.run("--store", str(copy / "store"), *(word.replace(str(home), str(copy)) for word in command))
        assert expected.status == 0, f"round {number}: {expected}"
        after = state_of(copy, "out.tar")
        shutil.rmtree(copy)
        usual = took[command[0]] = (took.get(command[0], expected.seconds) + expected.seconds) / 2
        outcome = runner.run("--store", str(imgtar.store), *command, kill_after=chance.uniform(0, usual))
        where = f"round {number} of seed {campaign.seed}: {outcome}"
        assert outcome.status in (-9, 0), where
        campaign.count("kills" if outcome.status else "ended before the kill")
        state = state_of(home, "out.tar")
        assert state in (before, after), f"neither old nor new: {state}\n{before}\n{after}\n{where}"
        campaign.count("found old" if state == before else "found new")
        if outcome.acknowledged:
            assert state == after, where
        _whole(imgtar, where)
        if chance.random() < 0.5:
            again = imgtar(*command)
            assert again.code == 0 or (command[0] == "rmi" and again.code == 3 and state == after), (
                where,
                again.errors,
            )
            assert state_of(home, "out.tar") == after, where
            _whole(imgtar, where)
            campaign.count("run again")
        name_and_id = [(name, identity) for name, identity in state_of(home).images if name]
        if name_and_id:
            name, identity = chance.choice(sorted(name_and_id))
            # The same image under the same name must be the same archive for ever.
            saved = imgtar("save", "--format", "docker", name).ok()
            digest = hashlib.sha256(saved.out).hexdigest()
            assert contents.setdefault((name, identity), digest) == digest, where
    imgtar("prune", "--untagged").ok()
    assert _left(imgtar) == [], "nothing stays of all the dead"
    _whole(imgtar, "at the end")


def _left(imgtar: Imgtar) -> list[str]:
    names = state_of(imgtar.home).names
    if names:
        imgtar("save", "-o", imgtar.home / "out.tar", names[0]).ok()
    return leftovers(imgtar.home)


def _whole(imgtar: Imgtar, where: str) -> None:
    verified = imgtar("verify")
    assert verified.code == 0 or (verified.code == 3 and not (imgtar.store / "index.json").exists()), (
        where,
        verified.errors,
    )
