"""The contract between the ends and the transfer. Read this file first.

Every end is a :class:`Source` of images, a :class:`Sink` for images, or both; one transfer runs between them
(:mod:`imgtar.ops.transfer`)::

    with sink.begin() as transaction:
        catalogs = [source.survey(transaction) for source in sources]
        plan = resolve(catalogs, transaction.inventory, policy)    # pure
        plan.require_complete()
        transaction.receive(plan, sources)                         # bytes move, each verified as it passes
        transaction.commit(plan)                                   # one atomic step makes it visible

A new format is one function that turns a table of members into a catalog, and one writer; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from imgtar.blob.measure import Measure
from imgtar.blob.stream import Readable
from imgtar.events import Report
from imgtar.frozen import frozen
from imgtar.graph.catalog import Catalog
from imgtar.graph.inventory import Inventory
from imgtar.graph.plan import Plan, Write
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest

__all__ = ["Blob", "Dock", "Receipt", "Sink", "Source", "Staged", "Transaction"]


@frozen
class Staged:
    """Content that a dock took from a passing stream: what it measured, and a token only the dock understands.

    Equal content staged twice may give two tokens; nothing is visible to anyone until the dock's transaction commits.
    """

    measure: Measure
    token: object


class Dock(Protocol):
    """Where a sequential source puts down what passes by, because a pipe cannot be read twice."""

    def stage(
        self,
        content: Readable,
        size: int,
        *,
        where: str,
        claimed: Digest | None = None,
        budget: Budget | None = None,
    ) -> Staged:
        """Take ``size`` bytes, measuring them on the way. The content is read to its end before this returns.

        ``claimed`` is the digest in the entry's name, unproven: a receiver that holds it may measure without writing.
        Nobody knows yet whether an image needs it: what it decompresses to is charged to the archive's ``budget``, and
        over that it has no diff ID.
        """
        ...

    def read_staged(self, staged: Staged, cap: int) -> bytes | None:
        """Return staged content of at most ``cap`` bytes, ``None`` when this dock did not keep it.

        A dock that keeps only what may be a document raises ``E_JSON`` for what it saw to be none.
        """
        ...


@frozen
class Blob:
    """Bytes that a source can hand over: ``where`` they are, and either a way to ``open`` them or the ``staged`` copy.

    What they decompress to is charged to the ``budget`` of their archive.
    Whoever reads many in the order of ``offset`` goes over the medium once, from its beginning to its end.
    """

    size: int
    where: str
    open: Callable[[], AbstractContextManager[Readable]] | None = None
    staged: Staged | None = None
    offset: int = 0
    budget: Budget | None = None


class Source(Protocol):
    """An end that brings images."""

    label: str

    def survey(self, dock: Dock) -> Catalog:
        """Say what is here.

        A source with random access reads headers and small documents only; its blobs can be opened later, by several
        threads at once. A sequential one is read to its end now, and every member goes through ``dock.stage``.
        Raises :class:`Refused` for an archive that is unsafe, damaged or of no known kind.
        """
        ...

    def blob(self, digest: Digest) -> Blob | None:
        """The bytes behind a digest of the catalog's offers. The digest is a claim until the bytes were measured."""
        ...

    def close(self) -> None:
        """Let go of files. Idempotent."""
        ...


@frozen
class Receipt:
    """What a commit did, in bytes and blobs."""

    bytes_written: int
    bytes_reused: int
    blobs_written: int
    blobs_reused: int


class Transaction(Dock, Protocol):
    """One all-or-nothing change of a sink."""

    @property
    def inventory(self) -> Inventory:
        """What the receiver holds."""
        ...

    def receive(self, plan: Plan, fetch: Callable[[Write], Blob], report: Report, jobs: int) -> None:
        """Bring in every blob of ``plan.writes``, each verified (digest, size, diff ID) before it counts as received.

        Raises :class:`Refused` with ``E_DIGEST``, ``E_SIZE`` or ``E_DIFFID`` for bytes that are not what was promised.
        """
        ...

    def commit(self, plan: Plan) -> Receipt:
        """Publish everything or nothing. Idempotent content: a blob that is there already is not an error."""
        ...


class Sink(Protocol):
    """An end that takes images."""

    label: str

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open a transaction; leaving the block without a commit leaves nothing behind."""
        ...


def blob_finder(catalogs: Sequence[Catalog], sources: Sequence[Source]) -> Callable[[Write], Blob]:
    """Return the function that finds the source of each planned write. The two sequences stand side by side.

    For a layer that is made from another, it is the blob of that other one; what the receiver makes of its own holdings
    has no catalog and is not asked for.
    """
    by_catalog: Mapping[int, Source] = {id(catalog): source for catalog, source in zip(catalogs, sources, strict=True)}

    def find(write: Write) -> Blob:
        source = by_catalog[id(write.catalog)]
        blob = source.blob(write.source)
        if blob is None:
            raise AssertionError(f"{source.label} offered {write.source} but does not have it")
        return blob

    return find
