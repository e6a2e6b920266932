"""H277: an entry of a layout directory, or an archive, that is swapped for something else while it is read."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from imgtar.transport import location
from imgtar.transport.archive import DirectorySource
from tests.builders.images import blob_name, make_image, oci_archive, oci_files
from tests.conftest import Imgtar, stored

IMAGE = make_image("demo:1", layers=2)
LAYER, CONFIG, MANIFEST = (blob_name(digest) for digest in (IMAGE.layers[0].digest, IMAGE.image_id, IMAGE.digest))
COMMANDS = [
    ["load", "-i"],
    ["load", "--dry-run", "-i"],
    ["verify"],
    ["verify", "--fast"],
    ["inspect"],
    ["inventory", "--of"],
]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    # The path may be longer than the address of a socket may be.
    here = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def _link(path: Path) -> None:
    path.symlink_to(_kept(path))


def _kept(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "top").parent / "kept"


def _nothing(_: Path) -> None:
    """It is gone."""


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = [_fifo, _folder, _socket, _link, _nothing, _device]


@contextmanager
def _watched() -> Iterator[None]:
    def hangs(*_: object) -> NoReturn:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _swap(path: Path, make: Callable[[Path], None]) -> None:
    path.rename(_kept(path))
    make(path)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("victim", [LAYER, CONFIG, MANIFEST, "index.json", "oci-layout", "blobs/sha256", "blobs"])
def test_h277_an_entry_swapped_after_the_folder_was_listed_is_a_link_error(
    victim: str, make: Callable[[Path], None], imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DirectorySource._scan
    top = tmp_path / "top"

    def swapping(self: Any, members: Any) -> None:
        real(self, members)
        _swap(top / victim, make)

    monkeypatch.setattr(DirectorySource, "_scan", swapping)
    for command in COMMANDS:
        shutil.rmtree(top, ignore_errors=True)
        kept = tmp_path / "kept"
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
        oci_files([IMAGE]).directory(top)
        with _watched():
            done = imgtar(*command, top)
        unread = victim == "oci-layout" or (victim == LAYER and command not in (["load", "-i"], ["verify"]))
        assert done.code == 5 or (unread and done.code == 0), (command, done.errors)
        assert done.code == 0 or "E_LINK" in done.errors, (command, done.errors)
        assert "dmesg" not in done.errors
        assert imgtar.images() == [] or done.code == 0


@pytest.mark.parametrize("make", KINDS[:5])
@pytest.mark.parametrize("victim", [LAYER, "blobs/sha256"])
def test_h277_an_entry_swapped_while_the_folder_is_listed_is_a_link_error(
    victim: str, make: Callable[[Path], None], imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "top"
    real = os.scandir
    pending: list[str] = []

    def scandir(path: Any = ".") -> Any:
        found = real(path)
        if isinstance(path, int) and pending and os.path.samestat(os.fstat(path), os.stat((top / victim).parent)):
            items = list(found)
            pending.clear()
            _swap(top / victim, make)
            return _Listed(items)
        return found

    monkeypatch.setattr(os, "scandir", scandir)
    for command in COMMANDS:
        shutil.rmtree(top, ignore_errors=True)
        kept = tmp_path / "kept"
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
        oci_files([IMAGE]).directory(top)
        pending.append("once")
        with _watched():
            done = imgtar(*command, top)
        # An empty folder, or nothing, may have been there from the beginning: then the image lacks something.
        lacking = make in (_folder, _nothing) and command[0] in ("inspect", "inventory")
        assert done.code in (4, 5) or (lacking and done.code == 0), (command, done.code, done.errors)
        assert "dmesg" not in done.errors
        assert not pending
    assert imgtar.images() == []


class _Listed:
    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __enter__(self) -> Any:
        return iter(self._items)

    def __exit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("make", [_fifo, _folder, _socket, _nothing])
@pytest.mark.parametrize("command", [["load", "-i"], ["verify"], ["inspect"], ["deps"]], ids=" ".join)
def test_h277_an_archive_swapped_before_it_is_opened_is_told_and_nobody_waits(
    command: list[str], make: Callable[[Path], None], imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "top" / "a.tar"
    archive.parent.mkdir()
    archive.write_bytes(oci_archive([IMAGE]))
    real = location._is_fifo

    def asked(path: str) -> bool:
        answer = real(path)
        _swap(archive, make)
        return answer

    monkeypatch.setattr(location, "_is_fifo", asked)
    with _watched():
        done = imgtar(*command, archive)
    assert done.code in (2, 3, 5), (done.code, done.errors)
    assert "dmesg" not in done.errors


@pytest.mark.parametrize("make", [_fifo, _folder, _socket, _nothing])
@pytest.mark.parametrize("command", [["load", "-i"], ["verify"]], ids=" ".join)
def test_h277_an_archive_of_a_medium_swapped_after_that_was_listed_is_told_and_nobody_waits(
    command: list[str], make: Callable[[Path], None], imgtar: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium = tmp_path / "top"
    medium.mkdir()
    for name in ("a.tar", "b.tar"):
        (medium / name).write_bytes(oci_archive([IMAGE]))
    imgtar.load(oci_archive([make_image("kept:1", seed=9)])).ok()
    before = stored(imgtar.store)
    from imgtar.ops import load, verify

    real = location.medium_paths

    def listed(path: str) -> tuple[list[str], list[str]]:
        found = real(path)
        _swap(medium / "b.tar", make)
        return found

    for module in (load, verify):
        monkeypatch.setattr(module, "medium_paths", listed)
    with _watched():
        done = imgtar(*command, medium)
    assert done.code in (3, 5), (done.code, done.errors)
    assert "dmesg" not in done.errors
    assert stored(imgtar.store) == before


def test_h277_a_fifo_that_somebody_names_is_waited_for(imgtar: Imgtar, tmp_path: Path) -> None:
    import threading

    os.mkfifo(tmp_path / "fifo")
    thread = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(oci_archive([IMAGE])))
    thread.start()
    try:
        with _watched():
            imgtar("load", "-i", tmp_path / "fifo").ok()
    finally:
        thread.join()
    assert set(imgtar.names()) == {"demo:1"}
