"""Verify: prove an archive, or the store, whole and good. Every finding is collected, nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

from imgtar.blob.files import FileWindow
from imgtar.blob.measure import Measure, measure
from imgtar.blob.workers import Beside, Checkpoint, default_jobs, worth_lanes
from imgtar.errors import ImgtarError, Refused, local_trouble
from imgtar.events import Event, Report, silent
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.explain import describe_missing
from imgtar.graph.finding import Finding
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.plan import Missing, Plan, PlannedImage, Write
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.graph.thin import ThinRecord
from imgtar.graph.walk import Node, images_of, nodes_of, parts_of
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.ops.against import Place, would_load
from imgtar.ops.verdict import ArchiveVerdict, Subset, Verification
from imgtar.ops.where import opened_inventory
from imgtar.ports import Blob, Source, blob_finder
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.inventory import StoreInventory
from imgtar.store.reach import reach
from imgtar.store.rescue import strays
from imgtar.store.roots import recheck_caches
from imgtar.store.store import Store
from imgtar.text import human_size, plural, printable
from imgtar.transport.archive import TarSource
from imgtar.transport.check import Check
from imgtar.transport.location import Fingerprint, medium_paths, open_archive, passed_over

__all__ = ["verify"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def verify(
    paths: Sequence[str],
    store: Store | None = None,
    *,
    against: Sequence[str] = (),
    policy: Policy | None = None,
    fast: bool = False,
    strict: bool = False,
    subset: Subset | None = None,
    jobs: int | None = None,
    report: Report = silent,
    limits: Limits = DEFAULT_LIMITS,
) -> Verification:
    """Verify the archives in ``paths``, or ``store`` when there are none.

    ``fast`` checks structure and small documents only. An archive that is not there is a finding like others, so that
    the rest is still examined. ``against`` names receivers (see ops/where.py): for each of them it is worked out, by the
    plan that a load there would follow under ``policy``, whether all the archives together would load; ``store`` must be
    given then. ``subset`` reads only a part of the store's blobs; documents are read every time. Raises only for a disk that cannot be read while it is, or a receiver that cannot be asked.
    """
    started = _now()
    jobs = jobs or default_jobs()
    places: list[Place] = []
    there: list[Finding] = []
    if not paths:
        assert store is not None
        verdicts = [_store(store, fast, subset, jobs, report, limits)]
        return Verification(tuple(verdicts), started, _now(), fast, strict, subset=subset)
    with ExitStack() as kept:
        verdicts = []
        for path in _expanded(paths, report):
            with ExitStack() as own:
                verdicts.append(
                    _archive(path, fast, jobs, report, limits, own, alone=not against, found=path not in paths)
                )
                if against:
                    kept.enter_context(own.pop_all())  # Its documents are still needed to plan.
        for where in against:
            assert store is not None
            with opened_inventory(where, store, report=report, limits=limits) as inventory:
                place, found = would_load(
                    where, [each.catalog for each in verdicts], inventory, policy or Policy(), limits
                )
            places.append(place)
            known = {finding for verdict in verdicts for finding in verdict.findings}
            there += [finding for finding in found if finding not in known]
            # What a thin archive leaves out is no fault of its own: that is told of the place.
            lacking = [gap for gap in place.missing if gap.gap_class != "promised-by-base"]
            needing = {name for gap in lacking for name in gap.needed_by}
            for verdict in verdicts:
                for image in verdict.images:
                    image["ok"] = image["ok"] and not needing & {*image["names"], image["image_id"]}
    return Verification(tuple(verdicts), started, _now(), fast, strict, tuple(places), tuple(there))


def _expanded(paths: Sequence[str], report: Report) -> list[str]:
    """Folders of archives as their archives."""
    result: list[str] = []
    for path in paths:
        archives, skipped = medium_paths(path)
        result += archives
        if skipped:
            report(Event("notice", passed_over(path, skipped)))
    return result


def _archive(
    path: str,
    fast: bool,
    jobs: int,
    report: Report,
    limits: Limits,
    stack: ExitStack,
    *,
    alone: bool,
    found: bool = False,
) -> ArchiveVerdict:
    """Examine one archive; it is closed with ``stack``. ``alone``: what it lacks, nobody else will bring.

    ``found``: it is of a folder that was listed (see :func:`open_archive`).
    """
    verdict = ArchiveVerdict(path)
    fingerprint = Fingerprint()
    try:
        source = open_archive(path, limits=limits, fingerprint=fingerprint, found=found)
    except ImgtarError as error:
        verdict.findings.append(replace(Finding.of(error), subject=error.where or path))
        return verdict
    stack.callback(source.close)
    hashing = None
    if isinstance(source, TarSource) and not fast:
        hashing = Beside(partial(_hash_file, source))
        stack.callback(hashing.abandon)
    try:
        check = Check(collect=True, diff=not fast, report=report, limits=limits)
        _examine(source, check, verdict, fast, jobs, report, limits, alone=alone)
        verdict.size, verdict.sha256 = fingerprint.size, fingerprint.sha256
        if isinstance(source, TarSource):
            verdict.size = source.size
        if hashing is not None:
            verdict.sha256 = hashing.result()
    except Refused as error:
        # The file became shorter while it was hashed: that is damage, and the examination may have seen it too.
        verdict.findings.append(Finding.of(error))
    except OSError as error:
        raise local_trouble(error, f"reading {path}") from None
    return verdict


def _hash_file(source: TarSource, checkpoint: Checkpoint) -> str:
    """The SHA-256 of the archive file as it lies on the medium, in hex."""
    whole = FileWindow(source.fd, 0, source.size, source.label)
    return measure(whole, diff=False, progress=lambda _: checkpoint(), lanes=worth_lanes(source.size)).digest.encoded


def _examine(
    source: Source,
    check: Check,
    verdict: ArchiveVerdict,
    fast: bool,
    jobs: int,
    report: Report,
    limits: Limits,
    *,
    alone: bool,
) -> None:
    try:
        catalog = source.survey(check)
        verdict.form = catalog.form
        plan = resolve(
            [catalog], EmptyInventory(), Policy(parents="warn" if alone else "ignore", every_form=True), limits
        )
        verdict.catalog = catalog
    except ImgtarError as error:
        if error.exit_code == 6:
            raise
        verdict.findings.append(Finding.of(error))
        return
    verdict.findings += plan.findings
    lacking = [gap for gap in plan.missing if alone and gap.gap_class != "promised-by-base"]
    verdict.findings += [
        Finding("E_MISSING", "error", _subject(gap), describe_missing(gap, place="archive"), 4, gap.hint)
        for gap in lacking
    ]
    if catalog.thin is not None and alone:
        verdict.findings.append(_leans(verdict.path, catalog.thin))
    if fast:
        _count_documents(verdict, plan)
    else:
        check.receive(plan, blob_finder([catalog], [source]), report, jobs)
        verdict.ballast = _ballast(source, catalog, plan, check, jobs)
        verdict.blobs_checked, verdict.bytes_checked = check.blobs_checked, check.bytes_checked
    verdict.findings += sorted(check.findings, key=lambda finding: finding.subject)
    verdict.images = _image_verdicts(catalog, plan, check, lacking, known_there=not alone)


def _leans(path: str, thin: ThinRecord) -> Finding:
    size = sum(one.descriptor.size for one in thin.requires.values())
    bases = ", ".join(base.title for base in thin.bases) or "its receiver"
    message = f"thin: {plural(len(thin.requires), 'blob')} ({human_size(size)}) are left out, which {bases} must bring"
    return Finding(
        "E_MISSING", "info", path, message, 4, "imgtar verify --against INVENTORY says whether a receiver has them"
    )


_REPAIR = "imgtar repair -i ARCHIVE takes it from an archive that carries it, and so does a load of that"


def _count_documents(verdict: ArchiveVerdict, plan: Plan) -> None:
    verdict.blobs_checked = sum(1 for write in plan.writes if write.kind != "layer")
    verdict.bytes_checked = sum(write.size for write in plan.writes if write.kind != "layer")


def _subject(gap: Any) -> str:
    return str(gap.digest or gap.diff_id or gap.expected_in)


def _ballast(
    source: Source,
    catalog: Catalog,
    plan: Plan,
    check: Check,
    jobs: int,
    subset: Subset | None = None,
    theirs: Collection[Digest] = (),
) -> int:
    """Check what lies in ``blobs/`` though nothing refers to it: damage there is damage to the medium all the same.

    ``theirs`` is what roots may need of which nothing is believed.
    """
    # Layers of an image that is not whole were measured like others; they have an owner all the same.
    owned = {image.layer.digest for image in catalog.v1.values() if image.layer is not None} | set(theirs)
    used = {write.digest for write in plan.writes} | set(plan.reused) | {gap.digest for gap in plan.missing}
    rest = []
    for digest in catalog.offers:
        wanted = digest not in used and (subset is None or subset.has(digest))
        blob = source.blob(digest) if wanted else None
        if blob is not None:
            title = (
                f"the {'blob' if digest in owned else 'unreferenced blob'} {catalog.entry_names.get(digest, digest)}"
            )
            rest.append((Write(digest, blob.size, "blob", title, catalog=catalog), blob))
    check.examine_all(rest, jobs)
    return sum(1 for write, _ in rest if write.digest not in owned)


def _image_verdicts(
    catalog: Catalog, plan: Plan, check: Check, lacking: Sequence[Missing], *, known_there: bool = False
) -> list[dict[str, Any]]:
    """One row for each image. ``known_there``: what the archive lacks is judged by where it goes, later."""
    missing = {gap.digest for gap in lacking if gap.digest is not None}
    result: list[dict[str, Any]] = []
    coming = {image.digest: image for image in plan.images}

    def row(image: PlannedImage, digests: set[Digest]) -> dict[str, Any]:
        return {
            "names": list(image.names),
            "image_id": str(image.image_id),
            "ok": not digests & (check.bad | missing),
        }

    for root in plan.roots:
        if root.node.absent and root.node.descriptor.digest in coming:
            image = coming[root.node.descriptor.digest]
            result.append(row(image, {part.descriptor.digest for part in root.parts}))
        for node in images_of(root.node):
            if node.descriptor.digest in coming:
                result.append(row(coming[node.descriptor.digest], _digests(node)))
        for node in nodes_of(root.node):
            # What a lost or rotten manifest stood for has no ID; it has a name, and is not good.
            digest = node.descriptor.digest
            if node.absent and digest not in coming and (node is root.node or digest in check.bad):
                names = [reference.familiar for reference in root.references] or list(map(printable, root.labels[:1]))
                ok = known_there and digest not in check.bad
                result.append({"names": names, "image_id": None, "ok": ok})
    # Images without a node (layers that nobody has) are known by their gaps alone.
    shown = {name for row in result for name in row["names"]}
    for cut in (root for root in catalog.roots if root.cut):
        names = [reference.familiar for reference in cut.references] or [printable(cut.title)]
        result.append({"names": names, "image_id": None, "ok": known_there})
        shown |= set(names)
    for gap in plan.missing:
        if gap.digest is None and not shown & set(gap.needed_by):
            result.append({"names": [gap.needed_by[0]], "image_id": None, "ok": known_there})
            shown |= set(gap.needed_by)
    return result


def _digests(node: Node) -> set[Digest]:
    return {part.descriptor.digest for part in parts_of(node)}


def _store(
    store: Store, fast: bool, subset: Subset | None, jobs: int, report: Report, limits: Limits
) -> ArchiveVerdict:
    verdict = ArchiveVerdict(store.label, "store")
    with store.reading(forgiving=True) as inventory:
        changed = store.layout.changed_by_others()
        source = store.source(inventory)
        notes = _Notes(inventory)
        check = Check(
            collect=True, disk=True, diff=not fast, report=report, limits=limits, proved=None if fast else notes.compare
        )
        catalog, plan, refused = _planned(source.survey(check))
        verdict.findings += [_in_store(Finding.of(error)) for _, error in refused]
        verdict.findings += [finding for finding in plan.findings if finding.severity != "info"]
        for gap in plan.missing:
            verdict.findings.append(
                Finding("E_STORE", "error", _subject(gap), describe_missing(gap, place="store"), 7, _REPAIR)
            )
        if not fast:
            part = (
                plan if subset is None else replace(plan, writes=tuple(w for w in plan.writes if subset.has(w.digest)))
            )
            check.receive(part, notes.looking(blob_finder([catalog], [source])), report, jobs)
            report(Event("start", "checking unreferenced blobs"))
            objected = [root.node.descriptor.digest for root in plan.roots if root.node.fault is not None]
            theirs = {digest for root in objected for digest in reach(inventory, root)[0]}
            verdict.ballast = _ballast(source, catalog, plan, check, jobs, subset, theirs)
            report(Event("end"))
            verdict.findings += [_stray(path) for path in strays(store.layout)]
            verdict.findings += notes.findings(caches=subset is None)
        verdict.blobs_checked, verdict.bytes_checked = check.blobs_checked, check.bytes_checked
        if fast:
            _count_documents(verdict, plan)
        for digest in check.bad:
            inventory.cache.forget(digest)  # So that the next load that carries it writes it again.
        verdict.findings += [_in_store(finding) for finding in sorted(check.findings, key=lambda f: f.subject)]
        verdict.images = _image_verdicts(catalog, plan, check, plan.missing)
        for root, _ in refused:
            names = [reference.familiar for reference in root.references] or list(map(printable, root.labels[:1]))
            verdict.images.append({"names": names, "image_id": None, "ok": False})
        if changed is not None:
            verdict.findings.append(_changed(store.layout.index_path, changed))
    return verdict


_STORE_POLICY = Policy(parents="ignore", remake="never", every_form=True)


def _planned(catalog: Catalog) -> tuple[Catalog, Plan, list[tuple[Root, Refused]]]:
    """The plan of all that the store has, without the roots that it refuses even by themselves, and why it does.

    Whatever is in the store was let in: all of it together may be more than a stranger's archive may hold.
    """

    def planned(roots: Iterable[Root]) -> tuple[Catalog, Plan]:
        some = replace(catalog, roots=tuple(roots))
        return some, resolve([some], EmptyInventory(), _STORE_POLICY, STORE_LIMITS)

    try:
        return *planned(catalog.roots), []
    except Refused:
        pass  # Which roots are the reason is found out now.
    refused: list[tuple[Root, Refused]] = []
    good: list[Root] = []
    for root in catalog.roots:
        try:
            planned([root])
        except Refused as error:
            refused.append((root, error))
        else:
            good.append(root)
    holders: dict[Reference, list[Root]] = {}
    for place, root in enumerate(good):
        kept = []
        for reference in root.references:
            alone = replace(root, references=(reference,))
            others = holders.setdefault(reference, [])
            try:
                if others:
                    planned([*others, alone])
            except Refused as error:  # Another tool gave one name to two images.
                refused.append((alone, error))
            else:
                others.append(alone)
                kept.append(reference)
        good[place] = replace(root, references=tuple(kept))
    return *planned(good), refused


class _Notes:
    """What is noted about blobs (store/held.py), compared with what they are found to be."""

    def __init__(self, inventory: StoreInventory) -> None:
        self._inventory = inventory
        self._looks: dict[Digest, os.stat_result | None] = {}
        self._false: list[tuple[Digest, Digest]] = []

    def looking(self, fetch: Callable[[Write], Blob]) -> Callable[[Write], Blob]:
        """``fetch``, remembering how each file looked before it is read."""

        def look(write: Write) -> Blob:
            self._looks[write.digest] = self._inventory.status(write.digest)
            return fetch(write)

        return look

    def compare(self, digest: Digest, measured: Measure) -> None:
        """Renew the note of a blob that was read and is good, if it is wrong."""
        status = self._looks.get(digest)
        said = self._inventory.renew_note(digest, status, measured) if status is not None else None
        if said is not None:
            self._false.append((digest, said))

    def findings(self, *, caches: bool) -> list[Finding]:
        """What was wrong with notes, of which no harm came, and with the other ``caches``, for which all documents are read."""
        found = [
            Finding(
                "E_STORE",
                "info",
                str(digest),
                f"its note said the diff ID {said}, which is wrong, and counts no more",
                7,
            )
            for digest, said in sorted(self._false)
        ]
        dropped = recheck_caches(self._inventory) if caches else 0
        if dropped:
            message = (
                f"{plural(dropped, 'line')} of the caches said something else than the documents, and were dropped"
            )
            found.append(Finding("E_STORE", "info", self._inventory.label, message, 7))
        return found


def _changed(path: str, gone: list[str]) -> Finding:
    message = "is not what imgtar wrote last: another tool has changed it, or damage has"
    if gone:
        message += f"; these names are gone: {printable(', '.join(gone), limit=500)}"
    hint = f"compare it with {path[: -len('index.json')]}imgtar/index.kept, the copy of what imgtar wrote"
    return Finding("E_STORE", "warning" if gone else "info", path, message, 7, hint)


def _stray(path: str) -> Finding:
    message = "lies among the blobs, but is none: its place or its name is not that of a blob"
    hint = "imgtar repair looks whether it is the content of a missing blob; it may be another tool's temporary file"
    return Finding("E_STORE", "warning", path, message, 7, hint)


def _in_store(finding: Finding) -> Finding:
    return Finding(
        "E_STORE", finding.severity, finding.subject, f"{finding.code}: {finding.message}", 7, finding.hint or _REPAIR
    )
