"""The store as a source of images, a sink for them, and the few changes people make by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from imgtar.blob.files import inside, opened
from imgtar.errors import NotFound, UsageError
from imgtar.events import Event, Report, silent
from imgtar.graph.catalog import Catalog
from imgtar.graph.library import Library
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.ports import Blob, Dock
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import Layout
from imgtar.store.lock import DEFAULT_LOCK_TIMEOUT, locked
from imgtar.store.rights import make_folders
from imgtar.text import shown

if TYPE_CHECKING:  # Whoever only reads needs no transaction.
    from imgtar.store.transaction import StoreTransaction

__all__ = ["Store"]


class Store:
    """An OCI image layout directory at ``path``.

    Opening does not write. ``begin`` and ``change`` make an empty store when there is none yet; everything that only
    reads raises :class:`NotFound` then.
    """

    def __init__(self, path: str, *, report: Report = silent, lock_timeout: float = DEFAULT_LOCK_TIMEOUT) -> None:
        self.layout = Layout(path)
        self.label = self.layout.path
        self.report = report
        self.lock_timeout = lock_timeout

    def _require(self) -> None:
        if not self.layout.exists:
            raise NotFound("there is no store yet", where=self.layout.path, hint="imgtar load -i ARCHIVE makes one")
        self.layout.check()

    def _blobs(self, *, shared: bool) -> AbstractContextManager[None]:
        layout = self.layout
        return locked(
            layout.blobs_lock, shared=shared, timeout=self.lock_timeout, report=self.report, gate=layout.gate_lock
        )

    def sharing_blobs(self) -> AbstractContextManager[None]:
        """Hold the lock under which no blob is deleted."""
        return self._blobs(shared=True)

    def holding_index(self) -> AbstractContextManager[None]:
        """Hold the lock under which nobody else replaces the index."""
        return locked(self.layout.index_lock, shared=False, timeout=self.lock_timeout, report=self.report)

    def inventory(self, *, forgiving: bool = False) -> StoreInventory:
        """What the store holds now."""
        self._require()
        return StoreInventory(self.layout, self.layout.read_index(), forgiving=forgiving)

    @contextmanager
    def reading(self, *, forgiving: bool = False) -> Iterator[StoreInventory]:
        """Read with the promise that no blob is deleted meanwhile."""
        self._require()
        with self.sharing_blobs():
            yield self.inventory(forgiving=forgiving)

    @contextmanager
    def begin(self, limits: Limits = DEFAULT_LIMITS) -> Iterator[StoreTransaction]:
        """See :class:`imgtar.ports.Sink`. ``limits`` hold for what comes in."""
        from imgtar.store.staging import staging_area, sweep
        from imgtar.store.transaction import StoreTransaction

        if self.layout.exists:
            self.layout.check()
        self.layout.prepare()
        self.layout.check_one_file_system()
        if not self.layout.exists:
            # Two first loads at once: one makes the store, the other finds it.
            with self.holding_index():
                self.layout.create()
        sweep(self.layout)
        # The staging area first: who may not write here need not wait to be told.
        with staging_area(self.layout) as folder, self.sharing_blobs():
            yield StoreTransaction(self.layout, self.inventory(), folder, self.report, self.lock_timeout, limits)

    def refuse_as_target(self, path: str) -> None:
        """Raise :class:`UsageError` when ``path``, a file to be written, lies in the store: it may be its index."""
        if inside(path, self.layout.folders()) and self.layout.exists:
            raise UsageError(
                f"{shown(path)} lies inside the store {shown(self.layout.path)}", hint="write to another folder"
            )

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A folder in the staging area for temporary files of a save; gone afterwards."""
        from imgtar.store.staging import staging_area, sweep

        self._require()
        make_folders(self.layout.staging)
        sweep(self.layout)
        with staging_area(self.layout) as folder:
            yield folder

    @contextmanager
    def deleting(self) -> Iterator[object]:
        """Hold the store alone, because blobs will be deleted."""
        self._require()
        make_folders(self.layout.corner)
        with self._blobs(shared=False):
            yield self.layout

    def change(self, edit: Callable[[list[Entry]], Sequence[Entry]]) -> None:
        """Replace the index by what ``edit`` makes of it, under the index lock. Raises what ``edit`` raises.

        It is asked again when a program that knows no lock has written the index meanwhile.
        """
        from imgtar.store.transaction import tidy

        self._require()
        make_folders(self.layout.corner)
        with self.holding_index():
            self.layout.change_index(lambda entries: tidy(list(edit(entries))), lambda: self.report(Event("commit")))

    def source(self, inventory: StoreInventory) -> StoreSource:
        """The store as a :class:`imgtar.ports.Source`, as ``inventory`` saw it."""
        return StoreSource(self.layout, inventory)


class StoreSource:
    """The store's images on offer."""

    def __init__(self, layout: Layout, inventory: StoreInventory) -> None:
        self.label = layout.path
        self._layout = layout
        self._inventory = inventory

    def survey(self, dock: Dock, entries: Sequence[Entry] | None = None) -> Catalog:
        """See :class:`imgtar.ports.Source`. Blobs are offered by looking, not by listing the directory.

        With ``entries`` only the roots of these; every entry of a digest must be among them.
        """
        groups: dict[Digest, tuple[Descriptor, list[Reference], list[str], Entry]] = {}
        for entry in self._inventory.entries if entries is None else entries:
            _, names, labels, _ = groups.setdefault(entry.digest, (entry.descriptor, [], [], entry))
            if entry.name is not None:
                names.append(entry.name)
                labels.append(entry.name.familiar)
            elif entry.label:
                labels.append(entry.label)
        roots = tuple(entry.root(names, labels) for _, names, labels, entry in groups.values())
        library = Library([], STORE_LIMITS).then(self._inventory.library)
        offers, witness = _Offers(self._inventory), self._inventory
        return Catalog(self.label, "store", "none", roots, library, offers, witness=witness)

    def blob(self, digest: Digest) -> Blob | None:
        """See :class:`imgtar.ports.Source`."""
        status = self._inventory.status(digest)
        if status is None:
            return None
        path = self._layout.blob_path(digest)
        return Blob(status.st_size, path, open=lambda: opened(path, status.st_size, path))

    def close(self) -> None:
        """Nothing is kept open."""


class _Offers:
    """Sizes of stored blobs, looked up when asked for: a big store is not listed for one image."""

    def __init__(self, inventory: StoreInventory) -> None:
        self._inventory = inventory

    def get(self, digest: Digest, /) -> int | None:
        """The size of a stored blob."""
        status = self._inventory.status(digest) if digest.supported else None
        return None if status is None else status.st_size

    def __contains__(self, digest: object, /) -> bool:
        return isinstance(digest, Digest) and self.get(digest) is not None

    def __iter__(self) -> Iterator[Digest]:
        return (digest for digest, _ in self._inventory.layout.stored_blobs())
