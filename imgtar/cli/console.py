"""What goes to standard output and what to standard error."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from imgtar.cli.declare import Outer
from imgtar.errors import ImgtarError, LocalTrouble, UsageError
from imgtar.events import Event, Report
from imgtar.frozen import frozen, record
from imgtar.text import printable, shown

__all__ = ["Console", "Failure", "begin_run", "committed", "refuse_terminal", "show_failure", "tell"]

PROGRESS = ("auto", "bar", "plain", "json", "none")


@frozen
class Failure:
    """An error as it is shown."""

    code: str
    message: str
    hint: str
    exit_code: int
    details: Mapping[str, object]

    @classmethod
    def of(cls, error: ImgtarError) -> Failure:
        """The failure that an error amounts to."""
        details = {**error.details, **({"where": error.where} if error.where else {})}
        return cls(error.code, str(error), error.hint, error.exit_code, details)


_committed: list[bool] = []


def begin_run() -> None:
    """Forget what an earlier run in this process did."""
    _committed.clear()


def committed() -> bool:
    """Whether a change of the store has been made in this run."""
    return bool(_committed)


def tell(text: str) -> None:
    """Write to standard error. When that cannot be (a full disk, a closed pipe) the exit status must say enough."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass  # A log that is full must not turn a load that is done into a failure, nor a failure into a traceback.


def refuse_terminal(paths: Sequence[str]) -> None:
    """Raise :class:`UsageError` when an archive would be read from a terminal, or from nothing."""
    if any(_is_terminal(path) for path in paths):
        raise UsageError("refusing to read an archive from a terminal", hint="give a file, or pipe an archive in")
    if "-" not in paths:
        return
    try:
        terminal = os.isatty(0)
        closed = fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        terminal, closed = False, True
    if closed:
        raise UsageError("standard input is closed", hint="give a file, or pipe an archive in")
    if terminal:
        raise UsageError("refusing to read an archive from a terminal", hint="give a file, or pipe an archive in")


def _is_terminal(path: str) -> bool:
    """Whether a path (``/dev/stdin``, ``/dev/tty``) is a terminal: nothing would ever come, and nobody be told why."""
    try:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return os.isatty(fd)
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return False  # Whoever opens it will say what is wrong.


def show_failure(failure: Failure, as_json: bool) -> int:
    """Print the failure for people on stderr, and for scripts as one document on stdout; return the exit status."""
    text = printable(failure.message, keep_newlines=True, limit=None)
    tell(f"imgtar: error[{failure.code}]: {text}\n")
    if failure.hint:
        tell(f"hint: {printable(failure.hint, limit=None)}\n")
    if as_json:
        body = {
            "code": failure.code,
            "message": failure.message,
            "hint": failure.hint,
            "exit_code": failure.exit_code,
            "details": dict(failure.details),
        }
        try:
            write_document("imgtar.error/1", {"error": body})
            sys.stdout.flush()
        except OSError as error:
            tell(f"imgtar: error[E_IO]: cannot write to standard output: {error.strerror}\n")
    return failure.exit_code


def write_document(schema: str, body: Mapping[str, Any]) -> None:
    """Write the one JSON document. ASCII only, so that no byte of it can mean anything to a terminal."""
    for piece in _pieces({"schema": schema, **body}, "\n"):
        sys.stdout.write(piece)
    sys.stdout.write("\n")


def _pieces(value: Any, line: str) -> Iterator[str]:
    """What ``json.dumps(value, indent=2)`` gives, where ``line`` begins a line, in pieces.

    The outer maps, and lists that make their items when they are asked for them, are never whole in memory.
    """
    inner = line + "  "
    if isinstance(value, dict) and any(map(_is_made_late, value.values())):
        for place, (key, item) in enumerate(value.items()):
            yield f"{',' if place else '{'}{inner}{json.dumps(key)}: "
            yield from _pieces(item, inner)
        yield f"{line}}}"
    elif _is_made_late(value) and value:
        for place, item in enumerate(value):
            yield f"{',' if place else '['}{inner}"
            yield from _pieces(item, inner)
        yield f"{line}]"
    else:
        # No string in JSON holds a line break of its own.
        yield json.dumps(list(value) if _is_made_late(value) else value, indent=2).replace("\n", line)


def _is_made_late(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, list | tuple | str)


@record
class Console:
    """The choices of one run: where the store is, and how to talk."""

    store_path: str
    as_json: bool = False
    quiet: bool = False
    progress: str = "auto"
    lock_timeout: float = 300.0

    def note(self, text: str) -> None:
        """Say something that is neither result nor error."""
        if not self.quiet:
            tell(f"{printable(text, keep_newlines=True, limit=None)}\n")

    def warn(self, text: str) -> None:
        """Say what must be known, however quiet the run is to be."""
        tell(f"{printable(text, keep_newlines=True, limit=None)}\n")

    def line(self, text: str = "") -> None:
        """Write one line of the result."""
        sys.stdout.write(f"{printable(text, limit=None)}\n")

    def result(self, schema: str, body: Mapping[str, Any], text: Callable[[], None]) -> None:
        """Write the result: the document with ``--json``, else whatever ``text`` writes."""
        try:
            if self.as_json:
                write_document(schema, body)
            else:
                text()
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # main says what that means
        except OSError as error:
            done = "; what was asked for is done" if committed() else ""
            raise LocalTrouble(f"cannot write to standard output: {error.strerror}{done}") from None

    @contextmanager
    def reporting(self) -> Iterator[Report]:
        """The listener to hand to an operation."""
        from imgtar.cli.progress import listener

        with listener(self.progress, self.quiet) as follow:

            def report(event: Event) -> None:
                if event.kind == "commit":
                    _committed.append(True)
                if event.kind in ("notice", "wait"):
                    self.note(event.text)
                follow(event)

            yield report

    def store(self, report: Report | None = None) -> Any:
        """The store of this run."""
        from imgtar.events import silent
        from imgtar.store.store import Store

        return Store(self.store_path, report=report or silent, lock_timeout=self.lock_timeout)


def console(store: str | None, as_json: bool, quiet: bool, progress: str, lock_timeout: float, outer: Outer) -> Console:
    """Put the options of the command and those before it together with the environment."""
    if progress not in PROGRESS:
        raise UsageError(f"--progress {shown(progress)} is not known", hint=f"one of {', '.join(PROGRESS)}")
    asked = store if store is not None else outer.store
    if asked == "":
        raise UsageError("--store is empty", hint="give a path; is a shell variable not set?")
    chosen = asked or os.environ.get("IMGTAR_STORE") or default_store()
    return Console(chosen, as_json, quiet, progress, lock_timeout)


def default_store() -> str:
    """``imgtar/store`` in the user's data directory (XDG base directory specification)."""
    base = os.environ.get("XDG_DATA_HOME")
    if not base or not os.path.isabs(base):
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise UsageError(
                "there is no home directory to keep the store in", hint="give --store PATH or IMGTAR_STORE"
            )
        base = os.path.join(home, ".local", "share")
    return os.path.join(base, "imgtar", "store")
