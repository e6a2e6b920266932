"""A store whose files rot, vanish, turn into something else, or are edited by others: named, never followed, repaired by a load."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgtar.errors import StoreTrouble
from imgtar.store import layout as layout_module
from imgtar.store.layout import Layout
from tests.builders.images import make_image, make_index, oci_archive
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 2, seed=1, compression="gzip")
APP = make_image("app:1", 1, seed=2, base=BASE)
OTHER = make_image("other:1", 1, seed=3)
ALL = oci_archive([BASE, APP, OTHER])
HURT = {
    digest: {image.names[0] for image in (BASE, APP, OTHER) if digest in image.document.blobs()}
    for image in (BASE, APP, OTHER)
    for digest in image.document.blobs()
}
"""Which images need each blob."""


def blob(store: Path, digest: str) -> Path:
    return store / "blobs" / digest.replace(":", "/")


@pytest.fixture
def full(imgtar: Imgtar) -> Imgtar:
    imgtar.load(ALL).ok()
    return imgtar


def verdicts(full: Imgtar) -> dict[str, bool]:
    """What ``verify`` says of each image."""
    rows = full("verify", "--json").json()["archives"][0]["images"]
    return {name: row["ok"] for row in rows for name in row["names"]}


# -- blobs -----------------------------------------------------------------------------------------------------------


def test_h232_every_flipped_bit_is_named_hurts_who_needs_it_is_not_exported_and_is_repaired(full: Imgtar) -> None:
    chance = random.Random(232)
    assert len(HURT) == 10
    for digest, hurt in HURT.items():
        path = blob(full.store, digest)
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        found = full("verify", "--json")
        assert found.code == 7
        document = found.json()
        errors = [finding for finding in document["findings"] if finding["severity"] == "error"]
        assert any(digest in f"{finding['subject']} {finding['message']}" for finding in errors), digest
        assert all(finding["code"] == "E_STORE" for finding in errors)
        rows = document["archives"][0]["images"]
        assert {name for row in rows if not row["ok"] for name in row["names"]} == hurt
        for name in hurt:
            saved = full("save", "-o", full.home / "out.tar", name)
            assert saved.code == 7, (digest, name, saved.errors)
        done = full.load(ALL, "--json").ok().json()
        assert done["blobs_written"] == 1, "only what was damaged is written again"
    full("verify").ok()


def test_h232_all_blobs_at_once_are_named_and_one_load_repairs_them(full: Imgtar) -> None:
    chance = random.Random(2320)
    for digest in HURT:
        path = blob(full.store, digest)
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    found = full("verify")
    assert found.code == 7
    # What a damaged manifest refers to is known to nobody: only the roots can be named then.
    assert all(image.digest in found.errors for image in (BASE, APP, OTHER))
    full.load(ALL).ok()
    full("verify").ok()


def test_h233_a_blob_of_no_bytes_counts_as_absent_and_is_repaired(full: Imgtar) -> None:
    for digest, hurt in HURT.items():
        blob(full.store, digest).write_bytes(b"")
        for name in hurt:
            assert full("save", "-o", full.home / "out.tar", name).code == 7, digest
        assert full.load(ALL, "--json").ok().json()["blobs_written"] == 1
    full("verify").ok()


@pytest.mark.parametrize(
    ("kind", "victim"),
    [
        ("link", APP.layers[0].digest),
        ("link", APP.digest),
        ("directory", APP.image_id),
        ("fifo", APP.layers[0].digest),
        ("fifo", APP.digest),
        ("socket", APP.image_id),
    ],
    ids=["link-layer", "link-manifest", "directory-config", "fifo-layer", "fifo-manifest", "socket-config"],
)
def test_h234_something_else_in_place_of_a_blob_is_not_followed_and_nobody_waits_for_it(
    kind: str, victim: str, full: Imgtar
) -> None:
    path = blob(full.store, victim)
    outside = full.home / "outside"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        import socket

        # The path may be longer than the address of a socket may be.
        here = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    for command in (["verify"], ["save", "-o", full.home / "out.tar", "app:1"]):
        done = full(*command)
        assert (done.code, "E_STORE" in done.errors) == (7, True), done.errors
        assert "hint:" in done.errors
    full("images").ok()
    full("save", "-o", full.home / "other.tar", "other:1").ok()
    again = full.load(ALL)
    if kind == "directory":
        assert (again.code, "E_STORE" in again.errors) == (7, True)
        assert "move it away" in again.errors
    else:
        again.ok()
        full("verify").ok()
    assert outside.exists()


# -- index.json ------------------------------------------------------------------------------------------------------

READERS = (["images"], ["verify"], ["save", "app:1"], ["load", "-i", "-"])


def refused(full: Imgtar, commands: tuple[list[str], ...] = READERS) -> None:
    """Assert that every command names the index and the next step, and leaves all as it is."""
    before = stored(full.store)
    for command in commands:
        done = full(*command, stdin=ALL if command[0] == "load" else None)
        assert done.code == 7, (command, done.errors)
        assert "E_STORE" in done.errors
        assert "index.json" in done.errors
        assert "hint: imgtar repair" in done.errors
    assert stored(full.store) == before, "nothing is made anew in silence"


def test_h235_an_index_cut_at_any_byte_is_damage(full: Imgtar) -> None:
    path = full.store / "index.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreTrouble, match=r"index\.json"):
            Layout(str(full.store)).read_index()
        if length % 400 == 1:
            refused(full)
    path.write_bytes(whole)
    assert set(full.names()) == {"base:1", "app:1", "other:1"}


WRONG: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda raw: bytes(len(raw)),
    "noise": lambda raw: random.Random(235).randbytes(len(raw)),
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
    "utf-16-be": lambda raw: raw.decode().encode("utf-16-be"),
    "with a mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "twice": lambda raw: raw + raw,
    "html": lambda raw: b"<html>502 Bad Gateway</html>",
    "another document": lambda raw: APP.manifest,
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_h235_an_index_of_other_content_is_damage(change: Callable[[bytes], bytes], full: Imgtar) -> None:
    path = full.store / "index.json"
    path.write_bytes(change(path.read_bytes()))
    refused(full, (["images"], ["load", "-i", "-"]))


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "link", "link to nothing"])
def test_h235_an_index_that_is_no_file_is_damage_and_nobody_waits_for_it(kind: str, full: Imgtar) -> None:
    path = full.store / "index.json"
    path.rename(full.home / "kept.json")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(full.home / "kept.json")
    elif kind == "link to nothing":
        path.symlink_to(full.home / "nothing.json")
    refused(full)
    assert os.path.lexists(path) == (kind != "missing")


def test_h235_a_huge_index_is_refused_before_it_is_read(full: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(full.store / "index.json", "r+b") as file:
        file.truncate(1 << 40)

    def never(*_: object) -> bytes:
        raise AssertionError("a terabyte is read")

    monkeypatch.setattr(layout_module, "read_window", never)
    for command in READERS[:3]:
        done = full(*command)
        assert done.code == 7
        assert "hint: imgtar repair" in done.errors


@pytest.mark.parametrize("name", ["imgtar/version", "oci-layout"])
def test_h237_nobody_waits_for_a_marker_that_is_a_fifo(name: str, full: Imgtar) -> None:
    (full.store / name).unlink()
    os.mkfifo(full.store / name)
    for command in (["images"], ["load", "-i", "-"]):
        done = full(*command, stdin=ALL if command[0] == "load" else None)
        assert done.code in (6, 7)
        assert name in done.errors


def test_h237_nobody_waits_for_a_note_that_is_a_fifo(full: Imgtar) -> None:
    for folder in ("held/sha256", "layers/sha256"):
        for note in (full.store / "imgtar" / folder).iterdir():
            note.unlink()
            os.mkfifo(note)
    (full.store / "imgtar" / "images").unlink()
    os.mkfifo(full.store / "imgtar" / "images")
    full.load(ALL).ok()
    full("verify").ok()


def test_h236_a_tag_whose_manifest_is_gone_is_told_and_the_others_work(full: Imgtar) -> None:
    blob(full.store, OTHER.digest).unlink()
    rows = {row["name"]: row for row in full("images", "--json").ok().json()["images"]}
    assert "missing or damaged" in rows["other:1"]["problem"]
    assert "problem" not in rows["app:1"]
    assert verdicts(full) | {"other:1": False} == {"base:1": True, "app:1": True, "other:1": False}
    assert OTHER.digest in full("verify").errors
    full("save", "-o", full.home / "out.tar", "app:1").ok()
    assert full("save", "-o", full.home / "out.tar", "other:1").code == 7
    full("inspect", "app:1").ok()
    full("tag", "app:1", "app:2").ok()
    full.load(oci_archive([make_image("more:1", seed=9)])).ok()
    assert full("prune").code == 7, "what the lost manifest needs is not known: nothing may be deleted"
    full("rmi", "other:1").ok()
    full("prune").ok()
    full("verify").ok()
    assert set(full.names()) == {"base:1", "app:1", "app:2", "more:1"}


@pytest.mark.parametrize("command", [["load", "-i", "-"], ["prune"]], ids=["load", "prune"])
@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("oci-layout", None, "E_STORE"),
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "E_STORE"),
        ("oci-layout", b"", "E_STORE"),
        ("imgtar/version", b"2\n", "E_VERSION"),
        ("imgtar/version", b"1.1\n", "E_STORE"),
        ("imgtar/version", b"9" * 30, "E_VERSION"),
    ],
)
def test_h237_a_store_of_another_version_is_not_written(
    name: str, content: bytes | None, code: str, command: list[str], full: Imgtar
) -> None:
    (full.store / name).unlink()
    if content is not None:
        (full.store / name).write_bytes(content)
    before = stored(full.store)
    done = full(*command, stdin=ALL if command[0] == "load" else None)
    assert (done.code, code in done.errors) == (7, True), done.errors
    assert "hint:" in done.errors
    if code == "E_VERSION":
        assert "newer imgtar" in done.errors
    assert stored(full.store) == before


def test_h238_what_another_tool_wrote_into_the_store_is_seen_and_kept(full: Imgtar) -> None:
    index = json.loads((full.store / "index.json").read_bytes())
    theirs = make_image((), seed=8)
    for digest, raw in theirs.document.blobs().items():
        blob(full.store, digest).write_bytes(raw)
    index["manifests"].append(
        theirs.document.descriptor(
            {"org.opencontainers.image.ref.name": "theirs", "com.example.why": "because", "org.umoci.x": "1"}
        )
    )
    index["manifests"][-1]["urls"] = ["https://example.com/blob"]
    index["annotations"] = {"com.example.store": "mine"}
    index["com.example.extra"] = [1, {"two": None}]
    (full.store / "index.json").write_text(json.dumps(index, indent=3))
    (full.store / "blobs" / "sha256" / "notes.txt").write_text("mine")
    assert theirs.image_id in {row["image_id"] for row in full.images()}
    full.load(oci_archive([make_image("more:1", seed=9)])).ok()
    full("tag", "app:1", "app:2").ok()
    full("rmi", "base:1").ok()
    full("prune").ok()
    after = json.loads((full.store / "index.json").read_bytes())
    assert after["annotations"] == {"com.example.store": "mine"}
    assert after["com.example.extra"] == [1, {"two": None}]
    (kept,) = [entry for entry in after["manifests"] if entry["digest"] == theirs.digest]
    assert kept == index["manifests"][-1]
    assert (full.store / "blobs" / "sha256" / "notes.txt").read_text() == "mine"
    full("verify").ok()


def test_h238_an_index_of_platforms_that_another_tool_tagged_can_be_used_by_its_name(full: Imgtar) -> None:
    arm = make_image("x", 1, platform="linux/arm64", seed=11)
    both = make_index(make_image("x", 1, seed=10), arm)
    for digest, raw in both.blobs().items():
        blob(full.store, digest).write_bytes(raw)
    index = json.loads((full.store / "index.json").read_bytes())
    index["manifests"].append(both.descriptor({"org.opencontainers.image.ref.name": "multi:1"}))
    (full.store / "index.json").write_text(json.dumps(index))
    full("save", "-o", full.home / "out.tar", "multi:1").ok()
    full("verify", full.home / "out.tar").ok()


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_h238_an_image_that_skopeo_copied_into_the_store_is_there_and_nothing_is_lost(full: Imgtar) -> None:
    import subprocess

    more = make_image("more:1", 1, seed=9)
    archive = full.home / "more.tar"
    archive.write_bytes(oci_archive([more]))
    words = ["skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}:more:1", f"oci:{full.store}:theirs:1"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    assert set(full.names()) == {"base:1", "app:1", "other:1", "theirs:1"}
    full.load(oci_archive([make_image("last:1", seed=12)])).ok()
    full("verify").ok()
    assert set(full.names()) == {"base:1", "app:1", "other:1", "theirs:1", "last:1"}
    assert len(Layout(str(full.store)).read_index()) == 5
