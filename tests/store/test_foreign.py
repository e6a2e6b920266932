"""H278: other programs that write ``index.json`` while imgtar changes it. They know no lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtar.store import layout as layout_module
from imgtar.store.layout import Layout
from imgtar.store.store import Store
from tests.builders.images import make_image, oci_archive
from tests.conftest import Imgtar

APP = make_image("app:1", 2, seed=1)
MORE = make_image("more:1", 1, seed=2)
REF_NAME = "org.opencontainers.image.ref.name"

CHANGES = {
    "load": ["load", "-i", "more.tar"],
    "load of what is there": ["load", "-i", "app.tar", "--tag", "app:1=again:1"],
    "tag": ["tag", "app:1", "again:1"],
    "rmi": ["rmi", "gone:1"],
    "prune": ["prune", "--untagged"],
}


def add(store: Path, name: str, *, in_place: bool = False) -> None:
    """Give the first image one more name, as skopeo (in place) and umoci do."""
    index = store / "index.json"
    value = json.loads(index.read_bytes())
    entry = {key: value["manifests"][0][key] for key in ("mediaType", "digest", "size")}
    value["manifests"].append({**entry, "annotations": {REF_NAME: name}})
    value["annotations"] = {"com.example.by": name}
    target = index if in_place else store / "index.json.tmp"
    target.write_text(json.dumps(value))
    if not in_place:
        target.rename(index)


def remove(store: Path, name: str) -> None:
    """Take a name away."""
    index = store / "index.json"
    value = json.loads(index.read_bytes())
    value["manifests"] = [one for one in value["manifests"] if one.get("annotations", {}).get(REF_NAME) != name]
    (store / "index.json.tmp").write_text(json.dumps(value))
    (store / "index.json.tmp").rename(index)


@pytest.fixture
def full(imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imgtar:
    monkeypatch.chdir(tmp_path)
    for name, image in (("app", APP), ("more", MORE)):
        (tmp_path / f"{name}.tar").write_bytes(oci_archive([image]))
    imgtar("load", "-i", "app.tar").ok()
    imgtar("tag", "app:1", "gone:1").ok()
    imgtar.load(oci_archive([make_image((), seed=3)])).ok()
    return imgtar


def between(monkeypatch: pytest.MonkeyPatch, where: str, deed: Callable[[int], object], times: int = 1) -> list[int]:
    """Do ``deed`` after each of the first ``times`` calls of a method of the layout; returns the numbers of those done."""
    done: list[int] = []
    real = getattr(Layout, where)

    def also(self: Layout, *arguments: Any, **options: Any) -> Any:
        result = real(self, *arguments, **options)
        if len(done) < times:
            done.append(len(done))
            deed(done[-1])
        return result

    monkeypatch.setattr(Layout, where, also)
    return done


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
@pytest.mark.parametrize("where", ["keep", "_written"])
@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES)
def test_h278_a_name_that_comes_while_the_new_index_is_written_stays_and_so_does_the_change(
    command: list[str], where: str, in_place: bool, full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = dict(full.names())
    with monkeypatch.context() as patch:
        done = between(patch, where, lambda n: add(full.store, f"foreign:{n}", in_place=in_place), 5)
        full(*command).ok()
    assert len(done) >= 5
    expected.update({f"foreign:{number}": APP.image_id for number in range(5)})
    if command[0] == "load" and "more.tar" in command:
        expected["more:1"] = MORE.image_id
    elif "again:1" in " ".join(command):
        expected["again:1"] = APP.image_id
    elif command[0] == "rmi":
        del expected["gone:1"]
    assert full.names() == expected
    index = json.loads((full.store / "index.json").read_bytes())
    assert index["annotations"] == {"com.example.by": "foreign:4"}, "what stands beside the list is theirs, too"
    kept = (full.store / "imgtar" / "index.kept").read_bytes().partition(b"\n")[2]
    assert kept == (full.store / "index.json").read_bytes()
    assert Layout(str(full.store)).changed_by_others() is None
    full("verify").ok()
    assert not list(full.store.rglob("*.new"))


def test_h278_a_name_that_is_taken_away_meanwhile_does_not_come_back(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        between(patch, "keep", lambda _: remove(full.store, "gone:1"))
        full("tag", "app:1", "again:1").ok()
    assert set(full.names()) == {"app:1", "again:1"}


def test_h278_an_image_that_is_taken_away_meanwhile_cannot_be_tagged(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(_: int) -> None:
        for name in ("app:1", "gone:1"):
            remove(full.store, name)

    with monkeypatch.context() as patch:
        between(patch, "keep", take)
        done = full("tag", "app:1", "again:1")
    assert (done.code, "E_CONFLICT" in done.errors) == (9, True), done.errors
    assert full.names() == {}
    assert {entry.name.familiar for entry in _kept(full) if entry.name} == set(), "what was not committed is not kept"


def test_h278_no_clobber_holds_against_a_name_that_comes_meanwhile(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        between(patch, "keep", lambda _: add(full.store, "more:1"))
        done = full("load", "--no-clobber", "-i", "more.tar")
    assert (done.code, "E_CONFLICT" in done.errors) == (9, True), done.errors
    assert full.names()["more:1"] == APP.image_id
    assert MORE.digest not in {str(entry.digest) for entry in _kept(full)}


def test_h278_a_program_that_does_not_end_is_a_conflict_and_nothing_of_it_is_lost(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = full.names()
    monkeypatch.setattr(layout_module, "_TRIES", 7)
    with monkeypatch.context() as patch:
        done = between(patch, "keep", lambda n: add(full.store, f"foreign:{n}"), 7)
        refused = full("tag", "app:1", "again:1")
    assert (refused.code, "E_CONFLICT" in refused.errors) == (9, True), refused.errors
    assert "hint: run the same command again" in refused.errors
    assert len(done) == 7
    assert full.names() == {**before, **{f"foreign:{n}": APP.image_id for n in range(7)}}
    assert "again:1" not in {e.name.familiar for e in _kept(full) if e.name}, "what was not committed is not kept"
    assert not list(full.store.rglob("*.new"))
    full("tag", "app:1", "again:1").ok()


def _kept(full: Imgtar) -> Any:
    from imgtar.store.entry import parse_entries

    return parse_entries(Layout(str(full.store)).read_kept() or b"")


def test_h278_an_index_that_is_being_written_in_place_is_waited_for(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at the first look of the change, whole at the next."""
    index = full.store / "index.json"
    whole: list[bytes] = []

    def cut(_: int) -> None:
        whole.append(index.read_bytes())
        index.write_bytes(whole[0][:100])

    with monkeypatch.context() as patch:
        between(patch, "keep", cut)
        patch.setattr(layout_module.time, "sleep", lambda _: index.write_bytes(whole[0]))
        full("tag", "app:1", "again:1").ok()
    assert whole
    assert {"app:1", "gone:1", "again:1"} == set(full.names())


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 40])
def test_h278_an_index_that_is_damaged_meanwhile_is_said_and_not_overwritten(
    damage: bytes, full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "_PAUSE", 0)
    with monkeypatch.context() as patch:
        between(patch, "keep", lambda _: (full.store / "index.json").write_bytes(damage))
        done = full("tag", "app:1", "again:1")
    assert (done.code, "index.json is damaged" in done.errors) == (7, True), done.errors
    assert (full.store / "index.json").read_bytes() == damage


def test_h278_a_new_index_that_comes_while_the_lost_one_is_made_again_is_not_overwritten(
    full: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = full.names()
    index = full.store / "index.json"
    other = b'{"schemaVersion":2,"manifests":[]}'
    index.unlink()
    with monkeypatch.context() as patch:
        between(patch, "keep", lambda _: index.write_bytes(other))
        done = full("repair")
    assert (done.code, "E_CONFLICT" in done.errors) == (9, True), done.errors
    assert index.read_bytes() == other
    index.unlink()
    full("repair").ok()
    assert full.names() == names


def test_h278_a_first_load_finds_what_another_program_put_there(
    imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.builders.images import oci_layout

    oci_layout([APP]).directory(imgtar.home / "theirs")

    def theirs(_: int) -> None:
        for path in sorted((imgtar.home / "theirs").rglob("*")):
            target = imgtar.store / path.relative_to(imgtar.home / "theirs")
            if path.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

    with monkeypatch.context() as patch:
        between(patch, "keep", theirs)
        imgtar.load(oci_archive([MORE])).ok()
    assert set(imgtar.names()) == {"app:1", "more:1"}


def test_h278_an_index_of_the_same_size_that_was_replaced_is_another_one(full: Imgtar) -> None:
    layout = Layout(str(full.store))
    entries = layout.read_index()
    raw = layout.raw_index
    swapped = raw.replace(b"gone:1", b"came:1")
    assert len(swapped) == len(raw)
    with Store(str(full.store)).holding_index():
        (full.store / "new").write_bytes(swapped)
        os.replace(full.store / "new", full.store / "index.json")
        assert not layout.write_index(entries, over=raw)
        assert (full.store / "index.json").read_bytes() == swapped
        assert layout.write_index(entries, over=swapped)
