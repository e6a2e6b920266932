"""The store's directory: where everything lies, and how ``index.json`` is read and replaced.

::

    oci-layout  index.json  blobs/<algorithm>/<hex>      an OCI image layout (image-spec image-layout.md)
    imgtar/version                                       "1"; a greater number is a newer imgtar's store
    imgtar/index.lock  imgtar/blobs.lock  imgtar/gate.lock  see store/lock.py
    imgtar/staging/<name>/                               work of a running transaction, locked while it lives
    imgtar/held/  imgtar/layers/                         a cache, see store/held.py
    imgtar/images  imgtar/roots                          caches, see store/images.py and store/roots.py
    imgtar/index.kept                                    a copy of index.json with its checksum, for repair
    imgtar/damaged/                                      what repair has set aside, see store/rescue.py
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from imgtar.blob.files import is_damage, read_small, read_window, sync_directory, there, write_all
from imgtar.errors import Conflict, ImgtarError, LocalTrouble, Refused, StoreTrouble, local_trouble
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_layout
from imgtar.model.strictjson import fold
from imgtar.store.collector import collector_paused
from imgtar.store.entry import STORE_LIMITS, Entry, encode_index, parse_entries, parse_strictly, read_written
from imgtar.store.rights import FOLDER, make_folders, new_file, settle_folder
from imgtar.text import shown

__all__ = ["Layout"]

_VERSION = 1

_TRIES = 100
"""So often a change of the index is made anew because another program has written there meanwhile."""
_LOOKS, _PAUSE = 30, 0.01
"""So often, and after so many seconds each, an index is looked at again that another program may be writing in place."""


class Layout:
    """Paths and the index of a store at ``path``. Knows no locks: callers hold them."""

    def __init__(self, path: str) -> None:
        # Made absolute once: a later change of the working directory must not move the store.
        self.path = os.path.abspath(path)
        self.corner = os.path.join(self.path, "imgtar")
        self.index_path = os.path.join(self.path, "index.json")
        self.index_lock = os.path.join(self.corner, "index.lock")
        self.blobs_lock = os.path.join(self.corner, "blobs.lock")
        self.gate_lock = os.path.join(self.corner, "gate.lock")
        self.staging = os.path.join(self.corner, "staging")
        self.version_path = os.path.join(self.corner, "version")
        self.mark_path = os.path.join(self.path, "oci-layout")
        self.kept_path = os.path.join(self.corner, "index.kept")
        self.damaged = os.path.join(self.corner, "damaged")
        self.blobs = os.path.join(self.path, "blobs")
        self.blob_folders = (self.blobs, *(os.path.join(self.blobs, name) for name in ("sha256", "sha512")))
        self._read: tuple[bytes, list[Entry], bool] | None = None

    def blob_path(self, digest: Digest) -> str:
        """Where a blob lies. Only a parsed digest ever becomes a path."""
        return os.path.join(self.path, "blobs", digest.path)

    def folders(self) -> Iterator[str]:
        """The folder of the store and those in it, however deep."""
        yield self.path
        full = (self.blobs, *(os.path.join(self.corner, name) for name in ("held", "layers")))
        for top in (self.blobs, self.corner):
            for place, names, _ in os.walk(top):
                yield place
                if place in full:  # What is below has a file for every blob, and no folders.
                    yield from (os.path.join(place, name) for name in names)
                    names.clear()

    @property
    def exists(self) -> bool:
        """Whether there is a store, or an OCI layout that can serve as one.

        ``index.json`` is written last when a store is made, and before the first blob. Without it there is a store only
        if there are blobs, or a copy that names images: then it was lost, and must not be made anew in silence.
        """
        there = _there(self.index_path) or any(True for _ in self.stored_blobs()) or self._kept_images()
        self._refuse_newer()  # What a newer imgtar keeps there may look quite otherwise: it is no empty place.
        return there

    def _kept_images(self) -> bool:
        try:
            return bool(parse_entries(self.read_kept() or b'{"schemaVersion":2,"manifests":[]}'))
        except Refused:
            return False

    def prepare(self) -> None:
        """Make the folders, so that locks can be taken. Raises :class:`StoreTrouble` for a folder of other things."""
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise StoreTrouble("is a file, not a store", where=self.path, hint="give a folder with --store")
        if not self.exists and os.path.isdir(self.path):
            foreign = [name for name in os.listdir(self.path) if name not in _OWN and not name.endswith(".tmp")]
            foreign += [os.path.basename(path) for path in (self.blobs, self.corner) if _misplaced(path)]
            if foreign:
                raise StoreTrouble(
                    f"the folder is neither empty nor a store: it holds {shown(foreign[0])}",
                    where=self.path,
                    hint="give an empty or a new folder with --store",
                )
        self.check_folders()
        os.makedirs(self.path, FOLDER, exist_ok=True)
        blobs = self.blobs
        for folder in (os.path.join(blobs, "sha256"), self.staging):
            make_folders(folder)
        for folder in (blobs, os.path.join(blobs, "sha256"), self.corner, self.staging):
            # Whoever made it may have been killed before he could give the group its rights.
            if os.stat(folder).st_uid == os.geteuid():
                settle_folder(folder)

    def create(self) -> None:
        """Make an empty store unless there is one. Call after :meth:`prepare`, holding the index lock."""
        if self.exists:
            return
        self.write_marks()
        for folder in (self.corner, os.path.join(self.path, "blobs"), self.path):
            sync_directory(folder)
        # Every new folder on the way down must be durable, or the whole store may be gone after a power cut. Which ones
        # are new nobody knows: a process that made them may have been killed. With index.json it is all done.
        below = self.path
        while below != os.path.dirname(below):
            below = os.path.dirname(below)
            with suppress(PermissionError):  # A folder of somebody else's, which was there before us.
                sync_directory(below)
        self.write_index([])

    def write_marks(self) -> None:
        """Write the version marker and ``oci-layout`` where they are not there."""
        for path, body in (
            (self.version_path, f"{_VERSION}\n".encode()),
            (self.mark_path, b'{"imageLayoutVersion":"1.0.0"}'),
        ):
            if not there(path):
                self._replace(path, body)

    def check(self) -> None:
        """Raise :class:`StoreTrouble` for a store that is newer than this program or not a layout."""
        self._check_version()
        self.check_folders()
        try:
            parse_layout(read_small(self.mark_path, 1 << 16), "oci-layout")
        except FileNotFoundError:
            raise StoreTrouble("oci-layout is missing", where=self.path, hint=_MARK_HINT) from None
        except OSError as error:
            if not is_damage(error):
                raise
            message = f"cannot be read: {error.strerror}"
            raise StoreTrouble(message, where=self.mark_path, hint=_MARK_HINT) from None
        except Refused as error:
            raise StoreTrouble(error.message, where=self.mark_path, hint=_MARK_HINT) from None

    def check_folders(self) -> None:
        """Raise :class:`StoreTrouble` when something else stands where a folder of the store belongs.

        A link above all: what it leads to is not ours to write to, and much less to sweep or to prune. Only the path of
        the store itself may be one.
        """
        for folder in (self.corner, self.staging, self.damaged, *self.blob_folders):
            kind = _misplaced(folder)
            if kind:
                own = folder.startswith(self.corner) or not os.path.isdir(folder)
                hint = _AWAY if own else "put the folder itself there; only the path of the whole store may be a link"
                raise StoreTrouble(f"is {kind}, where a folder of the store belongs", where=folder, hint=hint)

    def _check_version(self) -> None:
        text = self._refuse_newer()
        if not text.isdigit():
            raise StoreTrouble(f"the version marker says {shown(text)}", where=self.version_path, hint=_MARK_HINT)

    def _refuse_newer(self) -> str:
        try:
            text = read_small(self.version_path, 20).decode("ascii", "backslashreplace").strip()
        except (FileNotFoundError, NotADirectoryError):
            text = str(_VERSION)  # An OCI layout made by another tool: it becomes a store when it is written to.
        except OSError as error:
            if not is_damage(error):
                raise
            text = ""
        if text.isdigit() and int(text) > _VERSION:
            raise StoreTrouble(
                f"the store has version {text}, this imgtar knows {_VERSION}",
                code="E_VERSION",
                where=self.path,
                hint="use the newer imgtar that made it (if none did, the marker is damaged: it held 1)",
            )
        return text

    def check_writable(self) -> None:
        """Raise :class:`LocalTrouble` for a store that nothing can be written to, before hours of reading.

        Only what is there is asked: a store that is yet to be made is its maker's business.
        """
        for folder in (self.path, self.corner, self.staging, os.path.join(self.path, "blobs", "sha256")):
            if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                raise LocalTrouble(
                    "the store is read-only",
                    code="E_PERMISSION",
                    where=folder,
                    hint="check owner and mode of that folder, and whether the file system is mounted read-only",
                )

    def check_one_file_system(self) -> None:
        """Raise :class:`StoreTrouble` when blobs could not be moved from staging to their place at once."""
        here = os.stat(self.path).st_dev
        for folder in (os.path.join(self.path, "blobs"), os.path.join(self.path, "blobs", "sha256"), self.staging):
            if os.stat(folder).st_dev != here:
                raise StoreTrouble(
                    "the folder is another file system than the rest of the store", where=folder, hint=_ONE_PLACE
                )

    def stored_blobs(self) -> Iterator[tuple[Digest, int]]:
        """Every file in ``blobs/`` whose name is a digest, with its size; what else lies there is passed over."""
        for algorithm, length in (("sha256", 64), ("sha512", 128)):
            folder = os.path.join(self.blobs, algorithm)
            if os.path.islink(self.blobs) or os.path.islink(folder):
                continue  # What lies there is somebody else's.
            try:
                listing = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with listing as found:
                for item in found:
                    if len(item.name) == length and not set(item.name) - set("0123456789abcdef"):
                        yield Digest(algorithm, item.name), _size(item)

    def read_index(self) -> list[Entry]:
        """Return every entry. The same bytes are parsed once.

        Raises :class:`StoreTrouble` when ``index.json`` is missing or damaged, :class:`LocalTrouble` when it may not be
        read, or this machine cannot: then it may be whole, and is nothing to repair.
        """
        try:
            fd = os.open(self.index_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                raw = _whole(fd)
            finally:
                os.close(fd)
            if self._read is not None and self._read[0] == raw:
                return list(self._read[1])  # A load reads it twice: for the plan, and again under the lock.
            with collector_paused():
                written = read_written(raw)
                entries = parse_strictly(raw) if written is None else written
        except FileNotFoundError:
            raise StoreTrouble("index.json is missing", where=self.path, hint=_REPAIR) from None
        except OSError as error:
            if not is_damage(error):
                raise local_trouble(error, "reading the index of the store") from None
            raise StoreTrouble(f"index.json cannot be read: {error.strerror}", where=self.path, hint=_REPAIR) from None
        except Refused as error:
            raise StoreTrouble(f"index.json is damaged: {error.message}", where=self.path, hint=_REPAIR) from None
        self._read = raw, entries, written is not None
        return list(entries)

    @property
    def raw_index(self) -> bytes:
        """The bytes of ``index.json`` as it was read last."""
        return self._read[0] if self._read is not None else b""

    def read_kept(self) -> bytes | None:
        """The kept copy of ``index.json``, ``None`` when there is none or it is damaged."""
        try:
            head, _, raw = read_small(self.kept_path, STORE_LIMITS.document + 100).partition(b"\n")
        except (OSError, Refused):
            return None
        return raw if head.decode("ascii", "replace") == str(Digest.of(raw)) else None

    def changed_by_others(self) -> list[str] | None:
        """The names that the kept copy has and ``index.json`` has not; ``None`` when both are the same.

        Whoever replaces one after the other may be between the two: then a second look tells.
        """
        entries, kept = self.read_index(), self.read_kept()
        if kept is not None and kept != self.raw_index:
            entries, kept = self.read_index(), self.read_kept()
        if kept is None or kept == self.raw_index:
            return None
        names = {entry.name for entry in entries}
        return sorted(one.name.familiar for one in parse_entries(kept) if one.name and one.name not in names)

    def change_index(
        self, edit: Callable[[list[Entry]], Sequence[Entry]], committed: Callable[[], object] = lambda: None
    ) -> Sequence[Entry]:
        """Replace the index by what ``edit`` makes of its entries, and return that. Under the index lock.

        Other programs know no lock. When one has written the index since it was read, ``edit`` is asked again, of what
        is there now. ``committed``: see :meth:`write_index`. Raises what ``edit`` raises, and :class:`Conflict` when the
        other one does not end.
        """
        for attempt in range(_TRIES):
            try:
                before = self.reread_index()
                after = edit(list(before))
            except ImgtarError:
                if attempt:
                    self.keep(self.raw_index)  # Not what nobody has committed.
                raise
            if _same(after, before):
                if attempt:
                    self.keep(self.raw_index)
                self.sync_index()
                committed()
                return after
            if self.write_index(after, committed, over=self.raw_index):
                return after
        self.keep(self.raw_index)
        raise Conflict(
            "another program writes the index again and again",
            where=self.index_path,
            hint="run the same command again when it has ended",
        )

    def reread_index(self) -> list[Entry]:
        """The entries of an index that was good a moment ago: what is damaged now, somebody may be writing in place."""
        for _ in range(_LOOKS):
            try:
                return self.read_index()
            except StoreTrouble:
                time.sleep(_PAUSE)
        return self.read_index()

    def write_index(
        self,
        entries: Sequence[Entry],
        committed: Callable[[], object] = lambda: None,
        *,
        over: bytes | None = None,
        like: bytes | None = None,
    ) -> bool:
        """Replace ``index.json`` atomically and durably: this is the commit point of every change.

        Only if it still says what it said (``over``, ``None``: there was none). Returns whether that was so: else a
        program that knows no lock was quicker, and it is as that one left it.

        ``committed`` is called once the new index is in place, also when what comes after that fails or is interrupted.
        What other tools wrote into the index beside its list stays: into ``like``, if the present one is lost.
        """
        if not there(self.version_path):
            self._replace(self.version_path, f"{_VERSION}\n".encode())  # Made by another tool; from now on it is ours.
            sync_directory(self.corner)
        raw = encode_index(_in_order(entries), self._foreign_members(over if like is None else like))
        temporary = self._written(self.index_path, raw)
        try:
            # First, so that the copy is never older than the index; what it names is there already.
            self.keep(raw)
            # Last, because between this and the rename nobody sees what another program does.
            if not self._still_says(over):
                os.unlink(temporary)
                return False
            self._rename(temporary, self.index_path)
            self.sync_index()
        except BaseException:
            if self._is_index(raw):
                committed()
            with suppress(OSError):  # The first error is the one to tell.
                os.unlink(temporary)
            raise
        committed()
        return True

    def keep(self, raw: bytes) -> None:
        """Replace the kept copy of ``index.json``, durably. Under the index lock."""
        self._replace(self.kept_path, str(Digest.of(raw)).encode() + b"\n" + raw)
        sync_directory(self.corner)

    def sync_index(self) -> None:
        """Make the name ``index.json`` durable: also before saying that it says already what was asked for.

        Whoever wrote it may have been killed, or may have failed, before this step.
        """
        sync_directory(self.path)

    def _is_index(self, raw: bytes) -> bool:
        try:
            return read_small(self.index_path, len(raw) + 1) == raw
        except (OSError, Refused):
            return False

    def _still_says(self, raw: bytes | None) -> bool:
        """Whether ``index.json`` is as it was read (``None``: not there), with as little as possible after the last look."""
        try:
            fd = os.open(self.index_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                look = _look(os.fstat(fd))
                return _whole(fd) == raw and _look(os.lstat(self.index_path)) == look
            finally:
                os.close(fd)
        except FileNotFoundError:
            return raw is None
        except Refused:
            return False  # It became shorter while it was read, or is no file any more.
        except OSError as error:
            if not is_damage(error):
                raise
            return False

    def _foreign_members(self, like: bytes | None) -> dict[str, Any]:
        if like is None:
            return {}
        if self._read is not None and self._read[2] and self._read[0] == like:
            return {}  # It has imgtar's own form, and so nothing else.
        value = json.loads(like)
        return {key: item for key, item in value.items() if fold(key) not in _OWN_MEMBERS}

    def _replace(self, path: str, body: bytes) -> None:
        temporary = self._written(path, body)
        try:
            self._rename(temporary, path)
        except BaseException:
            with suppress(OSError):  # The first error is the one to tell.
                os.unlink(temporary)
            raise

    def _written(self, path: str, body: bytes) -> str:
        """Write what is to become ``path``, durably, under a name that nobody reads; return that."""
        # One fixed name, made under the lock: what a killed process left has no owner.
        temporary = os.path.join(self.corner, f"{os.path.basename(path)}.new")
        try:
            fd = new_file(temporary)
        except IsADirectoryError:
            raise _folder_in_the_way(temporary) from None
        try:
            try:
                write_all(fd, body)
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            with suppress(OSError):  # The first error is the one to tell.
                os.unlink(temporary)
            raise
        return temporary

    def _rename(self, temporary: str, path: str) -> None:
        try:
            os.replace(temporary, path)
        except IsADirectoryError:
            raise _folder_in_the_way(path) from None


_OWN_MEMBERS = ("schemaversion", "mediatype", "manifests")
_OWN = ("blobs", "imgtar", "oci-layout", "lost+found", "index.json")
"""``index.json`` too: another process may have put it there since we looked."""


def _misplaced(folder: str) -> str:
    """What stands in the place of a folder, if anything but a folder does."""
    try:
        mode = os.lstat(folder).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "a file"


def _folder_in_the_way(path: str) -> StoreTrouble:
    return StoreTrouble("is a folder, where a file of the store belongs", where=path, hint=_AWAY)


def _in_order(entries: Sequence[Entry]) -> list[Entry]:
    """Entries as they stand in the file: so that the same images give the same bytes."""
    return sorted(entries, key=lambda entry: (entry.name.full if entry.name else "~", entry.label, str(entry.digest)))


def _same(one: Sequence[Entry], other: Sequence[Entry]) -> bool:
    """Whether they point at the same in the same order; what nobody changed is the same object."""
    return len(one) == len(other) and all(
        mine is yours or mine.descriptor == yours.descriptor for mine, yours in zip(one, other, strict=True)
    )


def _look(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _size(item: os.DirEntry[str]) -> int:
    try:
        return item.stat(follow_symlinks=False).st_size
    except OSError:
        return 0  # Gone meanwhile, or damaged: whoever opens it will be told.


def _there(path: str) -> bool:
    """Whether something is at ``path``. A folder that may not be entered is an error, not an absence."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise StoreTrouble("is a file, not a store", where=os.path.dirname(path), hint="give a folder") from None
    return True


def _whole(fd: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("E_TYPE", "it is not a regular file")
    if status.st_size > STORE_LIMITS.document:
        raise Refused("E_LIMIT", f"{status.st_size} bytes are more than any store needs")
    return read_window(fd, 0, status.st_size, "index.json")


_REPAIR = "imgtar repair rebuilds it from the copy that is kept beside it, or from the blobs"
_ONE_PLACE = "a blob is moved into its place at one stroke, so a store lies in one file system: unmount it"
_MARK_HINT = "imgtar repair writes it again"
_AWAY = "imgtar repair moves it away"
