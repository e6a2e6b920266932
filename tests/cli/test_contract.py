"""The contract with users and scripts (docs/cli.md): exit codes, documents, and what goes to which stream."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from imgtar import __version__
from tests.builders.images import (
    attestation,
    docker_archive,
    docker_files,
    hybrid_archive,
    make_image,
    make_index,
    oci_archive,
    oci_files,
    sha256,
)
from tests.conftest import Imgtar, Result

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "registry.example:5000/team/app:new"), 2, seed=2, base=BASE, compression="gzip")
ARM = make_image((), seed=3, platform="linux/arm64/v8")
AMD = make_image((), seed=4)
MULTI = make_index(ARM, AMD, attestation(ARM))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "app.tar"
    path.write_bytes(hybrid_archive([BASE, APP]))
    return path


@pytest.fixture
def filled(imgtar: Imgtar, archive: Path) -> Imgtar:
    imgtar.load(archive).ok()
    imgtar.load(oci_archive([(MULTI, ["multi:1"])])).ok()
    return imgtar


# -- exit codes ------------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[list[str], int, str]] = {
    "no such option": (["images", "--frobnicate"], 2, "E_USAGE"),
    "no such command": (["frobnicate"], 2, "E_USAGE"),
    "argument missing": (["save"], 2, "E_USAGE"),
    "one argument missing": (["tag", "app:1"], 2, "E_USAGE"),
    "jobs is no number": (["load", "-j", "many", "-i", "x"], 2, "E_USAGE"),
    "no jobs": (["load", "-j", "0", "-i", "x"], 2, "E_USAGE"),
    "bad reference": (["tag", "app:1", "UPPER"], 2, "E_USAGE"),
    "bad platform": (["load", "-i", "ARCHIVE", "--platform", "linux"], 2, "E_USAGE"),
    "bad progress": (["load", "-i", "ARCHIVE", "--progress", "loud"], 2, "E_USAGE"),
    "bad parents": (["load", "-i", "ARCHIVE", "--parents", "maybe"], 2, "E_USAGE"),
    "bad form": (["save", "-o", "x.tar", "--format", "zip", "app:1"], 2, "E_USAGE"),
    "bad raw": (["inspect", "--raw", "layer", "app:1"], 2, "E_USAGE"),
    "half a rename": (["load", "-i", "ARCHIVE", "--tag", "app:1="], 2, "E_USAGE"),
    "json and archive on one stream": (["save", "--json", "app:1"], 2, "E_USAGE"),
    "a directory on standard output": (["save", "--format", "oci-dir", "app:1"], 2, "E_USAGE"),
    "a compressed directory": (["save", "--format", "oci-dir", "--compress", "gzip", "-o", "d", "app:1"], 2, "E_USAGE"),
    "no such file": (["load", "-i", "nowhere.tar"], 3, "E_NOT_FOUND"),
    "no such image": (["save", "-o", "x.tar", "nobody:1"], 3, "E_NOT_FOUND"),
    "no such image to inspect": (["inspect", "nobody:1"], 3, "E_NOT_FOUND"),
    "no such image to draw": (["deps", "nobody:1"], 3, "E_NOT_FOUND"),
    "no such image to tag": (["tag", "nobody:1", "x:1"], 3, "E_NOT_FOUND"),
    "no such image to remove": (["rmi", "nobody:1"], 3, "E_NOT_FOUND"),
    "no such image in the archive": (["load", "-i", "ARCHIVE", "nobody:1"], 3, "E_NOT_FOUND"),
    "no such platform": (["load", "-i", "ARCHIVE", "--platform", "windows/amd64"], 3, "E_NOT_FOUND"),
    "no such platform to save": (["save", "-o", "x.tar", "--platform", "plan9/386", "app:1"], 3, "E_NOT_FOUND"),
    "a layer missing": (["load", "-i", "THIN"], 4, "E_MISSING"),
    "no archive": (["load", "-i", "TEXT"], 5, "E_TYPE"),
    "cut short": (["load", "-i", "CUT"], 5, "E_TRUNC"),
    "a layer changed": (["load", "-i", "SPOILED"], 5, "E_DIGEST"),
    "target not to be made": (["save", "-o", "TEXT/x.tar", "app:1"], 6, "E_IO"),
    "tag would move": (["load", "-i", "OTHER", "--no-clobber"], 9, "E_CONFLICT"),
}


def spoilt(data: bytes, layer: bytes) -> bytes:
    place = data.index(layer) + len(layer) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.fixture
def things(filled: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imgtar:
    monkeypatch.chdir(tmp_path)
    new = make_image("new:1", seed=9)
    files = oci_files([new])
    (tmp_path / "ARCHIVE").write_bytes(oci_archive([new]))
    (tmp_path / "THIN").write_bytes(files.without("blobs/" + new.layers[0].digest.replace(":", "/")).tar())
    (tmp_path / "TEXT").write_text("hello\n")
    (tmp_path / "CUT").write_bytes(oci_archive([new])[:-3000])
    (tmp_path / "SPOILED").write_bytes(spoilt(oci_archive([new]), new.layers[1].blob))
    (tmp_path / "OTHER").write_bytes(oci_archive([new.named("app:1")]))
    return filled


@pytest.mark.parametrize(("command", "code", "name"), FAILURES.values(), ids=FAILURES)
def test_every_failure_has_its_exit_code_its_text_and_its_document(
    command: list[str], code: int, name: str, things: Imgtar
) -> None:
    before = things.images()
    plain = things(*command)
    assert plain.code == code, plain.errors
    assert (plain.out == b"") is ("--json" not in command)
    assert f"error[{name}]: " in plain.errors
    assert "Traceback" not in plain.errors
    if "--json" not in command:
        scripted = things(*command, "--json")
        assert scripted.code == code
        document = scripted.json()
        assert document["schema"] == "imgtar.error/1"
        assert set(document["error"]) == {"code", "message", "hint", "exit_code", "details"}
        assert (document["error"]["code"], document["error"]["exit_code"]) == (name, code)
        assert document["error"]["message"] in scripted.errors
    assert things.images() == before
    assert not (Path.cwd() / "x.tar").exists()


def test_an_archive_that_is_not_there_is_a_finding_beside_the_others(things: Imgtar) -> None:
    done = things("verify", "ARCHIVE", "nowhere.tar", "--json")
    assert done.code == 3
    document = done.json()
    assert [archive["path"] for archive in document["archives"]] == ["ARCHIVE", "nowhere.tar"]
    assert [finding["code"] for finding in document["findings"]] == ["E_NOT_FOUND"]
    assert "nowhere.tar" in done.errors


def test_gaps_are_listed_in_the_error_document(things: Imgtar) -> None:
    (gap,) = things("load", "-i", "THIN", "--json").json()["error"]["details"]["missing"]
    assert set(gap) >= {"kind", "digest", "diff_id", "needed_by", "expected_in", "class", "hint"}
    assert (gap["kind"], gap["class"], gap["needed_by"]) == ("layer", "absent", ["new:1"])


def test_quiet_still_says_errors(things: Imgtar) -> None:
    assert "error[E_MISSING]" in things("load", "-q", "-i", "THIN").errors


@pytest.mark.parametrize(
    "command", ["load", "save", "verify", "inspect", "deps", "images", "history", "tag", "rmi", "prune"]
)
def test_every_command_has_help_on_standard_output(command: str, imgtar: Imgtar) -> None:
    for option in ("--help", "-h"):
        done = imgtar.bare(command, option).ok()
        assert f"imgtar {command}" in done.text
        assert "--json" in done.text
        assert done.err == b""


def test_the_version_is_one_line(imgtar: Imgtar) -> None:
    assert imgtar.bare("--version").ok().out == f"imgtar {__version__}\n".encode()
    program = subprocess.run([sys.executable, "-m", "imgtar", "-V"], capture_output=True, timeout=30, check=True)
    assert program.stdout == f"imgtar {__version__}\n".encode()


# -- documents -------------------------------------------------------------------------------------------------------

TEXT, NUMBER, FLAG, LIST = str, int, bool, list
MAYBE = (str, type(None))


def check(value: Any, shape: dict[str, Any]) -> None:
    for key, kind in shape.items():
        assert key in value, f"{key} is missing in {sorted(value)}"
        if isinstance(kind, set):
            assert value[key] in kind
        else:
            assert isinstance(value[key], kind), (key, value[key])


IMAGE = {
    "names": LIST,
    "image_id": TEXT,
    "digest": MAYBE,
    "media_type": MAYBE,
    "platform": MAYBE,
    "created": MAYBE,
    "size": NUMBER,
    "parent": (dict, type(None)),
    "layers": LIST,
    "history": LIST,
    "labels": dict,
}
LAYER = {
    "digest": TEXT,
    "diff_id": TEXT,
    "chain_id": TEXT,
    "size": NUMBER,
    "media_type": MAYBE,
    "present": FLAG,
    "created_by": MAYBE,
}
STEP = {"created": MAYBE, "created_by": TEXT, "empty_layer": FLAG, "comment": TEXT}


def document(done: Result, schema: str) -> Any:
    value = done.ok().json()
    assert value.pop("schema") == schema
    assert done.out.isascii()
    assert done.out.endswith(b"}\n")
    return value


@pytest.mark.parametrize("form", ["docker", "oci", "hybrid"])
def test_the_inspect_document(form: str, imgtar: Imgtar, tmp_path: Path) -> None:
    build = {"docker": docker_archive, "oci": oci_archive, "hybrid": hybrid_archive}[form]
    (tmp_path / "a.tar").write_bytes(build([APP]))
    value = document(imgtar("inspect", tmp_path / "a.tar", "--json"), "imgtar.inspect/1")
    check(value, {"archive": dict, "images": LIST, "requires": LIST})
    assert value["archive"] == {
        "path": str(tmp_path / "a.tar"),
        "format": form,
        "compression": "none",
        "size": (tmp_path / "a.tar").stat().st_size,
        "thin": False,
    }
    (image,) = value["images"]
    check(image, IMAGE)
    for layer in image["layers"]:
        check(layer, LAYER)
    for step in image["history"]:
        check(step, STEP)
    assert image["names"] == list(APP.names)
    assert image["image_id"] == APP.image_id


def test_the_inspect_document_of_a_stored_image_and_of_an_index(filled: Imgtar) -> None:
    value = document(filled("inspect", "multi:1", "--json"), "imgtar.inspect/1")
    assert value["archive"]["format"] == "store"
    (index,) = value["images"]
    check(index, {"names": LIST, "digest": TEXT, "media_type": TEXT, "manifests": LIST, "other": LIST})
    for image in index["manifests"]:
        check(image, IMAGE)
    check(index["other"][0], {"digest": TEXT, "media_type": TEXT, "artifact_type": MAYBE, "subject": MAYBE})
    assert index["other"][0]["subject"] == ARM.digest


def test_the_load_document(imgtar: Imgtar, archive: Path) -> None:
    value = document(imgtar("load", "-i", archive, "--json"), "imgtar.load/1")
    check(value, {"dry_run": FLAG, "images": LIST, "tags": LIST, "missing": LIST})
    check(value, dict.fromkeys(("bytes_written", "bytes_reused", "blobs_written", "blobs_reused"), NUMBER))
    for image in value["images"]:
        check(image, {"names": LIST, "image_id": TEXT, "digest": TEXT, "platform": MAYBE, "state": {"new", "present"}})
    for tag in value["tags"]:
        check(tag, {"name": TEXT, "from": MAYBE, "to": TEXT})
    assert {tag["name"]: tag["to"] for tag in value["tags"]} == {
        "base:1": BASE.image_id,
        **dict.fromkeys(APP.names, APP.image_id),
    }
    again = document(imgtar("load", "-i", archive, "--json"), "imgtar.load/1")
    assert {image["state"] for image in again["images"]} == {"present"}
    assert all(tag["from"] == tag["to"] for tag in again["tags"])
    assert (again["bytes_written"], again["bytes_reused"]) == (0, value["bytes_written"])


def test_the_dry_run_document_is_the_load_document(imgtar: Imgtar, archive: Path) -> None:
    promised = document(imgtar("load", "-i", archive, "--dry-run", "--json"), "imgtar.load/1")
    assert not imgtar.store.exists()
    done = document(imgtar("load", "-i", archive, "--json"), "imgtar.load/1")
    assert promised == {**done, "dry_run": True}
    written = sum(path.stat().st_size for path in (imgtar.store / "blobs").rglob("*") if path.is_file())
    assert promised["bytes_written"] == written


def test_a_dry_run_with_gaps_gives_its_one_document_and_exit_code_4(things: Imgtar) -> None:
    done = things("load", "-i", "THIN", "--dry-run", "--json")
    assert done.code == 4
    value = json.loads(done.out)
    assert value["schema"] == "imgtar.load/1"
    assert len(value["missing"]) == 1
    assert "error[E_MISSING]" in done.errors


def test_the_save_document(filled: Imgtar, tmp_path: Path) -> None:
    value = document(filled("save", "-o", tmp_path / "x.tar", "app:1", "--json"), "imgtar.save/1")
    check(value, {"path": TEXT, "format": TEXT, "size": NUMBER, "sha256": TEXT, "images": LIST, "blobs": NUMBER})
    assert value["left_out"] == []
    assert value["images"] == [{"names": ["app:1"], "image_id": APP.image_id, "digest": APP.digest}]
    assert value["path"] == str(tmp_path / "x.tar")


def test_the_save_dry_run_writes_nothing(filled: Imgtar, tmp_path: Path) -> None:
    value = document(filled("save", "-o", tmp_path / "x.tar", "--dry-run", "app:1", "--json"), "imgtar.save/1")
    assert not (tmp_path / "x.tar").exists()
    assert value["blobs"] == len(APP.document.blobs())
    assert filled("save", "--dry-run", "app:1").ok().text


def test_the_verify_document(filled: Imgtar, archive: Path) -> None:
    value = document(filled("verify", archive, "--json"), "imgtar.verify/1")
    check(value, {"ok": FLAG, "archives": LIST, "findings": LIST, "tool": TEXT, "started": TEXT, "finished": TEXT})
    assert value["against"] is None
    assert value["tool"] == f"imgtar {__version__}"
    started, finished = (datetime.fromisoformat(value[key]) for key in ("started", "finished"))
    assert started <= finished
    assert started.utcoffset() is not None
    (verdict,) = value["archives"]
    assert (verdict["size"], verdict["sha256"]) == (archive.stat().st_size, sha256(archive.read_bytes())[7:])
    blobs = {**BASE.document.blobs(), **APP.document.blobs()}
    assert (verdict["blobs_checked"], verdict["bytes_checked"]) == (len(blobs), sum(map(len, blobs.values())))
    assert {image["image_id"]: image["ok"] for image in verdict["images"]} == {BASE.image_id: True, APP.image_id: True}


def test_the_verify_report_is_the_document_in_a_file(things: Imgtar, tmp_path: Path) -> None:
    for target, code in (("ARCHIVE", 0), ("SPOILED", 5), ("THIN", 4), ("TEXT", 5)):
        done = things("verify", target, "--json", "--report", tmp_path / "report.json")
        assert done.code == code
        report = json.loads((tmp_path / "report.json").read_bytes())
        assert report == done.json()
        assert report["ok"] is (code == 0)
        for finding in report["findings"]:
            check(finding, {"code": TEXT, "severity": {"error", "warning", "info"}, "subject": TEXT, "message": TEXT})


def test_the_images_document(filled: Imgtar) -> None:
    value = document(filled("images", "--json"), "imgtar.images/1")
    for row in value["images"]:
        check(
            row,
            {"name": MAYBE, "image_id": TEXT, "digest": TEXT, "platform": MAYBE, "created": MAYBE, "size": NUMBER},
        )
    assert [row["name"] for row in value["images"]] == ["app:1", "base:1", "multi:1", "multi:1", APP.names[1]]


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        (["history", "app:1"], "imgtar.history/1"),
        (["deps"], "imgtar.deps/1"),
        (["deps", "app:1"], "imgtar.deps/1"),
        (["tag", "app:1", "app:2"], "imgtar.tag/1"),
        (["rmi", "app:1"], "imgtar.rmi/1"),
        (["prune"], "imgtar.prune/1"),
        (["prune", "--dry-run"], "imgtar.prune/1"),
        (["verify"], "imgtar.verify/1"),
        (["images", "-a"], "imgtar.images/1"),
    ],
)
def test_every_command_gives_exactly_one_document(command: list[str], schema: str, filled: Imgtar) -> None:
    document(filled(*command, "--json"), schema)


# -- raw bytes -------------------------------------------------------------------------------------------------------


def test_raw_documents_are_printed_to_the_byte(filled: Imgtar, archive: Path) -> None:
    assert filled("inspect", "--raw", "manifest", "app:1").ok().out == APP.manifest
    assert filled("inspect", "--raw", "config", "app:1").ok().out == APP.config
    assert filled("inspect", "--raw", "index", "multi:1").ok().out == MULTI.raw
    assert filled("inspect", "--raw", "config", "--platform", "linux/arm64", "multi:1").ok().out == ARM.config
    assert filled("inspect", "--raw", "manifest", "--platform", "linux/amd64", "multi:1").ok().out == AMD.manifest
    archive.write_bytes(oci_archive([APP]))
    assert filled("inspect", "--raw", "manifest", archive).ok().out == APP.manifest


def test_raw_is_refused_where_several_or_none_are_meant(filled: Imgtar, archive: Path) -> None:
    assert filled("inspect", "--raw", "config", archive).code == 2
    assert filled("inspect", "--raw", "manifest", "multi:1").code == 2
    assert filled("inspect", "--raw", "index", "app:1").code == 3
    archive.write_bytes(docker_archive([APP]))
    assert filled("inspect", "--raw", "manifest", archive).code == 3
    assert filled("inspect", "--raw", "config", archive).ok().out == APP.config


# -- streams ---------------------------------------------------------------------------------------------------------


def test_load_prints_what_docker_prints(imgtar: Imgtar) -> None:
    bare = make_image((), seed=5)
    done = imgtar.load(docker_archive([APP, bare])).ok()
    assert done.text.splitlines() == [
        "Loaded image: app:1",
        "Loaded image: registry.example:5000/team/app:new",
        f"Loaded image ID: {bare.image_id}",
    ]
    assert "written" in done.errors


@pytest.mark.parametrize("command", [["load", "-i", "ARCHIVE"], ["save", "-o", "o.tar", "app:1"], ["verify"]])
def test_quiet_leaves_only_results(command: list[str], things: Imgtar) -> None:
    done = things(*command, "-q").ok()
    assert done.err == b""


@pytest.mark.parametrize("mode", ["auto", "plain", "json", "none", "bar"])
@pytest.mark.parametrize("command", [["load", "-i", "ARCHIVE"], ["save", "app:1"], ["verify"], ["verify", "ARCHIVE"]])
def test_progress_goes_to_standard_error_and_changes_no_result(mode: str, command: list[str], things: Imgtar) -> None:
    expected = things(*command, "--progress", "none", "--dry-run" if command[0] == "load" else "-q").ok()
    done = things(*command, "--progress", mode, *(["--dry-run"] if command[0] == "load" else [])).ok()
    assert done.out == expected.out
    if mode == "json":
        events = [json.loads(line) for line in done.errors.splitlines() if line.startswith("{")]
        assert command[0] == "load" or events, "a phase at least"
        assert all("event" in event for event in events)
    if mode in ("auto", "none", "plain"):
        assert "\x1b" not in done.errors
        assert "\r" not in done.errors


def test_images_quiet_gives_ids_that_other_commands_take(filled: Imgtar) -> None:
    short = filled("images", "-q").ok().text.split()
    assert len(short) == 4
    assert all(len(identity) == 12 for identity in short)
    assert filled("save", short[0]).ok().out
    full = filled("images", "-q", "--no-trunc").ok().text.split()
    assert {BASE.image_id, APP.image_id} <= set(full)


def test_the_list_shows_what_docker_shows(filled: Imgtar) -> None:
    lines = filled("images").ok().text.splitlines()
    assert lines[0].split()[:2] == ["REPOSITORY", "TAG"]
    assert any(line.startswith("registry.example:5000/team/app ") and " new " in line for line in lines)
    assert APP.image_id[7:19] in "\n".join(lines)
    assert APP.digest in filled("images", "--digests", "--no-trunc").ok().text


def test_an_empty_store_lists_nothing_and_succeeds(imgtar: Imgtar) -> None:
    assert document(imgtar("images", "--json"), "imgtar.images/1") == {"images": []}
    assert imgtar("images", "-q").ok().out == b""


CONTROL = "\x1b[31mred\x07\u202egnp.exe\x9b2J\nnew line"


def test_nothing_from_an_archive_can_steer_the_terminal(imgtar: Imgtar, tmp_path: Path) -> None:
    def poison(config: Any) -> None:
        config["config"]["Labels"] = {CONTROL: CONTROL}
        config["history"][0].update(created_by=CONTROL, comment=CONTROL, author=CONTROL)
        config["os"] = CONTROL

    image = APP.with_config(poison)
    path = tmp_path / "a.tar"
    path.write_bytes(docker_archive([image]))
    imgtar.load(path).ok()
    for command in (
        ["inspect", path],
        ["inspect", "app:1"],
        ["history", "--no-trunc", path],
        ["history", "app:1"],
        ["deps", path],
    ):
        done = imgtar(*command).ok()
        assert not set(done.text + done.errors) & set("\x1b\x07\u202e\x9b")
        assert "\nnew line" not in done.text
    for command in (["images"], ["load", "-i", path, "--platform", "plan9/x"], ["inspect", path, "--json"]):
        done = imgtar(*command)
        assert not set(done.text + done.errors) & set("\x1b\x07\u202e\x9b")
    assert imgtar("inspect", path, "--json").json()["images"][0]["labels"] == {CONTROL: CONTROL}


def test_a_poisoned_name_in_an_error_is_escaped(imgtar: Imgtar) -> None:
    def poison(items: Any) -> None:
        items[0]["RepoTags"] = [CONTROL]

    for json_too in ([], ["--json"]):
        done = imgtar.load(docker_files([APP]).edited("manifest.json", poison).tar(), *json_too)
        assert done.code == 5
        assert not set(done.text + done.errors) & set("\x1b\x07\u202e\x9b")


def test_a_poisoned_file_name_is_escaped(imgtar: Imgtar, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.tar"
    path.write_bytes(b"hello")
    for command in (["load", "-i", path], ["verify", path], ["inspect", path], ["load", "-i", f"{path}x"]):
        done = imgtar(*command)
        assert done.code in (3, 5)
        assert "\x1b" not in done.text + done.errors


# -- the real program ------------------------------------------------------------------------------------------------


def program(imgtar: Imgtar, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "imgtar", "--store", str(imgtar.store), *map(str, arguments)]
    return subprocess.run(command, timeout=60, check=False, **options)


def on_terminal(imgtar: Imgtar, *arguments: object, which: str) -> subprocess.CompletedProcess[bytes]:
    """Run with one standard stream on a terminal."""
    leader, follower = pty.openpty()
    try:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return program(imgtar, *arguments, **{**streams, which: follower})
    finally:
        os.close(follower)
        os.close(leader)


def test_an_archive_is_not_written_to_a_terminal(filled: Imgtar) -> None:
    done = on_terminal(filled, "save", "app:1", which="stdout")
    assert done.returncode == 2
    assert b"terminal" in done.stderr


def test_an_archive_is_not_read_from_a_terminal(filled: Imgtar) -> None:
    done = on_terminal(filled, "load", which="stdin")
    assert done.returncode == 2
    assert b"terminal" in done.stderr


@pytest.mark.parametrize("command", [["save", "app:1"], ["inspect", "app:1", "--json"], ["images"]])
def test_a_closed_standard_output_is_no_success_and_no_traceback(command: list[str], filled: Imgtar) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = program(filled, *command, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert done.returncode == 6, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_full_standard_output_is_no_success(filled: Imgtar) -> None:
    with open("/dev/full", "wb") as full:
        for command in (["save", "app:1"], ["images"]):
            done = program(filled, *command, stdout=full, stderr=subprocess.PIPE)
            assert done.returncode == 6, done.stderr
            assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_load_says_so_and_leaves_nothing(signal_name: str, filled: Imgtar) -> None:
    import signal

    before = filled.images()
    command = [sys.executable, "-m", "imgtar", "--store", str(filled.store), "load"]

    def undisturbed() -> None:
        # Whoever runs the tests may have had SIGINT ignored (a background job of a shell does): a user has not.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=undisturbed) as process:
        assert process.stdin is not None
        process.stdin.write(oci_archive([make_image("new:1", seed=9)])[:4096])
        process.stdin.flush()
        staging = filled.store / "imgtar" / "staging"
        deadline = time.monotonic() + 20
        while not os.listdir(staging) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(getattr(signal, signal_name))
        try:
            _, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail("it does not stop while its input is open")
    assert process.returncode == 130, errors
    assert b"nothing was committed" in errors
    assert b"Traceback" not in errors
    assert filled.images() == before
    assert os.listdir(staging) == []


def test_the_store_is_chosen_by_option_then_environment_then_user_data(
    imgtar: Imgtar, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imgtar.bare("load", "-i", archive).ok()
    assert (imgtar.home / "data" / "imgtar" / "store" / "index.json").exists()
    monkeypatch.setenv("IMGTAR_STORE", str(tmp_path / "by-environment"))
    imgtar.bare("load", "-i", archive).ok()
    assert (tmp_path / "by-environment" / "index.json").exists()
    imgtar.bare("load", "-i", archive, "--store", tmp_path / "by-option").ok()
    assert (tmp_path / "by-option" / "index.json").exists()
    monkeypatch.delenv("IMGTAR_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    imgtar.bare("load", "-i", archive).ok()
    assert (imgtar.home / ".local" / "share" / "imgtar" / "store" / "index.json").exists()


def test_nothing_is_written_outside_the_store_and_the_target(
    imgtar: Imgtar, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path for path in tmp_path.rglob("*") if imgtar.store not in path.parents}
    imgtar.load(archive).ok()
    imgtar("save", "-o", "out.tar", "--layers", "gzip", "app:1").ok()
    imgtar("verify", "out.tar", "--report", "report.json").ok()
    imgtar("inspect", archive).ok()
    after = {path for path in tmp_path.rglob("*") if imgtar.store not in path.parents}
    assert {path.name for path in after - before} == {"out.tar", "report.json", "store"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("archive", "status"), [("good.tar", 0), ("bad.tar", 5)])
def test_h214_a_standard_error_that_is_full_changes_no_exit_status(
    archive: str, status: int, imgtar: Imgtar, tmp_path: Path
) -> None:
    (tmp_path / "good.tar").write_bytes(docker_archive([make_image("app:1", 1, seed=1)]))
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 1000)
    command = [sys.executable, "-m", "imgtar", "--store", str(imgtar.store), "load", "-i", str(tmp_path / archive)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert done.returncode == status
    assert (b"Loaded image: app:1" in done.stdout) == (status == 0)
