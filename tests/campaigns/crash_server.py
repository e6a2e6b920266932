"""Runs one imgtar command at a time, to be killed, traced or made to fail. See :class:`Runner`.

strace is attached to a fork of a process that has imgtar loaded, not started with the command: that saves 0.3 s for
each run, and the calls of the interpreter's start are not counted. The fork waits on a pipe until strace says that it
is attached, so no call of the command is missed.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forkserver import Program, feed, load_imgtar, serve

__all__ = ["Outcome", "Runner", "import_the_rest"]

_SECONDS = 60
"""No command of a campaign takes so long; a hang is then a failure, not a hang of the tests."""


@dataclass(frozen=True)
class Outcome:
    """What one command did. ``status`` is negative when a signal ended it."""

    arguments: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    log: str
    seconds: float

    @property
    def acknowledged(self) -> bool:
        """Whether the caller was told that it is done."""
        # A repair that could not do all says that, and what it has done.
        return self.status == 0 or (bool(self.stdout) and "NOT whole" not in self.stdout)

    def __str__(self) -> str:
        return f"imgtar {' '.join(self.arguments)}: status {self.status}\n{self.stderr}\n{self.stdout}"


class Runner:
    """One process that forks the runs."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._program = Program(__file__, scratch)
        self.close = self._program.close

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        strace: tuple[str, ...] | None = None,
        kill_after: float | None = None,
        spacious: bool = False,
        settled: bool = False,
    ) -> Outcome:
        """Run one command line.

        ``strace`` are its options; ``log`` of the outcome is then what it wrote. ``spacious`` makes the program believe
        that there is space, as when another one fills the disk after it has looked. With ``settled`` the names of
        temporary files are not random.
        """
        out, err, feed, log = (self._scratch / name for name in ("stdout", "stderr", "stdin", "strace"))
        log.write_text("")
        if stdin is not None:
            feed.write_bytes(stdin)
        job = {
            "arguments": arguments,
            "out": str(out),
            "err": str(err),
            "feed": str(feed) if stdin is not None else None,
            "strace": [*strace, "-o", str(log)] if strace is not None else None,
            "kill_after": kill_after,
            "spacious": spacious,
            "settled": settled,
        }
        answer = self._program.ask(job)
        texts = [path.read_bytes().decode("utf-8", "backslashreplace") for path in (out, err, log)]
        return Outcome(arguments, answer["status"], *texts, answer["seconds"])


def _serve() -> None:
    load_imgtar()
    import_the_rest()
    serve(_one)


def import_the_rest() -> None:
    """Run what imports late, so that a fault meant for imgtar does not hit an import."""
    import contextlib
    import io
    import tempfile

    from imgtar.cli import console
    from imgtar.cli.main import run
    from tests.builders.images import make_image, oci_archive

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())),
        contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())),
    ):
        Path(folder, "a.tar").write_bytes(oci_archive([make_image("a:1", 2, seed=1, compression="gzip")]))
        for words in (
            f"load -i {folder}/a.tar --tag b:1",
            f"load -i {folder}/a.tar",
            "images -a --json",
            "tag a:1 c:1",
            f"save --layers gzip -o {folder}/b.tar a:1",
            f"save --layers zstd --format oci-dir -o {folder}/b a:1",
            "verify",
            "rmi c:1",
            "prune",
            "rmi none:1",
        ):
            run(["--store", f"{folder}/store", *words.split()])
    console._committed.clear()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _one(job: dict[str, Any]) -> dict[str, Any]:
    (waiting, go), (ready, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        os.close(ready)
        _work(job, waiting, tell)
    os.close(waiting)
    os.close(tell)
    os.read(ready, 1)  # All that the command does not do itself is done.
    os.close(ready)
    tracer = None
    if job["strace"] is not None:
        tracer = subprocess.Popen(["strace", "-f", "-p", str(child), *job["strace"]], stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if b"attached" not in said:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError(f"strace says {said!r}")
    started = time.monotonic()
    os.write(go, b"!")
    os.close(go)
    if job["kill_after"] is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)  # It is ours until we wait for it: no other process can have its number.
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - started
    if tracer is not None:
        tracer.communicate()
    return {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}


def _work(job: dict[str, Any], waiting: int, tell: int) -> None:
    status = 1
    try:
        given = feed(job["feed"], _SECONDS, tell)
        out, err = (os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("out", "err"))
        for target, source in ((0, given), (1, out), (2, err)):
            os.dup2(source, target)
            os.close(source)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
        signal.alarm(_SECONDS)
        if job["spacious"]:
            import shutil

            shutil.disk_usage = lambda path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)  # type: ignore[attr-defined]
        if job["settled"]:
            names = itertools.count(1)
            os.urandom = lambda size: next(names).to_bytes(size, "big")
        from imgtar.cli.main import main

        sys.argv = ["imgtar", *job["arguments"]]
        os.close(tell)
        select.select([waiting], [], [])  # Not a read: one that is made to fail must be the command's.
        os.close(waiting)
        main()
    except SystemExit as done:
        status = done.code if isinstance(done.code, int) else 1
    except BaseException:  # noqa: BLE001 - what gets here is a bug, and the test must see it
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
