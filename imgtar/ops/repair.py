"""Repair: rebuild what can be rebuilt of a damaged store, from itself and from archives. Deletes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from imgtar.blob.workers import default_jobs
from imgtar.errors import LocalTrouble, NotFound, Refused
from imgtar.events import Report, silent
from imgtar.frozen import field, record, replace
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
from imgtar.ops.verdict import Verification
from imgtar.ops.verify import verify
from imgtar.ports import Receipt, Source, Transaction, blob_finder
from imgtar.store.entry import Entry
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import Layout
from imgtar.store.reindex import Mended, is_document, mend_index, mend_marks, unnamed_roots
from imgtar.store.rescue import Examination, Misfit, bring_home, examine_blobs, make_way, needed, put_aside
from imgtar.store.roots import recheck_caches
from imgtar.store.store import Store
from imgtar.text import plural
from imgtar.transport.check import Check

__all__ = ["Repair", "repair"]

_POLICY = Policy(parents="ignore", every_form=True)
_NOTHING = Plan((), (), (), {}, (), (), ())


@record
class Repair:
    """What was done, or with ``dry_run`` would be; paths are relative to the store.

    ``notes_renewed`` counts false words in the caches. ``problems`` are those of the archives, ``lost`` says what a
    rebuilt index may lack, ``left`` is the verdict on the store as it is now.
    """

    dry_run: bool
    index: Mended = field(default_factory=lambda: Mended("whole"))
    marks: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    set_aside: list[tuple[str, str, str]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    blobs_checked: int = 0
    bytes_checked: int = 0
    notes_renewed: int = 0
    brought: Receipt = field(default_factory=lambda: Receipt(0, 0, 0, 0))
    problems: list[Finding] = field(default_factory=list)
    lost: list[Finding] = field(default_factory=list)
    left: Verification | None = None

    @property
    def exit_code(self) -> int:
        """0 when the store is whole now, as far as anybody can tell."""
        return (self.left.exit_code if self.left is not None else 0) or (7 if self.lost else 0)

    @property
    def findings(self) -> list[Finding]:
        """What was wrong with the archives that were to help, and what is still wrong with the store."""
        return [*self.problems, *self.lost, *(self.left.findings if self.left is not None else ())]

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.repair/1``."""
        left = self.left
        return {
            "ok": None if left is None else self.exit_code == 0,
            "dry_run": self.dry_run,
            "index": {
                "state": self.index.state,
                "reason": self.index.reason,
                "set_aside": self.index.set_aside,
                "found": self.index.found,
            },
            "restored": self.marks,
            "names": self.names,
            "moved": [{"from": old, "to": new} for old, new in self.moved],
            "set_aside": [{"path": path, "to": to, "reason": reason} for path, to, reason in self.set_aside],
            "strange": self.strange,
            "blobs_checked": self.blobs_checked,
            "bytes_checked": self.bytes_checked,
            "notes_renewed": self.notes_renewed,
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
    other. No image and no name is added or taken away, but where the index was lost: images that its copy does not name
    are there without a name then; names come back from archives that hold the same images. With ``dry_run`` nothing is
    written, and what the archives could bring is counted. Raises :class:`NotFound` without a store,
    :class:`StoreTrouble` for a newer one, :class:`LocalTrouble` for what may not be read or written.
    """
    layout, jobs = store.layout, jobs or default_jobs()
    if not layout.exists:
        raise NotFound("there is no store here", where=layout.path, hint="imgtar load -i ARCHIVE makes one")
    if not dry_run:
        layout.check_writable()
    done = Repair(dry_run)
    with opened_media(paths, report, limits) as sources:
        for old, new, reason in make_way(layout, dry_run=dry_run):
            done.set_aside.append((_below(layout, old), "" if dry_run else _below(layout, new), reason))
        if not dry_run:
            layout.prepare()
        elif any(path == _below(layout, layout.corner) for path, _, _ in done.set_aside):
            layout.check_folders()  # Nobody can take a lock there to look at the rest.
        with store.holding_index() if not dry_run else nullcontext():
            done.marks = mend_marks(layout, dry_run=dry_run)
            if not (dry_run and (done.marks or done.set_aside)):
                layout.check()
            done.index, entries = mend_index(layout, dry_run=dry_run)
        _files(store, entries, done, jobs, report)
        if done.index.state != "whole" and not dry_run:
            _take_in(store, done)
        if sources:
            _from_archives(store, sources, entries, done, jobs, report, limits)
    if not dry_run:
        with store.reading(forgiving=True) as inventory:
            done.notes_renewed += recheck_caches(inventory)
        done.left = verify([], store, fast=True, jobs=jobs, report=report, limits=limits)
        if done.index.state == "rebuilt":
            done.lost = _nobodys(layout)
    return done


def _below(layout: Layout, path: str) -> str:
    return os.path.relpath(path, layout.path)


def _take_in(store: Store, done: Repair) -> None:
    """Images whose manifests have come home since the index was made are in it too, without a name."""
    layout = store.layout
    found: list[Entry] = []

    def edit(entries: list[Entry]) -> list[Entry]:
        nonlocal found
        reached = needed(layout, entries)
        found = [entry for entry in unnamed_roots(layout) if entry.descriptor.digest not in reached]
        return [*entries, *found]

    with store.holding_index():
        layout.change_index(edit)
    done.index = replace(done.index, found=done.index.found + len(found))


def _nobodys(layout: Layout) -> list[Finding]:
    """A rebuilt index knows what it found, not what there was: blobs that it does not reach may be what is left of an image."""
    reached = needed(layout, layout.read_index())
    count = sum(1 for digest, _ in layout.stored_blobs() if digest not in reached)
    if not count:
        return []
    message = f"it was rebuilt, and {plural(count, 'blob')} belong to no image that was found: a manifest may be lost"
    hint = "load the archives of your images again before you prune"
    return [Finding("E_STORE", "error", layout.index_path, message, 7, hint)]


def _files(store: Store, entries: list[Entry], done: Repair, jobs: int, report: Report) -> None:
    """Read all blobs while others use the store, then rename alone. A document that is found tells of other blobs."""
    layout = store.layout
    with store.sharing_blobs():
        examined = examine_blobs(layout, jobs, report, note=not done.dry_run)
    blobs = os.path.join(layout.path, "blobs", "")
    done.blobs_checked = len(examined.sound) + sum(misfit.path.startswith(blobs) for misfit in examined.misfits)
    done.bytes_checked = examined.size
    done.notes_renewed = examined.renewed
    if not examined.misfits:
        return
    with store.sharing_blobs() if done.dry_run else store.deleting():
        moves: list[tuple[str, str]] = []
        misfits = examined.misfits
        while True:
            wanted = needed(layout, entries)
            if done.index.state != "whole":
                # Under the name of another digest it is no manifest that was lost, but one that has rotted.
                strange = [one for one in misfits if one.digest is None and one.actual is not None]
                wanted |= {one.actual for one in strange if one.actual is not None and is_document(one.path)}
            more, misfits = bring_home(layout, misfits, examined.sound, wanted, dry_run=done.dry_run)
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
        was, now = (_below(layout, path) if path else "" for path in (old, new))
        if now.startswith("blobs"):
            done.moved.append((was, now))
        else:
            done.set_aside.append((was, now, reasons.get(old, "is damaged")))
    known = (os.path.join("imgtar", ""), os.path.join("lost+found", ""))
    strange = [_below(layout, misfit.path) for misfit in misfits if misfit.digest is None]
    done.strange = [path for path in strange if not path.startswith(known)]


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
        catalogs, sources, candidates = _surveyed(sources, transaction, done, limits)
        if done.index.state != "whole":
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
            except LocalTrouble as error:
                done.problems.append(Finding.of(error))
                break  # The disk is full: what is good already is kept.
        if good:
            done.brought = transaction.commit(replace(_NOTHING, writes=tuple(good)))


def _surveyed(
    sources: Sequence[Source], transaction: Transaction, done: Repair, limits: Limits
) -> tuple[list[Catalog], list[Source], list[Candidate]]:
    """The archives that can be read. One that is damaged is told, and must not keep the others from helping."""
    catalogs: list[Catalog] = []
    good: list[Source] = []
    candidates: list[Candidate] = []
    for source in sources:
        try:
            catalog = source.survey(transaction)
            candidates += grow_candidates([catalog], transaction.inventory, limits)[0]
        except Refused as error:
            done.problems.append(Finding.of(error))
            continue
        catalogs.append(catalog)
        good.append(source)
    return catalogs, good, candidates


@contextmanager
def _receiver(
    store: Store, entries: list[Entry], done: Repair, report: Report, limits: Limits
) -> Iterator[Transaction]:
    if done.dry_run:
        with store.sharing_blobs():
            yield Check(StoreInventory(store.layout, entries, forgiving=True), report=report, limits=limits)
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
    given: dict[Reference, Entry] = dict(names)

    def edit(current: list[Entry]) -> list[Entry]:
        nonlocal given
        taken = {entry.name for entry in current}
        given = {name: entry for name, entry in names.items() if name not in taken}
        return [*current, *given.values()]

    if dry_run:
        edit(entries)
    elif names:
        store.change(edit)
    return sorted(reference.familiar for reference in given)
