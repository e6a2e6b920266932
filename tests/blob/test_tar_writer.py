"""Archives we write: the same bytes every time, read by everyone."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.blob.tar_header import EntryKind
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import PipeStream
from imgtar.blob.tar_writer import ALIGNMENT, TarWriter
from tests.builders.rawtar import Dribble

PARTS = st.text(st.sampled_from("abcdefxyz0189_-é漢"), min_size=1, max_size=90)
PATHS = st.lists(PARTS, min_size=1, max_size=6).map(lambda parts: "/".join(["p" + part for part in parts]))
TREES = st.dictionaries(PATHS.map(lambda path: path + ".f"), st.binary(max_size=1500), max_size=6)


def written(tree: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    for name, data in tree.items():
        if name.endswith("/"):
            writer.directory(name)
        else:
            writer.file(name, data)
    writer.finish()
    assert writer.offset == len(out.getvalue())
    return out.getvalue()


LONG = {"a" * 99: b"1", "a" * 100: b"2", "a" * 101: b"3", "p" * 155 + "/" + "n" * 100: b"4", "p" * 156 + "/n": b"5"}
DIRECTORIES = {"d/": b"", "p" * 155 + "/" + "m" * 99 + "/": b"", "p" * 155 + "/" + "m" * 100 + "/": b"", "é/": b""}


def exact_size(data: bytes) -> int:
    """What the archive must measure by another's reading of it: the last member, padded, and exactly two zero blocks."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        ends = [info.offset_data + info.size + -info.size % 512 for info in archive]
    return max(ends, default=0) + 1024


@given(TREES)
@settings(max_examples=80, deadline=None)
def test_what_we_write_reads_back_with_our_reader_and_the_standard_library(tree: dict[str, bytes]) -> None:
    data = written(tree)
    assert data == written(tree)
    assert len(data) == exact_size(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
    assert theirs == tree
    reader = TarReader(PipeStream(Dribble(data)))
    ours = {}
    for item in reader:
        buffer = bytearray(2000)
        ours[item.name] = bytes(buffer[: reader.readinto(memoryview(buffer))])
        assert item.problem is None
    assert ours == tree
    assert reader.ended


def test_names_at_the_edges_of_ustar_read_back() -> None:
    tree = {**LONG, **DIRECTORIES}
    data = written(tree)
    assert len(data) == exact_size(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert [info.name + "/" * info.isdir() for info in members] == list(tree)
    found = list(TarReader(PipeStream(Dribble(data))))
    assert [item.name + "/" * (item.kind is EntryKind.DIRECTORY) for item in found] == list(tree)
    assert sum(bool(info.pax_headers) for info in members) == 4


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program here")
def test_gnu_tar_extracts_what_we_write(tmp_path: Path) -> None:
    tree = {"d/": b"", "d/é": b"1", "blobs/sha256/" + "ab" * 32: b"x" * 5000, "d/" + "n" * 120 + "/" + "m" * 120: b"4"}
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path)], input=written(tree), check=True, capture_output=True)
    for name, data in tree.items():
        assert name.endswith("/") or (tmp_path / name).read_bytes() == data


def test_headers_say_nothing_about_the_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(written({"d/": b"", "f": b"1"}))) as archive:
        for info, mode in zip(archive, (0o755, 0o644), strict=True):
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime, info.mode) == (0, 0, "", "", 0, mode)


def test_the_bytes_of_an_archive_never_change() -> None:
    data = written({"blobs/": b"", "blobs/a": b"1234", "é" * 60: b"5"})
    assert len(data) == 512 + 1024 + 3 * 512 + 512 + 1024
    assert hashlib.sha256(data).hexdigest() == ("9c4f5c16df1acf6a5c75de4063a8b4b44e102746c44a2e5124712bffc6bdb9cb")


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, 20 << 30])
def test_h207_sizes_from_8_gib_on_get_a_pax_record(size: int) -> None:
    out = io.BytesIO()
    TarWriter(out.write).start_file("big", size)
    head = out.getvalue()
    assert (len(head) == 512) == (size < 8 << 30)
    with tarfile.open(fileobj=io.BytesIO(head + bytes(1024))) as archive:
        info = archive.next()
    assert info is not None
    assert info.size == size
    item = next(TarReader(PipeStream(Dribble(head))))
    assert (item.name, item.size) == ("big", size)


@given(st.lists(st.tuples(st.integers(0, 20_000), st.booleans()), min_size=1, max_size=8), st.integers(0, 120))
def test_data_begins_at_a_block_where_that_is_asked_for(sizes: list[tuple[int, bool]], length: int) -> None:
    """Also behind names that need a pax header of their own; and readers see nothing of it."""
    out = io.BytesIO()
    writer = TarWriter(out.write)
    names = []
    for number, (size, aligned) in enumerate(sizes):
        names.append(f"{number}/" + "é" * length if length else str(number))
        writer.start_file(names[-1], size, aligned=aligned)
        assert not aligned or writer.offset % ALIGNMENT == 0
        if size:
            writer.write(bytes([number]) * size)
        writer.end_file()
    writer.finish()
    data = out.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    assert found == [(name, bytes([n]) * size) for n, (name, (size, _)) in enumerate(zip(names, sizes, strict=True))]
    reader = TarReader(PipeStream(Dribble(data)))
    assert [(item.name, item.size) for item in reader] == [(name, len(body)) for name, body in found]


def test_alignment_costs_little_and_nothing_where_it_is_there_already() -> None:
    for before in range(0, 16 * 512, 512):
        out = io.BytesIO()
        writer = TarWriter(out.write)
        writer.file("a", bytes(before))
        start = writer.offset
        writer.start_file("b", 1, aligned=True)
        assert writer.offset - start <= 512 + 4096 + 512
        assert (writer.offset - start == 512) == ((start + 512) % ALIGNMENT == 0)


def test_a_file_in_pieces_is_padded() -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    writer.start_file("f", 5)
    writer.write(b"ab")
    writer.write(memoryview(b"cde"))
    writer.end_file()
    assert writer.offset == 1024
    assert out.getvalue()[512:] == b"abcde".ljust(512, b"\0")


def test_misuse_is_a_value_error() -> None:
    writer = TarWriter(io.BytesIO().write)
    misuses: list[Callable[[], object]] = [
        lambda: writer.write(b"x"),
        writer.end_file,
        lambda: writer.start_file("f", -1),
    ]
    for misuse in misuses:
        with pytest.raises(ValueError, match=r"open|negative"):
            misuse()
    writer.start_file("f", 3)
    for early in (writer.finish, writer.end_file, lambda: writer.directory("d"), lambda: writer.write(b"four")):
        with pytest.raises(ValueError, match=r"open|missing|too many"):
            early()
    writer.write(b"xyz")
    with pytest.raises(ValueError, match="too many"):
        writer.write(b"x")
    writer.end_file()
    for name in ("f", "./g", "/g", "g/", "a//b", "../g", "", "a\nb"):
        with pytest.raises(ValueError, match=r"already|clean|absolute|directory|empty|part|control"):
            writer.start_file(name, 0)
    writer.directory("d/")
    with pytest.raises(ValueError, match="already"):
        writer.directory("d")
    writer.finish()
    for late in (writer.finish, lambda: writer.file("h", b"")):
        with pytest.raises(ValueError, match="finished"):
            late()
