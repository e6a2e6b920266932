"""The store's directory: what is damaged is said, what is newer is left alone, what others wrote is read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from imgtar.errors import NotFound, StoreTrouble
from imgtar.model.digest import Digest
from imgtar.store.layout import Layout
from imgtar.store.store import Store
from tests.builders.images import docker_archive, make_image, oci_archive, oci_layout
from tests.conftest import Imgtar, snapshot, stored

APP = make_image(("app:1", "registry.example:5000/team/app:new"), seed=1)

READERS: dict[str, list[str]] = {
    "images": ["images"],
    "save": ["save", "-o", "out.tar", "app:1"],
    "verify": ["verify"],
    "inspect": ["inspect", "app:1"],
    "history": ["history", "app:1"],
}
CHANGERS: dict[str, list[str]] = {
    "tag": ["tag", "app:1", "app:9"],
    "rmi": ["rmi", "app:1"],
    "prune": ["prune"],
    "load": ["load", "-i", "in.tar"],
}
COMMANDS = {**READERS, **CHANGERS}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
some_commands = pytest.mark.parametrize("command", [COMMANDS[name] for name in ("images", "load", "prune")])


@pytest.fixture
def filled(imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imgtar:
    imgtar.load(oci_archive([APP])).ok()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.tar").write_bytes(oci_archive([make_image("more:1", seed=2)]))
    return imgtar


def test_a_store_is_an_oci_layout_as_it_lies(filled: Imgtar) -> None:
    assert json.loads((filled.store / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((filled.store / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    marks = [entry["annotations"] for entry in index["manifests"]]
    assert {mark["org.opencontainers.image.ref.name"] for mark in marks} == set(APP.names)
    assert {entry["digest"] for entry in index["manifests"]} == {APP.digest}
    for digest, raw in APP.document.blobs().items():
        assert (filled.store / "blobs" / digest.replace(":", "/")).read_bytes() == raw
    assert filled("inspect", filled.store, "--json").ok().json()["archive"]["format"] == "oci-dir"


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_reading_a_store_writes_nothing_that_others_see(command: list[str], filled: Imgtar) -> None:
    before = stored(filled.store)
    filled(*command).ok()
    assert stored(filled.store) == before


@pytest.mark.parametrize("command", [*READERS.values(), *list(CHANGERS.values())[:-1]])
def test_reading_where_there_is_no_store_makes_none(command: list[str], imgtar: Imgtar, tmp_path: Path) -> None:
    done = imgtar(*command, store=tmp_path / "nowhere")
    assert done.code == (0 if command == ["images"] else 3)
    assert not (tmp_path / "nowhere").exists()


@some_commands
@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"schemaVersion":1}', b'{"schemaVersion":2,"manifests":[{}]}', b"\xff\xfe"],
)
def test_a_damaged_index_is_said_and_never_overwritten(command: list[str], damage: bytes, filled: Imgtar) -> None:
    (filled.store / "index.json").write_bytes(damage)
    before = stored(filled.store)
    done = filled(*command)
    assert done.code == 7, done.errors
    assert "index.json" in done.errors
    assert "hint:" in done.errors
    assert stored(filled.store) == before


@every_command
def test_a_missing_index_is_said_and_never_made_anew(command: list[str], filled: Imgtar) -> None:
    (filled.store / "index.json").unlink()
    done = filled(*command)
    assert done.code == 7, done.errors
    assert "index.json is missing" in done.errors
    assert not (filled.store / "index.json").exists()


FURTHER = [
    "images -a",
    "load --dry-run -i in.tar",
    "load --partial -i in.tar",
    "prune --dry-run",
    "prune --untagged",
    "save --dry-run --base in.tar app:1",
    "save -o out.tar --base app:1 app:1",
    "save -o out.tar --layers gzip app:1",
    "verify --fast",
    "verify --against store in.tar",
    "inspect --raw config app:1",
    "deps",
    "deps app:1",
    "inventory",
    "inventory -o out",
    "inventory --of app:1",
]


@pytest.mark.parametrize("index", ["as here", "none"])
@pytest.mark.parametrize("command", [*map(" ".join, COMMANDS.values()), *FURTHER])
def test_a_store_of_a_newer_version_is_left_alone(command: str, index: str, filled: Imgtar) -> None:
    """It may keep its index elsewhere: without ``index.json`` it is no empty place for a new store either."""
    (filled.store / "imgtar" / "version").write_text("2\n")
    if index == "none":
        (filled.store / "index.json").unlink()
        (filled.store / "oci-layout").unlink()
    before = snapshot(filled.store)
    done = filled(*command.split())
    assert done.code == 7
    assert "E_VERSION" in done.errors
    assert "use the newer imgtar" in done.errors
    assert snapshot(filled.store) == before
    assert not Path("out.tar").exists()


@pytest.mark.parametrize(
    "command", ["save -o out.tar --base {} app:1", "verify --against {} in.tar", "inventory --of {}"]
)
def test_another_store_of_a_newer_version_is_not_asked(
    command: str, filled: Imgtar, imgtar: Imgtar, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    imgtar.load(oci_archive([APP]), store=other).ok()
    (other / "imgtar" / "version").write_text("99\n")
    before = snapshot(other)
    done = filled(*command.format(other).split())
    assert done.code == 7
    assert "E_VERSION" in done.errors
    assert str(other) in done.errors
    assert snapshot(other) == before


@pytest.mark.parametrize("command", ["load -i in.tar", "tag app:1 app:9", "rmi app:1", "prune --untagged"])
def test_a_layout_of_another_tool_is_read_as_it_is_and_becomes_a_store_when_it_is_changed(
    command: str, filled: Imgtar, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    oci_layout([APP, make_image((), seed=3)]).directory(other)
    marker = other / "imgtar" / "version"
    for words in (["images"], ["verify"], ["inspect", "app:1"], ["save", "-o", "out.tar", "app:1"]):
        filled(*words, store=other).ok()
    assert not marker.exists()
    filled(*command.split(), store=other).ok()
    assert marker.read_text() == "1\n"


@some_commands
@pytest.mark.parametrize("text", [b"", b"one", b"1.5", b"-1", b"\xff"])
def test_a_version_that_is_no_number_is_damage(command: list[str], text: bytes, filled: Imgtar) -> None:
    (filled.store / "imgtar" / "version").write_bytes(text)
    done = filled(*command)
    assert done.code == 7
    assert "Traceback" not in done.errors


@some_commands
@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"imageLayoutVersion":"2.0.0"}'])
def test_a_missing_or_strange_oci_layout_file_is_damage(
    command: list[str], content: bytes | None, filled: Imgtar
) -> None:
    if content is None:
        (filled.store / "oci-layout").unlink()
    else:
        (filled.store / "oci-layout").write_bytes(content)
    assert filled(*command).code == 7


@every_command
def test_an_index_that_is_a_link_is_not_followed(command: list[str], filled: Imgtar, tmp_path: Path) -> None:
    (filled.store / "index.json").rename(tmp_path / "elsewhere.json")
    (filled.store / "index.json").symlink_to(tmp_path / "elsewhere.json")
    before = (tmp_path / "elsewhere.json").read_bytes()
    assert filled(*command).code == 7
    assert (tmp_path / "elsewhere.json").read_bytes() == before
    assert (filled.store / "index.json").is_symlink()


def test_an_oci_layout_that_another_tool_made_serves_as_a_store(imgtar: Imgtar) -> None:
    oci_layout([APP]).directory(imgtar.store)
    assert imgtar.names() == dict.fromkeys(APP.names, APP.image_id)
    imgtar("verify").ok()
    imgtar.load(docker_archive([make_image("more:1", seed=2)])).ok()
    assert set(imgtar.names()) == {*APP.names, "more:1"}
    imgtar("rmi", "app:1").ok()
    imgtar("verify").ok()


def test_entries_that_another_tool_wrote_are_kept_to_the_letter(imgtar: Imgtar) -> None:
    files = oci_layout([APP])

    def add(index: Any) -> None:
        index["manifests"][0]["annotations"]["com.example.mine"] = "keep me"
        index["manifests"][0]["platform"] = {"os": "linux", "architecture": "amd64", "os.features": ["x"]}

    files.edited("index.json", add).directory(imgtar.store)
    imgtar.load(docker_archive([make_image("more:1", seed=2)])).ok()
    index = json.loads((imgtar.store / "index.json").read_bytes())
    (mine,) = [entry for entry in index["manifests"] if "com.example.mine" in entry.get("annotations", {})]
    assert mine["annotations"]["com.example.mine"] == "keep me"
    assert mine["platform"]["os.features"] == ["x"]


@pytest.mark.parametrize("spelling", ["Manifests", "manife\u017fts", "MANIFESTS"])
def test_h264_a_list_that_another_tool_spells_otherwise_is_not_written_beside_ours(
    filled: Imgtar, spelling: str
) -> None:
    index = filled.store / "index.json"
    value = json.loads(index.read_bytes())
    value[spelling] = value.pop("manifests")
    value["theirs"] = {"a": 1}
    index.write_text(json.dumps(value))
    filled("tag", "app:1", "other:1").ok()
    after = json.loads(index.read_bytes())
    assert after.keys() == {"schemaVersion", "mediaType", "manifests", "theirs"}
    filled("inspect", "other:1").ok()
    filled("verify").ok()


def test_files_that_are_no_blobs_are_passed_over_and_left(filled: Imgtar) -> None:
    strange = [filled.store / "blobs/sha256/README", filled.store / "blobs/other/x", filled.store / "notes.txt"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    filled("verify").ok()
    filled("prune", "--untagged").ok()
    assert all(path.exists() for path in strange)


def test_the_place_of_a_store_does_not_move_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("here")
    monkeypatch.chdir("/")
    with store.begin():
        pass
    assert (tmp_path / "here" / "oci-layout").exists()
    assert not Path("/here").exists()


def test_a_store_path_that_is_a_file_is_no_store(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = imgtar.load(docker_archive([APP]), store=tmp_path / "file")
    assert (done.code, "is a file" in done.errors) == (7, True)
    assert (tmp_path / "file").read_text() == "x"


def test_only_a_whole_digest_becomes_a_path(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    good = Digest.of(b"x")
    assert layout.blob_path(good) == str(tmp_path / "blobs" / "sha256" / good.encoded)
    from imgtar.errors import Refused

    for bad in (Digest("sha256", "../../etc/passwd"), Digest("..", "a" * 64), Digest("sha256", "A" * 64)):
        with pytest.raises(Refused):
            layout.blob_path(bad)


def test_writing_the_index_is_all_or_nothing(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (filled.store / "index.json").read_bytes()

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    done = filled("tag", "app:1", "app:2")
    assert done.code == 6
    assert "E_SPACE" in done.errors
    assert (filled.store / "index.json").read_bytes() == before
    assert not [name for name in os.listdir(filled.store) if name.endswith(".tmp")]


def test_the_errors_of_a_store_are_of_the_tree(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store(str(tmp_path / "nowhere")).inventory()
    (tmp_path / "index.json").write_bytes(b"{}")
    with pytest.raises(StoreTrouble):
        Store(str(tmp_path)).inventory()


def test_the_index_is_parsed_once_as_long_as_its_bytes_are_the_same(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    import imgtar.store.layout as module

    parsed: list[bytes] = []
    real = module.read_written
    monkeypatch.setattr(module, "read_written", lambda raw: parsed.append(raw) or real(raw))  # type: ignore[func-returns-value]
    layout = Layout(str(filled.store))
    first = layout.read_index()
    first_again = layout.read_index()
    assert first == first_again
    assert len(parsed) == 1
    first_again.clear()
    assert layout.read_index() == first
    filled("tag", "app:1", "app:2").ok()
    parsed.clear()
    names = {entry.name.familiar for entry in layout.read_index() if entry.name is not None}
    assert {"app:1", "app:2"} <= names
    assert len(parsed) == 1
    (filled.store / "index.json").write_bytes(b"{")
    with pytest.raises(StoreTrouble):
        layout.read_index()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_an_index_that_may_not_be_read_is_no_damage(
    number: int, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    imgtar.load(oci_archive([make_image("app:1", seed=1)])).ok()
    real = os.open

    def refusing(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith("/index.json"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    done = imgtar("images")
    assert (done.code, "repair" in done.errors) == (6, False), done.errors
    assert "index.json" in done.errors
