"""Images of the store by names and IDs, without reading a big store for one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imgtar.errors import NotFound, StoreTrouble
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.select import Candidate, select, with_platforms
from imgtar.store.collector import collector_paused
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.inventory import StoreInventory
from imgtar.store.narrow import entries_for
from imgtar.store.roots import RootCache
from imgtar.store.store import Store
from imgtar.text import printable
from imgtar.transport.check import Check

__all__ = ["choose", "fault_of", "refuse_objected"]


def choose(
    store: Store,
    inventory: StoreInventory,
    names: Sequence[str],
    fits: Callable[[Candidate], bool] = lambda _: True,
) -> tuple[Catalog, list[Candidate], list[Candidate]]:
    """The images that ``names`` mean among those that ``fits`` takes: a catalog that has them, what was looked at, they.

    Only what may be meant is read, and what may refer to it. When nothing of that is, all of the store is asked, and so
    the error is the same: raises :class:`NotFound` with what there is, :class:`UsageError` for an ambiguous ID.
    """

    def among(entries: Sequence[Entry]) -> tuple[Catalog, list[Candidate], list[Candidate]]:
        catalog = store.source(inventory).survey(Check(), entries)
        candidates = [one for one in grow_candidates([catalog], EmptyInventory(), STORE_LIMITS)[0] if fits(one)]
        return catalog, candidates, select(with_platforms(candidates), names)

    with collector_paused():
        narrowed = entries_for(RootCache(inventory), inventory.entries, names) if names else None
        if narrowed is not None:
            try:
                return among(narrowed)
            except NotFound:
                pass
        return among(inventory.entries)


def refuse_objected(chosen: Sequence[Candidate]) -> None:
    """Raise :class:`StoreTrouble` when one of these was objected to (see graph/claims.py)."""
    for one in chosen:
        if one.node.fault is not None:
            raise fault_of(one)


def fault_of(candidate: Candidate) -> StoreTrouble:
    """Why a root of the store cannot be used."""
    fault = candidate.node.fault
    assert fault is not None
    message = f"{printable(candidate.root.title)} cannot be used: {fault.code}: {fault.message}"
    return StoreTrouble(message, where=fault.where, hint=fault.hint, details=fault.details)
