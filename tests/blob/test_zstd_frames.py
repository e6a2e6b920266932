"""The walker that knows where zstd frames end."""

from __future__ import annotations

import struct
import time

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from imgtar.blob.zstd_frames import FRAME_MAGIC, FrameWalker, is_frame_start
from imgtar.errors import Refused

EMPTY_FRAME = FRAME_MAGIC + b"\x00\x58\x01\x00\x00"


def skippable(data: bytes, claim: int | None = None, number: int = 0) -> bytes:
    return bytes((0x50 + number,)) + b"\x2a\x4d\x18" + struct.pack("<I", len(data) if claim is None else claim) + data


def frame(data: bytes, *, level: int = 3, checksum: bool = True, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=size).compress(data)


def walker(max_window: int = 1 << 27, max_padding: int = 1 << 20) -> FrameWalker:
    return FrameWalker(max_window=max_window, max_padding=max_padding, where="here")


def walked(data: bytes, step: int = 0) -> FrameWalker:
    walk = walker()
    step = step or max(1, len(data))
    for start in range(0, len(data), step):
        walk.feed(data[start : start + step])
    return walk


SAMPLES = {
    "empty": EMPTY_FRAME,
    "text": frame(b"hello world " * 50),
    "no checksum": frame(b"hello world " * 50, checksum=False),
    "unknown size": frame(b"x" * 300, size=False),
    "size in two bytes": frame(bytes(range(256)) * 3),
    "several blocks": frame(bytes(400_000), size=False),
    "run": FRAME_MAGIC + b"\x00\x58" + struct.pack("<I", 1 | 1 << 1 | 9 << 3)[:3] + b"a",
    "skippable": skippable(b"note") + frame(b"abc"),
    "two": frame(b"abc") + skippable(b"") + frame(b"def", checksum=False) + skippable(b"end", number=15),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_whole_frames_end_at_a_boundary_however_they_are_cut(name: str, step: int) -> None:
    walk = walked(SAMPLES[name], step)
    assert walk.at_boundary
    assert walk.position == len(SAMPLES[name])
    walk.finish()


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("step", [0, 1])
def test_a_stream_cut_anywhere_but_between_frames_is_refused(name: str, step: int) -> None:
    data = SAMPLES[name]
    starts = {at for at in range(1, len(data)) if is_frame_start(data[at : at + 4])}
    cuts = [at for at in range(len(data)) if at not in starts]
    assert len(cuts) >= len(data) - 3
    for cut in cuts:
        walk = walked(data[:cut], step)
        assert not walk.at_boundary, cut
        with pytest.raises(Refused) as caught:
            walk.finish()
        assert caught.value.code == "E_COMPRESS"


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 64), st.booleans(), st.booleans())
def test_any_frames_of_the_real_library_are_counted(
    contents: list[bytes], step: int, checksum: bool, size: bool
) -> None:
    walk = walked(b"".join(frame(data, checksum=checksum, size=size) for data in contents), step)
    assert walk.at_boundary
    assert walk.frames == len(contents)


@pytest.mark.parametrize("step", [0, 1, 5])
def test_nul_bytes_after_the_last_frame_are_padding_and_not_for_the_decoder(step: int) -> None:
    data = EMPTY_FRAME + bytes(100)
    walk = walker()
    step = step or len(data)
    used = sum(walk.feed(data[start : start + step]) for start in range(0, len(data), step))
    assert used == len(EMPTY_FRAME)
    assert walk.at_boundary


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("tail", [b"GARB", b"G", b"\0\0G", b"\0" + EMPTY_FRAME, b"\x28\xb5\x2f", b"\x1f\x8b\x08\0"])
def test_anything_else_after_the_last_frame_is_refused(tail: bytes, step: int) -> None:
    with pytest.raises(Refused) as caught:
        walked(EMPTY_FRAME + tail, step).finish()
    assert caught.value.code == "E_COMPRESS"


def test_padding_has_a_limit() -> None:
    walk = walker(max_padding=10)
    assert walk.feed(EMPTY_FRAME + bytes(10)) == len(EMPTY_FRAME)
    with pytest.raises(Refused) as caught:
        walk.feed(b"\0")
    assert caught.value.code == "E_LIMIT"
    assert caught.value.details["limit"] == "trailing_zeros"


def test_nul_bytes_alone_and_nothing_at_all_are_no_stream() -> None:
    with pytest.raises(Refused, match="not a zstd stream"):
        walked(bytes(10))
    with pytest.raises(Refused, match="not a zstd stream"):
        walked(b"G")
    with pytest.raises(Refused, match="empty"):
        walked(b"").finish()


@pytest.mark.parametrize("log", [28, 31, 41])
def test_a_window_over_the_limit_is_refused_from_the_header_alone(log: int) -> None:
    with pytest.raises(Refused, match="window") as caught:
        walked(FRAME_MAGIC + bytes((0x00, (log - 10) << 3)))
    assert caught.value.code == "E_COMPRESS"
    assert caught.value.details["found"] == 1 << log
    assert caught.value.where == "here"


def test_a_window_of_exactly_the_limit_is_accepted_and_one_eighth_more_is_not() -> None:
    assert walked(FRAME_MAGIC + bytes((0x00, (27 - 10) << 3)) + b"\x01\0\0").at_boundary
    with pytest.raises(Refused, match="window"):
        walked(FRAME_MAGIC + bytes((0x00, (27 - 10) << 3 | 1)) + b"\x01\0\0")


def test_the_content_size_is_the_window_of_a_single_segment() -> None:
    with pytest.raises(Refused, match="window"):
        walked(FRAME_MAGIC + b"\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\0\0")
    limited = FrameWalker(max_window=1000, max_padding=0)
    assert limited.feed(FRAME_MAGIC + b"\x60" + struct.pack("<H", 744)) == 7
    with pytest.raises(Refused, match="window"):
        FrameWalker(max_window=1000, max_padding=0).feed(FRAME_MAGIC + b"\x60" + struct.pack("<H", 745))


@pytest.mark.parametrize(("flag", "size"), [(1, 1), (2, 2), (3, 4)])
def test_a_dictionary_id_is_refused_and_a_zero_in_its_field_is_not(flag: int, size: int) -> None:
    head = FRAME_MAGIC + bytes((flag, 0x58))
    assert walked(head + bytes(size) + b"\x01\0\0").at_boundary
    with pytest.raises(Refused, match="dictionary"):
        walked(head + bytes(size - 1) + b"\x07\x01\0\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (FRAME_MAGIC + b"\x08\x58\x01\0\0", "reserved bit"),
        (FRAME_MAGIC + b"\x00\x58\x07\0\0", "reserved type"),
        (FRAME_MAGIC + b"\x00\x58" + struct.pack("<I", 1 | ((1 << 17) + 1) << 3)[:3], "block of 131073 bytes"),
        (b"\x22\xb5\x2f\xfd\x00\x58\x01\0\0", "not a zstd stream"),
    ],
)
def test_what_the_format_forbids_is_refused_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        walked(data)
    assert "at byte" in caught.value.message


def test_the_place_of_damage_is_the_same_however_the_stream_is_cut() -> None:
    data = EMPTY_FRAME * 3 + b"GARB"
    messages = set()
    for step in range(1, len(data) + 1):
        with pytest.raises(Refused) as caught:
            walked(data, step)
        messages.add(caught.value.message)
    assert messages == {"bytes that are no zstd frame follow the zstd stream (at byte 27)"}


def test_a_skippable_frame_may_not_claim_more_than_there_is() -> None:
    walk = walked(EMPTY_FRAME + skippable(b"only this", claim=0xFFFFFFFF))
    assert not walk.at_boundary
    with pytest.raises(Refused, match="ends early"):
        walk.finish()


def test_ten_million_empty_blocks_do_not_hang() -> None:
    data = FRAME_MAGIC + b"\x00\x58" + bytes(3 * 10_000_000) + b"\x01\0\0"
    began = time.monotonic()
    assert walked(data, 1 << 17).at_boundary
    assert time.monotonic() - began < 3


def test_a_hundred_thousand_frames_are_walked_in_time() -> None:
    began = time.monotonic()
    assert walked(EMPTY_FRAME * 100_000, 1 << 17).frames == 100_000
    assert time.monotonic() - began < 3
