"""Runs imgtar in child processes with little memory and little time, so that a hang or a crash is one failed test.

:class:`Sandbox` starts this file as a program of one thread that has imgtar loaded; that program forks for every run.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forkserver import Program, feed, load_imgtar, serve

__all__ = ["MEMORY", "SECONDS", "Run", "Sandbox"]

MEMORY = 256 << 20
"""Bytes of address space that a run may take on top of the interpreter with imgtar loaded."""
SECONDS = 10
"""How much processor time a run may take."""


@dataclass(frozen=True)
class Run:
    """What one command did. ``status`` is negative when a signal ended it."""

    arguments: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    peak: int
    """Peak memory in bytes, the interpreter included."""
    cpu: float = 0.0
    """Seconds of processor time, of all threads: what does not depend on what else the machine has to do."""

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.stdout)

    @property
    def errors(self) -> str:
        """Standard error as text."""
        return self.stderr.decode("utf-8")

    def __str__(self) -> str:
        out, err = (text.decode("utf-8", "backslashreplace") for text in (self.stdout, self.stderr))
        return f"imgtar {' '.join(self.arguments)}: status {self.status}\n{err}\n{out[:4000]}"


class Sandbox:
    """One process that forks the runs."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        # Each arena reserves 64 MiB of addresses for each thread; that is no memory.
        self._program = Program(__file__, scratch, MALLOC_ARENA_MAX="1")
        self.close = self._program.close

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        cwd: Path,
        memory: int = MEMORY,
        seconds: int = SECONDS,
    ) -> Run:
        """Run one command line; ``stdin`` is given through a pipe.

        It gets so many bytes of address space on top of the interpreter, and so many seconds of processor time.
        """
        out, err, feed = (self._scratch / name for name in ("stdout", "stderr", "stdin"))
        if stdin is not None:
            feed.write_bytes(stdin)
        job = {
            "arguments": arguments,
            "cwd": str(cwd),
            "out": str(out),
            "err": str(err),
            "feed": str(feed) if stdin is not None else None,
            "memory": memory,
            "seconds": seconds,
        }
        answer = self._program.ask(job)
        cpu = answer["cpu"] / 1000
        return Run(arguments, answer["status"], out.read_bytes(), err.read_bytes(), answer["peak"], cpu)


def _serve() -> None:
    load_imgtar()
    _run_once()
    gc.freeze()  # What a child need not look through it need not copy either.
    serve(_one)


def _one(job: dict[str, Any]) -> dict[str, int]:
    child = os.fork()
    if not child:
        _work(job)
    _, status, usage = os.wait4(child, 0)
    cpu = int((usage.ru_utime + usage.ru_stime) * 1000)
    return {"status": os.waitstatus_to_exitcode(status), "peak": usage.ru_maxrss << 10, "cpu": cpu}


def _run_once() -> None:
    """What is imported or built when it is first used need not be so in every child."""
    from imgtar.cli.main import run

    kept = [os.dup(fd) for fd in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(null, fd)
    for words in (["verify"], ["inspect"], ["load", "--dry-run", "--json", "-i"]):
        run([*words, "/dev/null/nowhere"])
    for stream, fd, before in ((sys.stdout, 1, kept[0]), (sys.stderr, 2, kept[1])):
        stream.flush()
        os.dup2(before, fd)


def _work(job: dict[str, Any]) -> None:
    status = 1
    try:
        os.chdir(job["cwd"])
        given = feed(job["feed"], 6 * job["seconds"])
        for target, source in ((0, given), (1, _create(job["out"])), (2, _create(job["err"]))):
            os.dup2(source, target)
            os.close(source)
        # The machine may have other things to do: the processor time counts, and the clock only for what hangs.
        resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1))
        signal.alarm(6 * job["seconds"])
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + job["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
        from imgtar.cli.main import run

        status = run(job["arguments"])
    except BaseException:  # noqa: BLE001 - what gets here is a bug, and the test must see it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


if __name__ == "__main__":
    _serve()
