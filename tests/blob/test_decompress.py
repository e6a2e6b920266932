"""Reading compressed streams with suspicion."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.decompress import decompressing
from imgtar.blob.stream import Readable
from imgtar.blob.zstd_frames import FRAME_MAGIC
from imgtar.errors import LocalTrouble, Refused
from imgtar.frozen import replace
from imgtar.model.limits import DEFAULT_LIMITS
from tests.blob.streams import BZIP2, GZIP, NOISE, NONE, PACKED, TEXT, XZ, ZSTD, Source, packed, read
from tests.builders.deflate import SOUND, UNSOUND, gzip_of, random_stream, with_table


def refusal(data: bytes, kind: Compression, *, step: int = 1 << 30, code: str = "E_COMPRESS", **options: object) -> str:
    """Read until it is refused, check how, and return the message."""
    with pytest.raises(Refused) as caught:
        read(data, kind, step=step, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value.message


def drain(stream: Readable, room: int = 1 << 16) -> int:
    """Read ``stream`` to its end and return how much it held."""
    buffer, total = memoryview(bytearray(room)), 0
    while count := stream.readinto(buffer):
        total += count
    return total


def skippable(data: bytes, claim: int | None = None) -> bytes:
    return b"\x50\x2a\x4d\x18" + struct.pack("<I", len(data) if claim is None else claim) + data


def gzip_with(flags: int, extra: bytes = b"", data: bytes = TEXT) -> bytes:
    """A gzip member with a header made by hand."""
    return b"\x1f\x8b\x08" + bytes((flags,)) + b"\0\0\0\0\0\xff" + extra + packed(GZIP, data)[10:]


# Reading what is whole


@given(
    st.sampled_from(list(Compression)),
    st.lists(st.binary(max_size=2000), max_size=5),
    st.integers(1, 40) | st.integers(41, 5000),
    st.integers(1, 40) | st.sampled_from([512, 1 << 16, 1 << 20]),
)
def test_everything_comes_back_however_it_is_cut(kind: Compression, parts: list[bytes], step: int, room: int) -> None:
    whole = b"".join(parts)
    members = b"".join(packed(kind, part) for part in parts or [b""])
    assert read(members, kind, step=step, room=room) == whole


@pytest.mark.parametrize("kind", list(Compression))
@pytest.mark.parametrize("step", [1 << 30, 70_001])
def test_data_larger_than_every_buffer_comes_back(kind: Compression, step: int) -> None:
    size = 3_000_000 if kind in (GZIP, ZSTD, NONE) else 500_000  # the others are slow
    data = NOISE[:size] + bytes(2_000_000) + NOISE[: size // 3]
    packed_data = packed(kind, data)
    for room in (5_000, 1 << 16, 3 << 20):
        assert read(packed_data, kind, step=step, room=room) == data


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("step", [1, 1 << 30])
def test_members_in_a_row_are_one_stream(kind: Compression, step: int) -> None:
    data = packed(kind, TEXT[:700]) + packed(kind, b"") + packed(kind, TEXT[700:])
    assert read(data, kind, step=step) == TEXT


@pytest.mark.parametrize("kind", PACKED)
def test_twenty_thousand_tiny_members_take_time_by_their_size_only(kind: Compression) -> None:
    count = 1_000 if kind in (BZIP2, XZ) else 20_000
    data = packed(kind, b"ab") * count
    began = time.monotonic()
    assert read(data, kind) == b"ab" * count
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("kind", [GZIP, ZSTD])
def test_only_one_layer_of_compression_is_undone(kind: Compression) -> None:
    inner = packed(GZIP, TEXT)
    assert read(packed(kind, inner), kind) == inner


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("step", [1, 1 << 30])
def test_nul_bytes_after_the_end_are_accepted_and_garbage_is_not(kind: Compression, step: int) -> None:
    data = packed(kind, TEXT)
    assert read(data + bytes(100), kind, step=step) == TEXT
    for tail in (b"GARB", b"G", bytes(4) + b"G", bytes(100) + b"\1" + bytes(100), data[:2]):
        assert "follow" in refusal(data + tail, kind, step=step) or tail == data[:2]


@pytest.mark.parametrize("kind", PACKED)
def test_nul_bytes_after_the_end_have_a_limit(kind: Compression) -> None:
    limits = replace(DEFAULT_LIMITS, trailing_zeros=400)
    data = packed(kind, TEXT)
    assert read(data + bytes(400), kind, limits=limits) == TEXT
    for step in (1, 1 << 30):
        message = refusal(data + bytes(404), kind, step=step, limits=limits, code="E_LIMIT")
        assert "400 NUL bytes" in message


def test_xz_padding_comes_in_fours_and_may_stand_between_streams() -> None:
    data = packed(XZ, TEXT)
    assert read(data + bytes(8) + data + bytes(4), XZ) == TEXT * 2
    for count in (1, 2, 3, 5):
        assert "multiple of 4" in refusal(data + bytes(count), XZ)


@pytest.mark.parametrize("kind", [GZIP, ZSTD, BZIP2])
def test_no_member_may_follow_padding(kind: Compression) -> None:
    data = packed(kind, TEXT)
    assert "follow" in refusal(data + bytes(8) + data, kind)


# Reading what is broken


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("step", [1, 1 << 30])
def test_a_stream_cut_at_any_offset_is_refused(kind: Compression, step: int) -> None:
    data = packed(kind, TEXT[:400])
    assert read(data, kind, step=step) == TEXT[:400]
    for cut in range(len(data)):
        assert f"{kind} stream ends early" in refusal(data[:cut], kind, step=step), cut


@pytest.mark.parametrize("kind", PACKED)
def test_a_second_member_cut_at_any_offset_but_its_start_is_refused(kind: Compression) -> None:
    data = packed(kind, TEXT[:400])
    assert read(data + data, kind) == TEXT[:400] * 2
    for cut in range(1, len(data)):
        assert refusal(data + data[:cut], kind), cut


@pytest.mark.parametrize("kind", PACKED)
def test_the_end_of_a_large_stream_is_proven_too(kind: Compression) -> None:
    data = packed(kind, NOISE[: 1_200_000 if kind in (GZIP, ZSTD) else 400_000])
    for cut in (1, 4, 5, 8, 100_000):
        assert "ends early" in refusal(data[:-cut], kind)


@pytest.mark.parametrize("kind", PACKED)
def test_no_flipped_bit_changes_what_is_read(kind: Compression) -> None:
    data = packed(kind, TEXT[:200])
    refused = 0
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            assert read(bytes(broken), kind) == TEXT[:200], bit
        except Refused as error:
            assert error.code == "E_COMPRESS"  # noqa: PT017
            refused += 1
    assert refused > len(data) * 6


@pytest.mark.parametrize("at", range(-8, 0))
def test_a_wrong_gzip_crc_or_length_is_refused(at: int) -> None:
    data = bytearray(packed(GZIP, TEXT))
    data[at] ^= 1
    for step in (1, 1 << 30):
        assert "gzip stream is damaged" in refusal(bytes(data), GZIP, step=step)


def test_fields_of_a_gzip_header_are_passed_over() -> None:
    for step in (1, 1 << 30):
        assert read(gzip_with(0x08, b"../../x\0"), GZIP, step=step) == TEXT
        assert read(gzip_with(0x18, b"name\0comment\0"), GZIP, step=step) == TEXT
        assert read(gzip_with(0x01), GZIP, step=step) == TEXT
        head = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + b"\3\0abc" + b"name\0" + b"comment\0"
        good = struct.pack("<H", zlib.crc32(head) & 0xFFFF)
        assert read(head + good + packed(GZIP, TEXT)[10:], GZIP, step=step) == TEXT
    assert read(gzip_with(0x04, b"\xff\xff" + bytes(65_535)), GZIP, step=1000) == TEXT


@pytest.mark.parametrize(
    ("flags", "extra", "words"),
    [
        (0x20, b"", "reserved"),
        (0x80, b"", "reserved"),
        (0x02, b"\0\0", "checksum of a header"),
        (0x08, b"n" * 600_000, "longer"),
        (0x10, b"n" * 600_000, "longer"),
        (0x04, b"\xff\xff" + b"short", "damaged|ends early"),
    ],
)
def test_games_in_a_gzip_header_are_refused(flags: int, extra: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        read(gzip_with(flags, extra), GZIP)
    assert caught.value.code == "E_COMPRESS"


@pytest.mark.parametrize("kind", PACKED)
def test_the_magic_number_alone_makes_no_stream(kind: Compression) -> None:
    head = packed(kind, TEXT)[:6]
    assert refusal(head + NOISE[:5000], kind)
    assert "not a" in refusal(b"plain text, not compressed", kind)


@pytest.mark.parametrize("wbits", [-15, 15])
def test_raw_deflate_and_zlib_are_refused(wbits: int) -> None:
    maker = zlib.compressobj(wbits=wbits)
    data = maker.compress(TEXT) + maker.flush()
    assert sniff(data[:SNIFF_BYTES]) is NONE
    assert "not a gzip stream" in refusal(data, GZIP)


# The tables of deflate, for which zlib is the measure: what it refuses no engine unpacks


def by_zlib(data: bytes) -> bytes | None:
    """What zlib makes of one gzip member; ``None`` when it refuses it, or finds no end."""
    decoder = zlib.decompressobj(31)
    try:
        out = decoder.decompress(data)
    except zlib.error:
        return None
    return out if decoder.eof and not decoder.unused_data else None


def by_us(data: bytes) -> bytes | None:
    """What we make of it; ``None`` when we refuse it."""
    try:
        return read(data, GZIP)
    except Refused as error:
        assert error.code == "E_COMPRESS"  # noqa: PT017
        return None


@pytest.mark.parametrize("name", UNSOUND)
def test_h269_a_gzip_stream_with_tables_that_zlib_refuses_is_refused(name: str) -> None:
    data = with_table(UNSOUND[name], TEXT).gzip()
    assert by_zlib(data) is None
    for step in (1, 1 << 30):
        assert "gzip stream is damaged" in refusal(data, GZIP, step=step)
        assert "gzip stream is damaged" in refusal(packed(GZIP, TEXT) + data, GZIP, step=step)


@pytest.mark.parametrize("name", SOUND)
def test_h269_tables_that_are_only_odd_are_read(name: str) -> None:
    data = with_table(SOUND[name], TEXT).gzip()
    assert by_zlib(data) == TEXT
    assert read(data + packed(GZIP, TEXT), GZIP, step=1) == TEXT * 2


def test_h269_zlib_and_we_read_the_same_streams() -> None:
    chance = random.Random(269)
    accepted = 0
    for _ in range(3_000):
        fault, raw, data = random_stream(chance)
        whole = gzip_of(raw, data)
        assert by_us(whole) == by_zlib(whole), (fault, whole.hex())
        accepted += by_zlib(whole) == data
    assert 300 < accepted < 2_700, "they are all of one kind"


# zstd


@pytest.mark.parametrize("log", [28, 31, 41])
def test_a_zstd_window_over_the_limit_is_refused(log: int) -> None:
    assert "window" in refusal(FRAME_MAGIC + bytes((0, (log - 10) << 3)) + b"\1\0\0", ZSTD)


def test_a_zstd_window_at_the_limit_is_read() -> None:
    assert read(FRAME_MAGIC + bytes((0, (27 - 10) << 3)) + b"\x21\0\0data", ZSTD) == b"data"
    small = replace(DEFAULT_LIMITS, zstd_window=1 << 20)
    assert "window" in refusal(FRAME_MAGIC + bytes((0, (21 - 10) << 3)) + b"\x21\0\0data", ZSTD, limits=small)


@pytest.mark.parametrize("claim", [0, 1, 3, 5, 255 + 256, 1 << 20, 1 << 40, (1 << 64) - 2])
@pytest.mark.parametrize("single_segment", [False, True])
def test_a_zstd_content_size_must_be_true(claim: int, single_segment: bool) -> None:
    head = b"\xe0" if single_segment else b"\xc0\x58"
    body = b"\x21\0\0data"
    assert read(FRAME_MAGIC + head + struct.pack("<Q", 4) + body, ZSTD) == b"data"
    tracemalloc.start()
    try:
        refusal(FRAME_MAGIC + head + struct.pack("<Q", claim) + body, ZSTD)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("count", [1, 2, 100_000])
def test_any_number_of_zstd_frames_is_decoded(count: int) -> None:
    empty = zstandard.ZstdCompressor().compress(b"")
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(b"ab")
    began = time.monotonic()
    assert read(empty + frame * count, ZSTD) == b"ab" * count
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("step", [1, 5, 1 << 30])
def test_skippable_frames_are_passed_over_wherever_they_stand(step: int) -> None:
    frame = packed(ZSTD, TEXT)
    note = skippable(b"a note")
    assert read(note + frame + note + skippable(b"") + frame + note, ZSTD, step=step) == TEXT * 2
    assert read(note, ZSTD, step=step) == b""


@pytest.mark.parametrize("claim", [7, 1 << 20, 0xFFFFFFFF])
def test_a_skippable_frame_that_claims_more_than_there_is_is_refused(claim: int) -> None:
    for data in (skippable(b"a note", claim), packed(ZSTD, TEXT) + skippable(b"a note", claim)):
        assert "ends early" in refusal(data, ZSTD)


def test_a_zstd_dictionary_or_a_wrong_checksum_is_refused() -> None:
    assert "dictionary 9" in refusal(FRAME_MAGIC + b"\x01\x58\x09\x21\0\0data", ZSTD)
    data = bytearray(packed(ZSTD, TEXT))
    data[-1] ^= 1
    assert "checksum" in refusal(bytes(data), ZSTD)


# Bombs


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("room", [512, 1 << 16, 8 << 20])
def test_a_bomb_never_takes_more_memory_than_a_few_buffers(kind: Compression, room: int) -> None:
    size = 8 << 20 if room == 512 else 40 << 20
    data = packed(kind, bytes(size))
    tracemalloc.start()
    try:
        total = drain(decompressing(Source(data), kind), room)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak - room < (14 if kind is XZ else 6) << 20  # the dictionary of xz is 8 MiB here


@pytest.mark.parametrize("kind", [ZSTD, BZIP2, XZ])
def test_an_expansion_beyond_the_ratio_is_refused_once_it_is_judged(kind: Compression) -> None:
    data = packed(kind, bytes(30 << 20))
    early = replace(DEFAULT_LIMITS, expansion_judged_after=8 << 20)
    if kind is XZ:  # reaches about 6,900 : 1
        early = replace(early, expansion_ratio=1_000)
    with pytest.raises(Refused, match="expands more than") as caught:
        drain(decompressing(Source(data), kind, limits=early))
    assert caught.value.code == "E_LIMIT"
    assert caught.value.details["limit"] == "expansion_ratio"
    assert drain(decompressing(Source(data), kind)) == 30 << 20


def test_no_gzip_stream_reaches_the_default_ratio() -> None:
    early = replace(DEFAULT_LIMITS, expansion_judged_after=1 << 20)
    assert drain(decompressing(Source(packed(GZIP, bytes(30 << 20))), GZIP, limits=early)) == 30 << 20


@pytest.mark.parametrize("kind", list(Compression))
def test_output_up_to_the_limit_is_read_and_one_byte_more_is_refused(kind: Compression) -> None:
    data = packed(kind, TEXT)
    assert read(data, kind, limit=len(TEXT)) == TEXT
    with pytest.raises(Refused) as caught:
        read(data, kind, limit=len(TEXT) - 1, limit_name="layer_uncompressed", where="a layer")
    assert caught.value.code == "E_LIMIT"
    assert caught.value.where == "a layer"
    assert "layer_uncompressed" in caught.value.message
    assert caught.value.details == {"limit": "layer_uncompressed", "value": len(TEXT) - 1}
    assert "limit of 5 B" in refusal(data, kind, limit=5, code="E_LIMIT")


def test_streams_that_decode_to_nothing_do_not_hang() -> None:
    stored = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * 1_000_000 + b"\1\0\0\xff\xff" + bytes(8)
    blocks = FRAME_MAGIC + b"\0\x58" + bytes(3) * 1_000_000 + b"\1\0\0"
    runs = FRAME_MAGIC + b"\0\x58" + b"\x0a\0\0a" * 500_000 + b"\1\0\0"
    for data, kind, size in ((stored, GZIP, 0), (blocks, ZSTD, 0), (runs, ZSTD, 500_000)):
        began = time.monotonic()
        assert len(read(data, kind)) == size
        assert time.monotonic() - began < 3


def test_an_xz_dictionary_too_large_is_refused_before_it_is_allocated() -> None:
    data = bytearray(packed(XZ, TEXT))
    assert data[12:16] == b"\x02\x00\x21\x01"
    data[16] = 36  # a dictionary of 1 GiB
    data[20:24] = struct.pack("<I", zlib.crc32(data[12:20]))
    assert "emory" in refusal(bytes(data), XZ)
    data[16] = 30  # 128 MiB
    data[20:24] = struct.pack("<I", zlib.crc32(data[12:20]))
    assert read(bytes(data), XZ) == TEXT


# Errors


class Failing(Source):
    def __init__(self, data: bytes, error: Exception, step: int = 100) -> None:
        super().__init__(data, step)
        self.error = error

    def readinto(self, buffer: memoryview, /) -> int:
        if self.at >= len(self.data):
            raise self.error
        return super().readinto(buffer)


@pytest.mark.parametrize("kind", list(Compression))
@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), Refused("E_DIGEST", "other bytes"), LocalTrouble("x", where="there")]
)
def test_what_the_source_raises_passes_unchanged_and_stays(kind: Compression, error: Exception) -> None:
    whole = packed(kind, TEXT)
    for data in (b"", whole[:30], whole):
        stream = decompressing(Failing(data, error), kind, where="here")
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                drain(stream)
            assert caught.value is error
    assert getattr(error, "where", "") in ("", "there")


@pytest.mark.parametrize("kind", PACKED)
def test_a_refused_stream_never_ends_well_later(kind: Compression) -> None:
    stream = decompressing(Source(packed(kind, TEXT)[:-1]), kind, where="blobs/sha256/ab")
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            drain(stream)
        assert caught.value.where == "blobs/sha256/ab"
        assert str(caught.value).startswith("blobs/sha256/ab: ")


def test_a_buffer_without_room_is_a_mistake_and_not_the_end() -> None:
    stream = decompressing(Source(packed(GZIP, TEXT)), GZIP)
    with pytest.raises(ValueError, match="room"):
        stream.readinto(memoryview(b""))
    assert stream.readinto(memoryview(bytearray(5))) == 5
