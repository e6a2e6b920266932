"""What names mean together: duplicates, files that are directories, links."""

from __future__ import annotations

import pytest

from imgtar.blob.tar_header import EntryKind
from imgtar.blob.tar_names import resolve_links
from imgtar.errors import Refused
from tests.blob.archives import entries, link, problem, refused
from tests.builders.rawtar import END, entry, gnu_long, pax

# -- one name twice, or a file and a directory -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"c.json", b"c.json"),
        (b"manifest.json", b"manifest.json"),
        (b"index.json", b"./index.json"),
        (b"a/b", b"a//b"),
        (b"./c.json", b"c.json"),
        (b"a/./b", b"a/b"),
        (b"n/" + b"x" * 90, b"./n/" + b"x" * 90),
    ],
)
def test_h35_h36_h37_h38_h39_a_second_file_of_one_name_is_refused_with_both_offsets(
    first: bytes, second: bytes
) -> None:
    fault = refused(entry(first, b"1") + entry(second, b"2") + END, "E_DUP")
    assert fault.details["offsets"] == [0, 1024]
    assert "byte 0" in fault.message
    assert "byte 1024" in fault.message


def test_h39_long_names_are_compared_too() -> None:
    name = b"/".join([b"x" * 200] * 5)
    data = pax((b"path", name)) + entry() + gnu_long(b"./" + name) + entry() + END
    refused(data, "E_DUP")


def test_a_file_and_a_directory_of_one_name_are_duplicates() -> None:
    refused(entry(b"a") + entry(b"a/", kind=b"5") + END, "E_DUP")
    refused(entry(b"a/", kind=b"5") + entry(b"a") + END, "E_DUP")


def test_directories_may_repeat() -> None:
    assert len(entries(entry(b"a/", kind=b"5") + entry(b"a/f") + entry(b"./a/", kind=b"5") + END)) == 3


def test_h40_h41_names_are_compared_byte_for_byte() -> None:
    names = [b"C.json", b"c.json", "é".encode(), "e\u0301".encode()]
    assert len(entries(b"".join(entry(name) for name in names) + END)) == 4


def test_h13_a_file_used_as_a_directory_is_a_problem_in_either_order() -> None:
    below = entry(b"blobs/sha256/00", b"x")
    problem(entry(b"blobs", b"y") + below + END, "E_PATH")
    problem(below + entry(b"blobs", b"y") + END, "E_PATH")
    found = entries(entry(b"a") + entry(b"a/b/c") + entry(b"a/b/d") + entry(b"a/b", kind=b"5") + END)
    assert [item.problem and item.problem.code for item in found] == [None, "E_PATH", "E_PATH", "E_PATH"]


def test_h26_a_file_below_a_symlink_is_a_problem_in_either_order() -> None:
    symlink, below = link(b"blobs", b"/canarydir"), entry(b"blobs/sha256/00", b"x")
    problem(symlink + below + END, "E_LINK")
    problem(below + symlink + END, "E_LINK")


def test_h27_an_entry_replaced_by_a_link_is_a_duplicate() -> None:
    refused(entry(b"c.json") + link(b"c.json", b"x") + END, "E_DUP")


# -- where links lead ---------------------------------------------------------------------------------------------------


def resolved(data: bytes) -> dict[str, str]:
    found = entries(data + END)
    assert not any(item.problem for item in found)
    files = {item.name: item.header_offset for item in found if item.kind is EntryKind.FILE}
    links = [item for item in found if item.kind in (EntryKind.SYMLINK, EntryKind.HARDLINK)]
    return resolve_links(links, files, where="a.tar")


def unresolved(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        resolved(data)
    assert caught.value.code == "E_LINK"
    assert set(caught.value.details) == {"entry", "target", "offset"}
    return caught.value


A_LAYER = entry(b"a/layer.tar", b"x")


def test_h21_h22_one_hop_to_a_file_is_resolved_in_either_order() -> None:
    symlink = link(b"b/layer.tar", b"../a/layer.tar")
    assert resolved(A_LAYER + symlink) == {"b/layer.tar": "a/layer.tar"}
    assert resolved(symlink + A_LAYER) == {"b/layer.tar": "a/layer.tar"}
    assert resolved(A_LAYER + link(b"a/l", b"layer.tar")) == {"a/l": "a/layer.tar"}
    assert resolved(A_LAYER + link(b"b/h", b"./a/layer.tar", b"1")) == {"b/h": "a/layer.tar"}


@pytest.mark.parametrize(
    "target",
    [b"/etc/passwd", b"../../../canary", b"../..", b"missing", b"../a", b"../a/layer.tar/", b"..\\a\\layer.tar"],
)
def test_h18_h19_h20_h25_symlinks_out_of_the_archive_or_to_nothing_are_refused(target: bytes) -> None:
    fault = unresolved(A_LAYER + link(b"b/layer.tar", target))
    assert "b/layer.tar" in fault.message
    assert fault.details["target"] == target.decode()


@pytest.mark.parametrize("count", [2, 40, 10_000])
def test_h23_a_chain_of_links_is_refused(count: int) -> None:
    chain = b"".join(link(b"l%d" % i, b"l%d" % (i + 1)) for i in range(count - 1)) + link(b"l%d" % (count - 1), b"f")
    assert "itself a link" in unresolved(chain + entry(b"f")).message


def test_h24_loops_are_refused() -> None:
    unresolved(link(b"a", b"a"))
    unresolved(link(b"a", b"b") + link(b"b", b"a"))


def test_a_target_behind_a_linked_directory_is_refused() -> None:
    unresolved(A_LAYER + link(b"s", b"a/layer.tar") + link(b"l", b"s/../a/layer.tar"))


@pytest.mark.parametrize("target", [b"/a/layer.tar", b"../a/layer.tar", b"a/../a/layer.tar", b"later", b"missing"])
def test_h28_hard_links_elsewhere_are_refused(target: bytes) -> None:
    unresolved(A_LAYER + link(b"h", target, b"1") + entry(b"later"))


def test_h29_a_hard_link_to_a_symlink_is_refused() -> None:
    unresolved(A_LAYER + link(b"s", b"a/layer.tar") + link(b"h", b"s", b"1"))
