"""Section A: names in the outer archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import rawtar
from tests.builders.images import Member, docker_files, make_image, oci_files
from tests.hostile.conftest import World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
DOCKER = docker_files([IMAGE])
OCI = oci_files([IMAGE])


def with_entry(*blocks: bytes, first: bool = False) -> bytes:
    """A good archive with more entries."""
    good = DOCKER.tar(end=b"")
    extra = b"".join(blocks)
    return (extra + good if first else good + extra) + rawtar.END


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"/etc/cron.d/x", id="h01"),
        pytest.param(b"../../outside", id="h02"),
        pytest.param(b"blobs/sha256/../../../outside", id="h03"),
        pytest.param(b"blobs/x/../sha256/" + b"0" * 64, id="h04"),
        pytest.param(b"..\\..\\outside", id="h06-up"),
        pytest.param(b"blobs\\sha256\\" + b"0" * 64, id="h06-folder"),
        pytest.param(b"C:/x", id="h07-drive"),
        pytest.param(b"C:x", id="h07-drive-relative"),
        pytest.param(b"//host/share/x", id="h07-share"),
        pytest.param(b"\\\\?\\C:\\x", id="h07-long"),
        pytest.param(b"NUL", id="h07-device"),
        pytest.param(b"con.txt", id="h07-device-suffix"),
        pytest.param(b"x.", id="h07-dot"),
        pytest.param(b"x ", id="h07-space"),
        pytest.param(b"", id="h09"),
        pytest.param(b"\xff\xfe", id="h10"),
        pytest.param(b"a\x1b[2Jb", id="h11-escape"),
        pytest.param(b"a\rb", id="h11-return"),
        pytest.param(b"a\nb", id="h11-newline"),
    ],
)
def test_h01_to_h11_an_unsafe_name_is_refused(assert_refused: Assert, name: bytes) -> None:
    assert_refused(with_entry(rawtar.entry(name, b"payload")), "E_PATH")


def test_h01_the_unsafe_name_is_told(assert_refused: Assert) -> None:
    assert_refused(with_entry(rawtar.entry(b"/etc/cron.d/x", b"payload")), "E_PATH", says=["/etc/cron.d/x"])


def test_h05_a_leading_dot_and_slash_is_accepted(assert_accepted: Assert) -> None:
    for files in (DOCKER, OCI):
        dotted = files.mapped(lambda name: f"./{name}").plus(Member("./", kind=b"5"), first=True)
        assert_accepted(dotted.tar(), names=["demo:1"])


@pytest.mark.parametrize("name", ["./manifest.json", ".//manifest.json", "././manifest.json"])
def test_h05_h39_a_second_spelling_of_a_name_is_refused(assert_refused: Assert, name: str) -> None:
    assert_refused(DOCKER.plus(Member(name, DOCKER["manifest.json"])).tar(), "E_DUP")


def test_h08_a_nul_in_a_name_is_refused(assert_refused: Assert) -> None:
    assert_refused(with_entry(rawtar.pax((b"path", b"a\0b")), rawtar.entry(b"a", b"x")), "E_HEADER")
    assert_refused(with_entry(rawtar.entry(b"a\0b", b"x")), "E_HEADER")


def test_h09_a_symlink_without_a_name_is_refused(assert_refused: Assert) -> None:
    assert_refused(with_entry(rawtar.entry(b"", kind=b"2", link=b"manifest.json")), "E_PATH")


def test_h12_a_file_with_a_trailing_slash_is_refused(assert_refused: Assert) -> None:
    assert_refused(DOCKER.renamed("manifest.json", "manifest.json/").tar(), "E_HEADER")


def test_h13_a_file_used_as_a_directory_is_refused(assert_refused: Assert) -> None:
    assert_refused(OCI.plus(Member("blobs", b"x"), first=True).tar(), "E_PATH")
    assert_refused(OCI.plus(Member("blobs", b"x")).tar(), "E_PATH")


@pytest.mark.parametrize("name", [b"a/" * 2048 + b"b", b"x" * 256, b"a/" * 2000 + b"b"])
def test_h14_h15_long_and_deep_names_are_refused(assert_refused: Assert, name: bytes) -> None:
    assert_refused(with_entry(rawtar.pax((b"path", name)), rawtar.entry(b"x", b"x")), "E_LIMIT")
    assert_refused(
        with_entry(rawtar.gnu_long(name), rawtar.entry(b"x", b"x", magic=b"ustar  \0")), "E_LIMIT", forms=["file"]
    )


@pytest.mark.parametrize("files", [DOCKER, OCI], ids=["docker", "oci"])
@pytest.mark.parametrize(
    "name",
    ["evil.sh", "index.json.lock", "ingest/x", "blobs/sha256/.tmp-x", ".imgtar/lock", "staging/0/blob", "locks/store"],
)
def test_h16_h17_files_that_nothing_names_are_ignored(world: World, files: object, name: str) -> None:
    assert isinstance(files, type(DOCKER))
    payload = b"\x7fELF payload that nothing refers to"
    world.accepted(files.plus(Member(name, payload)).tar(), names=["demo:1"], runs=[("load", "file"), ("load", "pipe")])
    for form in ("file", "pipe"):
        assert world.run("load", files.plus(Member(name, payload)).tar(), form).status == 0
        for path in (path for path in world.store.rglob("*") if path.is_file()):
            assert payload not in path.read_bytes(), f"{path} was stored"


def test_h17_oci_layout_twice_is_refused(assert_refused: Assert) -> None:
    assert_refused(OCI.plus(Member("oci-layout", OCI["oci-layout"])).tar(), "E_DUP")


def test_h16_a_directory_may_hold_other_files(assert_accepted: Assert, tmp_path: Path) -> None:
    assert_accepted(OCI.plus(Member("evil.sh", b"x")).directory(tmp_path / "layout"), names=["demo:1"])
