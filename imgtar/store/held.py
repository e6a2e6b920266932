"""What imgtar has proved about stored blobs, so that it need not be proved again. A cache: it may be deleted.

One small file for each blob says how the file looked (size, times, inode) when its digest was verified, and its diff
ID, and ends with a checksum of that. A blob whose file looks otherwise counts as unverified. Nothing here is synced: a
torn or damaged file, or one without a checksum as older versions wrote them, reads as no knowledge. Nothing is refused
on the word of a note: it is measured first, and the note renewed.
"""

from __future__ import annotations

import os
from zlib import crc32

from imgtar.blob.files import read_small
from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.model.digest import Digest
from imgtar.store.rights import make_folders, new_file

__all__ = ["HeldCache", "Knowledge"]


@frozen
class Knowledge:
    """A blob's file as it was when the digest was verified, and the diff ID of its content if that was measured."""

    look: str
    diff_id: Digest | None


class HeldCache:
    """The cache below ``<store>/imgtar/``. Every failure to read or write it means "not known"."""

    def __init__(self, corner: str) -> None:
        self._held = os.path.join(corner, "held")
        self._layers = os.path.join(corner, "layers")
        self._links: dict[str, bool] = {}

    @staticmethod
    def look_of(status: os.stat_result) -> str:
        """What identifies an unchanged file."""
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"

    def get(self, digest: Digest) -> Knowledge | None:
        """What is known about a blob."""
        lines = _read(self._place(self._held, digest))
        if len(lines) != 3 or lines[2] != _mark(digest, lines[0], lines[1]):
            return None
        look, diff = lines[0], lines[1]
        try:
            return Knowledge(look, Digest.parse(diff) if diff else None)
        except Refused:
            return None

    def note(self, digest: Digest, status: os.stat_result, diff_id: Digest | None) -> None:
        """Remember that the file with that status was verified."""
        look, diff = self.look_of(status), str(diff_id or "")
        body = f"{look}\n{diff}\n{_mark(digest, look, diff)}"
        if _write(self._place(self._held, digest), body) and diff_id is not None and diff_id != digest:
            known = self.layers_of(diff_id)
            if digest not in known:
                _write(self._place(self._layers, diff_id), "\n".join([*map(str, known), str(digest), "end"]))

    def layers_of(self, diff_id: Digest) -> list[Digest]:
        """Compressed blobs that were seen to have that diff ID."""
        lines = _read(self._place(self._layers, diff_id))
        if not lines or lines[-1] != "end":
            return []
        try:
            return [Digest.parse(line) for line in lines[:-1]]
        except Refused:
            return []

    def forget(self, digest: Digest) -> None:
        """Drop what is known about a blob that is deleted."""
        try:
            os.unlink(self._place(self._held, digest))
        except OSError:
            return  # A stale note is harmless: it is compared with the file, which is gone.

    @staticmethod
    def _path(folder: str, digest: Digest) -> str:
        return os.path.join(folder, digest.path)

    def _place(self, folder: str, digest: Digest) -> str:
        """Where a note lies; nowhere when a folder on the way is a link, for what that leads to is not the store's."""
        path = self._path(folder, digest)
        for place in (folder, os.path.dirname(path)):
            if place not in self._links:
                self._links[place] = os.path.islink(place)
            if self._links[place]:
                return ""
        return path


def _mark(digest: Digest, look: str, diff: str) -> str:
    return f"{crc32(f'{digest} {look} {diff}'.encode('ascii', 'replace')):08x}"


def _read(path: str) -> list[str]:
    try:
        return read_small(path, 1 << 16).decode("ascii").split("\n")
    except (OSError, ValueError, Refused):
        return []


def _write(path: str, body: str) -> bool:
    # In place: a temporary file would stay for ever when this process is killed. Whoever reads a half-written note, or
    # what two writers made of one, does not find in its last line what belongs there.
    if not path:
        return False
    try:
        make_folders(os.path.dirname(path))
        with open(new_file(path), "w", encoding="ascii") as file:
            file.write(body)
    except OSError:
        return False  # A full or read-only disk must not fail a load over a cache.
    return True
