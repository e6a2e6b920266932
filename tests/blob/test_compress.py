"""Writing compressed streams the same way every time."""

from __future__ import annotations

import gzip
import threading
import time
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from imgtar.blob.compress import compressing
from imgtar.blob.compression import Compression
from imgtar.blob.zstd_frames import FrameWalker
from imgtar.errors import UsageError
from tests.blob.streams import BZIP2, GZIP, NOISE, NONE, TEXT, XZ, ZSTD, read


def written(kind: Compression, level: int | None, *pieces: bytes, jobs: int = 1) -> bytes:
    out = bytearray()
    compressor = compressing(kind, level, out.extend, jobs=jobs)
    for piece in pieces:
        compressor.write(piece)
    compressor.finish()
    return bytes(out)


@given(
    st.sampled_from([(NONE, None), (GZIP, None), (GZIP, 1), (GZIP, 9), (ZSTD, None), (ZSTD, 1)]),
    st.lists(st.binary(max_size=1000), max_size=6),
)
def test_what_is_written_reads_back_and_does_not_depend_on_the_pieces(
    form: tuple[Compression, int | None], pieces: list[bytes]
) -> None:
    kind, level = form
    data = b"".join(pieces)
    result = written(kind, level, *pieces)
    assert result == written(kind, level, data)
    assert read(result, kind) == data


def test_gzip_names_no_time_no_file_and_no_system() -> None:
    data = written(GZIP, None, TEXT)
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert gzip.decompress(data) == TEXT


def test_gzip_blocks_refer_to_what_stands_before_them() -> None:
    """Cut into blocks that know nothing of each other, far more would be written."""
    line = b" ".join(str(number * number).encode() for number in range(3000))
    text = line * (5 * (1 << 20) // len(line))
    whole = len(zlib.compress(text, 6))
    cut = sum(len(zlib.compress(text[start : start + (1 << 20)], 6)) for start in range(0, len(text), 1 << 20))
    assert len(written(GZIP, None, text)) < whole + (cut - whole) / 4


@pytest.mark.parametrize("size", [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_the_number_of_threads_does_not_change_what_gzip_writes(size: int) -> None:
    data = (NOISE[:400_000] + TEXT * 50_000)[:size]
    one = written(GZIP, None, data)
    assert gzip.decompress(one) == data
    for jobs in (2, 3, 8):
        pieces = [data[start : start + 777_777] for start in range(0, len(data), 777_777)]
        assert written(GZIP, None, *pieces, jobs=jobs) == one


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_error_of_the_writer_ends_the_threads_that_compress(jobs: int) -> None:
    taken = bytearray()

    def full(data: bytes | memoryview) -> None:
        taken.extend(data)
        if len(taken) > 2_000_000:
            raise OSError(28, "No space left on device")

    def packing() -> int:
        return sum(thread.name == "imgtar-pack" for thread in threading.enumerate())

    compressor = compressing(GZIP, None, full, jobs=jobs)
    with pytest.raises(OSError, match="No space"):
        compressor.write(NOISE * 9)
    compressor.abandon()
    deadline = time.monotonic() + 30
    while packing() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not packing()


@pytest.mark.parametrize("size", [0, 1, 100_000, 8 << 20, 16 << 20, (16 << 20) + 1])
def test_the_number_of_threads_does_not_change_what_zstd_writes(size: int) -> None:
    data = (NOISE * 6)[:size] if size % 2 == 0 else (bytes(700_000) + NOISE[:300_000]) * 17
    one = written(ZSTD, None, data)
    for jobs in (1, 2, 3):
        for step in (1 << 20, 333_333, len(data) or 1):
            pieces = [data[start : start + step] for start in range(0, len(data), step)]
            assert written(ZSTD, None, *pieces, jobs=jobs) == one
    assert read(one, ZSTD) == data


def test_zstd_has_a_checksum_and_every_level_a_window_that_all_decoders_take() -> None:
    for level in (1, 3, 19, 22):
        data = written(ZSTD, level, TEXT)
        assert zstandard.get_frame_parameters(data).has_checksum
        walker = FrameWalker(max_window=8 << 20, max_padding=0)
        assert walker.feed(data) == len(data)
        assert walker.at_boundary
        assert read(data, ZSTD) == TEXT


def test_levels_make_a_difference() -> None:
    text = b" ".join(str(number * number).encode() for number in range(20_000))
    assert len(written(GZIP, 9, text)) < len(written(GZIP, 1, text))
    assert len(written(ZSTD, 19, text)) < len(written(ZSTD, 1, text))
    assert written(GZIP, None, text) == written(GZIP, 6, text)
    assert written(ZSTD, None, text) == written(ZSTD, 3, text)


def test_a_finished_stream_takes_no_more() -> None:
    for kind in (NONE, GZIP, ZSTD):
        out = bytearray()
        compressor = compressing(kind, None, out.extend)
        compressor.write(bytearray(TEXT))
        compressor.write(memoryview(TEXT))
        compressor.finish()
        size = len(out)
        compressor.finish()
        with pytest.raises(ValueError, match="after finish"):
            compressor.write(b"x")
        assert len(out) == size
        assert read(bytes(out), kind) == TEXT * 2


def test_an_error_of_the_writer_passes_unchanged() -> None:
    error = OSError(28, "No space left on device")

    def full(data: object) -> None:
        raise error

    for kind in (NONE, GZIP, ZSTD):
        compressor = compressing(kind, None, full)
        with pytest.raises(OSError, match="No space") as caught:  # noqa: PT012 - threads may hold the output back
            compressor.write(NOISE)
            compressor.finish()
        assert caught.value is error


@pytest.mark.parametrize("kind", [BZIP2, XZ])
def test_bzip2_and_xz_are_not_written(kind: Compression) -> None:
    with pytest.raises(UsageError, match="not written"):
        compressing(kind, None, bytearray().extend)


@pytest.mark.parametrize(
    ("kind", "level", "jobs"), [(GZIP, 0, 1), (GZIP, 10, 1), (ZSTD, 0, 1), (ZSTD, 23, 1), (NONE, 1, 1), (ZSTD, 3, 0)]
)
def test_a_level_or_number_of_threads_that_does_not_exist_is_refused(kind: Compression, level: int, jobs: int) -> None:
    with pytest.raises(UsageError) as caught:
        compressing(kind, level, bytearray().extend, jobs=jobs)
    assert caught.value.hint
