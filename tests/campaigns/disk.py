"""A disk as a power cut may leave it: what POSIX promises and little more (the model of the ALICE study, OSDI 2014).

Data of a file is safe when the file was synced; before, any part of it may be there. A name is safe when its directory
was synced; before, every change of a name may have reached the disk or not, whatever became of other names, but changes
of one name come in their order, and a file gets its new name and loses the old one at once (true for every file system
of that study).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.trace import Call

__all__ = ["Choice", "Disk"]


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever its name."""

    folder: bool
    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    """What was there at the last sync."""
    dirty: bool = False

    def contents(self) -> list[bytes]:
        """What may be found in the file after a crash."""
        if not self.dirty:
            return [bytes(self.data)]
        full = bytes(self.data)
        half = full[: len(full) // 2]
        torn = self.safe[: len(half)].ljust(len(half), b"\0") + full[len(half) :]
        return list(dict.fromkeys([full, self.safe, b"", half, bytes(len(full)), torn]))


@dataclass(eq=False)
class Name:
    """One name in one folder, and all that it has stood for. ``kept`` is the last of these that is surely on disk."""

    path: str
    folder: Node
    history: list[Node | None]
    kept: int = 0
    moved_to: dict[int, tuple[Name, int]] = field(default_factory=dict)
    """Steps that took the name away because the file got another one: that one, and which of its steps it is."""


@dataclass(frozen=True)
class Choice:
    """One way in which a crash may turn out: for names how much of their history, for files which content."""

    steps: dict[Name, int]
    contents: dict[Node, bytes]


def is_cache(path: str) -> bool:
    """Whether a path below the home is a cache, a lock, or work in progress: never synced, or of no use after a crash."""
    inside = path.removeprefix("/store/imgtar/")
    return inside != path and (
        inside.startswith(("held", "layers", "images", "staging", "index.kept")) or inside.endswith((".lock", ".new"))
    )


@dataclass
class Opened:
    """What a descriptor, and every copy of it, stands for."""

    node: Node
    position: int


class Disk:
    """A folder, and the calls that change it, one after the other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.told = False
        """Whether the caller has been told that it is done."""
        self.root = Node(folder=True)
        self.names: dict[tuple[Node, str], Name] = {}
        self._open: dict[int, Opened] = {}
        for path in sorted(home.rglob("*")):
            node = Node(path.is_dir())
            if not node.folder:
                node.safe = path.read_bytes()
                node.data = bytearray(node.safe)
            where, name = self._parent(str(path))
            self.names[where, name] = Name(str(path)[len(str(home)) :], where, [node])

    # -- what happens

    def apply(self, call: Call) -> None:
        """Take one call of the program; those outside the home, and those that failed, change nothing."""
        if call.name == "fcntl" and not call.duplicates:
            return
        if call.name == "write" and call.fd == 1 and call.result:
            self.told = True
        if call.result is None or call.result < 0 or not self._ours(call):
            if call.name in ("openat", "open") and call.result is not None:
                self._open.pop(call.result, None)
            return
        handler = getattr(self, f"_{call.name}", None)
        assert handler is not None, f"the model knows no {call.name}"
        handler(call)

    def _ours(self, call: Call) -> bool:
        return all(path.startswith(f"{self.home}/") or path == str(self.home) for path in call.paths)

    def _parent(self, path: str) -> tuple[Node, str]:
        assert path.startswith(str(self.home)), path
        node = self.root
        *above, name = [part for part in path[len(str(self.home)) :].split("/") if part]
        for part in above:
            below = self.names[node, part].history[-1]
            assert below is not None, path
            node = below
        return node, name

    def _at(self, path: str) -> Node | None:
        if path.rstrip("/") == str(self.home):
            return self.root
        found = self.names.get(self._parent(path))
        return found.history[-1] if found else None

    def _set(self, path: str, node: Node | None) -> tuple[Name, int]:
        where, name = self._parent(path)
        one = self.names.setdefault((where, name), Name(path[len(str(self.home)) :], where, [None]))
        one.history.append(node)
        return one, len(one.history) - 1

    def _openat(self, call: Call) -> None:
        node = self._at(call.paths[0])
        if node is None:
            assert "O_CREAT" in call.text, call.text
            node = Node(folder=False)
            self._set(call.paths[0], node)
        if "O_TRUNC" in call.text and node.data:
            node.data.clear()
            node.dirty = True
        assert call.result is not None
        self._open[call.result] = Opened(node, len(node.data) if "O_APPEND" in call.text else 0)

    def _fcntl(self, call: Call) -> None:
        assert call.fd is not None
        assert call.result is not None
        if call.fd in self._open:  # Else it is one that is only read.
            self._open[call.result] = self._open[call.fd]

    def _write(self, call: Call) -> None:
        assert call.fd is not None
        assert call.result is not None
        file = self._open[call.fd]
        self._put(file.node, file.position, call.data[: call.result])
        file.position += call.result

    def _pwrite64(self, call: Call) -> None:
        assert call.fd is not None
        self._put(self._open[call.fd].node, int(call.text.partition(") ")[0].rpartition(", ")[2]), call.data)

    @staticmethod
    def _put(node: Node, position: int, data: bytes) -> None:
        node.data[position : position + len(data)] = data
        node.dirty = True

    def _ftruncate(self, call: Call) -> None:
        node = self._at(call.paths[0])
        assert node is not None
        assert re.search(r", 0\s*\)", call.text), call.text
        node.data.clear()
        node.dirty = True

    def _fsync(self, call: Call) -> None:
        node = self._at(call.paths[0])
        assert node is not None, call.text
        if node.folder:
            for one in self.names.values():
                if one.folder is node:
                    one.kept = len(one.history) - 1
            for one in self.names.values():
                for step, (new, its_step) in one.moved_to.items():
                    if new.kept >= its_step:
                        one.kept = max(one.kept, step)
        else:
            node.safe, node.dirty = bytes(node.data), False

    _fdatasync = _fsync

    def _rename(self, call: Call) -> None:
        source, target = call.paths
        new = self._set(target, self._at(source))
        old, step = self._set(source, None)
        old.moved_to[step] = new

    def _mkdir(self, call: Call) -> None:
        self._set(call.paths[0], Node(folder=True))

    def _unlink(self, call: Call) -> None:
        self._set(call.paths[0], None)

    _rmdir = _unlinkat = _unlink

    def _flock(self, call: Call) -> None:
        pass

    # -- what a crash now may leave

    def outcomes(self, most: int, chance: random.Random) -> tuple[list[Choice], int]:
        """Up to ``most`` ways in which a crash may turn out now, and how many there are without those of the caches.

        All of them when they are few, else some by chance, with the two where all and nothing was written first.
        """
        names = [one for one in self.names.values() if len(one.history) - 1 > one.kept and not is_cache(one.path)]
        files = [node for node in self._files() if node.dirty]
        ranges = [range(one.kept, len(one.history)) for one in names]
        ranges_of_files = [node.contents() for node in files]
        number = 1
        for each in (*ranges, *ranges_of_files):
            number *= len(each)
        chosen: Iterable[tuple[tuple[int, ...], tuple[bytes, ...]]]
        if number <= most:
            chosen = itertools.product(itertools.product(*ranges), itertools.product(*ranges_of_files))
        else:
            ends = [
                (tuple(each[-1] for each in ranges), tuple(each[0] for each in ranges_of_files)),
                (tuple(each[0] for each in ranges), tuple(each[-1] for each in ranges_of_files)),
            ]
            chosen = ends[:most] + [
                (tuple(map(chance.choice, ranges)), tuple(map(chance.choice, ranges_of_files)))
                for _ in range(most - len(ends))
            ]
        result = []
        for steps, contents in chosen:
            cached_steps, cached_contents = self._cached(chance)
            result.append(
                Choice(
                    cached_steps | dict(zip(names, steps, strict=True)),
                    cached_contents | dict(zip(files, contents, strict=True)),
                )
            )
        return result, number

    def _files(self) -> list[Node]:
        """Files that have, or may have, a name outside the caches."""
        return list(
            dict.fromkeys(
                node
                for one in self.names.values()
                if not is_cache(one.path)
                for node in one.history[one.kept :]
                if node is not None and not node.folder
            )
        )

    def _cached(self, chance: random.Random) -> tuple[dict[Name, int], dict[Node, bytes]]:
        """What becomes of caches: all there, all lost, or each as it happens."""
        way = chance.choice(("all", "none", "some", "some"))
        steps: dict[Name, int] = {}
        contents: dict[Node, bytes] = {}
        for one in self.names.values():
            if is_cache(one.path):
                last = len(one.history) - 1
                steps[one] = {"all": last, "none": one.kept}.get(way, chance.randint(one.kept, last))
                for node in one.history:
                    if node is not None and node.dirty and not node.folder:
                        possible = node.contents()
                        contents[node] = {"all": possible[0], "none": b""}.get(way, chance.choice(possible))
        return steps, contents

    def unharmed(self) -> Choice:
        """The folder as running programs see it: everything that was done is there."""
        return Choice({one: len(one.history) - 1 for one in self.names.values()}, {})

    def build(self, choice: Choice, target: Path) -> None:
        """Make the folder ``target`` as the crash leaves this one."""
        steps = {one: choice.steps.get(one, one.kept) for one in self.names.values()}
        for one, step in steps.items():
            while step > one.kept and step in one.moved_to and steps[one.moved_to[step][0]] < one.moved_to[step][1]:
                step -= 1
            for gone, (new, its_step) in one.moved_to.items():
                if steps[new] >= its_step:
                    step = max(step, gone)
            steps[one] = step
        children: dict[Node, list[tuple[str, Node]]] = {}
        for (where, name), one in self.names.items():
            node = one.history[steps[one]]
            if node is not None:
                children.setdefault(where, []).append((name, node))
        target.mkdir(parents=True)
        self._fill(self.root, target, children, choice)

    def _fill(self, folder: Node, target: Path, children: dict[Node, list[tuple[str, Node]]], choice: Choice) -> None:
        for name, node in children.get(folder, []):
            path = target / name
            if node.folder:
                path.mkdir()
                self._fill(node, path, children, choice)
            else:
                path.write_bytes(choice.contents.get(node, bytes(node.data)))
