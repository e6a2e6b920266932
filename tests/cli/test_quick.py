"""The quick way in understands a command line as typer does, or not at all."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer.main
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from imgtar.cli.app import app
from imgtar.cli.commands import COMMANDS
from imgtar.cli.declare import Argument, Call, Option, Parameter, parameters
from imgtar.cli.quick import understood
from tests.builders.images import hybrid_archive, make_image
from tests.conftest import Imgtar

TYPER: Any = typer.main.get_command(app)
"""Made once: the commands are made when they are first asked for, and stay."""


def asked(arguments: list[str]) -> Call | None:
    """What typer would call for a command line, ``None`` when it would call nothing."""
    calls: list[Call] = []

    def note(call: Call) -> int:
        calls.append(call)
        return 0

    with patch.object(Call, "run", note):
        try:
            TYPER.main(args=list(arguments), prog_name="imgtar", standalone_mode=False)
        except (Exception, SystemExit):  # noqa: BLE001 - of typer's, whose classes are not all public
            return None  # A mistake, which typer will tell.
    assert len(calls) < 2
    return calls[0] if calls else None


def declared(name: str) -> list[Parameter]:
    """What a command declares."""
    return parameters(importlib.import_module(f"imgtar.cli.commands.{name}").command)


# -- the same as typer ---------------------------------------------------------------------------------------------------

FLAGS = sorted(
    {flag for name in COMMANDS for each in declared(name) if isinstance(each.said, Option) for flag in each.said.flags}
)
WORDS = [*"- app:1 a.tar load diff = a=b x\udcff é store".split(), "", " "]
NUMBERS = [*"1 0 8 64 65 007 1.5 1. .5 +5 1e3 1_0 ٣ 99999999999 inf nan".split(), "1 ", "1\n", "9" * 5000]
STRANGE = "-h --help -V --version --jso --stor -qj1 -j4 -qf -o- -o=x -ox --no-json --json= --json=1 -j= --jobs= -- --- - -1 -x".split()


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """Command lines: one that is good or nearly so, in half of the cases with something more thrown in."""
    name = draw(st.sampled_from(COMMANDS))
    known = declared(name)
    words: list[str] = []
    for each in draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda each: each.name)):
        if isinstance(each.said, Argument):
            continue
        flag = draw(st.sampled_from(each.said.flags))
        if each.kind == "flag":
            words.append(flag)
            continue
        value = draw(st.sampled_from(WORDS if each.type is str else NUMBERS))
        words += draw(st.sampled_from([[flag, value], [f"{flag}={value}"]]))
    placed = sum(each.kind == "argument" for each in known)
    for _ in range(placed + draw(st.sampled_from([0, 0, 0, 1, -1]))):
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(WORDS)))
    before = [
        [],
        [],
        ["--store", "s"],
        ["--store=s"],
        ["--store="],
        ["--store", "-x"],
        ["--store"],
        ["--store=a", "--store=b"],
    ]
    words = [*draw(st.sampled_from(before)), name, *words]
    if draw(st.booleans()):
        more = draw(st.sampled_from([WORDS, NUMBERS, STRANGE, FLAGS]))
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(more)))
    return words


@settings(max_examples=1500)
@given(lines())
@example(["load", "-i", "a", "--input=b", "-", "x", "--tag", "a=b", "-j", "8", "--lock-timeout", "0.5", "-q"])
@example(["load", "-j", "0"])
@example(["load", "-j", "65"])
@example(["load", "-j", "-1"])
@example(["images", "--lock-timeout", "1e3"])
@example(["--store", "a", "load", "--store", "b"])
@example(["inventory", "-o", "f", "diff", "a", "b"])
@example(["inspect", "--", "-x"])
def test_what_is_understood_is_what_typer_would_call(line: list[str]) -> None:
    quick = understood(line)
    event(f"understood: {quick is not None}")
    if quick is not None:
        assert asked(line) == quick


# -- and it is used ------------------------------------------------------------------------------------------------------

USUAL = """
load -i app.tar
load -i a.tar -i b.tar app:1
load --input=app.tar --json --progress none
load --dry-run --tag app:1=app:2 --tag=x:1 --no-clobber --parents warn --strict
load -i DIR --platform linux/amd64,linux/arm64 --platform linux/s390x -j 4
--store PATH load -i -
--store=PATH images -a --digests --no-trunc
images -q
images --json
save -o app.tar app:1
save app:1 base:1 -o app.tar --format docker --compress zstd:19 --layers gzip --jobs 1
save -o - app:1
save -o t.tar --base base:1 --base held.inv app:1 --dry-run
verify
verify a.tar b.tar --report r.json
verify --fast -
verify --against store a.tar --json
verify --subset 1/7 --lock-timeout 0.5
inspect app.tar
inspect - --raw manifest
inspect app:1 --json --platform linux/amd64
history app:1
tag app:1 app:2
rmi -f app:1 app:2
prune --dry-run
repair -i a.tar
deps
deps a.tar --no-trunc
inventory
inventory -o held.inv --of a.tar --redact
"""


@pytest.mark.parametrize("line", USUAL.strip().splitlines())
def test_a_usual_line_goes_the_quick_way(line: str) -> None:
    words = shlex.split(line)
    quick = understood(words)
    assert quick is not None
    assert asked(words) == quick


@pytest.mark.parametrize(
    "line",
    """--help
inspect --help
--version
images --jso
images -aq
load -j8
load -j 65
load --jobs many
load -i
load -i --json
load -i a -- -b
tag one
tag one two three
images x
save
images -q -q
inventory diff a b
inspec a
inspect -x
load -o=x""".splitlines(),
)
def test_what_is_not_plain_is_left_to_typer(line: str) -> None:
    assert understood(shlex.split(line)) is None


def test_values_come_with_their_types() -> None:
    call = understood(["--store", "s", "load", "-j", "8", "--lock-timeout", "5", "-i", "a", "x", "y"])
    assert call is not None
    assert call.outer.store == "s"
    assert call.values["jobs"] == 8
    assert repr(call.values["lock_timeout"]) == "5.0"
    assert (call.values["archives"], call.values["images"]) == (["a"], ["x", "y"])
    assert (call.values["as_json"], call.values["tags"], call.values["parents"]) == (False, None, "require")


# -- what it is for ------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(imgtar: Imgtar, tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    path.write_bytes(hybrid_archive([make_image("app:1", 2, seed=1)]))
    imgtar.load(path).ok()
    return path


def loaded_by(imgtar: Imgtar, *words: object) -> set[str]:
    """The modules that a command in a process of its own had imported when it was done."""
    program = (
        "import atexit, json, os, sys; from imgtar.cli.main import main;"
        "atexit.register(lambda: os.write(2, json.dumps(sorted(sys.modules)).encode())); main()"
    )
    command = [sys.executable, "-c", program, "--store", str(imgtar.store), *map(str, words)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr[done.stderr.index(b"[") :]))


@pytest.mark.parametrize(
    "words",
    [
        "images",
        "inspect ARCHIVE",
        "load -i ARCHIVE -q",
        "verify ARCHIVE",
        "save -o OUT app:1 -q",
        "deps",
        "history app:1",
    ],
)
def test_a_plain_command_imports_neither_typer_nor_what_it_brings(words: str, imgtar: Imgtar, archive: Path) -> None:
    places = {"ARCHIVE": archive, "OUT": archive.with_suffix(".out")}
    loaded = loaded_by(imgtar, *(places.get(word, word) for word in words.split()))
    assert "imgtar.cli.quick" in loaded
    assert not loaded & {"typer", "click", "rich", "pydantic"}


def test_help_still_comes_from_typer(imgtar: Imgtar) -> None:
    assert "typer" in loaded_by(imgtar, "images", "--help")
