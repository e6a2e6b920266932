"""Where the benchmarks work: the archives, a scratch folder, the store that is full, and what is run on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from processes import Run, run, slower

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
BUFFER = 1 << 20
LOOP = (PYTHON, "-I", str(HERE / "plain_loop.py"))
Measured = Callable[[], Run]


def prepared(folder: Path | None, megabytes: int, memory_megabytes: int) -> dict[str, Any]:
    """Let another process make the archives: this one must stay small."""
    command = [PYTHON, str(HERE / "archives.py"), "--megabytes", str(megabytes)]
    command += ["--memory-megabytes", str(memory_megabytes), *(["--folder", str(folder)] if folder else [])]
    contents: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return contents


class Bench:
    """The archives, a scratch folder, and the commands."""

    def __init__(self, contents: dict[str, Any], imgtar: str) -> None:
        self.contents = contents
        self.imgtar = imgtar
        self.scratch = Path(contents["folder"]) / "scratch"
        self.store = self.scratch / "store"
        self.full = self.scratch / "full"
        self.target = self.scratch / "target"
        self._warm: set[str] = set()
        self._held: set[str] = set()
        self._zeros = bytes(BUFFER)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.clear()

    # --- what is there before a run -----------------------------------------------------------------------------------

    def clear(self) -> None:
        """An empty scratch folder, but for the full store and the peers."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        for path in (self.store, self.target):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def ready(self) -> None:
        """The same, and memory that this machine really has.

        A virtual machine gives free memory back to its host, and the next process to fill the page cache pays for
        getting it again, up to a second for 700 MB. So a file as large is written and deleted first, unsynced.
        """
        self.clear()
        with open(self.target, "wb", buffering=0) as file:
            for _ in range(self.layers("one.tar") // BUFFER):
                file.write(self._zeros)
        self.target.unlink()

    def wake(self) -> None:
        """Use every part of imgtar once: an installed program has its bytecode, one in a checkout makes it now."""
        tiny, full = self.archive("tiny.tar"), ("--store", str(self.full))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.fill(["tiny.tar"])
        for compression in ("gzip", "zstd"):
            self.tool("save", "-q", *full, "--compress", compression, "-o", str(self.target), "bench/tiny:1")()
            self.tool("verify", "-q", str(self.target))()
        self.tool("inspect", tiny)()
        self.tool("images", *full)()
        self.clear()

    def warm(self, names: Iterable[str]) -> None:
        """Read archives, so that they lie in the page cache."""
        view = memoryview(bytearray(BUFFER))
        for name in names:
            if name not in self._warm:
                self._warm.add(name)
                with open(self.archive(name), "rb", buffering=0) as file:
                    while file.readinto(view):
                        pass

    def fill(self, names: Iterable[str]) -> None:
        """Load archives into the store that save, inspect and a second load need."""
        for name in names:
            if name not in self._held:
                self._held.add(name)
                run([self.imgtar, "load", "-q", "--store", str(self.full), "-i", self.archive(name)])

    # --- what there is to work on -------------------------------------------------------------------------------------

    def archive(self, name: str) -> str:
        """Path of one archive."""
        return str(self.contents["archives"][name]["path"])

    def size(self, name: str) -> int:
        """Bytes of one archive."""
        return int(self.contents["archives"][name]["size"])

    def layers(self, name: str) -> int:
        """Bytes of the layers of one archive, as they lie there."""
        return int(self.contents["archives"][name]["layers"])

    # --- what is run --------------------------------------------------------------------------------------------------

    def command(self, *command: str, feed: Sequence[str] | None = None, out: Path | None = None) -> Measured:
        """Any command."""
        return lambda: run(command, feed=feed, out=out)

    def tool(self, *arguments: str, feed: Sequence[str] | None = None, out: Path | None = None) -> Measured:
        """imgtar."""
        return self.command(self.imgtar, *arguments, feed=feed, out=out)

    def load(self, name: str | None, *, feed: Sequence[str] | None = None) -> Measured:
        """``imgtar load`` of an archive, or of what ``feed`` writes, into an empty store."""
        source = ["-i", self.archive(name)] if name else []
        return self.tool("load", "-q", "--store", str(self.store), *source, feed=feed)

    def of_full(self, verb: str, *arguments: str, out: Path | None = None) -> Measured:
        """imgtar on the full store."""
        return self.tool(verb, "-q", "--store", str(self.full), *arguments, out=out)

    def loop(self, name: str, *, write: bool = True) -> Measured:
        """The plain loop over an archive."""
        return self.command(*LOOP, self.archive(name), *([str(self.target)] if write else []))

    def twice(self, name: str) -> Measured:
        """The whole archive hashed by each of two threads."""
        return self.command(*LOOP, "--twice", self.archive(name))

    def inflating(self, name: str, *, write: bool = True) -> Measured:
        """The gzip layers of an archive, inflated and hashed by two threads."""
        places = ",".join(f"{offset}:{size}" for offset, size in self.contents["archives"][name]["places"])
        target = [str(self.target)] if write else []
        return self.command(*LOOP, "--inflate", places, self.archive(name), *target)

    def slower_of(self, *references: Measured) -> Measured:
        """Run all, each alone; the slowest counts."""
        return lambda: slower(*[reference() for reference in references])
