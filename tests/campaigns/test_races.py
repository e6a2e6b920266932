"""Many processes, one store: what was acknowledged stays, whoever deletes at the same time (rows H224 to H228)."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import Image, make_image, oci_archive
from tests.campaigns.conftest import Campaign
from tests.campaigns.crew import Crew, Run
from tests.campaigns.crowd import SHARED

BASE = make_image("base:1", 2, seed=100)
IMAGES = [make_image(f"img:{number}", 1 + number % 3, seed=200 + number // 2 * 10, base=BASE) for number in range(8)]
"""Neighbours have a layer in common, and all have the base's."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """In memory where possible: what is tested here does not depend on the disk, but the number of rounds does."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="imgtar-races-", dir=folder) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def crew(place: Path) -> Iterator[Crew]:
    folder = place / "crew"
    folder.mkdir()
    one = Crew(folder)
    yield one
    one.close()


@pytest.fixture
def here(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=place) as path:
        yield Path(path)


def archived(folder: Path, *images: Image) -> list[Path]:
    """Each image in an archive of its own."""
    paths = []
    for image in images:
        path = folder / f"{image.names[0].replace(':', '-')}.tar"
        path.write_bytes(oci_archive([image]))
        paths.append(path)
    return paths


def names_in(crew: Crew, store: Path) -> dict[str, str]:
    done = crew.run("images", "-a", "--json", "--store", store)
    assert done.status == 0, done
    rows = done.document["images"]
    assert not any("problem" in row for row in rows), rows
    assert len({(row["name"], row["digest"]) for row in rows}) == len(rows), f"something stands twice: {rows}"
    return {row["name"]: row["image_id"] for row in rows if row["name"]}


def blobs_in(store: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (store / "blobs" / "sha256").iterdir()}


def reached(store: Path) -> set[str]:
    """Every digest below the index, found without imgtar."""
    found: set[str] = set()

    def follow(descriptor: dict[str, Any]) -> None:
        found.add(descriptor["digest"])
        if "manifest" in descriptor["mediaType"] or "index" in descriptor["mediaType"]:
            document = json.loads((store / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())
            for below in [*document.get("manifests", ()), *document.get("layers", ())]:
                follow(below)
            if "config" in document:
                found.add(document["config"]["digest"])

    for entry in json.loads((store / "index.json").read_bytes())["manifests"]:
        follow(entry)
    return found


def sound(crew: Crew, store: Path) -> None:
    """Nothing is damaged, nothing is left over, and a prune leaves what is reached and nothing else."""
    done = crew.run("verify", "--store", store)
    assert done.status == 0, done
    assert reached(store) <= blobs_in(store)
    done = crew.run("prune", "--store", store)
    assert done.status == 0, done
    assert blobs_in(store) == reached(store)
    assert list((store / "imgtar" / "staging").iterdir()) == []
    assert not list(store.rglob("*.new"))


def all_good(runs: list[Run]) -> None:
    for run in runs:
        assert run.status == 0, run


# -- everybody at once -------------------------------------------------------------------------------------------------


def test_eight_processes_on_one_store_lose_nothing(crew: Crew, here: Path, campaign: Campaign) -> None:
    for round_number in range(campaign.pick(1, 5)):
        folder = here / str(round_number)
        folder.mkdir()
        seconds = campaign.pick(3, 60)
        archives = []
        for image, path in zip(IMAGES, archived(folder, *IMAGES), strict=True):
            compressed = path.with_suffix(".tar.gz")
            compressed.write_bytes(gzip.compress(path.read_bytes(), 1))
            archives.append(
                {"path": str(path), "compressed": str(compressed), "name": image.names[0], "image_id": image.image_id}
            )
        workers = [
            {
                "number": number,
                "store": str(folder / "store"),
                "folder": str(folder),
                "archives": archives,
                "seed": campaign.seed * 1000 + round_number,
                "seconds": seconds,
            }
            for number in range(8)
        ]
        runs = crew.crowd([("work", worker) for worker in workers], seconds=seconds + 120)
        shared: dict[str, set[str]] = {name: {"None"} for name in SHARED}
        expected: dict[str, str] = {}
        for run in runs:
            assert run.status == 0, run
            report = run.document
            expected.update({name: image_id for name, image_id in report["own"].items() if image_id})
            for what, number in report["counts"].items():
                campaign.count(what, number)
            for verb, took in report["longest"].items():
                key = f"ms for the slowest {verb}"
                campaign.counts[key] = max(campaign.counts[key], round(took * 1000))
            for name, ids in report["shared"].items():
                shared[name] |= set(ids)
        found = names_in(crew, folder / "store")
        assert {name: image_id for name, image_id in found.items() if name not in SHARED} == expected
        for name in SHARED:
            assert found.get(name, "None") in shared[name]
        sound(crew, folder / "store")


# -- one thing against another -----------------------------------------------------------------------------------------


def test_h224_many_first_loads_of_one_archive_all_succeed_and_leave_one_copy(
    crew: Crew, here: Path, campaign: Campaign
) -> None:
    (path,) = archived(here, IMAGES[1])
    for number in range(campaign.pick(1, 20)):
        store = here / f"store{number}"
        all_good(crew.together([["load", "-i", path, "--store", store]] * 32))
        assert names_in(crew, store) == {IMAGES[1].names[0]: IMAGES[1].image_id}
        assert blobs_in(store) == set(IMAGES[1].document.blobs())
        sound(crew, store)
        campaign.count("loads", 32)


def test_h225_many_first_loads_of_different_archives_all_leave_their_names(
    crew: Crew, here: Path, campaign: Campaign
) -> None:
    images = [make_image(f"many:{number}", 1, seed=500 + number, base=BASE) for number in range(32)]
    paths = archived(here, *images)
    for number in range(campaign.pick(1, 20)):
        store = here / f"store{number}"
        all_good(crew.together(["load", "-i", path, "--store", store] for path in paths))
        assert names_in(crew, store) == {image.names[0]: image.image_id for image in images}
        sound(crew, store)
        campaign.count("loads", 32)


def test_h226_h227_what_a_load_reuses_is_not_pruned_under_it(crew: Crew, here: Path, campaign: Campaign) -> None:
    """Every blob of the image lies in the store already and nothing names it: the load reuses what the prune wants."""
    image, other = IMAGES[2], make_image("other:1", 1, seed=900)  # They have nothing in common.
    path, kept = archived(here, image, other)
    store = here / "store"
    all_good([crew.run("load", "-i", kept, "--store", store)])
    pool = here / "pool"
    pool.mkdir()
    for digest, content in image.document.blobs().items():
        (pool / digest.partition(":")[2]).write_bytes(content)
    load = {
        "store": str(store),
        "folder": str(here),
        "archive": str(path),
        "name": image.names[0],
        "pool": str(pool),
        "rounds": campaign.pick(50, 10_000),
        "seed": campaign.seed,
    }
    prunes = [
        {"number": number, "store": str(store), "folder": str(here), "seed": campaign.seed + number}
        for number in range(2)
    ]
    runs = crew.crowd([("load_again", load), *(("prune_again", prune) for prune in prunes)], seconds=3600)
    all_good(runs)
    for run in runs:
        for what, number in run.document["counts"].items():
            campaign.count(what, number)
    assert names_in(crew, store) == {other.names[0]: other.image_id}
    sound(crew, store)
    assert blobs_in(store) == set(other.document.blobs())


def test_h228_a_save_during_a_removal_is_whole_or_says_not_found(crew: Crew, here: Path, campaign: Campaign) -> None:
    chance = campaign.random("removal")
    path, other = archived(here, IMAGES[3], IMAGES[4])
    pristine, store, saved = here / "pristine", here / "store", here / "saved.tar"
    all_good([crew.run("load", "-i", path, "-i", other, "--store", pristine)])
    name = IMAGES[3].names[0]
    for number in range(campaign.pick(8, 600)):
        shutil.copytree(pristine, store)
        saving, removing, tagging = crew.together(
            [
                ["save", "-o", saved, name, "--store", store],
                ["rmi", name, "--store", store],
                ["tag", name, "copy:1", "--store", store],
            ],
            delays=[chance.uniform(0, 0.015) for _ in range(3)],
        )
        assert removing.status == 0, removing
        assert saving.status in (0, 3), saving
        assert tagging.status in (0, 3), tagging
        if saving.status == 0:
            done = crew.run("verify", saved, "--json")
            assert done.status == 0, done
            (only,) = done.document["archives"][0]["images"]
            assert only["image_id"] == IMAGES[3].image_id
            saved.unlink()
        else:
            assert not saved.exists()
        everything = IMAGES[4].document.blobs() | (IMAGES[3].document.blobs() if tagging.status == 0 else {})
        left = {IMAGES[4].names[0]: IMAGES[4].image_id}
        if tagging.status == 0:
            left["copy:1"] = IMAGES[3].image_id
        assert names_in(crew, store) == left
        assert reached(store) == blobs_in(store) == set(everything)
        if number % 10 == 0:
            sound(crew, store)
        shutil.rmtree(store)
        campaign.count("rounds")
        campaign.count("saved before the removal", saving.status == 0)


def test_h228_of_tags_at_once_one_is_the_last_and_no_other_name_moves(
    crew: Crew, here: Path, campaign: Campaign
) -> None:
    store = here / "store"
    paths = archived(here, *IMAGES[:4])
    all_good([crew.run("load", *(word for path in paths for word in ("-i", path)), "--store", store)])
    before = {image.names[0]: image.image_id for image in IMAGES[:4]}
    for number in range(campaign.pick(5, 200)):
        moved, single = f"moved:{number}", f"single:{number}"
        commands = [["tag", name, moved, "--store", store] for name in before]
        commands += [
            ["load", "-i", path, "--tag", f"{name}={single}", "--no-clobber", "--store", store]
            for path, name in zip(paths, before, strict=True)
        ]
        runs = crew.together(commands)
        all_good(runs[:4])
        assert sorted(run.status for run in runs[4:]) == [0, 9, 9, 9]
        winner = [run.status for run in runs[4:]].index(0)
        found = names_in(crew, store)
        assert found.pop(single) == list(before.values())[winner]
        assert found.pop(moved) in before.values()
        assert found == before
        all_good([crew.run("rmi", moved, single, "--store", store)])
        campaign.count("rounds")
    sound(crew, store)


# -- programs that know no lock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.004], ids=["without a break", "with breaks"])
def test_h278_what_another_program_writes_into_the_index_without_our_lock_is_kept(
    pause: float, crew: Crew, here: Path, campaign: Campaign
) -> None:
    """It reads, adds a name, and renames, as skopeo and umoci do, while imgtar tags and loads."""
    path, other = archived(here, IMAGES[0], IMAGES[5])
    for number in range(campaign.pick(1, 25)):
        folder = here / str(number)
        folder.mkdir()
        store = folder / "store"
        all_good([crew.run("load", "-i", path, "-i", other, "--store", store)])
        given = {"store": str(store), "folder": str(folder)}
        writer = {**given, "names": 400, "seed": campaign.seed + number, "pause": pause}
        tagger = {**given, "archive": str(path), "name": IMAGES[0].names[0]}
        runs = crew.crowd([("foreign", writer), ("tag_until_stopped", tagger)], seconds=300)
        all_good(runs)
        found = names_in(crew, store)
        foreign = {f"foreign:{number}" for number in range(400)}
        own = set(runs[1].document["own"])
        campaign.count("foreign names", 400)
        campaign.count("foreign names lost", len(foreign - set(found)))
        campaign.count("own names", len(own))
        campaign.count("given up", runs[1].document["counts"].get("given up", 0))
        campaign.count("own names lost", len(own - set(found)))
        sound(crew, store)
    # What it writes between our last look and the rename nobody can see; before there was that look it was one in five.
    assert campaign.counts["foreign names lost"] * 20 < campaign.counts["foreign names"]
