"""Programs that have imgtar loaded and fork for every job: a run then costs 20 ms, not 300.

:class:`Program` starts one and asks it; :func:`load_imgtar` and :func:`serve` are for inside. What a job is, and what is
done to the process that does it, is the business of each: memory and time (``hostile/sandbox.py``), kills and strace
(``campaigns/crash_server.py``), many at once (``campaigns/crew.py``).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Program", "feed", "load_imgtar", "serve"]

_ROOT = Path(__file__).resolve().parents[1]


class Program:
    """The program in ``file``, started with nothing of this user's environment but ``PATH``; ``home`` is its home."""

    def __init__(self, file: str, home: Path, **environment: str) -> None:
        ours, theirs = socket.socketpair()
        given = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "PYTHONPATH": str(_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        }
        self._process = subprocess.Popen([sys.executable, file], stdin=theirs, env=given)
        theirs.close()
        self._channel = ours
        self._answers = ours.makefile("r", encoding="utf-8")

    def ask(self, job: Any) -> Any:
        """Have one job done; return the answer."""
        self._channel.sendall(json.dumps(job).encode() + b"\n")
        return json.loads(self._answers.readline())

    def close(self) -> None:
        """End the program."""
        self._answers.close()
        self._channel.close()
        self._process.wait()


def load_imgtar() -> None:
    """Import every module, and build every command and the check of every shape once."""
    import importlib
    import pkgutil
    from typing import get_args

    import typer.main

    import imgtar

    for module in pkgutil.walk_packages(imgtar.__path__, "imgtar."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from imgtar.cli.app import app
    from imgtar.model import shapes

    for kind in get_args(shapes.Kind):
        shapes._validator(kind)
    command: Any = typer.main.get_command(app)
    command.get_command(None, "all of them")
    typer.main.get_command = lambda _app: command


def serve(work: Callable[[Any], Any]) -> None:
    """Do the jobs that come in on descriptor 0, one after the other, until there are no more."""
    for line in sys.stdin:
        os.write(0, json.dumps(work(json.loads(line))).encode() + b"\n")


def feed(path: str | None, seconds: int, *inherited: int) -> int:
    """A pipe that gives what is in a file, or nothing; another process fills it, for at most ``seconds``.

    ``inherited`` are descriptors that this process must not keep open.
    """
    if path is None:
        return os.open(os.devnull, os.O_RDONLY)
    reading, writing = os.pipe()
    view = memoryview(Path(path).read_bytes())
    if len(view) <= 1 << 16:
        os.write(writing, view)  # It fits into the pipe.
    elif not os.fork():
        for fd in (reading, *inherited):
            os.close(fd)
        signal.alarm(seconds)
        try:
            while view:
                view = view[os.write(writing, view[: 1 << 16]) :]
        except BrokenPipeError:
            pass  # The reader had seen enough.
        finally:
            os._exit(0)
    os.close(writing)
    return reading
