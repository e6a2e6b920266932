"""The members of an archive by clean name, whether it can be read anywhere or has just passed by."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from imgtar.blob.compression import SNIFF_BYTES
from imgtar.blob.files import FileWindow, read_window
from imgtar.blob.measure import Measure
from imgtar.blob.stream import Readable
from imgtar.errors import ImgtarError, Refused, local_trouble
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest
from imgtar.ports import Blob, Dock, Staged

__all__ = ["DirectoryMembers", "Members", "PassedMembers", "TarMembers", "changed_meanwhile", "claimed_digest"]

_SWAPPED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EINVAL)
"""What opening a file of a directory says when something else stands in its place now, or in that of its folder."""


def changed_meanwhile(error: OSError, where: str) -> ImgtarError:
    """What an error means that comes of a file or folder that was there, and no link, a moment ago."""
    if error.errno not in _SWAPPED:
        return local_trouble(error, f"reading {where}")
    return Refused("E_LINK", f"changed while it was read: {error.strerror}", where=where, hint=_STILL)


_STILL = "read it when nobody writes there any more, or make a copy first"


class Members(Protocol):
    """A table of regular files; ``links`` maps the name of a link to the file it stands for (one hop, in here)."""

    label: str
    budget: Budget

    @property
    def files(self) -> Mapping[str, int]:
        """Regular files: clean name to size in bytes."""
        ...

    @property
    def links(self) -> Mapping[str, str]:
        """Links: name to the regular file meant."""
        ...

    def read(self, name: str, cap: int) -> bytes:
        """Return a small file. Raises ``E_LIMIT`` when it has more than ``cap`` bytes, before reading it.

        Every reading is charged to the budget, because nobody reads a document without parsing it.
        """
        ...

    def head(self, name: str) -> bytes:
        """Return the first bytes, enough to sniff the compression."""
        ...

    def known(self, name: str) -> Measure | None:
        """What is known of the content without reading it."""
        ...

    def measured(self, name: str) -> Measure:
        """Read the file to its end, once, and say what it is; where it can be kept, it is kept."""
        ...

    def blob(self, name: str) -> Blob:
        """The file as a blob."""
        ...

    def lift(self, prefix: str) -> None:
        """Make the folder ``prefix`` (which ends in a slash, and holds everything) the top."""
        ...


def _too_large(label: str, name: str, size: int, cap: int) -> Refused:
    return Refused("E_LIMIT", f"the document has {size} bytes, the limit is {cap}", where=f"{label}: {name}")


def claimed_digest(name: str) -> Digest | None:
    """The digest in an entry's name, wherever in the tar the ``blobs`` folder lies."""
    head, _, encoded = name.rpartition("/")
    folder, _, algorithm = head.rpartition("/")
    if folder == "blobs" or folder.endswith("/blobs"):
        lengths = {"sha256": 64, "sha512": 128}
        if len(encoded) == lengths.get(algorithm) and not set(encoded) - set("0123456789abcdef"):
            return Digest(algorithm, encoded)
    return None


class _Random(ABC):
    """Shared by the forms with random access: what was measured goes through the dock, and is not read again."""

    label: str
    files: dict[str, int]
    links: dict[str, str]

    def __init__(self, label: str, dock: Dock, budget: Budget) -> None:
        self.label = label
        self.budget = budget
        self.files = {}
        self.links = {}
        self._dock = dock
        self._staged: dict[str, Staged] = {}
        self._real: dict[str, str] = {}

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open one file for a sequential reading."""

    def read(self, name: str, cap: int) -> bytes:
        """See :class:`Members`."""
        size = self.files[name]
        if size > cap:
            raise _too_large(self.label, name, size, cap)
        raw = self._bytes(name, size)
        self.budget.document(raw, f"{self.label}: {name}")
        return raw

    def head(self, name: str) -> bytes:
        """See :class:`Members`."""
        return self._bytes(name, min(SNIFF_BYTES, self.files[name]))

    def _bytes(self, name: str, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        filled = 0
        with self.open(name) as content:
            while filled < size and (count := content.readinto(view[filled:])):
                filled += count
        return bytes(view[:filled])

    def lift(self, prefix: str) -> None:
        """See :class:`Members`. What is to be opened keeps its whole name in ``_real``."""
        self._real = {name.removeprefix(prefix): name for name in self.files}
        self.files = {name.removeprefix(prefix): size for name, size in self.files.items()}
        self.links = {n.removeprefix(prefix): target.removeprefix(prefix) for n, target in self.links.items()}

    def known(self, name: str) -> Measure | None:
        """See :class:`Members`."""
        staged = self._staged.get(name)
        return staged.measure if staged is not None else None

    def measured(self, name: str) -> Measure:
        """See :class:`Members`."""
        if name not in self._staged:
            with self.open(name) as content:
                where = f"{self.label}: {name}"
                self._staged[name] = self._dock.stage(
                    content, self.files[name], where=where, claimed=claimed_digest(name), budget=self.budget
                )
        return self._staged[name].measure

    def blob(self, name: str) -> Blob:
        """See :class:`Members`."""
        staged = self._staged.get(name)
        where = f"{self.label}: {name}"
        return Blob(self.files[name], where, lambda: self.open(name), staged, self._offset(name), self.budget)

    def _offset(self, name: str) -> int:
        """Where on the medium the file begins, if that is known."""
        return 0


class TarMembers(_Random):
    """The members of a plain tar file that can be read anywhere."""

    def __init__(self, label: str, fd: int, dock: Dock, budget: Budget) -> None:
        super().__init__(label, dock, budget)
        self._fd = fd
        self._offsets: dict[str, int] = {}

    def close(self) -> None:
        """Forget the descriptor: its number may soon belong to another file."""
        self._fd = -1

    def add(self, name: str, size: int, offset: int) -> None:
        """Enter a regular file whose ``size`` bytes start at ``offset``."""
        self.files[name] = size
        self._offsets[name] = offset

    @contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        """See :class:`_Random`. Raises :class:`ValueError` after :meth:`close`."""
        if self._fd < 0:
            raise ValueError(f"{self.label} has been closed")
        yield FileWindow(self._fd, self._offset(name), self.files[name], f"{self.label}: {name}")

    def _bytes(self, name: str, size: int) -> bytes:
        return read_window(self._fd, self._offset(name), size, f"{self.label}: {name}")

    def _offset(self, name: str) -> int:
        return self._offsets[self._real.get(name, name)]


class DirectoryMembers(_Random):
    """The regular files below a directory, opened one component at a time and never through a link (H33, H34)."""

    def __init__(self, label: str, root_fd: int, dock: Dock, budget: Budget) -> None:
        super().__init__(label, dock, budget)
        self._root = root_fd

    def add(self, name: str, size: int) -> None:
        """Enter a regular file."""
        self.files[name] = size

    @contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        """See :class:`_Random`."""
        where = f"{self.label}: {name}"
        fd = self._open(name, where)
        try:
            yield FileWindow(fd, 0, self.files[name], where)
        finally:
            os.close(fd)

    def _open(self, name: str, where: str) -> int:
        *folders, last = name.split("/")
        current = os.dup(self._root)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
                os.close(current)
                current = inner
            # O_NONBLOCK: a fifo put in a file's place must not hang us (CVE-2024-9676).
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(last, flags, dir_fd=current)
        except OSError as error:
            raise changed_meanwhile(error, where) from None
        finally:
            os.close(current)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            message = "changed while it was read: it was a file, and is none any more"
            raise Refused("E_LINK", message, where=where, hint=_STILL)
        return fd


class PassedMembers:
    """The members of a tar that came through a pipe or out of a decompressor: all measured, kept by the dock."""

    def __init__(self, label: str, dock: Dock, budget: Budget) -> None:
        self.label = label
        self.budget = budget
        self.files: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self._dock = dock
        self._staged: dict[str, Staged] = {}

    def add(self, name: str, size: int, staged: Staged) -> None:
        """Enter a regular file that the dock has taken."""
        self.files[name] = size
        self._staged[name] = staged

    def read(self, name: str, cap: int) -> bytes:
        """See :class:`Members`."""
        if self.files[name] > cap:
            raise _too_large(self.label, name, self.files[name], cap)
        try:
            raw = self._dock.read_staged(self._staged[name], cap)
        except Refused as error:
            raise error.within(f"{self.label}: {name}") from None
        if raw is None:
            message = "is needed as a document but was not kept while the archive passed: too much text in this archive"
            raise Refused("E_LIMIT", message, where=f"{self.label}: {name}", hint="read it from a plain, seekable file")
        self.budget.document(raw, f"{self.label}: {name}")
        return raw

    def head(self, name: str) -> bytes:
        """Never asked for: everything has been measured."""
        raise AssertionError(f"{name} has been measured already")

    def known(self, name: str) -> Measure | None:
        """See :class:`Members`."""
        return self._staged[name].measure

    def measured(self, name: str) -> Measure:
        """See :class:`Members`."""
        return self._staged[name].measure

    def blob(self, name: str) -> Blob:
        """See :class:`Members`."""
        return Blob(self.files[name], f"{self.label}: {name}", None, self._staged[name], budget=self.budget)

    def lift(self, prefix: str) -> None:
        """See :class:`Members`."""
        self.files = {name.removeprefix(prefix): size for name, size in self.files.items()}
        self._staged = {name.removeprefix(prefix): staged for name, staged in self._staged.items()}
        self.links = {n.removeprefix(prefix): target.removeprefix(prefix) for n, target in self.links.items()}
