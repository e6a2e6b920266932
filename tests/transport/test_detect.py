"""What is no image archive is called by its name, with what to do instead."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar.errors import ImgtarError
from imgtar.transport.detect import describe_content, describe_head, is_tar_head, looks_like_other
from tests.builders.images import Files, docker_archive, make_image, oci_files
from tests.conftest import Imgtar


def tar_of(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            else:
                info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def zip_of(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, "x" * 2000)
    return out.getvalue()


ROOTFS = tar_of("bin/", "dev/", "etc/", "etc/passwd", "lib/", "proc/", "usr/", "usr/bin/env", "var/")
WRONG = {
    "html": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>" + b" " * 600, ["HTML", "download"]),
    "html after blank lines": (b"\n\n  <html><head>" + b"x" * 600, ["HTML"]),
    "elf": (b"\x7fELF\x02\x01\x01" + bytes(2000), ["ELF"]),
    "zip": (zip_of("x"), ["zip", "unpack"]),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(1000), ["PNG"]),
    "pdf": (b"%PDF-1.7\n" + b"x" * 1000, ["PDF"]),
    "debian package": (b"!<arch>\ndebian-binary   " + bytes(1000), ["Debian"]),
    "rpm": (b"\xed\xab\xee\xdb\x03\x00" + bytes(1000), ["RPM"]),
    "qcow2": (b"QFI\xfb" + bytes(1000), ["qcow2"]),
    "squashfs": (b"hsqs" + bytes(1000), ["squashfs"]),
    "cpio": (b"070701" + b"0" * 1000, ["cpio"]),
    "boot sector": (b"\xeb\x3c\x90" + b"\x01" * 507 + b"\x55\xaa" + bytes(600), ["disk image"]),
    "json": (json.dumps([{"Config": "x"}] * 50).encode(), ["JSON"]),
    "empty": (b"", ["empty"]),
    "zeros": (bytes(10240), ["zeros"]),
    "one zero block": (bytes(512), ["zeros"]),
    "short text": (b"curl: (22) The requested URL returned error: 404\n", ["text"]),
    "checksum list": (b"0123456789abcdef  app.tar\n" * 60, ["text"]),
    "short noise": (b"\x01\x02\x03" * 20, ["short"]),
    "noise": (bytes(range(1, 256)) * 8, ["not an image archive"]),
    "compress .Z": (b"\x1f\x9d\x90" + bytes(range(256)) * 4, ["compress"]),
    "root file system": (ROOTFS, ["root file system", "docker save", "docker import"]),
    "root file system with ./": (tar_of("./bin/x", "./dev/x", "./etc/x", "./lib/x", "./usr/x"), ["root file system"]),
    "docker export": (tar_of(".dockerenv", "bin/x"), ["root file system", "docker export"]),
    "build context": (tar_of("Dockerfile", "src/app.py"), ["Dockerfile", "docker build"]),
    "layer": (tar_of("usr/bin/tool", "etc/tool.conf"), ["layer"]),
    "whiteouts": (tar_of("srv2/.wh.old", "srv2/new"), ["layer"]),
    "some tar": (tar_of("readme.txt", "src/main.c"), ["not an image archive", "manifest.json"]),
    "tar without members": (bytes(1024) + tar_of(), ["zeros"]),
    "image in a folder among others": (
        tar_of("bundle/index.json", "bundle/oci-layout", "notes.txt"),
        ["bundle", "tar -C bundle"],
    ),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("how", ["file", "pipe", "gzip"])
def test_the_wrong_kind_of_file_is_named(content: tuple[bytes, list[str]], how: str, imgtar: Imgtar) -> None:
    data, words = content
    if how == "gzip":
        data = gzip.compress(data)
    done = imgtar("load", stdin=data) if how == "pipe" else imgtar.load(data)
    assert done.code == 5, done.errors
    for word in words:
        assert word in done.errors, done.errors
    assert "error[E_" in done.errors
    assert "Traceback" not in done.errors
    assert not imgtar.images()


def test_an_archive_that_was_cut_before_its_documents_is_called_cut_not_strange(imgtar: Imgtar) -> None:
    files = oci_files([make_image()])
    done = imgtar.load(files.without("index.json", "oci-layout").tar())
    assert done.code == 5
    assert "E_TRUNC" in done.errors
    assert "cut short" in done.errors


def test_a_gzip_in_a_gzip_is_said_to_be_that(imgtar: Imgtar) -> None:
    done = imgtar.load(gzip.compress(gzip.compress(docker_archive([make_image()]))))
    assert done.code == 5
    assert "twice" in done.errors


def test_a_damaged_first_header_is_damage_not_another_kind(imgtar: Imgtar) -> None:
    data = bytearray(docker_archive([make_image()]))
    data[10] ^= 1
    done = imgtar.load(bytes(data))
    assert done.code == 5
    assert "E_HEADER" in done.errors


@pytest.mark.parametrize("name", ["image.zip", "image.html", "image", "image.tar.gz"])
def test_the_name_of_a_file_says_nothing(name: str, imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(docker_archive([make_image()]))
    imgtar.load(tmp_path / name).ok()


@pytest.mark.parametrize(("path", "code"), [("nowhere.tar", 3), ("", 3), ("file/inside", 3)])
def test_a_file_that_is_not_there_is_not_found(path: str, code: int, imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert imgtar("load", "-i", f"{tmp_path}/{path}" if path else "").code == code


def test_a_folder_without_archives_is_not_found(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "notes.txt").write_text("hello")
    done = imgtar("load", "-i", tmp_path / "usb")
    assert done.code == 3
    assert "usb" in done.errors


def test_a_folder_of_archives_is_one_medium(imgtar: Imgtar, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    (usb / "a.tar").write_bytes(docker_archive([make_image("a:1", seed=1)]))
    (usb / "b.tar.gz").write_bytes(gzip.compress(docker_archive([make_image("b:1", seed=2)])))
    oci_files([make_image("c:1", seed=3)]).directory(usb / "c")
    (usb / "SHA256SUMS").write_text("hello")
    done = imgtar("load", "-i", usb).ok()
    assert set(imgtar.names()) == {"a:1", "b:1", "c:1"}
    assert "SHA256SUMS" in done.errors


@given(st.binary(max_size=2000))
def test_any_head_whatever_gets_a_sentence(head: bytes) -> None:
    if not is_tar_head(head):
        message, hint = describe_head(head[:1024])
        assert message
        assert message.isprintable()
        assert hint.isprintable()


@given(st.lists(st.text(min_size=1, max_size=30), max_size=8))
def test_any_names_whatever_get_a_sentence(names: list[str]) -> None:
    message, _ = describe_content(names, {})
    assert message
    assert looks_like_other([*names, "manifest.json"]) is None


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_tar_header_is_known_by_its_checksum_alone(place: int, change: int) -> None:
    block = bytearray(Files.of({"x": b""}).tar()[:512])
    assert is_tar_head(bytes(block))
    block[257:263] = bytes(6)  # Old tars have no magic, so it does not count ...
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    assert is_tar_head(bytes(block))
    block[place] = (block[place] + change) % 256
    if not 148 <= place < 156:
        assert not is_tar_head(bytes(block))  # ... and every other byte does.


def test_the_errors_come_from_the_tree(tmp_path: Path) -> None:
    from imgtar.transport.location import open_archive

    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(ImgtarError) as caught:
        open_archive(str(tmp_path / "x"))
    assert caught.value.exit_code == 5
