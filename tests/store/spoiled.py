"""What may become of a cache file, by accident or on purpose; whoever reads it afterwards must take it for no cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["SPOILED"]


def deleted(path: Path) -> None:
    path.unlink()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def torn_at_the_start(path: Path) -> None:
    path.write_bytes(path.read_bytes()[30:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20 + b"\n\n \n")


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


SPOILED: list[Callable[[Path], None]] = [deleted, torn, torn_at_the_start, empty, noise, one_bit, folder, fifo, link]
