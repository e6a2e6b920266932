"""A store whose disk forgets: the images in it, and the ways in which it is damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.builders.images import make_image, oci_archive
from tests.conftest import Imgtar

__all__ = ["APP", "ARCHIVE", "BASE", "archive_of", "aside", "blob", "sectors", "spoil"]

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "app:2"), 1, seed=2, base=BASE)
ARCHIVE = oci_archive([BASE, APP])


def blob(imgtar: Imgtar, digest: str) -> Path:
    return imgtar.store / "blobs" / "sha256" / digest.partition(":")[2]


def spoil(path: Path) -> bytes:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    return bytes(raw)


def aside(imgtar: Imgtar) -> dict[str, bytes]:
    """What was set aside: path below imgtar/damaged to content."""
    top = imgtar.store / "imgtar" / "damaged"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def archive_of(imgtar: Imgtar, data: bytes, name: str = "help.tar") -> Path:
    path = imgtar.home / name
    path.write_bytes(data)
    return path


def sectors(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Make files unreadable, as bad sectors do."""
    bad = [os.stat(path).st_ino for path in paths]
    real = os.preadv

    def failing(fd: int, *arguments: object) -> int:
        if os.fstat(fd).st_ino in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", failing)
