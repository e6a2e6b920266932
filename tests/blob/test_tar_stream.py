"""Tars from files and pipes of every kind: in pieces, shrinking, failing."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import FileStream, PipeStream
from imgtar.errors import LocalTrouble, Refused
from tests.blob.archives import GOOD, as_file, drain, walk
from tests.builders.rawtar import END, Dribble, entry


def test_h84_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    data = entry(b"a", b"x" * 4096) + END
    for read in (True, False):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            reader = TarReader(FileStream(file.fileno(), len(data)))
            next(reader)
            file.truncate(2000)
            reader.readinto(memoryview(bytearray(1000)))
            with pytest.raises(Refused, match="archive ends") as caught:
                drain(reader, read=read)
            assert caught.value.code == "E_TRUNC"


def test_h88_a_file_that_cannot_be_read_is_not_a_bad_archive() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    try:
        with pytest.raises(LocalTrouble) as caught:  # reading a pipe at an offset fails
            next(TarReader(FileStream(read_end, 4096)))
        assert caught.value.exit_code == 6
    finally:
        os.close(read_end)


class Failing(Dribble):
    """A pipe that breaks at its end."""

    def readinto(self, buffer: memoryview, /) -> int:
        if count := super().readinto(buffer):
            return count
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("read", [True, False])
def test_h88_a_medium_that_fails_at_any_block_is_not_a_bad_archive(read: bool) -> None:
    for length in range(0, len(GOOD) + 1, 512):
        reader = TarReader(PipeStream(Failing(GOOD[:length])))
        with pytest.raises(LocalTrouble) as caught:
            drain(reader, read=read)
        assert caught.value.code == "E_IO"
        with pytest.raises(LocalTrouble):
            next(reader)
        assert not reader.ended


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=40, deadline=None)
def test_h210_chunk_sizes_make_no_difference(one: int, other: int) -> None:
    first = walk(PipeStream(Dribble(GOOD + bytes(9000), one)), read=True)
    assert first == walk(PipeStream(Dribble(GOOD + bytes(9000), other)), read=True)
    with as_file(GOOD + bytes(9000)) as stream:
        assert walk(stream, read=True) == first
