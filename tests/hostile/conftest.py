"""The oracle: what must hold for every hostile input, whichever command meets it in whichever form."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.builders.images import make_image, oci_archive
from tests.hostile.sandbox import Run, Sandbox

CANARY = b"canary-7f3a-must-never-be-read"
KEPT = make_image("keep:1", layers=2, seed=9000)
"""The image that the store holds before the hostile input comes."""

RUNS = (
    ("load", "file"),
    ("load", "pipe"),
    ("load", "gzip"),
    ("load", "zstd"),
    ("plan", "file"),
    ("verify", "file"),
    ("verify", "pipe"),
    ("inspect", "file"),
    ("inspect", "pipe"),
)
"""Commands (``plan`` is ``load --dry-run``) and forms in which an archive is given to them."""

EVERY = tuple(
    (command, form)
    for command in ("load", "plan", "verify", "inspect")
    for form in ("file", "pipe", "gzip", "zstd", "gzip-pipe", "zstd-pipe")
)
"""All of them. The long form (``make hostile``) runs all, the quick one as many as :data:`RUNS`, others for each test."""

LONG = os.environ.get("IMGTAR_CAMPAIGN") == "long"

FEW = (("load", "file"), ("load", "pipe"), ("verify", "pipe"), ("inspect", "file"))
"""One of each kind."""

PLAIN = ("file", "pipe")
"""The forms that leave the bytes as they are: for input that is compressed already."""

LOOKS = ("plan", "inspect")
"""Commands that read headers and small documents only: damage inside a layer is none of their business."""


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: what is tested here does not depend on the disk, but its speed does."""
    if not os.access("/dev/shm", os.W_OK | os.X_OK):
        yield tmp_path_factory.mktemp("hostile")
        return
    with tempfile.TemporaryDirectory(prefix="imgtar-hostile-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def sandbox(quick: Path) -> Iterator[Sandbox]:
    scratch = quick / "sandbox"
    scratch.mkdir()
    box = Sandbox(scratch)
    yield box
    box.close()


@pytest.fixture(scope="session")
def pristine(sandbox: Sandbox, quick: Path) -> Path:
    """A store that holds :data:`KEPT`."""
    folder = quick / "pristine"
    folder.mkdir()
    store, archive = folder / "store", folder / "archive.tar"
    archive.write_bytes(oci_archive([KEPT]))
    done = sandbox.run("load", "--store", str(store), "-i", str(archive), cwd=folder)
    assert done.status == 0, done
    return store


@pytest.fixture
def world(sandbox: Sandbox, pristine: Path, quick: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=quick) as folder:
        yield World(sandbox, pristine, Path(folder), request.node.nodeid)


@pytest.fixture
def assert_refused(world: World) -> Callable[..., None]:
    """See :meth:`World.refused`."""
    return world.refused


@pytest.fixture
def assert_accepted(world: World) -> Callable[..., None]:
    """See :meth:`World.accepted`."""
    return world.accepted


class World:
    """A store with one image, a canary tree around it, and a place for the archives."""

    def __init__(self, sandbox: Sandbox, pristine: Path, folder: Path, test: str = "") -> None:
        self._sandbox = sandbox
        self._test = test
        self.outside = folder / "world"
        self.store = self.outside / "store"
        self.incoming = folder / "incoming"
        self.incoming.mkdir()
        (self.outside / "inner").mkdir(parents=True)
        self.canary = self.outside / "canary"
        self.canary.write_bytes(CANARY)
        (self.outside / "inner" / "canary").write_bytes(CANARY)
        (self.outside / "link").symlink_to("inner/canary")
        shutil.copytree(pristine, self.store, symlinks=True)

    # -- running

    def run(
        self, command: str, what: bytes | Path, form: str = "file", *options: str, store: Path | None = None
    ) -> Run:
        """Give ``what`` to a command. Everything that must hold for any input at all is asserted."""
        arguments = ["load", "--dry-run"] if command == "plan" else [command]
        if command != "verify" or store is not None:
            arguments += ["--store", str(store or self.store)]
        path, stdin = str(what), None
        if isinstance(what, bytes):
            path, stdin = self._given(what, form)
        arguments += ["-i", path] if arguments[0] == "load" else [path]
        return self._checked(*arguments, *options, stdin=stdin)

    def command(self, *arguments: str) -> Run:
        """Run a command that needs no archive on the store."""
        return self._checked(*arguments, "--store", str(self.store))

    def _checked(self, *arguments: str, stdin: bytes | None = None) -> Run:
        done = self._sandbox.run(*arguments, stdin=stdin, cwd=self.outside)
        assert done.status >= 0, f"hangs or crashes: {done}"
        assert done.status != 1, f"a bug: {done}"
        assert b"Traceback" not in done.stderr + done.stdout, done
        assert CANARY not in done.stdout + done.stderr, f"read a file outside the archive: {done}"
        _assert_clean(done)
        return done

    def _given(self, data: bytes, form: str) -> tuple[str, bytes | None]:
        if form.startswith("gzip"):
            data = gzip.compress(data, 1, mtime=0)
        elif form.startswith("zstd"):
            data = zstandard.ZstdCompressor(level=1).compress(data)
        if form.endswith("pipe"):
            return "-", data
        target = self.incoming / f"archive.{form}"
        target.write_bytes(data)
        return str(target), None

    def _runs(self, runs: Sequence[tuple[str, str]], forms: Sequence[str] | None) -> list[tuple[str, str]]:
        """The runs of a test. Where it leaves the choice to us, its name draws the lots, so that all have their turn."""
        wanted = [run for run in runs if forms is None or run[1] in forms]
        if runs is not RUNS and not (LONG and runs is FEW):
            return wanted
        every = [run for run in EVERY if forms is None or run[1] in forms]
        first = [run for run in every if run == ("load", "file")]
        rest = [run for run in every if run not in first]
        count = len(rest) if LONG else len(wanted) - len(first)
        return [*first, *random.Random(self._test).sample(rest, min(count, len(rest)))]

    # -- verdicts

    def refused(
        self,
        what: bytes | Path,
        code: str | tuple[str, ...],
        exit: int = 5,
        *,
        runs: Sequence[tuple[str, str]] = RUNS,
        forms: Sequence[str] | None = None,
        unseen: Sequence[str] | Callable[[str, str], bool] = (),
        says: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        """Assert that ``what`` is refused with ``code`` by every command in every form, and that nothing happens.

        Of several codes the first run chooses one. ``unseen`` are commands (or decides for a command and a form) that need not see the fault: they may accept.
        ``says`` must stand in what ``load`` says of a file.
        """
        before = self.snapshot()
        if isinstance(what, Path):
            runs = [(command, "directory") for command in dict.fromkeys(command for command, _ in runs)]
        for command, form in runs if isinstance(what, Path) else self._runs(runs, forms):
            blind = unseen(command, form) if callable(unseen) else command in unseen
            extra = options if command != "inspect" else ()
            done = self.run(command, what, form, "--json", *extra)
            said = f"{command} of a {form}: {done}"
            if blind and done.status == 0:
                continue
            assert done.status == exit, f"wanted exit {exit} and {code}: {said}"
            if not isinstance(code, str):
                code = next((one for one in code if one in _codes(command, done)), code[0])
            wanted = code
            assert wanted in _codes(command, done), f"wanted {wanted}: {said}"
            assert f"[{wanted}]" in done.errors, f"wanted {wanted} on stderr: {said}"
            if (command, form) in (("load", "file"), ("load", "directory")):
                for text in says:
                    assert text in done.errors, f"wanted {text!r}: {said}"
            assert self.snapshot() == before, f"something was changed: {said}"

    def accepted(
        self,
        what: bytes | Path,
        *,
        names: Sequence[str] = (),
        warning: str | None = None,
        runs: Sequence[tuple[str, str]] = RUNS,
        forms: Sequence[str] | None = None,
        strict: bool = True,
        ids: Sequence[str] = (),
    ) -> Run:
        """Assert that ``what`` loads under ``names``, and that every other command accepts it too.

        ``warning`` is the code of a warning that must be given; the same input is then refused with ``--strict``.
        Returns the last load.
        """
        outside = _tree(self.outside, without=self.store)
        if isinstance(what, Path):
            runs = [(command, "directory") for command in dict.fromkeys(command for command, _ in runs)]
        last: Run | None = None
        for command, form in runs if isinstance(what, Path) else self._runs(runs, forms):
            store = self.outside.parent / f"store-{command}-{form}"
            done = self.run(command, what, form, "--json", store=store if command != "verify" else None)
            said = f"{command} of a {form}: {done}"
            assert done.status == 0, said
            assert not [f for f in _findings(done) if f["severity"] == "error"], said
            warnings = [f["code"] for f in _findings(done) if f["severity"] == "warning"]
            assert (warning in warnings) if warning else (not warnings), said
            if command == "load":
                last = done
                assert sorted(move["name"] for move in done.document["tags"]) == sorted(names), said
                if ids:
                    assert sorted({image["image_id"] for image in done.document["images"]}) == sorted(ids), said
                check = self._sandbox.run("verify", "--store", str(store), cwd=self.outside)
                assert check.status == 0, f"{said}\nleaves a bad store: {check}"
                shutil.rmtree(store)
        assert _tree(self.outside, without=self.store) == outside
        if warning and strict:
            form = "directory" if isinstance(what, Path) else "file"
            for command in ("load", "verify"):
                done = self.run(command, what, form, "--json", "--strict")
                assert done.status == 5, f"--strict lets a warning pass: {done}"
                assert warning in _codes(command, done), done
        assert last is not None
        return last

    def harmless(
        self, what: bytes | Path, *, runs: Sequence[tuple[str, str]] = FEW, options: Sequence[str] = ("--json",)
    ) -> None:
        """Assert that ``what`` is refused, or lacks something, and nothing happens; or else that it leaves a good store.

        For input of which only that matters: what is claimed falsely in it may be of no use to anybody.
        """
        if isinstance(what, Path):
            runs = [(command, "directory") for command in dict.fromkeys(command for command, _ in runs)]
        for command, form in runs if isinstance(what, Path) else self._runs(runs, None):
            outside, before = _tree(self.outside, without=self.store), _contents(self.store)
            done = self.run(command, what, form, *options)
            said = f"{command} of a {form}: {done}"
            assert done.status in (0, 4, 5), said
            assert _tree(self.outside, without=self.store) == outside, said
            if command != "load" or done.status:
                assert _contents(self.store) == before, f"something was changed: {said}"
                continue
            check = self.command("verify")
            assert check.status == 0, f"{said}\nleaves a bad store: {check}"

    def snapshot(self) -> tuple[object, ...]:
        """All that must not change: the canaries to the time stamp, and what the store holds."""
        return (_tree(self.outside, without=self.store), _contents(self.store))


def _findings(done: Run) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = done.document.get("findings", [])
    return findings


def _codes(command: str, done: Run) -> list[str]:
    """The codes in the JSON document."""
    document = done.document
    if document["schema"] == "imgtar.error/1":
        assert document["error"]["exit_code"] == done.status, done
        assert document["error"]["message"], done
        return [document["error"]["code"]]
    codes = [finding["code"] for finding in document.get("findings", ()) if finding["severity"] != "info"]
    if document.get("missing"):
        codes.append("E_MISSING")
    if command == "verify":
        assert document["schema"] == "imgtar.verify/1"
        assert not document["ok"], done
    return codes


def _assert_clean(done: Run) -> None:
    for stream in (done.stdout, done.stderr):
        for char in set(stream.decode("utf-8")) - set("\n\t"):
            assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), f"prints {char!r}: {done}"


def _tree(top: Path, *, without: Path) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) != str(without))
        for name in (*folders, *sorted(files)):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if os.path.isdir(path) and not os.path.islink(path):
                content = ""
            elif os.path.islink(path):
                content = os.readlink(path)
            else:
                content = _hash(path)
            times = status.st_mtime_ns
            rows.append((path, status.st_mode, status.st_size, times, content))
    return rows


def _contents(store: Path) -> dict[str, str]:
    """Every file of the store but its lock, and its notes on when it last read a blob."""
    result = {}
    for folder, _, files in os.walk(store):
        for name in files:
            path = os.path.join(folder, name)
            if "lock" not in name and not folder.endswith("/imgtar/held/sha256"):
                result[os.path.relpath(path, store)] = _hash(path)
    return result


_hashes: dict[tuple[object, ...], str] = {}


def _hash(path: str) -> str:
    """The hash of a file's content, computed once as long as nobody touches the file: no one can set back its ctime."""
    status = os.stat(path)
    key = (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _hashes:
        with open(path, "rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Long and unprintable parameters get short names."""
    if isinstance(val, bytes):
        return ascii(val[:24])[2:-1] + (f"~{len(val)}" if len(val) > 24 else "")
    if isinstance(val, str) and len(val) > 32:
        return f"{ascii(val[:24])[1:-1]}~{len(val)}"
    return None


__all__ = ["CANARY", "EVERY", "FEW", "KEPT", "LONG", "LOOKS", "PLAIN", "RUNS", "World"]
