"""One of many who use a store at once: random commands, and what each of them may answer.

A worker has names of its own, which nobody else touches: what they stand for is known from its own acknowledged
commands, and every look at the store must show just that. Names that all share may change at any time; every image
that somebody has put under one is noted. Layers are shared by all images.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from tests.campaigns.crew import Run, in_process

__all__ = ["SHARED", "foreign", "load_again", "prune_again", "tag_until_stopped", "work"]

SHARED = tuple(f"shared:{number}" for number in range(4))


_NAME = "org.opencontainers.image.ref.name"


class Wrong(Exception):
    """A promise was broken."""


def work(*, number: int, store: str, folder: str, archives: Sequence[dict[str, str]], seed: int, seconds: float) -> int:
    """Use the store for so many seconds; print what is known then as JSON. Return 0 unless a promise was broken."""
    worker = _Worker(number, store, folder, archives, random.Random(f"{seed} {number}"))
    end = time.monotonic() + seconds
    fault = ""
    try:
        worker.load()  # All at once, and there is no store yet.
        while time.monotonic() < end:
            worker.step()
        worker.hurry = False
        worker.images()
    except Wrong as error:
        fault = str(error)
    report = {
        "own": worker.own,
        "shared": {name: sorted(map(str, ids)) for name, ids in worker.shared.items()},
        "counts": worker.counts,
        "longest": worker.longest,
        "fault": fault,
    }
    print(json.dumps(report))  # noqa: T201
    return 1 if fault else 0


def load_again(*, store: str, folder: str, archive: str, name: str, pool: str, rounds: int, seed: int) -> int:
    """Load an image and remove it, again and again, while others prune.

    Before each load its blobs are put into the store, and nothing names them: the load reuses what the prune deletes.
    The file ``stop`` tells the others that this is over.
    """
    chance = random.Random(seed)
    outputs = [os.path.join(folder, f"loader.{kind}") for kind in ("out", "err")]
    counts: Counter[str] = Counter()
    blobs = os.path.join(store, "blobs", "sha256")
    try:
        for _ in range(rounds):
            for blob in os.listdir(pool):
                with suppress(FileExistsError):
                    os.link(os.path.join(pool, blob), os.path.join(blobs, blob))
            time.sleep(chance.uniform(0, 0.005))
            done = in_process(["load", "-i", archive, "--json", "--store", store], *outputs)
            if done.status != 0:
                raise Wrong(str(done))
            found = {blob: os.path.getsize(os.path.join(blobs, blob)) for blob in os.listdir(blobs)}
            if any(found.get(blob) != os.path.getsize(os.path.join(pool, blob)) for blob in os.listdir(pool)):
                raise Wrong(f"{done}\nthe store now has {found}")
            reused, written = done.document["blobs_reused"], done.document["blobs_written"]
            counts["rounds"] += 1
            counts["the load reused all"] += not written
            counts["the prune had taken all"] += not reused
            counts["the prune had taken some"] += bool(written and reused)
            done = in_process(["rmi", name, "--store", store], *outputs)
            if done.status != 0:
                raise Wrong(str(done))
    finally:
        with open(os.path.join(folder, "stop"), "w", encoding="ascii"):
            print(json.dumps({"counts": counts}))  # noqa: T201
    return 0


def prune_again(*, number: int, store: str, folder: str, seed: int) -> int:
    """Prune until there is a file ``stop``."""
    chance = random.Random(seed)
    outputs = [os.path.join(folder, f"pruner{number}.{kind}") for kind in ("out", "err")]
    counts: Counter[str] = Counter()
    while not os.path.exists(os.path.join(folder, "stop")):
        done = in_process(["prune", *chance.choice([[], ["--untagged"]]), "--json", "--store", store], *outputs)
        if done.status != 0:
            raise Wrong(str(done))
        counts["prunes"] += 1
        counts["blobs pruned"] += done.document["blobs_deleted"]
        time.sleep(chance.uniform(0, 0.1))
    print(json.dumps({"counts": counts}))  # noqa: T201
    return 0


def foreign(*, store: str, folder: str, names: int, seed: int, pause: float) -> int:
    """Add names to ``index.json`` as other tools do, who know no lock: read it, write the longer one beside it, rename.

    They are all of the first image there. The file ``stop`` tells the others that this is over.
    """
    chance = random.Random(seed)
    index, beside = os.path.join(store, "index.json"), os.path.join(store, "index.json.tmp")
    try:
        for number in range(names):
            with open(index, encoding="utf-8") as file:
                value = json.load(file)
            entry = {key: value["manifests"][0][key] for key in ("mediaType", "digest", "size")}
            value["manifests"].append({**entry, "annotations": {_NAME: f"foreign:{number}"}})
            with open(beside, "w", encoding="utf-8") as file:
                json.dump(value, file)
            os.rename(beside, index)
            time.sleep(chance.uniform(0, pause))
    finally:
        with open(os.path.join(folder, "stop"), "w", encoding="ascii"):
            print(json.dumps({"names": names}))  # noqa: T201
    return 0


def tag_until_stopped(*, store: str, folder: str, archive: str, name: str) -> int:
    """Give ``name`` new names, and load it under others, until there is a file ``stop``; print those acknowledged.

    One that gives up (status 9), because another program writes again and again, has promised nothing, and is run again.
    """
    outputs = [os.path.join(folder, f"tagger.{kind}") for kind in ("out", "err")]
    own: list[str] = []
    counts: Counter[str] = Counter()
    while not os.path.exists(os.path.join(folder, "stop")):
        new = f"own:{len(own)}"
        words = ["tag", name, new] if len(own) % 2 else ["load", "-i", archive, "--tag", f"{name}={new}"]
        done = in_process([*words, "--store", store], *outputs)
        if done.status == 9:
            counts["given up"] += 1
            continue
        if done.status != 0:
            raise Wrong(str(done))
        own.append(new)
        counts[f"{words[0]}s"] += 1
    print(json.dumps({"own": own, "counts": counts}))  # noqa: T201
    return 0


class _Worker:
    def __init__(
        self, number: int, store: str, folder: str, archives: Sequence[dict[str, str]], chance: random.Random
    ) -> None:
        self.own: dict[str, str | None] = {f"w{number}/own:{tag}": None for tag in range(4)}
        self.shared: dict[str, set[str | None]] = {name: set() for name in SHARED}
        self.counts: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.hurry = False
        self._ids = {archive["image_id"] for archive in archives}
        self._store, self._folder, self._archives, self._chance = store, folder, archives, chance
        self._saved = os.path.join(folder, f"saved{number}.tar")
        self._outputs = [os.path.join(folder, f"worker{number}.{kind}") for kind in ("out", "err")]
        self._deeds: list[Callable[[], object]] = [
            *[self.load] * 6,
            *[self.load_shared] * 4,
            *[self.tag] * 3,
            *[self.tag_shared] * 2,
            *[self.take_shared] * 2,
            *[self.remove] * 3,
            *[self.remove_shared] * 2,
            *[self.prune] * 3,
            *[self.save] * 3,
            *[self.save_shared] * 2,
            *[self.thin] * 2,
            *[self.images] * 3,
            *[self.look] * 2,
            self.verify,
        ]

    def step(self) -> None:
        self.hurry = self._chance.random() < 0.05
        self._chance.choice(self._deeds)()

    # -- running

    def run(self, *words: str, may: Sequence[int] = (0,)) -> Run:
        more = ["--lock-timeout", "0.01"] if self.hurry else []
        done = in_process([*words, "--store", self._store, *more], *self._outputs)
        kind = words[0]
        self.counts["commands"] += 1
        self.longest[kind] = max(self.longest.get(kind, 0.0), done.seconds)
        if done.status == 7 and self.hurry and "E_LOCKED" in done.stderr:
            self.counts["gave up waiting, as asked"] += 1
        elif done.status not in may:
            raise Wrong(f"{done}\nmay be {may}; own names: {self.own}")
        elif done.status == 3:
            self.counts["not found"] += 1
        elif done.status == 9:
            self.counts["conflicts"] += 1
        return done

    def name(self, *, there: bool = False) -> str | None:
        """One of the own names, or of those that stand for something."""
        names = [name for name, value in self.own.items() if value or not there]
        return self._chance.choice(names) if names else None

    # -- changes

    def load(self) -> None:
        archive, name = self._chance.choice(self._archives), self.name()
        assert name is not None
        path = archive[self._chance.choice(["path", "compressed"])]
        if self.run("load", "-i", path, "--tag", f"{archive['name']}={name}").status == 0:
            self.own[name] = archive["image_id"]

    def load_shared(self) -> None:
        archive, name = self._chance.choice(self._archives), self._chance.choice(SHARED)
        words = ["load", "-i", archive["path"], "--tag", f"{archive['name']}={name}"]
        careful = self._chance.random() < 0.3
        done = self.run(*words, *(["--no-clobber"] if careful else []), may=(0, 9) if careful else (0,))
        if done.status == 0:
            self.shared[name].add(archive["image_id"])

    def tag(self) -> None:
        source, target = self.name(), self.name()
        assert source is not None
        assert target is not None
        if self.run("tag", source, target, may=(0,) if self.own[source] else (3,)).status == 0:
            self.own[target] = self.own[source]

    def tag_shared(self) -> None:
        source, target = self.name(there=True), self._chance.choice(SHARED)
        if source is not None and self.run("tag", source, target).status == 0:
            self.shared[target].add(self.own[source])

    def take_shared(self) -> None:
        source, target = self._chance.choice(SHARED), self.name()
        assert target is not None
        done = self.run("tag", source, target, "--json", may=(0, 3))
        if done.status == 0:
            self.own[target] = done.document["tags"][0]["to"]
            if self.own[target] not in self._ids:
                raise Wrong(f"{done}\nno archive has that image")

    def remove(self) -> None:
        name = self.name()
        assert name is not None
        if self.run("rmi", name, may=(0,) if self.own[name] else (3,)).status == 0:
            self.own[name] = None

    def remove_shared(self) -> None:
        name = self._chance.choice(SHARED)
        if self.run("rmi", name, may=(0, 3)).status == 0:
            self.shared[name].add(None)

    def prune(self) -> None:
        self.run("prune", *self._chance.choice([[], ["--untagged"], ["--dry-run"]]))

    # -- looks

    def save(self) -> None:
        names = {name for name in self.own if self.own[name] and self._chance.random() < 0.5}
        if names and self.run("save", "-o", self._saved, *self._form(), *names).status == 0:
            self.judge({name: self.own[name] for name in names})

    def save_shared(self) -> None:
        name = self._chance.choice(SHARED)
        if self.run("save", "-o", self._saved, *self._form(), name, may=(0, 3)).status == 0:
            self.judge({name: None})

    def _form(self) -> list[str]:
        return ["--format", self._chance.choice(["hybrid", "docker", "oci"])]

    def judge(self, wanted: dict[str, str | None]) -> None:
        """The saved archive is good, and holds what was asked for (``None``: any image that we know)."""
        self.hurry = False
        done = self.run("verify", self._saved, "--json")
        found = {name: one["image_id"] for one in done.document["archives"][0]["images"] for name in one["names"]}
        for name, image_id in wanted.items():
            if found.get(name) not in (self._ids if image_id is None else {image_id}):
                raise Wrong(f"the archive should have {wanted}, and has {found}")
        self.counts["archives proved"] += 1

    def thin(self) -> None:
        """What a thin archive leaves out is held under an own name: it must stay, whoever prunes."""
        base, name = self.name(there=True), self.name(there=True)
        if base is None or name is None or self.own[base] == self.own[name]:
            return
        if self.run("save", "-o", self._saved, "--base", base, name).status != 0:
            return
        self.hurry = False
        self.run("verify", "--against", "store", self._saved)
        target = self.name()
        assert target is not None
        self.run("load", "-i", self._saved, "--tag", f"{name}={target}")
        self.own[target] = self.own[name]
        self.counts["thin archives loaded"] += 1

    def images(self) -> None:
        done = self.run("images", "--json")
        if done.status == 0:
            rows = {row["name"]: row for row in done.document["images"]}
            for name, image_id in self.own.items():
                if (rows[name]["image_id"] if name in rows else None) != image_id:
                    raise Wrong(f"{name} should be {image_id}: {rows.get(name)}")
            if any("problem" in row for row in rows.values()):
                raise Wrong(f"an image has a problem: {rows}")
            self.counts["looks at all names"] += 1

    def look(self) -> None:
        name = self._chance.choice([*self.own, *SHARED])
        may = (0, 3) if name in SHARED else (0,) if self.own[name] else (3,)
        verb = self._chance.choice(["inspect", "history", "deps", "inventory"])
        if verb == "inventory":
            self.run(verb, "-o", self._saved + ".inventory")
        else:
            self.run(verb, name, may=may)

    def verify(self) -> None:
        self.run("verify")
