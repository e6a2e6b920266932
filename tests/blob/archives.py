"""What the tests of whole archives share: reading one in every way that must agree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imgtar.blob.tar_names import Entry
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import FileStream, PipeStream, TarStream
from imgtar.errors import Refused
from imgtar.model.limits import Limits
from tests.builders.rawtar import END, Dribble, entry

GOOD = entry(b"blobs/", kind=b"5") + entry(b"blobs/a", b"x" * 600) + entry(b"c.json", b"{}") + END


@contextmanager
def as_file(data: bytes) -> Iterator[FileStream]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield FileStream(file.fileno(), len(data))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == len(data), "the shared position has moved"


def walk(stream: TarStream, *, read: bool, limits: Limits | None = None) -> list[tuple[Entry, bytes | None]]:
    reader = TarReader(stream, where="a.tar", limits=limits or Limits())
    found: list[tuple[Entry, bytes | None]] = []
    for item in reader:
        assert reader.offset == item.data_offset
        data = None
        if read:
            data = b""
            buffer = memoryview(bytearray(700))
            while count := reader.readinto(buffer):
                data += bytes(buffer[:count])
        found.append((item, data))
    assert reader.ended
    assert list(reader) == []
    return found


def plain(item: Entry) -> str:
    """Return all there is to an entry as text; errors are only equal to themselves."""
    return f"{item} {item.problem} {item.problem and item.problem.code}"


def read_all(data: bytes, limits: Limits | None = None) -> list[tuple[Entry, bytes | None]]:
    """Read an archive in ways that must agree."""
    found = walk(PipeStream(Dribble(data)), read=True, limits=limits)
    skipped = walk(PipeStream(Dribble(data, 333)), read=False, limits=limits)
    assert [plain(item) for item, _ in skipped] == [plain(item) for item, _ in found]
    with as_file(data) as stream:
        again = walk(stream, read=True, limits=limits)
        assert [(plain(item), content) for item, content in again] == [(plain(item), data) for item, data in found]
        assert stream.offset == len(data)
    return found


def entries(data: bytes) -> list[Entry]:
    return [item for item, _ in read_all(data)]


def refused(data: bytes, code: str, limits: Limits | None = None) -> Refused:
    """Assert that file and pipe, reading and skipping, give one and the same refusal, again and again."""
    seen = []
    for read in (True, False):
        for step in (1 << 20, 511):
            seen.append(_failure(PipeStream(Dribble(data, step)), read, limits))
        with as_file(data) as stream:
            seen.append(_failure(stream, read, limits))
    assert {(error.code, error.message, str(error.details)) for error in seen} == {
        (seen[0].code, seen[0].message, str(seen[0].details))
    }
    assert seen[0].code == code, seen[0]
    assert seen[0].where == "a.tar"
    assert str(seen[0]).isprintable()
    return seen[0]


def drain(reader: TarReader, *, read: bool) -> None:
    buffer = memoryview(bytearray(1000))
    for _ in reader:
        while read and reader.readinto(buffer):
            pass


def _failure(stream: TarStream, read: bool, limits: Limits | None) -> Refused:
    reader = TarReader(stream, where="a.tar", limits=limits or Limits())
    with pytest.raises(Refused) as caught:
        drain(reader, read=read)
    with pytest.raises(Refused) as again:
        next(reader)
    assert again.value is caught.value
    assert not reader.ended
    return caught.value


def problem(data: bytes, code: str, at: int = -1) -> Refused:
    found = entries(data)
    fault = found[at].problem
    assert fault is not None
    assert fault.code == code, fault
    assert fault.where == "a.tar"
    assert str(fault).isprintable()
    assert found[at].name.isprintable()
    return fault


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    return entry(name, kind=kind, link=target)
