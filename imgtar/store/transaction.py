"""One all-or-nothing change of the store: stage, verify, sync, rename, sync the directory, replace the index."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

from imgtar.blob.decompress import plain
from imgtar.blob.files import FileWindow, FileWriter, can_share, opened, sync_directory, write_all
from imgtar.blob.measure import Measure, Window, measure
from imgtar.blob.stream import Readable
from imgtar.blob.workers import Checkpoint, each, each_blob, worth_lanes
from imgtar.errors import Conflict, LocalTrouble, Refused, StoreTrouble
from imgtar.events import Event, Report, silent
from imgtar.graph.catalog import smaller_parent
from imgtar.graph.plan import Plan, PlannedRoot, Write
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.ports import Blob, Receipt, Staged
from imgtar.proof import posing, prove
from imgtar.store.entry import Entry
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import Layout
from imgtar.store.lock import locked
from imgtar.store.rights import make_folders, new_file
from imgtar.text import human_size

__all__ = ["StoreTransaction", "tidy"]

_DAMAGED = "the content is damaged or was changed: make the archive again, or copy it again from its source"
_SMALL = 256 << 10
_SMALL_TOTAL = 16 << 20
_MARGIN = 1 << 20
"""Bytes that stay free beside a load, for the index and for what files take beyond their size; no more than it needs itself."""
_SYNCING = 16
"""Files that are synced at once: a journal that is asked for many at a time commits them together."""


class StoreTransaction:
    """See :class:`imgtar.ports.Transaction`. Made by :meth:`imgtar.store.store.Store.begin`."""

    def __init__(
        self,
        layout: Layout,
        inventory: StoreInventory,
        folder: str,
        report: Report = silent,
        lock_timeout: float = 300.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._layout = layout
        self._inventory = inventory
        self._folder = folder
        self._report = report
        self._lock_timeout = lock_timeout
        self._small_left = _SMALL_TOTAL
        self._counter = 0
        self._mutex = threading.Lock()
        self._ready: dict[Digest, tuple[str | bytes, Measure]] = {}

    @property
    def inventory(self) -> StoreInventory:
        """What the store held when this began; nothing of it can be deleted before this ends."""
        return self._inventory

    def _new_file(self) -> tuple[int, str]:
        with self._mutex:
            self._counter += 1
            path = os.path.join(self._folder, str(self._counter))
        return new_file(path), path

    def stage(
        self,
        content: Readable,
        size: int,
        *,
        where: str,
        claimed: Digest | None = None,
        budget: Budget | None = None,
    ) -> Staged:
        """See :class:`imgtar.ports.Dock`. Small content stays in memory up to a budget; the rest is written once."""
        algorithm = claimed.algorithm if claimed is not None else "sha256"
        advance = _advancer(self._report)
        if claimed is not None:
            holding = self._inventory.holding(claimed)
            if holding is not None and holding.sound and holding.size == size and size > _SMALL:
                measured = measure(
                    content,
                    where=where,
                    algorithm=algorithm,
                    limits=self._limits,
                    progress=advance,
                    lanes=worth_lanes(size),
                    budget=budget,
                )
                if measured.digest != claimed:
                    message = f"digest mismatch: expected {claimed}, actual {measured.digest}"
                    details = {"expected": str(claimed), "actual": str(measured.digest)}
                    raise Refused("E_DIGEST", message, where=where, hint=_DAMAGED, details=details)
                return Staged(measured, claimed)
        if size <= min(_SMALL, self._small_left):
            kept = bytearray()
            measured = measure(
                content,
                write=kept.extend,
                where=where,
                algorithm=algorithm,
                limits=self._limits,
                progress=advance,
                budget=budget,
            )
            self._small_left -= size
            return Staged(measured, bytes(kept))
        fd, path = self._new_file()
        # What says nothing of itself may turn out to be held: then no disk should have begun with it.
        file = FileWriter(fd, early=claimed is not None or not self._inventory.entries)
        try:
            measured = measure(
                content,
                write=file.write,
                where=where,
                algorithm=algorithm,
                limits=self._limits,
                progress=advance,
                lanes=worth_lanes(size),
                budget=budget,
            )
        finally:
            os.close(fd)
        return Staged(measured, path)

    def read_staged(self, staged: Staged, cap: int) -> bytes | None:
        """Return staged content again."""
        if staged.measure.size > cap:
            return None
        if isinstance(staged.token, bytes):
            return staged.token
        if isinstance(staged.token, str):
            with open(staged.token, "rb") as file:
                return file.read()
        # It passed without being written because the store holds it.
        assert isinstance(staged.token, Digest)
        with open(self._layout.blob_path(staged.token), "rb") as file:
            return file.read(cap)

    def receive(self, plan: Plan, fetch: Callable[[Write], Blob], report: Report, jobs: int) -> None:
        """See :class:`imgtar.ports.Transaction`. Checks the space first; the largest blobs start first."""
        for write in plan.relied_on:
            if write.inert and self._inventory.is_archive(write.digest):
                raise posing(write, write.title)
        to_read = [write for write in plan.writes if write.kept is None]
        blobs = {write.digest: self._origin(write, fetch) for write in to_read}
        self._check_space([(w, blobs[w.digest]) for w in to_read if blobs[w.digest].staged is None])
        report(Event("start", "loading", total=sum(w.size for w in to_read if blobs[w.digest].staged is None)))
        for write in plan.writes:
            if write.kept is not None:
                measured = measure(_Bytes(write.kept), algorithm=write.digest.algorithm, diff=write.looks_inside)
                prove(write, measured, "")
                self._ready[write.digest] = (write.kept, measured)
        for write in to_read:
            staged = blobs[write.digest].staged
            if staged is not None:
                prove(write, staged.measure, blobs[write.digest].where)
                assert isinstance(staged.token, str | bytes)
                self._ready[write.digest] = (staged.token, staged.measure)
        advance = _advancer(report)
        unread = [write for write in to_read if blobs[write.digest].staged is None]
        unread.sort(key=lambda write: -write.size)
        each_blob(
            lambda write, check, lanes: self._read(write, blobs[write.digest], advance, check, lanes=lanes),
            unread,
            lambda write: write.size,
            jobs,
        )
        report(Event("end"))

    def _origin(self, write: Write, fetch: Callable[[Write], Blob]) -> Blob:
        """Where the bytes come from. What a layer is made from may be held here, or have been staged as it passed."""
        if write.made_from is None:
            return fetch(write)
        if write.catalog is None:
            path, size = self._layout.blob_path(write.made_from.digest), write.made_from.size
            return Blob(size, path, lambda: opened(path, size, path))
        blob = fetch(write)
        if blob.staged is None:
            return blob
        token = blob.staged.token
        if isinstance(token, bytes):
            return Blob(blob.size, blob.where, lambda: nullcontext(_Bytes(token)), budget=blob.budget)
        assert isinstance(token, str | Digest)
        staged = token if isinstance(token, str) else self._layout.blob_path(token)
        return Blob(blob.size, blob.where, lambda: opened(staged, blob.size, blob.where), budget=blob.budget)

    def _read(
        self, write: Write, blob: Blob, advance: Callable[[int], object], checkpoint: Checkpoint, *, lanes: bool
    ) -> None:
        assert blob.open is not None
        fd, path = self._new_file()

        def passed(count: int) -> None:
            checkpoint()
            advance(count)

        file = FileWriter(fd)
        try:
            with blob.open() as whole:
                made = write.made_from is not None
                content = plain(whole, where=blob.where, limits=self._limits, budget=blob.budget) if made else whole
                if isinstance(content, FileWindow) and content.left == write.size and file.clone(content):
                    content = _completed(content, file, fd)
                    take = None
                else:
                    take = file.write
                measured = measure(
                    Window(content, write.size + 1),
                    write=take,
                    where=blob.where,
                    algorithm=write.digest.algorithm,
                    diff=write.looks_inside,
                    limits=self._limits,
                    progress=passed,
                    lanes=lanes,
                    budget=blob.budget,
                )
            prove(write, measured, blob.where)
        except Refused:
            if write.made_from is not None and write.catalog is None:
                self._still_sound(write.made_from.digest)
            raise
        finally:
            os.close(fd)
        with self._mutex:
            self._ready[write.digest] = (path, measured)

    def _still_sound(self, digest: Digest) -> None:
        """Raise :class:`StoreTrouble` when a held layer, from which another could not be made, is itself the reason."""
        if self._inventory.verify(digest, diff=False) is None:
            self._inventory.cache.forget(digest)  # So that the next load that carries it writes it again.
            raise StoreTrouble(
                "the stored layer from which another one was to be made is damaged",
                where=str(digest),
                hint="load an archive that carries it: that repairs the store",
            )

    def _check_space(self, coming: Sequence[tuple[Write, Blob]]) -> None:
        """Raise ``E_SPACE`` when what is yet to be written does not fit. What is staged or held needs nothing more.

        But for the index and small documents: a disk that is too full for these says so when they are written.
        """
        needed = sum(write.size for write, _ in coming)
        if not needed:
            return
        free = shutil.disk_usage(self._layout.path).free
        if needed + min(needed, _MARGIN) > free:  # What shares its blocks with the archive needs none of its own.
            needed -= sum(write.size for write, blob in coming if write.made_from is None and self._can_share(blob))
        if needed + min(needed, _MARGIN) > free:
            raise LocalTrouble(
                f"the load needs {human_size(needed)}, only {human_size(free)} are free",
                code="E_SPACE",
                where=self._layout.path,
                hint="free some space, or choose another store with --store",
                details={"needed": needed, "free": free},
            )

    def _can_share(self, blob: Blob) -> bool:
        assert blob.open is not None
        fd, path = self._new_file()
        try:
            with blob.open() as content:
                return isinstance(content, FileWindow) and can_share(content, fd)
        finally:
            os.close(fd)
            os.unlink(path)

    def commit(self, plan: Plan) -> Receipt:
        """See :class:`imgtar.ports.Transaction`. The replace of ``index.json`` is the commit point."""
        for digest, (content, _) in list(self._ready.items()):
            if isinstance(content, bytes):
                fd, path = self._new_file()
                try:
                    write_all(fd, content)
                finally:
                    os.close(fd)
                self._ready[digest] = (path, self._ready[digest][1])
        # Sync without any lock: this is the slow part, and nothing is visible yet.
        each(lambda item, _: _sync(str(item[0])), list(self._ready.values()), _SYNCING)
        with locked(self._layout.index_lock, shared=False, timeout=self._lock_timeout, report=self._report):
            # Before anything is moved: it may be unreadable, or a tag may have moved.
            self._merged(self._layout.reread_index(), plan)
            self._still_there(plan)
            self._publish(plan.reused)
            merged = self._layout.change_index(
                lambda entries: self._merged(entries, plan), lambda: self._report(Event("commit"))
            )
        documents = [write.digest for write in plan.writes if write.kind in ("manifest", "index")]
        self._inventory.note_images(documents, len(merged))
        return Receipt(plan.bytes_to_write, plan.bytes_reused, len(plan.writes), len(plan.reused))

    def _merged(self, entries: list[Entry], plan: Plan) -> list[Entry]:
        if plan.no_clobber:
            _refuse_moves(entries, plan)
        return _merge(entries, plan)

    def _still_there(self, plan: Plan) -> None:
        # The shared blobs.lock keeps other imgtars from deleting; other tools know no lock.
        for digest in plan.reused:
            if self._inventory.status(digest) is None:
                raise StoreTrouble(
                    "a blob that this load relies on was deleted meanwhile by another program",
                    where=str(digest),
                    hint="run the same command again",
                )

    def _publish(self, reused: Iterable[Digest]) -> None:
        folders: set[str] = set()
        for digest, (path, measured) in self._ready.items():
            target = self._layout.blob_path(digest)
            folder = os.path.dirname(target)
            if folder not in folders:
                make_folders(folder)
                folders.add(folder)
            try:
                os.replace(str(path), target)
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
                    raise
                raise StoreTrouble("a directory stands in a blob's place", where=target, hint="move it away") from None
            self._inventory.cache.note(digest, os.lstat(target), measured.diff_id)
        # What is reused may have been renamed by a process that was killed before it could sync the folder.
        folders |= {os.path.dirname(self._layout.blob_path(digest)) for digest in reused}
        for folder in sorted(folders):
            sync_directory(folder)
        if folders:
            sync_directory(os.path.dirname(next(iter(folders))))


def _completed(window: FileWindow, file: FileWriter, fd: int) -> FileWindow:
    """Copy what could not be cloned of a window, less than a block. What is to be measured is what is here now."""
    size, shared = window.left, file.offset
    rest = FileWindow(window.fd, window.offset + shared, size - shared, window.where)
    view = memoryview(bytearray(rest.left or 1))
    while count := rest.readinto(view):
        file.write(view[:count])
    return FileWindow(fd, 0, size, window.where)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _merge(entries: list[Entry], plan: Plan) -> list[Entry]:
    """The index after the plan: names move, what loses its last name stays, untagged."""
    coming = _by_name(plan)
    targets = {name: {root.descriptor.digest for root in roots} for name, roots in coming.items()}
    merged = []
    there: set[tuple[Reference, Digest]] = set()
    for entry in entries:
        if entry.name in targets:
            if entry.digest in targets[entry.name]:
                there.add((entry.name, entry.digest))
            else:
                entry = entry.renamed(None)
        merged.append(entry)
    for name, roots in coming.items():
        for root in roots:
            if (name, root.descriptor.digest) not in there:
                there.add((name, root.descriptor.digest))
                merged.append(Entry.make(root.descriptor, name, root.parent))
    nameless = [root for root in plan.roots if not root.references]
    known = {entry.digest for entry in merged} if nameless else set()
    for root in nameless:
        if root.descriptor.digest not in known:
            known.add(root.descriptor.digest)
            merged.append(Entry.make(root.descriptor, None, root.parent, root.labels[0] if root.labels else ""))
    return tidy(_with_parents(merged, plan))


def _with_parents(entries: list[Entry], plan: Plan) -> list[Entry]:
    """Give entries the parent image that was declared now. Of two, the smaller counts: the order of loads must not."""
    declared = {root.descriptor.digest: root.parent for root in plan.roots if root.parent is not None}
    if not declared:
        return entries
    result = []
    for entry in entries:
        parent = declared.get(entry.digest)
        if parent is not None and smaller_parent(entry.parent, parent) is parent:
            entry = Entry.make(entry.descriptor, entry.name, parent, entry.label)
        result.append(entry)
    return result


def _by_name(plan: Plan) -> dict[Reference, list[PlannedRoot]]:
    names: dict[Reference, list[PlannedRoot]] = {}
    for root in plan.roots:
        for reference in root.references:
            names.setdefault(reference, []).append(root)
    return names


def tidy(entries: list[Entry]) -> list[Entry]:
    """Drop a nameless entry beside a named one of the same digest, and exact doubles."""
    named = {entry.digest for entry in entries if entry.name or entry.label}
    seen: set[tuple[Digest, Reference | None, str]] = set()
    result = []
    for entry in entries:
        key = (entry.digest, entry.name, entry.label)
        if key in seen or (not entry.name and not entry.label and entry.digest in named):
            continue
        seen.add(key)
        result.append(entry)
    return result


class _Bytes:
    """Bytes in memory, as a stream."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, target: memoryview, /) -> int:
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _advancer(report: Report) -> Callable[[int], object]:
    return lambda count: report(Event("advance", count=count))


def _refuse_moves(entries: list[Entry], plan: Plan) -> None:
    """Raise :class:`Conflict` when a tag that was free or ours at planning time moved meanwhile."""
    current: dict[Reference | None, set[Digest]] = {move.reference: set() for move in plan.tags}
    for entry in entries:
        if entry.name in current:
            current[entry.name].add(entry.digest)
    for move in plan.tags:
        if current[move.reference] - {move.root, move.before_root}:
            raise Conflict(f"{move.reference.familiar} was moved by another process meanwhile", hint="run it again")
