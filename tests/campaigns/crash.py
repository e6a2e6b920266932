"""What the crash campaigns share: the commands that are made to crash, and the check that follows every crash.

A scenario is added to :data:`SCENARIOS`; every campaign then takes it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imgtar.store.held import HeldCache
from tests.builders.images import docker_archive, make_image, make_layer, oci_archive, random_layer
from tests.campaigns.crash_server import Outcome, Runner
from tests.conftest import Imgtar

__all__ = [
    "BASE",
    "BIG",
    "SCENARIOS",
    "Bench",
    "Place",
    "Scenario",
    "State",
    "copy_home",
    "leftovers",
    "match_notes",
    "needs",
    "place_in",
    "plain_name",
    "state_of",
    "tree",
]

BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)
NEWER = make_image(("app:1", "app:2"), 2, seed=3, base=BASE, compression="gzip")
OTHER = make_image("other:1", 1, seed=4)
BIG = make_image("big:1", [make_layer(random_layer(9, size=300_000).tar)], seed=5)  # too large to be kept in memory


@dataclass(frozen=True)
class Scenario:
    """A command, and the store and files that it finds. ``{home}`` in its words is the folder of all that."""

    name: str
    setup: Callable[[Imgtar], None]
    command: tuple[str, ...]
    stdin: bytes | None = None
    damaged: bool = False
    """The store is damaged before; only when the command is done must ``verify`` be content."""
    output: str = ""
    """What the command writes outside the store."""
    again: tuple[int, ...] = (0,)
    """How a second run may end when the first one had done it all: what is gone cannot be removed, nor a folder made."""

    def words(self, home: Path) -> tuple[str, ...]:
        """The command line in ``home``."""
        return ("--store", str(home / "store"), *(word.format(home=home) for word in self.command))


def _archive(imgtar: Imgtar, name: str, data: bytes) -> None:
    (imgtar.home / name).write_bytes(data)


def _fresh(imgtar: Imgtar) -> None:
    _archive(imgtar, "in.tar", docker_archive([APP]))


def _held(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE, APP])).ok()
    _archive(imgtar, "in.tar", oci_archive([NEWER, OTHER]))


def _several(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([OTHER])).ok()
    _archive(imgtar, "in.tar", docker_archive([BASE]))
    _archive(imgtar, "more.tar", docker_archive([APP]))


def _saving(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE, APP])).ok()
    _archive(imgtar, "out.tar", b"what was there before")


def _removing(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE, APP])).ok()
    imgtar.load(oci_archive([OTHER])).ok()


def _pruning(imgtar: Imgtar) -> None:
    _removing(imgtar)
    imgtar.load(oci_archive([NEWER])).ok()
    (imgtar.store / "imgtar" / "staging" / "0123456789abcdef").mkdir()
    (imgtar.store / "imgtar" / "staging" / "0123456789abcdef" / "1").write_bytes(b"left by a dead one")


def _damaged(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE, APP])).ok()
    path = imgtar.store / "blobs" / APP.layers[0].digest.replace(":", "/")
    path.write_bytes(path.read_bytes()[:-1])
    _archive(imgtar, "in.tar", docker_archive([APP]))


def _unindexed(imgtar: Imgtar) -> None:
    imgtar.load(docker_archive([BASE, APP])).ok()
    path = imgtar.store / "index.json"
    path.write_bytes(path.read_bytes()[:-9])


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("load-first", _fresh, ("load", "-i", "{home}/in.tar")),
        Scenario("load-moves", _held, ("load", "-i", "{home}/in.tar")),
        Scenario("load-pipe", _removing, ("load",), stdin=docker_archive([BIG])),
        Scenario("load-several", _several, ("load", "-i", "{home}/more.tar", "-i", "{home}/in.tar")),
        Scenario("load-mends", _damaged, ("load", "-i", "{home}/in.tar"), damaged=True),
        Scenario("save", _saving, ("save", "-o", "{home}/out.tar", "app:1", "base:1"), output="out.tar"),
        Scenario("save-gzip", _saving, ("save", "--layers", "gzip", "-o", "{home}/out.tar", "app:1"), output="out.tar"),
        Scenario(
            "save-dir",
            _removing,
            ("save", "--format", "oci-dir", "-o", "{home}/out", "app:1"),
            output="out",
            again=(0, 2),
        ),
        Scenario("tag", _removing, ("tag", "app:1", "new:1")),
        Scenario("tag-moves", _removing, ("tag", "base:1", "app:1")),
        Scenario("rmi", _removing, ("rmi", "app:1"), again=(0, 3)),
        Scenario("prune", _pruning, ("prune", "--untagged")),
        Scenario("repair", _damaged, ("repair", "-i", "{home}/in.tar"), damaged=True),
        Scenario("repair-index", _unindexed, ("repair",), damaged=True),
    )
}


@dataclass(frozen=True)
class State:
    """What users see: the images with their names, and the file that was saved."""

    images: frozenset[tuple[str | None, str]]
    output: str = ""

    @property
    def names(self) -> list[str]:
        """Every tag."""
        return sorted(name for name, _ in self.images if name)


@dataclass
class Bench:
    """A scenario made ready: its folder as it is before, and what it must be after."""

    scenario: Scenario
    template: Path
    runs: Path
    before: State = field(init=False)
    after: State = field(init=False)
    checked: set[str] = field(default_factory=set)
    saved: dict[State, str] = field(default_factory=dict)
    _number: int = 0

    def __post_init__(self) -> None:
        self.template.mkdir(parents=True)
        self.runs.mkdir(parents=True)
        self.scenario.setup(Imgtar(self.template))
        home = self.home()
        self.before = self.state(home)
        if not self.scenario.damaged:
            self.saved[self.before] = self._save(Imgtar(home), self.before)
        run(self.scenario, home).ok()
        self.after = self.state(home)
        self.saved[self.after] = self._save(Imgtar(home), self.after)
        self.done(home)

    def home(self) -> Path:
        """A new copy of the folder as it is before."""
        self._number += 1
        return copy_home(self.template, self.runs / str(self._number))

    def done(self, home: Path) -> None:
        """Throw a copy away."""
        shutil.rmtree(home)

    def state(self, home: Path) -> State:
        """What users see in a copy now."""
        return state_of(home, self.scenario.output)

    def check(self, home: Path, outcome: Outcome, *, anew: bool = False) -> bool:
        """The check after a crash ("After" of hostile-inputs.md, section L). Consumes ``home``.

        A state on disk that has been checked before is not checked again, unless ``anew``; returns whether it was.
        """
        key = f"{tree(home)} {outcome.acknowledged}"
        if key in self.checked and not anew:
            self.done(home)
            return False
        self.checked.add(key)
        imgtar, scenario = Imgtar(home), self.scenario
        state = self.state(home)
        assert state in (self.before, self.after), (
            f"neither old nor new: {state}\n{self.before}\n{self.after}\n{outcome}"
        )
        if outcome.acknowledged:
            assert state == self.after, f"told that it is done, but it is not: {state}\n{outcome}"
        self._whole(imgtar, state, damaged=scenario.damaged and not outcome.acknowledged)
        again = run(scenario, home)
        allowed = scenario.again if state == self.after else (0,)
        assert again.code in allowed, f"exit {again.code} when run again\n{again.errors}\n{outcome}"
        if again.code:
            imgtar("prune").ok()
        state = self.state(home)
        assert state == self.after, f"run again, but not new: {state}\n{outcome}"
        self._whole(imgtar, state)
        left = leftovers(home)
        assert not left, f"left behind: {left}\n{outcome}"
        self.done(home)
        return True

    def _whole(self, imgtar: Imgtar, state: State, *, damaged: bool = False) -> None:
        verified = imgtar("verify")
        if not (imgtar.store / "index.json").exists():
            if damaged:
                return
            assert verified.code == 3, verified.errors  # There is no store yet.
            assert not state.images
            return
        assert verified.code in ((0, 7) if damaged else (0,)), verified.errors
        if not damaged:
            assert self._save(imgtar, state) == self.saved[state], "an image is not what it was"

    @staticmethod
    def _save(imgtar: Imgtar, state: State) -> str:
        if not state.names:
            return ""
        path = imgtar.home / "check.tar"
        imgtar("save", "-o", path, *state.names).ok()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.unlink()
        return digest


def run(scenario: Scenario, home: Path):  # type: ignore[no-untyped-def]
    """The command, in this process and undisturbed."""
    return Imgtar(home).bare(*scenario.words(home), stdin=scenario.stdin)


def state_of(home: Path, output: str = "") -> State:
    """What users see: every image must be readable."""
    if Imgtar(home)("images").code == 7:
        return State(frozenset(), "the index cannot be read")
    rows = Imgtar(home).images()
    assert not any("problem" in row for row in rows), rows
    return State(frozenset((row["name"], row["image_id"]) for row in rows), tree(home / output) if output else "")


def leftovers(home: Path) -> list[str]:
    """Files and folders that only a running command may have."""
    found = [str(path.relative_to(home)) for path in (home / "store" / "imgtar" / "staging").glob("*")]
    for path in home.rglob("*"):
        name = path.name
        note = path.parent.parent.name in ("held", "layers") and re.fullmatch("[0-9a-f]+", name) is None
        if name.endswith((".new", ".part", ".tmp")) or note or re.fullmatch(r"images\..+", name):
            found.append(str(path.relative_to(home)))
    return found


def tree(folder: Path) -> str:
    """A digest of everything below ``folder``: two trees that imgtar cannot tell apart have the same.

    The names of temporary files are random, notes hold times, and locks the number of a process.
    """
    lines = []
    if folder.is_file():
        return hashlib.sha256(folder.read_bytes()).hexdigest()
    for path in folder.rglob("*"):
        name = plain_name(str(path.relative_to(folder)))
        if path.is_dir():
            lines.append(f"{name}/")
        elif name.endswith(".lock"):
            lines.append(name)
        elif "/imgtar/held/" in f"/{name}":
            match = re.sub(rb"^\S+ \S+ \S+ \S+", b"*", path.read_bytes())
            lines.append(f"{name} {match!r}")
        else:
            lines.append(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() if folder.exists() else ""


def plain_name(path: str) -> str:
    """A path with what is random in it taken out."""
    path = re.sub(r"(staging/)[0-9a-f]{16}", r"\1*", path)
    path = re.sub(r"(/[0-9a-f]{64}|/images)\.\d+", r"\1.*", path)
    return re.sub(r"\.[0-9a-f]{8}\.part", ".*.part", path)


def copy_home(source: Path, target: Path) -> Path:
    """Copy a folder; what was known about the blobs is known about the copies."""
    shutil.copytree(source, target, symlinks=True)
    match_notes(target / "store")
    return target


def match_notes(store: Path) -> None:
    """Make every note in ``imgtar/held`` fit the blob that it speaks of, if it has the size that was noted.

    A copied file has another inode and other times. After a power cut the worst is assumed: that they are as noted.
    """
    for note in store.glob("imgtar/held/*/*"):
        blob = store / "blobs" / note.parent.name / note.name
        lines = note.read_bytes().split(b"\n")
        if blob.is_file() and lines[0].split(b" ")[0] == str(blob.stat().st_size).encode():
            lines[0] = HeldCache.look_of(os.lstat(blob)).encode()
            note.write_bytes(b"\n".join(lines))


def needs(program: str, reason: str = "") -> None:
    """Skip, or fail where the interop tests are required to run, when a tool is missing."""
    missing = reason or (f"{program} is not installed" if shutil.which(program) is None else "")
    if missing and os.environ.get("IMGTAR_INTEROP") == "required":
        pytest.fail(f"interop is required, but {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


@dataclass
class Place:
    """Where the scenarios of a module run; what was made ready once serves all its tests."""

    runner: Runner
    folder: Path
    benches: dict[str, Bench] = field(default_factory=dict)

    def bench(self, name: str) -> Bench:
        """The scenario of that name, made ready."""
        if name not in self.benches:
            self.benches[name] = Bench(SCENARIOS[name], self.folder / name / "template", self.folder / name / "runs")
        return self.benches[name]


def place_in(tmp_path: Path) -> Iterator[Place]:
    """A place in memory if there is any: nothing here is about what a disk does with its time."""
    import tempfile

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    with tempfile.TemporaryDirectory(prefix="imgtar-crash-", dir=memory) as folder:
        (Path(folder) / "server").mkdir()
        runner = Runner(Path(folder) / "server")
        try:
            yield Place(runner, Path(folder))
        finally:
            runner.close()
