"""Archives as sources: a plain tar that can be read anywhere, a stream that passes once, a directory."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable

from imgtar.blob.compression import Compression, sniff
from imgtar.blob.decompress import decompressing
from imgtar.blob.files import read_into
from imgtar.blob.lanes import ReadAhead
from imgtar.blob.stream import Readable
from imgtar.blob.tar_header import EntryKind
from imgtar.blob.tar_names import Entry, resolve_links
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import FileStream, PipeStream
from imgtar.errors import Refused
from imgtar.graph.catalog import Catalog
from imgtar.graph.finding import Finding
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest, Hasher
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ports import Blob, Dock
from imgtar.text import shown
from imgtar.transport.detect import describe_head, is_tar_head, looks_like_other
from imgtar.transport.interpret import Interpretation, interpret
from imgtar.transport.members import (
    DirectoryMembers,
    Members,
    PassedMembers,
    TarMembers,
    changed_meanwhile,
    claimed_digest,
)

__all__ = ["DirectorySource", "StreamSource", "TarSource"]

STANDARD_INPUT = "standard input"
"""What an archive from a pipe is called."""

_LOOK_EVERY = 256


class _Scan:
    """Collects the entries of one tar, and puts off complaints about names until it is clear what the tar is."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._offsets: dict[str, int] = {}
        self._links: list[Entry] = []
        self._problem: Refused | None = None
        self._names: list[str] = []

    def take(self, entry: Entry) -> bool:
        """Note one entry; return whether it is a regular file that can be read."""
        if len(self._names) < 4 * _LOOK_EVERY:
            self._names.append(entry.name)
            if len(self._names) % _LOOK_EVERY == 0:
                self.not_another_kind()
        if entry.problem is not None:
            self._problem = self._problem or entry.problem
        elif entry.kind is EntryKind.FILE:
            self._offsets[entry.name] = entry.header_offset
            return True
        elif entry.kind in (EntryKind.SYMLINK, EntryKind.HARDLINK):
            self._links.append(entry)
        return False

    def not_another_kind(self) -> None:
        """Raise ``E_TYPE`` when the names seen so far say that this is no image archive at all."""
        other = looks_like_other(self._names)
        if other is not None:
            raise Refused("E_TYPE", other[0], where=self._label, hint=other[1])

    def finish(self) -> dict[str, str]:
        """Return the links by name, resolved. Raises what was put off."""
        self.not_another_kind()
        if self._problem is not None:
            raise self._problem
        return resolve_links(self._links, self._offsets, where=self._label)


def _lift(members: Members, links: dict[str, str], findings: list[Finding]) -> None:
    """Take a sub-folder for the top when everything lies in it (rulings: OCI layout in a sub-folder of the tar)."""
    markers = ("index.json", "manifest.json", "repositories", "oci-layout")
    if any(marker in members.files for marker in markers) or not members.files:
        return
    tops = {name.partition("/")[0] for name in (*members.files, *links)}
    if len(tops) != 1:
        return
    top = tops.pop()
    if not any(f"{top}/{marker}" in members.files for marker in ("index.json", "manifest.json")):
        return
    members.lift(f"{top}/")
    findings.append(
        Finding(
            "E_TYPE", "warning", members.label, f"the image lies in the folder {shown(top)}; most tools refuse that"
        )
    )


class _Archive:
    """Shared by the three: the interpretation, and the way from a digest to its member."""

    label: str

    def __init__(self, label: str, limits: Limits) -> None:
        self.label = label
        self.limits = limits
        self.budget = Budget(limits, self._taken)
        self.members: Members | None = None
        self._read: Interpretation | None = None

    def _taken(self) -> int:
        """How many bytes of the archive have been read, as it lies on the medium; all, where it can be read anywhere."""
        raise NotImplementedError

    def _interpret(
        self, members: Members, compression: str, findings: Iterable[Finding], *, directory: bool = False
    ) -> Catalog:
        self.members = members
        self._read = interpret(members, compression, self.limits, directory=directory, findings=findings)
        return self._read.catalog

    def blob(self, digest: Digest) -> Blob | None:
        """See :class:`imgtar.ports.Source`."""
        if self._read is None or self.members is None:
            return None
        name = self._read.names.get(digest)
        return self.members.blob(name) if name is not None else None

    def _explained(self, error: Refused, members: Members, scan: _Scan) -> Refused:
        """Say which layer of which image is hit, when the documents that tell it came before the damage."""
        if error.code == "E_TRUNC":
            from imgtar.transport.entry import describe_entry

            entry = error.details.get("entry")
            title = describe_entry(members, entry, self.limits) if isinstance(entry, str) else None
            if isinstance(entry, str) and title is not None:
                offset, lack = error.details.get("offset"), error.details.get("missing_bytes")
                error.message = (
                    f"truncated at byte {offset} inside {title}: {lack} more bytes of {shown(entry)} are expected"
                )
            if not error.hint:
                error.hint = "the copy is not whole: compare sizes with the original and copy it again"
        elif error.code == "E_COMPRESS":
            error.hint = error.hint or "the copy is not whole or was changed: copy the archive again from its source"
        elif error.code in ("E_HEADER", "E_LIMIT", "E_PATH", "E_LINK", "E_DUP"):
            scan.not_another_kind()
        return error


class TarSource(_Archive):
    """A plain tar in a seekable file. Takes over the descriptor ``fd``."""

    def __init__(self, label: str, fd: int, size: int, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(label, limits)
        self.fd = fd
        self.size = size

    def _taken(self) -> int:
        return self.size

    def survey(self, dock: Dock) -> Catalog:
        """See :class:`imgtar.ports.Source`: headers and small documents only."""
        members = TarMembers(self.label, self.fd, dock, self.budget)
        scan = _Scan(self.label)
        try:
            for entry in TarReader(FileStream(self.fd, self.size), where=self.label, limits=self.limits):
                if scan.take(entry):
                    members.add(entry.name, entry.size, entry.data_offset)
            members.links.update(scan.finish())
        except Refused as error:
            raise self._explained(error, members, scan) from None
        findings: list[Finding] = []
        _lift(members, members.links, findings)
        return self._interpret(members, "none", findings)

    def close(self) -> None:
        """See :class:`imgtar.ports.Source`."""
        if self.fd >= 0:
            if isinstance(self.members, TarMembers):
                self.members.close()
            os.close(self.fd)
            self.fd = -1


class FdReader:
    """A file descriptor read in order; hashes what passes when asked to."""

    def __init__(self, fd: int, hasher: Hasher | None = None) -> None:
        self._fd = fd
        self._hasher = hasher
        self._head = b""
        self.size = 0

    def peek(self, count: int) -> bytes:
        """Return up to ``count`` first bytes without consuming them."""
        head = bytearray(count)
        filled = 0
        while filled < count and (got := read_into(self._fd, memoryview(head)[filled:])):
            filled += got
        self._head = bytes(head[:filled])
        return self._head

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target`` from the descriptor."""
        if self._head:
            count = min(len(self._head), len(target))
            target[:count] = self._head[:count]
            self._head = self._head[count:]
        else:
            count = read_into(self._fd, target)
        self.size += count
        if self._hasher is not None and count:
            self._hasher.update(target[:count])
        return count


class StreamSource(_Archive):
    """A tar that passes once: from a pipe, or out of a decompressor. Every member goes through the dock."""

    def __init__(
        self,
        label: str,
        raw: Readable,
        compression: Compression,
        on_close: Callable[[], object],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(label, limits)
        self._passing = _Counted(raw)
        self._compression = compression
        self._on_close = on_close
        self._ahead: ReadAhead | None = None

    def _taken(self) -> int:
        return self._passing.count

    def survey(self, dock: Dock) -> Catalog:
        """See :class:`imgtar.ports.Source`: reads to the end, so that truncation and trailing data are seen."""
        plain = decompressing(
            self._passing,
            self._compression,
            where=self.label,
            limits=self.limits,
            limit=self.limits.archive_uncompressed if self._compression is not Compression.NONE else None,
            budget=self.budget,
        )
        self._ahead = ReadAhead(plain)
        checked = _TarHead(self._ahead, self.label, decompressed=self._compression is not Compression.NONE)
        members = PassedMembers(self.label, dock, self.budget)
        scan = _Scan(self.label)
        try:
            reader = TarReader(PipeStream(checked), where=self.label, limits=self.limits)
            for entry in reader:
                if scan.take(entry):
                    where = f"{self.label}: {entry.name}"
                    claimed = claimed_digest(entry.name)
                    staged = dock.stage(reader, entry.size, where=where, claimed=claimed, budget=self.budget)
                    members.add(entry.name, entry.size, staged)
            members.links.update(scan.finish())
        except Refused as error:
            raise self._explained(error, members, scan) from None
        findings: list[Finding] = []
        _lift(members, members.links, findings)
        return self._interpret(members, str(self._compression), findings)

    def close(self) -> None:
        """See :class:`imgtar.ports.Source`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close(self._on_close)
        else:
            self._on_close()


class _Counted:
    """Counts what passes."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.count = 0

    def readinto(self, target: memoryview, /) -> int:
        count = self._source.readinto(target)
        self.count += count
        return count


class _TarHead:
    """Looks at the first block on its way, so that what is no tar is called by its name."""

    def __init__(self, source: Readable, label: str, *, decompressed: bool) -> None:
        self._source = source
        self._label = label
        self._decompressed = decompressed
        self._head: memoryview | None = None

    def readinto(self, target: memoryview, /) -> int:
        if self._head is None:
            head = bytearray(1024)
            view, filled = memoryview(head), 0
            while filled < len(head) and (count := self._source.readinto(view[filled:])):
                filled += count
            check_head(bytes(view[:filled]), self._label, decompressed=self._decompressed)
            self._head = view[:filled]
        if self._head:
            count = min(len(target), len(self._head))
            target[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return self._source.readinto(target)


def check_head(head: bytes, label: str, *, decompressed: bool) -> None:
    """Raise ``E_TYPE`` or ``E_COMPRESS`` unless ``head`` begins a tar."""
    if is_tar_head(head):
        return
    again = sniff(head)
    if decompressed and again is not Compression.NONE:
        message = f"is compressed twice: inside there is another {again} stream"
        raise Refused("E_COMPRESS", message, where=label, hint="decompress it once and try again")
    message, hint = describe_head(head)
    if not head and label == STANDARD_INPUT:
        message, hint = "it is empty: nothing came through the pipe", "look at what the program before it said"
    if message.startswith("the first tar header"):
        raise Refused("E_HEADER", message, where=label, hint=hint, details={"offset": 0})
    raise Refused("E_TYPE", message, where=label, hint=hint)


class DirectorySource(_Archive):
    """An OCI layout directory, a ``dir`` layout, or an unpacked archive. Links in it are refused, not followed.

    Takes over the descriptor ``fd`` of the directory.
    """

    def __init__(self, label: str, fd: int, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(label, limits)
        self._fd = fd
        self._size = 0

    def _taken(self) -> int:
        return self._size

    def survey(self, dock: Dock) -> Catalog:
        """See :class:`imgtar.ports.Source`."""
        members = DirectoryMembers(self.label, self._fd, dock, self.budget)
        self._scan(members)
        self._size = sum(members.files.values())
        findings: list[Finding] = []
        return self._interpret(members, "none", findings, directory=True)

    def _scan(self, members: DirectoryMembers) -> None:
        folders: list[tuple[str, int]] = [("", 0)]
        count = 0
        while folders:
            folder, depth = folders.pop()
            fd = self._descend(folder)
            try:
                with os.scandir(fd) as found:
                    items = sorted(found, key=lambda item: item.name)
                for item in items:
                    count += 1
                    if count > self.limits.entries:
                        raise Refused("E_LIMIT", f"has more than {self.limits.entries} entries", where=self.label)
                    name = posixpath.join(folder, item.name)
                    try:
                        status = item.stat(follow_symlinks=False)
                        linked = os.readlink(item.name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
                    except OSError as error:
                        raise changed_meanwhile(error, f"{self.label}: {shown(name)}") from None
                    if stat.S_ISREG(status.st_mode):
                        members.add(name, status.st_size)
                    elif stat.S_ISDIR(status.st_mode):
                        if depth < 3:
                            folders.append((name, depth + 1))
                    elif stat.S_ISLNK(status.st_mode) and name.endswith("/layer.tar"):
                        members.links[name] = posixpath.normpath(posixpath.join(folder, linked))
                    elif folder == "" or name.startswith("blobs"):
                        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
                        raise Refused("E_LINK", f"{shown(name)} is {kind}", where=self.label)
            finally:
                os.close(fd)
        for link, target in list(members.links.items()):
            if target not in members.files:
                raise Refused(
                    "E_LINK", f"{shown(link)} points to {shown(target)}, which is no file here", where=self.label
                )

    def _descend(self, folder: str) -> int:
        current = os.dup(self._fd)
        for part in folder.split("/") if folder else ():
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            except OSError as error:
                raise changed_meanwhile(error, f"{self.label}: {shown(folder)}") from None
            finally:
                os.close(current)
            current = inner
        return current

    def close(self) -> None:
        """See :class:`imgtar.ports.Source`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
