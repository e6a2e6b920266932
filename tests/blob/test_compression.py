"""Which compression it is: by the first bytes, by the name on the command line."""

from __future__ import annotations

import lzma
import zlib

import pytest

from imgtar.blob.compression import SNIFF_BYTES, Compression, foreign_compression, parse_compression, sniff
from imgtar.errors import UsageError
from tests.blob.streams import GZIP, NONE, PACKED, TEXT, ZSTD, packed

# By the first bytes


@pytest.mark.parametrize("kind", PACKED)
def test_what_common_tools_write_is_recognised_by_its_first_bytes(kind: Compression) -> None:
    for data in (b"", b"x", TEXT):
        assert sniff(packed(kind, data)[:SNIFF_BYTES]) is kind
        assert foreign_compression(packed(kind, data)[:SNIFF_BYTES]) is None


def test_skippable_frames_are_zstd_too() -> None:
    for number in range(16):
        assert sniff(bytes((0x50 + number,)) + b"\x2a\x4d\x18\0\0\0\0") is ZSTD
    assert sniff(b"\x60\x2a\x4d\x18\0\0\0\0") is NONE


@pytest.mark.parametrize("head", [b"", b"\x1f", b"\x1f\x8b", b"BZh", b"BZh0", b"BZh1.txt", b"blobs/sh", bytes(8)])
def test_anything_else_counts_as_not_compressed(head: bytes) -> None:
    assert sniff(head) is NONE


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x04\x22\x4d\x18\x64\x40\xa7\0", "lz4"),
        (b"LZIP\x01\x0c\0\0", "lzip"),
        (b"\x1f\x9d\x90abcde", "compress"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "7z"),
        (b"\x1e\xb5\x2f\xfd\0\0\0\0", "zstd of a version"),
        (b"\x27\xb5\x2f\xfd\0\0\0\0", "zstd of a version"),
        (lzma.compress(TEXT, lzma.FORMAT_ALONE)[:8], "lzma"),
        (lzma.compress(TEXT, lzma.FORMAT_ALONE, preset=0)[:8], "lzma"),
        (zlib.compress(TEXT)[:8], "zlib"),
        (b"\x1f\x8b\x07\0\0\0\0\0", "gzip with an unknown method"),
    ],
)
def test_known_compressions_that_are_not_read_have_a_name(head: bytes, name: str) -> None:
    assert sniff(head) is NONE
    assert name in str(foreign_compression(head))


@pytest.mark.parametrize("head", [b"", b"]", b"manifest", b"]\0\0\0\0\0\0\0", b"]name.tx", b"x^2.txt\0", bytes(8)])
def test_a_plain_tar_is_not_called_a_foreign_compression(head: bytes) -> None:
    assert foreign_compression(head) is None


# By the name


@pytest.mark.parametrize(
    ("text", "kind", "level"),
    [
        ("none", NONE, None),
        ("gzip", GZIP, None),
        ("gzip:1", GZIP, 1),
        ("gzip:9", GZIP, 9),
        ("zstd", ZSTD, None),
        ("zstd:22", ZSTD, 22),
    ],
)
def test_the_command_line_form_is_read(text: str, kind: Compression, level: int | None) -> None:
    assert parse_compression(text) == (kind, level)


@pytest.mark.parametrize(
    "text",
    [
        *("", "lz4", "GZIP", "gzip:", "gzip:0", "gzip:10", "gzip:-1", "gzip:+1", "gzip:1:2", "gzip: 1", "gzip:\u0661"),
        *("zstd:0", "zstd:23", "zstd:9999999", "none:1", "none:", "bzip2", "xz", "xz:6", "\x1b[2J"),
    ],
)
def test_any_other_form_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_compression(text)
    assert caught.value.hint
    assert "\x1b" not in caught.value.message
