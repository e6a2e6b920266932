"""Where a file system can share blocks between files, nothing is copied; and nothing is believed that was not read."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgtar.blob import files
from tests.builders.images import make_image, make_layer, oci_archive
from tests.conftest import Imgtar, snapshot

BIG = make_layer(random.Random(3).randbytes(2 << 20))
SIZE = len(BIG.blob)
IMAGE = make_image("app:1", [BIG])


class Cloning:
    """The call of the kernel that shares blocks, for file systems that cannot: it copies, as nobody can tell from above."""

    def __init__(self) -> None:
        self.shared = 0

    def __call__(self, fd: int, request: int, argument: bytes) -> int:
        assert request == files._FICLONERANGE
        source, offset, size, target = struct.unpack("=qQQQ", argument)
        assert (offset % 4096, size % 4096, target % 4096) == (0, 0, 0), "the kernel shares whole blocks"
        os.pwrite(fd, os.pread(source, size, offset), target)
        self.shared += size
        return 0


@pytest.fixture
def cloning(monkeypatch: pytest.MonkeyPatch) -> Cloning:
    kernel, real = Cloning(), fcntl.ioctl

    def ioctl(fd: int, request: int, *more: object) -> object:
        return kernel(fd, request, *more) if request == files._FICLONERANGE else real(fd, request, *more)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return kernel


def whole_blocks(size: int) -> int:
    return size // 4096 * 4096


@pytest.mark.parametrize("form", ["hybrid", "docker", "oci", "oci-dir"])
def test_a_save_and_a_load_share_all_whole_blocks(form: str, imgtar: Imgtar, cloning: Cloning, tmp_path: Path) -> None:
    imgtar.load(oci_archive([IMAGE])).ok()
    cloning.shared = 0
    target = tmp_path / "out"
    imgtar("save", "--format", form, "-o", target, "app:1").ok()
    assert cloning.shared == whole_blocks(SIZE)
    imgtar("verify", target).ok()
    imgtar("load", "-i", target, store=tmp_path / "other").ok()
    assert cloning.shared == 2 * whole_blocks(SIZE)
    imgtar("verify", store=tmp_path / "other").ok()
    assert snapshot(tmp_path / "other/blobs")


@pytest.mark.parametrize("form", ["hybrid", "oci-dir"])
def test_the_bytes_are_the_same_whether_they_are_shared_or_copied(
    form: str, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    imgtar.load(oci_archive([IMAGE])).ok()
    imgtar("save", "--format", form, "-o", tmp_path / "copied", "app:1").ok()
    kernel = Cloning()
    monkeypatch.setattr(fcntl, "ioctl", kernel)
    done = imgtar("save", "--format", form, "-o", tmp_path / "shared", "--json", "app:1").ok().json()
    assert kernel.shared
    if form == "oci-dir":
        assert snapshot(tmp_path / "shared") == snapshot(tmp_path / "copied")
    else:
        assert (tmp_path / "shared").read_bytes() == (tmp_path / "copied").read_bytes()
        copied = imgtar("verify", "--json", tmp_path / "copied").ok().json()
        assert done["sha256"] == copied["archives"][0]["sha256"]


@pytest.mark.parametrize("form", ["hybrid", "oci-dir"])
@pytest.mark.parametrize("place", [0, 1 << 20, SIZE - 1])
def test_damage_in_the_store_is_found_in_what_was_shared(
    place: int, form: str, imgtar: Imgtar, cloning: Cloning, tmp_path: Path
) -> None:
    imgtar.load(oci_archive([IMAGE])).ok()
    blob = imgtar.store / "blobs" / BIG.digest.replace(":", "/")
    data = bytearray(blob.read_bytes())
    data[place] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    done = imgtar("save", "--format", form, "-o", tmp_path / "out", "app:1")
    assert (done.code, "does not match its digest" in done.errors) == (7, True), done.errors
    assert os.listdir(tmp_path) == ["home"] or not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", [0, 1 << 20, SIZE - 1])
def test_damage_in_the_archive_is_found_in_what_was_shared(
    place: int, imgtar: Imgtar, cloning: Cloning, tmp_path: Path
) -> None:
    imgtar.load(oci_archive([IMAGE])).ok()
    imgtar("save", "-o", tmp_path / "good.tar", "app:1").ok()
    data = bytearray((tmp_path / "good.tar").read_bytes())
    data[data.index(BIG.blob[:64]) + place] ^= 1
    (tmp_path / "bad.tar").write_bytes(data)
    other = tmp_path / "other"
    done = imgtar("load", "-i", tmp_path / "bad.tar", store=other)
    assert (done.code, "E_DIGEST" in done.errors) == (5, True), done.errors
    assert cloning.shared, "it was copied: this test says nothing"
    assert imgtar("images", "--json", store=other).ok().json()["images"] == []


def test_what_is_shared_needs_no_space(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    imgtar.load(oci_archive([IMAGE])).ok()
    imgtar("save", "-o", tmp_path / "out.tar", "app:1").ok()
    from imgtar.store import transaction

    usage = transaction.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(transaction.shutil, "disk_usage", lambda _: usage._replace(free=(1 << 20) + 100_000))
    refused = imgtar("load", "-i", tmp_path / "out.tar", store=tmp_path / "other")
    assert (refused.code, "E_SPACE" in refused.errors) == (6, True), refused.errors
    monkeypatch.setattr(fcntl, "ioctl", Cloning())
    imgtar("load", "-i", tmp_path / "out.tar", store=tmp_path / "other").ok()


def test_a_file_that_is_only_written_is_not_shared_with(cloning: Cloning, tmp_path: Path) -> None:
    """What was shared must be read again: that is what ``imgtar save > FILE`` cannot."""
    (tmp_path / "source").write_bytes(BIG.blob)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    for mode, shared in ((os.O_WRONLY, 0), (os.O_RDWR, whole_blocks(SIZE))):
        fd = os.open(tmp_path / "target", mode | os.O_CREAT | os.O_TRUNC)
        assert files.FileWriter(fd).clone(files.FileWindow(source, 0, SIZE, "source")) == shared
        os.close(fd)
    os.close(source)


@pytest.mark.parametrize(("offset", "size", "before"), [(512, SIZE - 512, 0), (0, SIZE, 512), (0, 60_000, 0)])
def test_only_whole_blocks_are_shared_and_not_for_little(
    offset: int, size: int, before: int, cloning: Cloning, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(BIG.blob)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.lseek(fd, before, os.SEEK_SET)
    assert files.FileWriter(fd).clone(files.FileWindow(source, offset, size, "source")) == 0
    assert os.fstat(fd).st_size == 0
    os.close(fd)
    os.close(source)


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_file_systems_that_share_blocks_hold_an_image_once(kind: str, imgtar: Imgtar, tmp_path: Path) -> None:
    """The store, the archive that was loaded, and the one that was saved, in the space of one."""
    place, layer = tmp_path / "place", make_layer(random.Random(7).randbytes(40 << 20))
    place.mkdir()
    with loop_mounted(kind, tmp_path / "disk", place):

        def used() -> int:
            os.sync()
            status = os.statvfs(place)
            return (status.f_blocks - status.f_bfree) * status.f_frsize

        imgtar.load(oci_archive([make_image("app:1", [layer])])).ok()
        imgtar("save", "-o", place / "in.tar", "app:1").ok()
        before = used()
        store = place / "store"
        imgtar("load", "-i", place / "in.tar", store=store).ok()
        imgtar("save", "-o", place / "out.tar", "app:1", store=store).ok()
        imgtar("save", "--format", "oci-dir", "-o", place / "layout", "app:1", store=store).ok()
        assert used() - before < 8 << 20
        assert (place / "out.tar").read_bytes() == (place / "in.tar").read_bytes()
        for what in (place / "out.tar", place / "layout"):
            imgtar("verify", what).ok()
        imgtar("verify", store=store).ok()


@contextmanager
def loop_mounted(kind: str, image: Path, place: Path) -> Iterator[None]:
    """A new file system at ``place``."""
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    for command in ((f"mkfs.{kind}", "-q", image), ("mount", "-t", kind, "-o", "loop", image, place)):
        tool = shutil.which(str(command[0]), path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if tool is None or subprocess.run([tool, *command[1:]], capture_output=True, timeout=60).returncode:
            pytest.skip(f"{command[0]} of {kind} does not work here")  # A kernel without it cannot be helped.
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)
