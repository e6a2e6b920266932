"""The real program in a process of its own, for what cannot be tried in this one: limits, signals, users, mounts."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["ROOT", "Done", "limited", "mounted", "need_root", "program", "words"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """What a run of the program left behind."""

    code: int
    out: bytes
    err: bytes

    @property
    def errors(self) -> str:
        """Standard error as text."""
        return self.err.decode("utf-8", "backslashreplace")

    def clean(self) -> Done:
        """Itself, if it ended as it should: no traceback, no signal, no status of a bug."""
        assert b"Traceback" not in self.err, self.errors
        assert b"Exception ignored" not in self.err, self.errors
        assert self.code >= 0, f"signal {-self.code}: {self.errors}"
        assert self.code != 1, self.errors
        return self

    def ok(self) -> Done:
        """Itself, if the run succeeded."""
        assert self.code == 0, f"exit {self.code}\n{self.errors}"
        return self


def words(store: Path | str, *arguments: object) -> list[str]:
    """The command line, run without the current folder in the path of modules."""
    start = "import sys; sys.path[:1] = [sys.argv.pop(1)]; from imgtar.cli.main import main; main()"
    return [sys.executable, "-c", start, str(ROOT), "--store", str(store), *map(str, arguments)]


def limited(limits: Mapping[int, int]) -> Callable[[], None]:
    """What to do in the child before the program starts: set resource limits."""

    def set_limits() -> None:
        for which, value in limits.items():
            resource.setrlimit(which, (value, value))

    return set_limits


def program(
    command: Sequence[str], *, limits: Mapping[int, int] | None = None, seconds: float = 120, **options: Any
) -> Done:
    """Run a command to its end. ``limits`` are resource limits; ``options`` are those of ``Popen``."""
    options.setdefault("stdin", subprocess.DEVNULL)
    if limits:
        options["preexec_fn"] = limited(limits)
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = {"stdout": out, "stderr": err, "env": environment, **options}
        done = subprocess.run(list(command), timeout=seconds, check=False, **streams)
        out.seek(0)
        err.seek(0)
        return Done(done.returncode, out.read(), err.read())


def need_root(what: str) -> None:
    """Skip unless this is root; where the interop tests are required that is a failure."""
    if os.geteuid() != 0:
        if os.environ.get("IMGTAR_INTEROP") == "required":
            pytest.fail(f"interop is required, but {what} needs root", pytrace=False)
        pytest.skip(f"{what} needs root")


def mounted(script: str, command: list[str]) -> list[str]:
    """The command in a mount namespace of its own in which ``script`` was run before."""
    need_root("a mount")
    assert shutil.which("unshare"), "unshare is part of util-linux"
    return ["unshare", "-m", "--propagation", "private", "sh", "-ec", f'{script}\nexec "$@"', "sh", *command]
