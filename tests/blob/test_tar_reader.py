"""Whole archives: what is read, what is refused, and where."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.blob.tar_header import EntryKind
from imgtar.blob.tar_names import resolve_links
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import FileStream, PipeStream
from imgtar.errors import Refused
from imgtar.model.limits import Limits
from tests.blob.archives import GOOD, as_file, drain, entries, link, problem, read_all, refused, walk
from tests.builders.rawtar import END, Dribble, base256, entry, gnu_long, header, pax, pax_record


class Zeros:
    """A pipe of ``head`` and then ``count`` zeros, which takes no memory for them."""

    def __init__(self, head: bytes, count: int) -> None:
        self.head, self.left = Dribble(head), count

    def readinto(self, buffer: memoryview, /) -> int:
        if got := self.head.readinto(buffer):
            return got
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


GIB = 1 << 30


def test_entries_come_with_names_sizes_and_places() -> None:
    found = read_all(GOOD)
    assert [(e.name, e.kind, e.size, e.header_offset, e.data_offset, data) for e, data in found] == [
        ("blobs", EntryKind.DIRECTORY, 0, 0, 512, b""),
        ("blobs/a", EntryKind.FILE, 600, 512, 1024, b"x" * 600),
        ("c.json", EntryKind.FILE, 2, 2048, 2560, b"{}"),
    ]


def test_a_zero_length_buffer_reads_nothing() -> None:
    reader = TarReader(PipeStream(Dribble(GOOD)))
    next(reader)
    next(reader)
    assert reader.readinto(memoryview(b"")) == 0


# -- A: names ------------------------------------------------------------------------------------------------------


def test_h05_leading_dots_are_accepted_and_the_root_is_ignored() -> None:
    data = entry(b"./", kind=b"5") + entry(b"/", kind=b"5") + entry(b"", kind=b"5") + entry(b"./manifest.json", b"[]")
    assert [item.name for item in entries(data + entry(b".//index.json") + END)] == ["manifest.json", "index.json"]


NAMES = [
    b"/etc/cron.d/x",
    b"../../outside",
    b"blobs/sha256/../../../outside",
    b"blobs/x/../sha256/00",
    b"..\\..\\outside",
    b"C:x",
    b"//host/share/x",
    b"NUL",
    b"con.txt",
    b"x.",
    b"x ",
    b"",
    b"\xff\xfe",
    b"\x1b[2J\r\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_h01_h02_h03_h04_h06_h07_h09_h10_h11_bad_names_are_handed_over_as_problems(name: bytes) -> None:
    fault = problem(entry(name, b"data") + entry(b"ok") + END, "E_PATH", 0)
    assert fault.details["offset"] == 0


def test_h09_a_symlink_without_a_name_is_a_problem() -> None:
    problem(entry(b"", kind=b"2", link=b"x") + END, "E_PATH")


def test_h08_a_nul_in_a_name_is_refused() -> None:
    refused(pax((b"path", b"a\0b")) + entry() + END, "E_HEADER")
    refused(entry(b"a\0b") + END, "E_HEADER")
    refused(gnu_long(b"a\0b") + entry() + END, "E_HEADER")


def test_h12_a_file_whose_name_ends_in_a_slash_is_refused() -> None:
    for bad in (
        entry(b"manifest.json/", b"[]"),
        entry(b"manifest.json/"),
        entry(b"manifest.json/", b"[]", kind=b"\0", magic=bytes(8)),
        entry(b"s/", kind=b"2", link=b"x"),
        gnu_long(b"n" * 150 + b"/") + entry(b"n" * 100, b"x"),
        gnu_long(b"n" * 99 + b"/" + b"m" * 50) + entry(b"n" * 99 + b"/", kind=b"\0"),
    ):
        refused(bad + END, "E_HEADER")
    assert entries(entry(b"d/", kind=b"\0", magic=bytes(8)) + END)[0].kind is EntryKind.DIRECTORY
    # A cut short name says nothing when the header says "file" outright.
    long = gnu_long(b"n" * 99 + b"/" + b"m" * 50) + entry(b"n" * 99 + b"/", b"x")
    assert entries(long + END)[0].kind is EntryKind.FILE


def test_h14_names_over_the_limits_are_refused() -> None:
    for name in (b"a/" * 50 + b"b" * 4000, b"c" * 256, b"d/" + b"c" * 256):
        refused(pax((b"path", name)) + entry() + END, "E_LIMIT")
        refused(gnu_long(name) + entry() + END, "E_LIMIT")
        refused(gnu_long(name, b"K") + entry(kind=b"2") + END, "E_LIMIT")


def test_h15_a_very_deep_name_is_refused() -> None:
    refused(pax((b"path", b"a/" * 2000 + b"b")) + entry() + END, "E_LIMIT")
    refused(pax((b"path", b"a/" * 128 + b"b")) + entry() + END, "E_LIMIT")
    assert entries(pax((b"path", b"a/" * 127 + b"b")) + entry() + END)[0].problem is None


# -- B: links and special files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6"])
def test_h30_a_link_or_directory_with_data_is_refused(kind: bytes) -> None:
    refused(entry(b"x", b"y" * 512, kind=kind, link=b"z") + END, "E_HEADER")


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"7"])
def test_h31_special_files_are_a_problem(kind: bytes) -> None:
    assert "x" in problem(entry(b"x", kind=kind) + END, "E_LINK").message


def test_h31_the_data_of_a_contiguous_file_is_stepped_over() -> None:
    found = entries(entry(b"x", b"y" * 600, kind=b"7") + entry(b"z") + END)
    assert [item.name for item in found] == ["x", "z"]


@pytest.mark.parametrize("kind", [b"Q", b"\x7f", b"V", b"M", b"D", b"N", b"A", b"8", b"\xff"])
def test_h32_an_unknown_type_is_refused_by_name(kind: bytes) -> None:
    assert 'type "' in refused(entry(b"x", kind=kind) + END, "E_HEADER").message


@pytest.mark.parametrize("target", [b"", b"\xff", b"\x1b[2J"])
def test_a_link_without_a_readable_target_is_a_problem(target: bytes) -> None:
    problem(link(b"l", target) + END, "E_LINK")


# -- C: differentials ------------------------------------------------------------------------------------------------


def test_h48_two_sizes_for_one_entry_are_refused() -> None:
    inner = entry(b"evil", b"x") + END
    refused(pax((b"size", b"%d" % len(inner))) + header(b"f") + inner + END, "E_HEADER")
    refused(pax((b"size", b"0")) + entry(b"f", inner) + END, "E_HEADER")
    assert entries(pax((b"size", b"%d" % len(inner))) + entry(b"f", inner) + END)[0].size == len(inner)


def test_h49_nothing_is_read_after_a_damaged_header() -> None:
    good = entry(b"a") + entry(b"l.tar", entry(b"inner") + END) + END
    damaged = bytearray(good)
    damaged[512 + 3] ^= 1
    assert refused(bytes(damaged), "E_HEADER").details["offset"] == 512


# -- D: headers and extensions ---------------------------------------------------------------------------------------


def test_h51_every_bit_flip_in_the_second_header_is_refused() -> None:
    for bit in range(4096):
        damaged = bytearray(GOOD)
        damaged[512 + bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused, match="byte 512"):
            list(TarReader(PipeStream(Dribble(bytes(damaged)))))


@pytest.mark.parametrize("size", [-1, -512, -(2**63)])
def test_h53_h54_a_negative_size_is_refused_without_a_loop(size: int) -> None:
    refused(header(size=base256(size, 12)) + END, "E_HEADER")
    refused(entry(b"a", b"x") + header(b"b", size=base256(size, 12)) + END, "E_HEADER")


def test_h55_h57_sizes_past_the_end_are_refused_without_taking_memory() -> None:
    refused(header(size=base256(2**63, 12)) + END, "E_LIMIT")
    refused(header(size=base256(2**70, 12)) + END, "E_LIMIT")
    refused(header(size=base256(2**62, 12)) + END, "E_TRUNC")
    refused(b"".join(header(b"%d" % i, size=base256(10 * GIB, 12)) for i in range(10)) + bytes(1 << 20), "E_TRUNC")


def test_h61_h66_an_extension_header_over_the_limit_is_refused_before_it_is_read() -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        fault = refused(header(size=base256(2 * GIB, 12), kind=kind) + bytes(1024), "E_LIMIT")
        assert fault.details["offset"] == 0
    refused(pax((b"comment", b"x" * (16 << 20))) + entry() + END, "E_LIMIT")
    half = pax((b"comment", b"x" * 600_000), kind=b"g")
    refused(half + half + entry() + END, "E_LIMIT")


def test_h62_many_records_take_linear_time() -> None:
    records = b"".join(pax_record(b"k%d" % i, b"") for i in range(70_000))
    assert len(entries(pax(records) + entry() + END)) == 1
    refused(pax(b"".join(pax_record(b"k%d" % i, b"1") for i in range(200_000))) + entry() + END, "E_LIMIT")


@pytest.mark.parametrize("key", [b"path", b"size", b"linkpath"])
def test_h63_a_global_name_or_size_is_refused(key: bytes) -> None:
    refused(pax((key, b"1"), kind=b"g") + entry() + END, "E_HEADER")


def test_h63_a_global_comment_is_accepted() -> None:
    comment = pax((b"comment", b"0123abcd"), kind=b"g")
    assert [item.name for item in entries(comment + entry(b"a") + END)] == ["a"]
    assert entries(comment + END) == []


def test_h65_old_gnu_sparse_files_are_refused() -> None:
    fault = refused(entry(b"x", kind=b"S", magic=b"ustar  \0") + END, "E_HEADER")
    assert "sparse" in fault.message


@pytest.mark.parametrize(
    "data",
    [
        gnu_long(b"a"),
        gnu_long(b"a") + gnu_long(b"b") + entry(),
        gnu_long(b"a", b"K") + entry(),
        pax((b"linkpath", b"a")) + entry(),
        gnu_long(b"", b"L") + entry(),
        pax((b"mtime", b"1")) + pax((b"mtime", b"2")) + entry(),
        pax((b"mtime", b"1")) + pax((b"comment", b"2"), kind=b"g") + entry(),
        pax((b"mtime", b"1")),
    ],
)
def test_h66_extension_headers_without_their_entry_or_twice_are_refused(data: bytes) -> None:
    refused(data + END, "E_HEADER")


def test_h67_two_sources_for_one_name_are_refused() -> None:
    long, renamed = gnu_long(b"a"), pax((b"path", b"b"))
    for data in (long + renamed, renamed + long, long + renamed + long):
        refused(data + entry() + END, "E_HEADER")
    target = gnu_long(b"a", b"K") + pax((b"linkpath", b"b"))
    refused(target + entry(kind=b"2") + END, "E_HEADER")


def test_long_names_and_targets_of_both_dialects_are_read() -> None:
    name, target = b"n" * 120, b"t" * 130
    for extension in (gnu_long(target, b"K") + gnu_long(name), pax((b"path", name), (b"linkpath", target))):
        found = entries(extension + entry(b"n" * 100, kind=b"2", link=b"t" * 100) + END)
        assert (found[0].name, found[0].link) == (name.decode(), target.decode())


def test_h68_nine_extension_headers_in_a_row_are_refused() -> None:
    one = pax((b"comment", b"x"), kind=b"g")
    assert len(entries(one * 8 + entry() + END)) == 1
    refused(one * 9 + entry() + END, "E_LIMIT")


@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_h69_all_three_dialects_are_read(magic: bytes) -> None:
    assert read_all(entry(b"a", b"xyz", magic=magic) + END)[0][1] == b"xyz"


def test_h73_data_after_a_single_zero_block_is_refused() -> None:
    fault = refused(entry(b"a") + bytes(512) + entry(b"b") + END, "E_TRAILING")
    assert fault.details["offset"] == 1024


@pytest.mark.parametrize("length", [100, 255, 4096])
def test_h74_names_of_exactly_the_limit_are_read(length: int) -> None:
    raw = (b"/".join([b"x" * 250] * 17))[:length]
    data = entry(raw) if length == 100 else pax((b"path", raw)) + entry()
    assert entries(data + END)[0].name == raw.decode()
    assert entries(gnu_long(raw) + entry() + END)[0].name == raw.decode()


def test_h74_a_full_prefix_and_name_are_read() -> None:
    assert len(entries(entry(b"n" * 100, prefix=b"p" * 155) + END)[0].name) == 256


def test_too_many_entries_or_directories_are_refused() -> None:
    few = Limits(entries=3)
    four = [entry(b"%d" % i) for i in range(4)]
    read_all(b"".join(four[:3]) + END, few)
    refused(b"".join(four) + END, "E_LIMIT", few)
    refused(entry(b"a/b/c/d/e") + END, "E_LIMIT", few)


# -- E: the end ------------------------------------------------------------------------------------------------------


def test_h75_truncation_at_every_byte_is_refused() -> None:
    data = (
        b"".join(entry(b"file%d" % i, b"x" * 600 * i) for i in range(4)) + pax((b"path", b"long")) + entry(b"l", b"x")
    )
    data += END
    whole = data + bytes(10_240 - len(data))
    assert len(data) < 10_240
    with tempfile.TemporaryFile() as file:
        file.write(whole)
        file.flush()
        for length in range(len(data)):
            for stream in (PipeStream(Dribble(whole[:length])), FileStream(file.fileno(), length)):
                with pytest.raises(Refused) as caught:
                    list(TarReader(stream))
                assert caught.value.code == "E_TRUNC", length
                assert caught.value.details["offset"] == length
        for length in range(len(data), 10_241):
            assert len(list(TarReader(FileStream(file.fileno(), length)))) == 5


def test_h75_a_truncated_entry_is_named_with_what_is_missing() -> None:
    fault = refused(GOOD[:1100], "E_TRUNC")
    assert fault.message == 'archive ends at byte 1100, inside entry "blobs/a" (948 more bytes expected)'
    assert fault.details == {"offset": 1100, "entry": "blobs/a", "missing_bytes": 948}


def test_h77_h78_an_archive_without_its_end_marker_is_refused() -> None:
    for cut in (1024, 512):
        fault = refused(GOOD[:-cut], "E_TRUNC")
        assert "end-of-archive marker" in fault.message
        assert fault.details == {"offset": len(GOOD) - cut, "missing_bytes": cut}


@pytest.mark.parametrize("count", [1, 511, 512, 1 << 20])
def test_h79_garbage_after_the_end_is_refused_at_its_first_byte(count: int) -> None:
    assert refused(GOOD + b"x" * count, "E_TRAILING").details["offset"] == len(GOOD)
    assert refused(GOOD + bytes(300) + b"x" * count, "E_TRAILING").details["offset"] == len(GOOD) + 300


@pytest.mark.parametrize("count", [1, 511, 512, 9 << 10, 1 << 20])
def test_h79_zeros_up_to_a_mebibyte_after_the_end_are_accepted(count: int) -> None:
    assert len(entries(GOOD + bytes(count))) == 3


def test_h79_more_zeros_are_refused() -> None:
    refused(GOOD + bytes((1 << 20) + 1), "E_TRAILING")


def test_h80_two_archives_in_one_are_refused() -> None:
    assert refused(GOOD + GOOD, "E_TRAILING").details["offset"] == len(GOOD)


def test_h86_an_empty_file_and_lone_bytes_are_refused() -> None:
    assert "empty" in refused(b"", "E_TRUNC").message
    refused(b"x", "E_TRUNC")
    refused(b"x" * 511, "E_TRUNC")
    assert entries(bytes(10_240)) == []


@pytest.mark.parametrize("start", [b"\x7fELF", b"PK\x03\x04", b"<html>", b"404 page not found"])
def test_h87_something_else_is_no_tar(start: bytes) -> None:
    assert "not a tar header" in refused(start.ljust(4096, b"."), "E_HEADER").message


def test_h82_a_lost_block_is_refused_or_changes_the_list_of_entries() -> None:
    blocks = [GOOD[at : at + 512] for at in range(0, len(GOOD), 512)]
    whole = [item.name for item in entries(GOOD)]
    for index in range(len(blocks)):
        try:
            found = entries(b"".join(blocks[:index] + blocks[index + 1 :]))
        except Refused:
            continue
        assert [item.name for item in found] != whole, index


def test_h49_h84_reading_on_after_a_failure_fails_again() -> None:
    reader = TarReader(PipeStream(Dribble(GOOD[:1100])))
    next(reader)
    next(reader)
    buffer = memoryview(bytearray(100))
    assert reader.readinto(buffer) == 76
    for _ in range(2):
        with pytest.raises(Refused, match="948 more bytes"):
            reader.readinto(buffer)
    with pytest.raises(Refused, match="948 more bytes"):
        next(reader)


def test_h76_truncation_of_a_large_archive_is_found_without_reading_it() -> None:
    data = b"".join(header(b"%d" % i, size=1 << 20) + bytes(1 << 20) for i in range(50)) + END
    with as_file(data) as stream:
        fd = stream._fd
        for length in range(0, len(data), 512 * 31):
            with pytest.raises(Refused) as caught:
                drain(TarReader(FileStream(fd, length)), read=False)
            assert caught.value.code == "E_TRUNC"


def test_memory_stays_flat_for_many_long_names_and_big_data() -> None:
    name = b"/".join([b"x" * 250] * 16)
    data = b"".join(pax((b"path", name + b"%05d" % i)) + header() for i in range(1500))
    stream = PipeStream(Zeros(data + header(b"big", size=64 << 20), (64 << 20) + 1024))
    tracemalloc.start()
    assert sum(1 for _ in TarReader(stream)) == 1501
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


# -- what honest tools write -----------------------------------------------------------------------------------------

PARTS = st.text(st.sampled_from("abcdefxyz0189_-é漢"), min_size=1, max_size=60)
PATHS = st.lists(PARTS, min_size=1, max_size=6).map(lambda parts: "/".join(["p" + part for part in parts]))
TREES = st.dictionaries(PATHS.map(lambda path: path + ".f"), st.binary(max_size=1500), max_size=6)


def contents(data: bytes, step: int = 1 << 20) -> dict[str, bytes | None]:
    found = walk(PipeStream(Dribble(data, step)), read=True)
    assert not any(item.problem for item, _ in found)
    return {item.name: content for item, content in found if item.kind is EntryKind.FILE}


@given(TREES, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
@settings(max_examples=80, deadline=None)
def test_archives_of_the_standard_library_read_back_equal(tree: dict[str, bytes], dialect: int, step: int) -> None:
    out = io.BytesIO()
    written = {}
    with tarfile.open(fileobj=out, mode="w", format=dialect) as archive:
        for name, data in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if dialect == tarfile.PAX_FORMAT else 0
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:
                continue  # does not fit ustar
            written[name] = data
    assert contents(out.getvalue()) == written
    assert contents(out.getvalue(), step) == written
    with as_file(out.getvalue()) as stream:
        assert {item.name: data for item, data in walk(stream, read=True)} == written


@pytest.mark.parametrize("dialect", ["gnu", "oldgnu", "posix", "ustar", "v7"])
@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program here")
def test_archives_of_gnu_tar_read_back_equal(dialect: str, tmp_path: Path) -> None:
    tree = {"blobs/sha256/" + "ab" * 32: b"x" * 5000, "index.json": b"{}", "empty": b"", "dir/é": b"1"}
    if dialect not in ("v7", "ustar"):
        tree["deep/" + "n" * 150 + "/" + "m" * 120] = b"deep"
    for name, data in tree.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    os.link(tmp_path / "in" / "index.json", tmp_path / "in" / "z-hard")
    (tmp_path / "in" / "soft").symlink_to("index.json")
    os.utime(tmp_path / "in" / "empty", (-3600, -3600))
    command = ["tar", f"--format={dialect}", "--sort=name", "-cf", "-", "-C", str(tmp_path / "in"), "."]
    if dialect in ("v7", "ustar"):
        command.insert(1, "--mtime=@0")
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert contents(data) == tree
    assert resolved_of(data) == {"soft": "index.json", "z-hard": "index.json"}


def resolved_of(data: bytes) -> dict[str, str]:
    found = entries(data)
    files = {item.name: item.header_offset for item in found if item.kind is EntryKind.FILE}
    return resolve_links([item for item in found if item.link], files)
