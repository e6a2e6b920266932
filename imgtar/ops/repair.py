"""Repair: rebuild what can be rebuilt of a damaged store, from itself and from archives. Deletes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from imgtar.blob.workers import default_jobs
from imgtar.errors import NotFound, Refused
from imgtar.events import Report, silent
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog
from imgtar.graph.finding import Finding
from imgtar.graph.plan import Plan, Write
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Candidate, Policy
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.ops.load import opened_media
from imgtar.ops.verify import Verification, verify
from imgtar.ports import Receipt, Source, Transaction, blob_finder
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import Entry, Layout
from imgtar.store.rescue import (
    Examination,
    Mended,
    Misfit,
    bring_home,
    examine_blobs,
    mend_index,
    mend_marks,
    needed,
    put_aside,
)
from imgtar.store.store import Store
from imgtar.transport.check import Check

__all__ = ["Repair", "repair"]

_POLICY = Policy(parents="ignore", every_form=True)
_NOTHING = Plan((), (), (), {}, (), (), ())


@dataclass(slots=True)
class Repair:
    """What was done, or with ``dry_run`` would be; paths are relative to the store. ``left`` has the verdict on the store as it is now."""

    dry_run: bool
    index: Mended = field(default_factory=lambda: Mended("whole"))
    marks: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    set_aside: list[tuple[str, str, str]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    blobs_checked: int = 0
    bytes_checked: int = 0
    brought: Receipt = field(default_factory=lambda: Receipt(0, 0, 0, 0))
    problems: list[Finding] = field(default_factory=list)
    left: Verification | None = None

    @property
    def exit_code(self) -> int:
        """0 when the store is whole now."""
        return self.left.exit_code if self.left is not None else 0

    @property
    def findings(self) -> list[Finding]:
        """What was wrong with the archives that were to help, and what is still wrong with the store."""
        return [*self.problems, *(self.left.findings if self.left is not None else ())]

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.repair/1``."""
        left = self.left
        return {
            "ok": left is None or left.ok,
            "dry_run": self.dry_run,
            "index": {"state": self.index.state, "reason": self.index.reason, "set_aside": self.index.set_aside},
            "restored": self.marks,
            "names": self.names,
            "moved": [{"from": old, "to": new} for old, new in self.moved],
            "set_aside": [{"path": path, "to": to, "reason": reason} for path, to, reason in self.set_aside],
            "strange": self.strange,
            "blobs_checked": self.blobs_checked,
            "bytes_checked": self.bytes_checked,
            "blobs_written": self.brought.blobs_written,
            "bytes_written": self.brought.bytes_written,
            "images": left.archives[0].images if left is not None else [],
            "findings": [finding.to_json() for finding in self.findings],
        }


def repair(
    store: Store,
    paths: Sequence[str] = (),
    *,
    dry_run: bool = False,
    jobs: int | None = None,
    report: Report = silent,
    limits: Limits = DEFAULT_LIMITS,
) -> Repair:
    """Bring ``store`` back into shape, with blobs from the archives in ``paths`` where it lacks some.

    The marks and ``index.json`` first; then every blob is read, what is damaged is set aside, and what lies in the wrong
    place goes to the right one; then what the images still lack is taken from the archives, each blob proved like any
    other. No image and no name is added or taken away, but for an index that had to be rebuilt from the blobs: its
    names are lost, and come back from archives that hold the same images. With ``dry_run`` nothing is written, and what
    the archives could bring is counted. Raises :class:`NotFound` without a store, :class:`StoreTrouble` for a newer one.
    """
    layout, jobs = store.layout, jobs or default_jobs()
    if not os.path.isdir(layout.path) or not (layout.exists or os.path.lexists(layout.kept_path)):
        raise NotFound("there is no store here", where=layout.path, hint="imgtar load -i ARCHIVE makes one")
    done = Repair(dry_run)
    with opened_media(paths, report, limits) as sources:
        if not dry_run:
            layout.prepare()
        with store.holding_index() if not dry_run else nullcontext():
            done.marks = mend_marks(layout, dry_run=dry_run)
            if not (dry_run and done.marks):
                layout.check()
            done.index, entries = mend_index(layout, dry_run=dry_run)
        _files(store, entries, done, jobs, report)
        if sources:
            _from_archives(store, sources, entries, done, jobs, report, limits)
    if not dry_run:
        done.left = verify([], store, fast=True, jobs=jobs, report=report, limits=limits)
    return done


def _files(store: Store, entries: list[Entry], done: Repair, jobs: int, report: Report) -> None:
    """Read all blobs while others use the store, then rename alone. A document that is found tells of other blobs."""
    layout = store.layout
    with store.sharing_blobs():
        examined = examine_blobs(layout, jobs, report)
    done.blobs_checked = len(examined.sound) + len(examined.misfits)
    done.bytes_checked = examined.size
    if not examined.misfits:
        return
    with store.sharing_blobs() if done.dry_run else store.deleting():
        moves: list[tuple[str, str]] = []
        misfits = examined.misfits
        while True:
            more, misfits = bring_home(layout, misfits, examined.sound, needed(layout, entries), dry_run=done.dry_run)
            moves += more
            if done.dry_run or not more:
                break
        moves += put_aside(layout, misfits, dry_run=done.dry_run)
    _note(layout, moves, misfits, examined, done)


def _note(
    layout: Layout, moves: list[tuple[str, str]], misfits: list[Misfit], examined: Examination, done: Repair
) -> None:
    reasons = {misfit.path: misfit.reason for misfit in examined.misfits}
    for old, new in moves:
        was, now = (os.path.relpath(path, layout.path) if path else "" for path in (old, new))
        if now.startswith("blobs"):
            done.moved.append((was, now))
        else:
            done.set_aside.append((was, now, reasons.get(old, "is damaged")))
    done.strange = [os.path.relpath(misfit.path, layout.path) for misfit in misfits if misfit.digest is None]


def _from_archives(
    store: Store,
    sources: Sequence[Source],
    entries: list[Entry],
    done: Repair,
    jobs: int,
    report: Report,
    limits: Limits,
) -> None:
    """Bring what the store's images lack out of the archives. Roots of the archives that the store does not name stay out."""
    with _receiver(store, entries, done, report, limits) as transaction:
        inventory = transaction.inventory
        assert isinstance(inventory, StoreInventory)
        catalogs = [source.survey(transaction) for source in sources]
        candidates, _ = grow_candidates(catalogs, inventory, limits)
        if done.index.state == "rebuilt":
            done.names = _names_back(store, entries, candidates, dry_run=done.dry_run)
        # What the store has is held, or damaged: it offers nothing beyond that.
        own = replace(store.source(inventory).survey(transaction), offers={})
        # Without their names: these are none of the store's business.
        offering = [
            replace(
                catalog, roots=tuple(replace(root, labels=(), references=(), parent=None) for root in catalog.roots)
            )
            for catalog in catalogs
        ]
        writes, findings = _lacking([*offering, own], inventory, limits)
        done.problems += findings
        if done.dry_run:
            done.brought = Receipt(sum(write.size for write in writes), 0, len(writes), 0)
            return
        fetch = blob_finder(offering, sources)
        good = []
        for write in writes:
            try:
                transaction.receive(replace(_NOTHING, writes=(write,)), fetch, silent, jobs)
                good.append(write)
            except Refused as error:
                done.problems.append(Finding.of(error))  # Another archive of another day may have a good one.
        if good:
            done.brought = transaction.commit(replace(_NOTHING, writes=tuple(good)))


@contextmanager
def _receiver(
    store: Store, entries: list[Entry], done: Repair, report: Report, limits: Limits
) -> Iterator[Transaction]:
    if done.dry_run:
        with store.sharing_blobs():
            yield Check(StoreInventory(store.layout, entries), report=report, limits=limits)
    else:
        with store.begin(limits) as transaction:
            yield transaction


def _lacking(catalogs: list[Catalog], inventory: StoreInventory, limits: Limits) -> tuple[list[Write], list[Finding]]:
    """What the images of the last catalog, the store's, lack and the others offer.

    When an image contradicts itself, only the rest is helped, and only with blobs that are carried as they are.
    """
    own = catalogs[-1]
    roots = {root.descriptor.digest for root in own.roots if root.descriptor is not None}

    def writes_of(plan: Plan) -> list[Write]:
        parts = {
            part.descriptor.digest for root in plan.roots if root.descriptor.digest in roots for part in root.parts
        }
        return [write for write in plan.writes if write.digest in parts]

    try:
        return writes_of(resolve(catalogs, inventory, _POLICY, limits)), []
    except Refused:
        bare = [replace(catalog, roots=()) for catalog in catalogs[:-1]]
    writes: dict[Digest, Write] = {}
    findings = []
    for root in own.roots:
        try:
            plan = resolve([*bare, replace(own, roots=(root,))], inventory, _POLICY, limits)
        except Refused as error:
            findings.append(Finding.of(error))
            continue
        writes.update((write.digest, write) for write in writes_of(plan))
    return list(writes.values()), findings


def _names_back(store: Store, entries: list[Entry], candidates: Sequence[Candidate], *, dry_run: bool) -> list[str]:
    """Give images of a rebuilt index the names under which archives carry the very same images."""
    here = {entry.descriptor.digest: entry for entry in entries}
    names: dict[Reference, Entry] = {}
    for one in candidates:
        entry = here.get(one.node.descriptor.digest)
        if entry is not None:
            for reference in one.root.references:
                names.setdefault(reference, Entry.make(entry.descriptor, reference, one.root.parent))
    if names and not dry_run:
        store.change(lambda current: [*current, *names.values()])
    return sorted(reference.familiar for reference in names)
