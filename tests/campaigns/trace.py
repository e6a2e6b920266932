"""What strace wrote (with ``-f -y``), as calls in the order in which they ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["WRITING", "Call", "calls", "killed_at", "threads"]

WRITING = (
    "openat open creat write pwrite64 writev pwritev fsync fdatasync sync_file_range rename renameat renameat2 mkdir "
    "mkdirat unlink unlinkat rmdir ftruncate truncate link linkat symlink symlinkat flock"
).split()
"""Calls that change something on disk, or stand before such a change."""

_LINE = re.compile(r"(\d+) +(.*)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FOLDER = re.compile(r"\((?:AT_FDCWD|(\d+))<([^>]*)>")


@dataclass(frozen=True)
class Call:
    """One system call. ``paths`` are those that it names, or those behind its descriptors; absolute."""

    thread: int
    name: str
    paths: tuple[str, ...]
    text: str
    result: int | None
    """``None``: it did not return."""

    @property
    def writes(self) -> bool:
        """Whether it can change anything on disk."""
        if self.name in ("openat", "open"):
            return "O_CREAT" in self.text or "O_TRUNC" in self.text
        return self.name in WRITING

    @property
    def duplicates(self) -> bool:
        """Whether it makes another descriptor of one that is open: both then write to one file, one behind the other."""
        return self.name == "fcntl" and "F_DUPFD" in self.text

    @property
    def fd(self) -> int | None:
        """The descriptor that it is given first, if any."""
        found = re.match(r"\w+\((\d+)[<,)]", self.text)
        return int(found[1]) if found else None

    @property
    def injected(self) -> bool:
        """Whether it failed because strace made it."""
        return "(INJECTED)" in self.text

    @property
    def data(self) -> bytes:
        """What was written (needs ``-xx``)."""
        found = _TEXT.search(self.text)
        assert found is not None
        return plain(found[1])


def plain(text: str) -> bytes:
    """A string as strace writes it with ``-xx``; without, only printable characters are understood."""
    if text.startswith("\\x"):
        return bytes.fromhex(text.replace("\\x", ""))
    return text.encode()


def calls(log: str) -> Iterator[Call]:
    """The calls of a log; one that was cut in two by another thread's is put together."""
    begun: dict[str, str] = {}
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, text = match[1], match[2]
        if text.startswith(("+++", "---")):
            continue
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... "):
            text = begun.pop(thread, "") + text.partition(" resumed>")[2]
        if text and text[0].isalpha():
            yield _call(int(thread), text)
    for thread, text in begun.items():
        yield _call(int(thread), text)


def _call(thread: int, text: str) -> Call:
    name = text.partition("(")[0]
    arguments = text.partition("(")[2]
    folder = _FOLDER.search(text)
    below = _path(folder[2]) if folder else ""
    named = [] if name in ("write", "pwrite64") else [_path(one) for one in _TEXT.findall(arguments)]
    if name in ("rename", "renameat", "renameat2", "link", "linkat"):
        paths = tuple(_joined(below, one) for one in named)
    elif named:
        paths = (_joined(below, named[0]),)
    else:
        paths = (below,)
    value = re.search(r"\)\s+= (-?\d+)", text)
    return Call(thread, name, paths, text, int(value[1]) if value else None)


def _path(text: str) -> str:
    return plain(text).decode("utf-8", "backslashreplace")


def _joined(folder: str, name: str) -> str:
    return name if name.startswith("/") else f"{folder}/{name}"


def killed_at(log: str) -> Call | None:
    """The call before which the process was killed: the last one that did not return."""
    return next((call for call in reversed(list(calls(log))) if call.result is None), None)


def threads(log: str) -> dict[int, int]:
    """How many calls each thread made; the first is the one that began."""
    counts: dict[int, int] = {}
    for call in calls(log):
        counts[call.thread] = counts.get(call.thread, 0) + 1
    return counts
