"""Runs many imgtar commands at the same time, each in a process of its own, cheaply.

:class:`Crew` starts this file as a program of one thread that has imgtar loaded; that program forks all processes of a
round, lets them go at once, and kills what does not end in time: a deadlock is a failed test, not a hanging one.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.crash_server import import_the_rest
from tests.forkserver import Program, load_imgtar, serve

__all__ = ["Crew", "Run", "in_process"]


@dataclass(frozen=True, repr=False)
class Run:
    """What one command did. ``status`` is negative when a signal ended it: -9 is our own watchdog."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.stdout)

    def __repr__(self) -> str:
        return f"imgtar {' '.join(self.arguments)}: status {self.status}\n{self.stderr}\n{self.stdout[:3000]}"


class Crew:
    """One process that forks the others. ``folder`` is for what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._program = Program(__file__, folder)
        self.close = self._program.close

    def together(
        self, commands: Iterable[Sequence[object]], *, delays: Sequence[float] = (), seconds: float = 240
    ) -> list[Run]:
        """Run command lines at the same time, each after its delay; none may take longer than ``seconds``."""
        lines = [[str(word) for word in command] for command in commands]
        jobs = [{"command": line} for line in lines]
        for job, delay in zip(jobs, delays, strict=False):
            job["delay"] = delay  # type: ignore[assignment]
        answers = self._ask(jobs, seconds)
        runs = []
        for number, (line, answer) in enumerate(zip(lines, answers, strict=True)):
            out, err = ((self.folder / f"{kind}{number}").read_text("utf-8") for kind in ("out", "err"))
            runs.append(Run(tuple(line), answer["status"], out, err, answer["seconds"]))
        return runs

    def run(self, *arguments: object) -> Run:
        """Run one command line."""
        return self.together([arguments])[0]

    def run_as(self, uid: int, gid: int, *arguments: object, umask: int, cwd: Path, feed: Path | None = None) -> Run:
        """Run one command line as another user; ``feed`` is opened as standard input first."""
        words = [str(word) for word in arguments]
        job = {"command": words, "user": [uid, gid], "umask": umask, "cwd": str(cwd), "feed": str(feed or os.devnull)}
        (answer,) = self._ask([job], 240)
        out, err = ((self.folder / f"{kind}0").read_text("utf-8") for kind in ("out", "err"))
        return Run(tuple(words), answer["status"], out, err, answer["seconds"])

    def crowd(self, workers: Sequence[tuple[str, Mapping[str, Any]]], *, seconds: float) -> list[Run]:
        """Run functions of ``tests.campaigns.crowd`` at the same time: their names, and what they are given."""
        answers = self._ask([{"role": role, "worker": dict(given)} for role, given in workers], seconds)
        runs = []
        for number, ((role, _), answer) in enumerate(zip(workers, answers, strict=True)):
            out, err = ((self.folder / f"{kind}{number}").read_text("utf-8") for kind in ("out", "err"))
            runs.append(Run((role,), answer["status"], out, err, answer["seconds"]))
        return runs

    def _ask(self, jobs: Sequence[Mapping[str, Any]], seconds: float) -> list[Any]:
        answers: list[Any] = self._program.ask({"folder": str(self.folder), "jobs": jobs, "seconds": seconds})
        return answers


def in_process(arguments: Sequence[str], out: str, err: str) -> Run:
    """Run one command line in this process; its output goes through the files ``out`` and ``err``."""
    from imgtar.cli import console
    from imgtar.cli.main import run

    console._committed.clear()
    begin = time.monotonic()
    before = sys.stdout, sys.stderr
    with open(out, "w+", encoding="utf-8") as output, open(err, "w+", encoding="utf-8") as errors:
        sys.stdout, sys.stderr = output, errors
        try:
            status = run(list(arguments))
        finally:
            sys.stdout, sys.stderr = before
        seconds = time.monotonic() - begin
        output.seek(0)
        errors.seek(0)
        return Run(tuple(arguments), status, output.read(), errors.read(), seconds)


# -- the program -------------------------------------------------------------------------------------------------------


def _serve() -> None:
    load_imgtar()
    for name in ("tests.campaigns.crowd", "zstandard", "zlib_ng.zlib_ng", "bz2", "lzma"):
        importlib.import_module(name)
    for name in ("ascii", "latin-1", "unicode_escape", "utf-16", "utf-8-sig"):
        codecs.lookup(name)
    # Another user may not be allowed to look into the folder that Python's modules lie in.
    import_the_rest()
    serve(lambda request: _round(request["jobs"], request["folder"], request["seconds"]))


def _round(jobs: Sequence[Mapping[str, Any]], folder: str, seconds: float) -> list[dict[str, float]]:
    waiting, go = os.pipe()
    children: dict[int, int] = {}
    for number, job in enumerate(jobs):
        child = os.fork()
        if not child:
            os.close(go)
            _work(job, number, folder, waiting)
        children[child] = number
    os.close(waiting)
    begin = time.monotonic()
    os.close(go)  # The end of this pipe is the shot that starts all of them.
    answers: list[dict[str, float]] = [{} for _ in jobs]
    watches = {os.pidfd_open(child): child for child in children}
    while watches:
        ready, _, _ = select.select(list(watches), [], [], max(0.0, begin + seconds - time.monotonic()))
        for watch in ready or list(watches):
            child = watches.pop(watch)
            if not ready:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            os.close(watch)
            took = time.monotonic() - begin
            answers[children[child]] = {"status": os.waitstatus_to_exitcode(status), "seconds": took}
    return answers


def _work(job: Mapping[str, Any], number: int, folder: str, waiting: int) -> None:
    status = 70
    try:
        feed = os.open(job.get("feed", os.devnull), os.O_RDONLY)
        targets = [os.path.join(folder, f"{kind}{number}") for kind in ("out", "err")]
        outputs = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in targets]
        for target, source in enumerate((feed, *outputs)):
            os.dup2(source, target)
            os.close(source)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
        work: Callable[[], Any]
        if "worker" in job:
            from tests.campaigns import crowd

            work = lambda: getattr(crowd, job["role"])(**job["worker"])  # noqa: E731
        else:
            from imgtar.cli.main import run

            work = lambda: run(list(job["command"]))  # noqa: E731
        if "user" in job:
            # Every module is loaded by now: this user may not get at the interpreter's files.
            uid, gid = job["user"]
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            os.umask(job["umask"])
            os.chdir(job["cwd"])
            os.environ["HOME"] = job["cwd"]
        os.read(waiting, 1)
        time.sleep(job.get("delay", 0.0))
        status = work()
    except BaseException:  # noqa: BLE001 - what gets here is a bug, and the test must see it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
