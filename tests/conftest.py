"""What every test folder shares: the command line, run in this process, with nothing of this machine's user in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A busy machine must not fail a test; how long things take is the benchmarks' business. One state of the code has one
# verdict: hypothesis looks at the same cases every time. New ones are looked for by `make explore`.
_quiet: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("imgtar", derandomize=True, database=None, **_quiet)
settings.register_profile("explore", print_blob=True, **_quiet)
settings.load_profile(os.environ.get("IMGTAR_HYPOTHESIS", "imgtar"))

_TIMES = int(os.environ.get("IMGTAR_EXAMPLES", "1"))
"""How many times as many examples as a property test asks for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give property tests more examples when that is wanted."""
    if _TIMES == 1:
        return
    # A test with parameters is many items, but one function: it is multiplied once. A state machine has its settings on
    # the class, every other property test on the function.
    tests = {id(test): test for item in items if (test := getattr(item, "obj", None)) is not None}
    machines = {item.cls for item in items if isinstance(item, pytest.Function) and item.cls and _is_machine(item.obj)}
    for test in tests.values():
        inner = getattr(test, "_hypothesis_internal_use_settings", None)
        if inner is not None:
            test._hypothesis_internal_use_settings = _more(inner)
    for machine in machines:
        machine.settings = _more(machine.settings)


def _is_machine(test: object) -> bool:
    return hasattr(test, "_hypothesis_state_machine_class")


def _more(asked: settings) -> settings:
    return settings(asked, max_examples=asked.max_examples * _TIMES)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what the campaigns (see tests/campaigns) counted."""
    totals: dict[tuple[str, str, int, str], Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown" or getattr(report, "failed", False):
                for name, value in getattr(report, "user_properties", ()):
                    if name == "campaign":
                        key = (value[0], value[1], value[2], value[3].partition("[")[0])
                        totals.setdefault(key, Counter()).update(value[4])
    if totals:
        terminalreporter.section("campaigns")
        for (name, form, seed, test), counts in sorted(totals.items()):
            figures = ", ".join(f"{number} {what}" for what, number in counts.items())
            terminalreporter.write_line(f"{name} ({form}, seed {seed}) {test}: {figures}")


@dataclass(frozen=True)
class Result:
    """What one run of the command line left behind."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def errors(self) -> str:
        """Standard error as text."""
        return self.err.decode()

    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)

    def ok(self) -> Result:
        """Itself, if the run succeeded."""
        assert self.code == 0, f"exit {self.code}\n{self.errors}"
        return self


class Imgtar:
    """Runs command lines against the store at ``store``; ``home`` holds whatever else a run may leave."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / "store"

    def __call__(self, *arguments: object, stdin: bytes | None = None, store: Path | None = None) -> Result:
        """Run ``imgtar --store STORE ARGUMENTS``; ``stdin`` comes through a pipe."""
        return self.bare("--store", store or self.store, *arguments, stdin=stdin)

    def bare(self, *arguments: object, stdin: bytes | None = None) -> Result:
        """Run ``imgtar ARGUMENTS`` and nothing more."""
        from imgtar.cli.main import run

        with _capture() as (out, err), _standard_input(stdin):
            code = run([str(argument) for argument in arguments])
        return Result(code, out(), err())

    def load(self, archive: bytes | Path, *arguments: object, store: Path | None = None) -> Result:
        """Load an archive, given as bytes or as a path."""
        if isinstance(archive, bytes):
            with tempfile.NamedTemporaryFile(dir=self.home, suffix=".tar") as file:
                file.write(archive)
                file.flush()
                return self("load", "-i", file.name, *arguments, store=store)
        return self("load", "-i", archive, *arguments, store=store)

    def images(self, *, store: Path | None = None) -> list[dict[str, Any]]:
        """Every image of the store, untagged ones too."""
        rows: list[dict[str, Any]] = self("images", "-a", "--json", store=store).ok().json()["images"]
        return rows

    def names(self, *, store: Path | None = None) -> dict[str, str]:
        """The named images of the store: name to image ID."""
        return {row["name"]: row["image_id"] for row in self.images(store=store) if row["name"]}


@contextlib.contextmanager
def _capture() -> Iterator[tuple[Callable[[], bytes], Callable[[], bytes]]]:
    # Real files, because an archive is written to the descriptor behind standard output.
    before = sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
        opened = sys.stdout, sys.stderr

        def content(wrapper: io.TextIOWrapper) -> bytes:
            wrapper.flush()
            return os.pread(wrapper.fileno(), os.fstat(wrapper.fileno()).st_size, 0)

        results: list[bytes] = []
        try:
            yield (lambda: results[0]), (lambda: results[1])
        finally:
            results += [content(opened[0]), content(opened[1])]
            for wrapper in opened:
                wrapper.detach()
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _standard_input(data: bytes | None) -> Iterator[None]:
    """Put a pipe that gives ``data`` in place of descriptor 0."""
    if data is None:
        yield
        return
    before, before_text = os.dup(0), sys.stdin
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    feeder = threading.Thread(target=_feed, args=(writer, data))
    feeder.start()
    try:
        with open(0, closefd=False) as text:
            sys.stdin = text
            yield
    finally:
        sys.stdin = before_text
        os.dup2(before, 0)
        os.close(before)
        feeder.join()


def _feed(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        return  # The reader had seen enough.
    finally:
        os.close(fd)


@contextlib.contextmanager
def command_line() -> Iterator[Imgtar]:
    """The command line with a store that lasts for one example of a property test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Imgtar(Path(folder))


def snapshot(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes | None]:
    """Every file below ``folder`` with its content, every directory with ``None``; ``without`` names top parts."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(without or ("\0",)):
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def stored(store: Path) -> dict[str, bytes | None]:
    """What a store holds: everything but the caches and the lock files."""
    return snapshot(
        store,
        without=(
            "imgtar/held",
            "imgtar/layers",
            "imgtar/images",
            "imgtar/roots",
            "imgtar/blobs.lock",
            "imgtar/index.lock",
        ),
    )


@pytest.fixture
def imgtar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imgtar:
    """The command line with an empty store of its own."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("IMGTAR_STORE", "NO_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    return Imgtar(home)
