"""One header block, one set of pax records, one name."""

from __future__ import annotations

import tarfile

import pytest

from imgtar.blob.tar_header import clean_name, parse_header, parse_long_name, parse_pax, settled_size
from imgtar.errors import Refused
from tests.builders.rawtar import base256, entry, header, octal, pax_record, resum


def refused(block: bytes, code: str = "E_HEADER") -> Refused:
    with pytest.raises(Refused) as caught:
        parse_header(block, 1536, "a.tar")
    assert caught.value.code == code
    assert caught.value.where == "a.tar"
    assert caught.value.details["offset"] == 1536
    assert "byte 1536" in caught.value.message
    return caught.value


def bad_pax(data: bytes, *, everywhere: bool = False) -> str:
    with pytest.raises(Refused) as caught:
        parse_pax(data, 512, "a.tar", everywhere=everywhere)
    assert caught.value.code == "E_HEADER"
    return caught.value.message


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_h51_every_single_bit_flip_in_a_header_is_refused(magic: bytes) -> None:
    block = header(b"blobs/sha256/0011", size=1234, magic=magic, mtime=octal(1_700_000_000, 12))
    for bit in range(4096):
        flipped = bytearray(block)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as caught:
            parse_header(bytes(flipped), 0)
        assert caught.value.code == "E_HEADER", bit


@pytest.mark.parametrize("form", [b"%06o\0 ", b"%06o \0", b"%07o\0"])
def test_checksums_in_the_three_spellings_of_living_tools_are_accepted(form: bytes) -> None:
    block = header(b"a")
    total = int(block[148:154], 8)
    assert parse_header(block[:148] + form % total + block[156:], 0).name == b"a"


@pytest.mark.parametrize("form", [b"%6o\0 ", b"%06o  ", b"%06o\0\0", b"%08o", b"0%06o\xff"])
def test_checksums_in_doubtful_spellings_are_refused(form: bytes) -> None:
    block = header(b"a")
    refused(block[:148] + form % int(block[148:154], 8) + block[156:])


def test_h52_a_signed_checksum_is_refused_and_the_unsigned_one_accepted() -> None:
    block = header("é".encode() * 9)
    assert parse_header(block, 0).name == "é".encode() * 9
    refused(resum(block, signed=True))


@pytest.mark.parametrize("size", [-1, -512, -(2**63)])
def test_h53_a_negative_size_is_refused(size: int) -> None:
    assert "negative" in refused(header(size=base256(size, 12))).message


def test_base_256_sizes_are_read() -> None:
    assert parse_header(header(size=base256(2**40, 12)), 0).size == 2**40


@pytest.mark.parametrize("size", [2**63, 2**70, 2**94 - 1])
def test_h55_a_size_beyond_63_bits_is_over_the_limit(size: int) -> None:
    refused(header(size=base256(size, 12)), "E_LIMIT")


JUNK = [
    b" " * 12,
    b"-0000000777\0",
    b"0x1F\0",
    b"0000 000001\0",
    b"000000000001",
    b"zzzz",
    b"00000000009\0",
    b"1\x002\0",
]


@pytest.mark.parametrize("field", [*JUNK, b"+0000000001\0", b"0000_000001\0", b"\t0000000001\0"])
def test_h56_junk_in_the_size_is_refused(field: bytes) -> None:
    refused(header(size=field))


@pytest.mark.parametrize("kind", [b"0", b"\0", b"7"])
def test_h56_an_empty_size_of_a_regular_file_is_refused(kind: bytes) -> None:
    refused(header(size=bytes(12), kind=kind))


def test_an_empty_size_of_a_directory_is_zero() -> None:
    assert parse_header(header(b"d/", size=bytes(12), kind=b"5"), 0).size == 0


@pytest.mark.parametrize("field", [b"        644\0", b"644\0", b"00000000644 ", b"0000000644\0 ", b"0000000644 \0"])
def test_octal_numbers_in_the_spellings_of_old_tools_are_read(field: bytes) -> None:
    assert parse_header(header(size=field.ljust(12, b"\0")), 0).size == 0o644


@pytest.mark.parametrize("name", ["mode", "uid", "gid"])
def test_h72_owner_and_mode_may_be_empty_or_large_but_not_absurd(name: str) -> None:
    for fine in (bytes(8), b"0006777\0", base256(2**32 - 1, 8), b"7777777\0", b"100644 \0"):
        parse_header(header(**{name: fine}), 0)  # type: ignore[arg-type]
    for absurd in (base256(-1, 8), base256(2**32, 8), b"-000001\0", b"junk", b"        "):
        refused(header(**{name: absurd}))  # type: ignore[arg-type]


def test_h72_times_may_be_empty_or_before_1970_but_not_absurd() -> None:
    for fine in (bytes(12), base256(-3600, 12), base256(2**35, 12)):
        parse_header(header(mtime=fine), 0)
    for absurd in (base256(2**40, 12), base256(-(2**40), 12), b"nan\0"):
        refused(header(mtime=absurd))


def test_h72_junk_in_the_device_numbers_is_refused() -> None:
    parse_header(header(devices=b"0000000\x000000000\0"), 0)
    refused(header(devices=b"junk"))


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_h69_ustar_gnu_and_v7_headers_are_accepted(magic: bytes) -> None:
    assert parse_header(header(b"a", magic=magic), 0).name == b"a"


@pytest.mark.parametrize(
    "magic", [b"ustar\0\0\0", b"ustar\x0001", b"ustar 00", b"USTAR\x0000", b"junkjunk", b"ustar  \x01"]
)
def test_h69_other_magics_are_refused(magic: bytes) -> None:
    refused(header(magic=magic))


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_h69_star_headers_are_refused(magic: bytes) -> None:
    refused(header(magic=magic, patch={508: b"tar\0"}))


def test_h70_a_prefix_is_joined_under_ustar_and_refused_elsewhere() -> None:
    assert parse_header(header(b"b", prefix=b"a"), 0).name == b"a/b"
    assert parse_header(header(b"b" * 100, prefix=b"a" * 155), 0).name == b"a" * 155 + b"/" + b"b" * 100
    refused(header(b"b", prefix=b"a", magic=b"ustar  \0"))
    refused(header(b"b", prefix=b"a", magic=bytes(8)))


@pytest.mark.parametrize("patch", [{0: b"a\0b"}, {157: b"a\0b"}, {345: b"a\0b"}])
def test_h08_bytes_after_the_nul_of_a_text_field_are_refused(patch: dict[int, bytes]) -> None:
    assert "NUL" in refused(header(patch=patch)).message


def test_h08_a_nul_inside_a_gnu_long_name_is_refused() -> None:
    assert parse_long_name(b"a\0\0", 0) == b"a"
    for data in (b"a\0b", b"a\0b\0", b"", b"\0"):
        with pytest.raises(Refused, match="header at byte 7"):
            parse_long_name(data, 7)


def test_pax_records_are_read() -> None:
    records = (b"path", b"a/\xc3\xa9"), (b"linkpath", b"b\nc=d"), (b"size", b"12"), (b"mtime", b"-1.5"), (b"uid", b"7")
    fields = parse_pax(b"".join(pax_record(*record) for record in records), 0)
    assert fields == (b"a/\xc3\xa9", b"b\nc=d", 12)


@pytest.mark.parametrize("value", [b"-1", b"1e3", b"9" * 5000, b"", b"01", b"+1", b" 1", b"1.0", str(2**63).encode()])
def test_h58_a_pax_size_that_is_no_plain_number_is_refused(value: bytes) -> None:
    bad_pax(pax_record(b"size", value))


def test_h58_two_pax_sizes_are_refused() -> None:
    assert "twice" in bad_pax(pax_record(b"size", b"1") + pax_record(b"size", b"1"))


def test_h59_a_repeated_pax_key_is_refused() -> None:
    assert "twice" in bad_pax(pax_record(b"path", b"../../evil") + pax_record(b"path", b"ok"))


MALFORMED = [b"7 a=b\n", b"5 a=b\n", b"0 a=b\n", b"06 a=b\n", b"-6 a=b\n", b"4 a\n", b"5 ab\n", b"6 a=bc", b"99 a=b\n"]


@pytest.mark.parametrize(
    "data", [*MALFORMED, b"a=b\n", b"6 a=b", b"5 =b\n", b"\n", b"6 a=b\n\0", b"7 a=\xff\xfe\n", b"2 \n", b"1 "]
)
def test_h60_a_malformed_pax_record_is_refused(data: bytes) -> None:
    bad_pax(data)


def test_h08_a_nul_in_a_pax_value_is_refused() -> None:
    bad_pax(pax_record(b"path", b"a\0b"))


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size"])
def test_h63_a_global_header_that_renames_or_resizes_is_refused(key: bytes) -> None:
    bad_pax(pax_record(key, b"5"), everywhere=True)


def test_h63_a_global_header_with_a_comment_is_accepted() -> None:
    assert parse_pax(pax_record(b"comment", b"0123abcd"), 0, everywhere=True) == (None, None, None)


@pytest.mark.parametrize("key", [b"GNU.sparse.size", b"GNU.sparse.map", b"GNU.sparse.major", b"SCHILY.realsize"])
def test_h64_sparse_keys_are_refused(key: bytes) -> None:
    bad_pax(pax_record(key, b"1"))
    bad_pax(pax_record(key, b"1"), everywhere=True)


def test_h71_binary_attribute_values_are_ignored() -> None:
    assert parse_pax(pax_record(b"SCHILY.xattr.security.capability", b"\x01\0\xff"), 0) == (None, None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"mtime", b"nan"), (b"mtime", b"1099511627776"), (b"mtime", b""), (b"uid", b"-1"), (b"gid", b"4294967296")],
)
def test_h72_absurd_pax_numbers_are_refused(key: bytes, value: bytes) -> None:
    bad_pax(pax_record(key, value))


def test_a_character_set_nobody_reads_is_refused() -> None:
    parse_pax(pax_record(b"hdrcharset", b"BINARY"), 0)
    bad_pax(pax_record(b"hdrcharset", b"EBCDIC"))


def test_h48_the_pax_size_wins_only_where_ustar_could_not_say_it() -> None:
    assert settled_size(5, None) == 5
    assert settled_size(5, 5) == 5
    assert settled_size(0, 8 << 30) == 8 << 30
    for header_size, pax_size in ((0, 512), (512, 0), (0, (8 << 30) - 1)):
        with pytest.raises(ValueError, match="pax says"):
            settled_size(header_size, pax_size)


CLEAN = {
    b"a": "a",
    b"./a": "a",
    b".//a": "a",
    b"a//b": "a/b",
    b"a/./b": "a/b",
    b"sha256:0011": "sha256:0011",
    b"a/b.tar.gz": "a/b.tar.gz",
    b".hidden": ".hidden",
    b"...a": "...a",
    b"control": "control",
    b"auxiliary/com": "auxiliary/com",
    "é e\u0301".encode(): "é e\u0301",
}


@pytest.mark.parametrize("raw", CLEAN)
def test_h05_real_names_are_brought_to_one_spelling(raw: bytes) -> None:
    assert clean_name(raw) == CLEAN[raw]


@pytest.mark.parametrize("raw", [b"", b"/", b"./", b".", b"//", b".//"])
def test_the_root_directory_has_an_empty_name(raw: bytes) -> None:
    assert clean_name(raw, directory=True) == ""


@pytest.mark.parametrize("raw", [b"d", b"d/", b"./d/", b"d//", b"d/."])
def test_directories_lose_their_slash(raw: bytes) -> None:
    assert clean_name(raw, directory=True) == "d"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"/etc/cron.d/x", "absolute"),
        (b"../../outside", r'"\.\."'),
        (b"blobs/sha256/../../../outside", r'"\.\."'),
        (b"blobs/x/../sha256/00", r'"\.\."'),
        (b"..", r'"\.\."'),
        (b"a/..", r'"\.\."'),
        (b"..\\..\\outside", "backslash"),
        (b"blobs\\sha256\\00", "backslash"),
        (b"C:/x", "drive"),
        (b"C:x", "drive"),
        (b"./c:", "drive"),
        (b"//host/share/x", "absolute"),
        (b"\\\\?\\C:\\x", "backslash"),
        (b"NUL", "device"),
        (b"con.txt", "device"),
        (b"a/Com1/b", "device"),
        (b"aux .x", "device"),
        (b"lpt9:x", "device"),
        (b"x.", "dot or a space"),
        (b"x ", "dot or a space"),
        (b"a /b", "dot or a space"),
        (b"...", "dot or a space"),
        (b"", "empty"),
        (b".", "directory"),
        (b"a/.", "directory"),
        (b"\xff\xfe", "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
        (b"\x1b[2J", "control"),
        (b"a\rb", "control"),
        (b"a\nb", "control"),
        ("a\u202eb".encode(), "control"),
        ("a\x9bb".encode(), "control"),
    ],
)
def test_h01_to_h11_names_that_could_mean_a_place_elsewhere_are_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        clean_name(raw)


def test_a_header_of_the_builder_is_what_the_standard_library_writes() -> None:
    info = tarfile.TarInfo("a")
    info.size = 3
    # Python 3.11 and later leave device numbers out for files, earlier ones write zeros.
    theirs = info.tobuf(tarfile.USTAR_FORMAT)
    assert entry(b"a", b"abc", devices=theirs[329:345])[:512] == theirs
