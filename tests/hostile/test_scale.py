"""Much of everything: entries, files, bytes, images; and input that comes in crumbs (section K of the catalogue).

The long forms, with real sizes, are in tests/campaigns/test_scale.py.
"""

from __future__ import annotations

import io
import json
import os
import pty
import resource
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import PipeStream
from imgtar.blob.tar_writer import TarWriter
from tests.builders import rawtar
from tests.builders.images import make_image, make_layer, oci_archive, oci_files
from tests.conftest import Imgtar
from tests.hostile.conftest import World
from tests.program import Done, program, words
from tests.scale import many_entries, many_files, sparse_archive

MEMORY = {resource.RLIMIT_AS: 224 << 20}
"""Address space of a run, the interpreter included: far less than what is read here."""

SMALL = oci_archive([make_image("small:1", 2, seed=77)])


@pytest.fixture
def place(quick: Path, tmp_path: Path) -> Path:
    """A folder in memory."""
    folder = quick / f"scale-{tmp_path.name}"
    folder.mkdir()
    return folder


@pytest.fixture
def fifo(place: Path) -> Path:
    path = place / "fifo"
    os.mkfifo(path)
    return path


class _Feed:
    """Writes pieces into a file or descriptor on a thread of its own, until the reader has seen enough."""

    def __init__(self, target: Path | int, pieces: Iterator[bytes]) -> None:
        self.given = 0
        self._thread = threading.Thread(target=self._run, args=(target, pieces), daemon=True)
        self._thread.start()

    def _run(self, target: Path | int, pieces: Iterator[bytes]) -> None:
        fd = os.open(target, os.O_WRONLY) if isinstance(target, Path) else target
        try:
            for piece in pieces:
                self.given += os.write(fd, piece)
        except BrokenPipeError:
            pass
        finally:
            os.close(fd)

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_h204_ten_million_empty_entries_are_refused_at_the_limit_in_little_memory(place: Path, fifo: Path) -> None:
    feed = _Feed(fifo, many_entries(10_000_000))
    done = program(words(place / "store", "load", "-i", fifo), limits=MEMORY)
    feed.join()
    assert (done.code, "error[E_LIMIT]" in done.errors) == (5, True), done.errors
    assert 100_000 * 512 <= feed.given < 120_000 * 512, "it stops at the limit, not at the end"


def test_h205_a_layer_of_many_files_is_verified_as_it_passes(place: Path) -> None:
    layer = make_layer(b"".join(many_files(20_000)) + rawtar.END, "gzip")
    (place / "a.tar").write_bytes(oci_archive([make_image("many:1", [layer])]))
    program(words(place / "store", "load", "-i", place / "a.tar"), limits=MEMORY).ok()


def test_h206_a_layer_larger_than_the_memory_is_loaded_verified_and_saved(place: Path) -> None:
    archive = place / "big.tar"
    digest = sparse_archive(archive, 320 << 20)
    store = place / "store"
    for command in (["load", "-i", archive], ["save", "-o", "/dev/null", "big:1"]):
        program(words(store, *command), limits=MEMORY).ok()
    assert (store / "blobs" / digest.replace(":", "/")).stat().st_size == 320 << 20
    for path in place.rglob("*"):
        if path.is_file():
            path.unlink()  # The memory is not this test's alone.


@pytest.mark.parametrize("how", ["base-256", "pax"])
def test_h207_the_size_of_a_layer_over_8_gib_is_read(how: str, place: Path) -> None:
    size = (9 << 30) + 1
    archive = place / "huge.tar"
    digest = "sha256:" + "ab" * 32
    sparse_archive(archive, size, digest=digest, how=how)
    done = program(words(place / "store", "inspect", "--json", archive), limits=MEMORY).ok()
    assert f'"size": {size}'.encode() in done.out
    # One byte of the end is enough to know that it is not there.
    os.truncate(archive, archive.stat().st_size - 1)
    cut = program(words(place / "store", "inspect", archive), limits=MEMORY)
    assert (cut.code, "E_TRUNC" in cut.errors) == (5, True), cut.errors


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, (9 << 30) + 1, 1 << 40])
def test_h207_the_size_of_a_layer_over_8_gib_is_written_so_that_others_read_it(size: int) -> None:
    written = bytearray()
    tar = TarWriter(written.extend)
    tar.start_file("blobs/sha256/" + "ab" * 32, size)
    raw = bytes(written) + rawtar.END

    (entry,) = tuple(TarReader(_Headers(raw, size), where="x"))
    assert (entry.size, entry.name) == (size, "blobs/sha256/" + "ab" * 32)
    with tarfile.open(fileobj=io.BytesIO(raw)) as peer:
        first = peer.next()
    assert first is not None
    assert (first.size, first.name) == (size, "blobs/sha256/" + "ab" * 32)


class _Headers:
    """A tar of one entry whose data, ``size`` zeros, is only there to be skipped."""

    def __init__(self, raw: bytes, size: int) -> None:
        self._head, self._tail = raw[: -len(rawtar.END)], raw[-len(rawtar.END) :]
        self._gap = -(-size // 512) * 512
        self.offset = 0

    def readinto(self, buffer: memoryview, /) -> int:
        start = self.offset
        if start < len(self._head):
            piece = self._head[start : start + len(buffer)]
        else:
            start -= len(self._head) + self._gap
            assert start >= 0, "the data is read, not skipped"
            piece = self._tail[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self.offset += len(piece)
        return len(piece)

    def skip(self, count: int, /) -> int:
        left = len(self._head) + self._gap + len(self._tail) - self.offset
        count = min(count, left)
        self.offset += count
        return count


def test_h208_hundreds_of_images_are_listed_loaded_and_pruned_in_time(place: Path, imgtar: Imgtar) -> None:
    imgtar.store = place / "store"
    shared = make_image("x", 1, seed=1).layers
    images = [make_image(f"app:{n}", shared, seed=n) for n in range(300)]
    began = time.process_time()
    imgtar.load(oci_archive(images)).ok()
    imgtar.load(oci_archive([make_image("one:1", 1, seed=1000)])).ok()
    assert len(imgtar.images()) == 301
    imgtar("tag", "app:7", "app:seven").ok()
    imgtar("rmi", "app:8").ok()
    imgtar("prune").ok()
    imgtar("verify").ok()
    assert time.process_time() - began < 30, "more than 10 times what it takes"


# -- layers are not looked into --------------------------------------------------------------------------------------


def test_h209_deep_paths_and_long_links_in_a_layer_are_carried(world: World) -> None:
    deep = b"/".join([b"d"] * 128)
    tar = (
        rawtar.entry(deep)
        + rawtar.pax((b"linkpath", b"t" * (64 << 10)))
        + rawtar.entry(b"link", kind=b"2", link=b"t" * 100)
        + rawtar.END
    )
    image = make_image("deep:1", [make_layer(tar)], seed=1)
    world.accepted(oci_archive([image]), names=["deep:1"], runs=(("load", "file"), ("verify", "pipe")))


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (rawtar.pax((b"path", b"/".join([b"d"] * 129))) + rawtar.entry(b"x"), "E_LIMIT"),
        (rawtar.pax((b"linkpath", b"t" * (64 << 10))) + rawtar.entry(b"x", kind=b"2", link=b"t"), "E_LIMIT"),
    ],
    ids=["deep", "long"],
)
def test_h209_the_same_in_the_archive_itself_is_over_a_limit(block: bytes, code: str, world: World) -> None:
    world.refused(block + oci_archive([make_image("x:1", seed=1)]), code, runs=(("load", "file"), ("load", "pipe")))


# -- how the bytes come ----------------------------------------------------------------------------------------------


def test_h210_an_archive_that_comes_byte_by_byte_is_the_same_archive(place: Path, imgtar: Imgtar) -> None:
    whole = imgtar("verify", "-", "--json", stdin=SMALL).ok().json()["archives"]
    # In packet mode no two writes come with one read.
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    feed = _Feed(writer, (SMALL[at : at + 1] for at in range(len(SMALL))))
    done = program(words(place / "store", "verify", "-", "--json"), stdin=reader).ok()
    os.close(reader)
    feed.join()
    assert json.loads(done.out)["archives"] == whole


def test_h210_the_reader_of_a_tar_takes_one_byte_at_a_time() -> None:
    entries = [(entry.name, entry.size) for entry in TarReader(PipeStream(rawtar.Dribble(SMALL, step=1)), where="x")]
    assert entries == [(entry.name, entry.size) for entry in TarReader(PipeStream(rawtar.Dribble(SMALL)), where="x")]
    assert len(entries) > 5


def test_h211_a_non_blocking_pipe_is_waited_for(place: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def slowly() -> Iterator[bytes]:
        for at in range(0, len(SMALL), 4096):
            time.sleep(0.15)
            yield SMALL[at : at + 4096]

    feed = _Feed(writer, slowly())
    done = program(words(place / "store", "load"), stdin=reader).ok()
    os.close(reader)
    feed.join()
    assert b"Loaded image: small:1" in done.out


def test_h211_a_non_blocking_standard_output_gets_the_whole_archive(place: Path) -> None:
    layer = make_layer(bytes(1 << 20))
    (place / "a.tar").write_bytes(oci_archive([make_image("big:1", [layer], seed=2)]))
    program(words(place / "store", "load", "-i", place / "a.tar")).ok()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = words(place / "store", "save", "big:1")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        time.sleep(0.5)  # Until the pipe is full.
        with open(reader, "rb") as file:
            got = file.read()
        assert process.stderr is not None
        assert process.wait(60) == 0, process.stderr.read()
    assert len(got) > 1 << 20
    assert got.endswith(rawtar.END)


def test_h211_a_socket_and_a_fifo_are_pipes_too(place: Path, fifo: Path, imgtar: Imgtar) -> None:
    ours, theirs = socket.socketpair()
    feed = _Feed(ours.detach(), iter([SMALL]))
    with theirs:
        program(words(place / "one", "load"), stdin=theirs.fileno()).ok()
    feed.join()
    feed = _Feed(fifo, iter([SMALL]))
    imgtar("load", "-i", fifo).ok()
    feed.join()


@pytest.mark.parametrize("command", [["verify", "-"], ["load", "-i", "/dev/stdin"]], ids=" ".join)
def test_h211_an_archive_is_not_awaited_from_a_terminal(command: list[str], place: Path) -> None:
    leader, follower = pty.openpty()
    try:
        done: Done = program(words(place / "store", *command), stdin=follower, seconds=60)
    finally:
        os.close(follower)
        os.close(leader)
    assert (done.code, "refusing to read an archive from a terminal" in done.errors) == (2, True), done.errors
    assert not (place / "store").exists()


def test_the_archives_of_this_suite_are_sound(tmp_path: Path, imgtar: Imgtar) -> None:
    sparse_archive(tmp_path / "a.tar", 5000)
    imgtar("verify", tmp_path / "a.tar").ok()
    sparse_archive(tmp_path / "b.tar", 5000, how="base-256")
    imgtar("verify", tmp_path / "b.tar").ok()
    assert sum(1 for _ in many_files(10)) == 10
    assert b"".join(many_entries(2000))[512:517] == b"e0000"
    assert oci_files([make_image("a:1")]).names
