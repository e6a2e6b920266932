"""Deps: the dependency tree of an archive, of the store, or around an image of the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from imgtar.errors import Refused, StoreTrouble
from imgtar.events import Report, silent
from imgtar.frozen import frozen, replace
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.deps import DependencyTree, dependency_tree
from imgtar.graph.finding import Finding
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.plan import Missing
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Candidate, Policy, select, with_platforms
from imgtar.graph.walk import images_of
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ops.choose import refuse_objected
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.store import Store
from imgtar.text import printable
from imgtar.transport.check import Check
from imgtar.transport.location import open_archive

__all__ = ["Dependencies", "deps_archive", "deps_store"]

_REPAIR = "load an archive that carries it: that repairs the store"


@frozen
class Dependencies:
    """The tree, ``where`` it was looked for, and what its images lack."""

    where: str
    tree: DependencyTree
    missing: tuple[Missing, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.deps/1``."""
        return {
            "where": self.where,
            "images": self.tree.to_json(),
            "missing": [gap.to_json() for gap in self.missing],
            "findings": [finding.to_json() for finding in self.findings],
        }


def deps_archive(path: str, *, report: Report = silent, limits: Limits = DEFAULT_LIMITS) -> Dependencies:
    """The tree of an archive's images. Of a seekable one only headers and small documents are read."""
    source = open_archive(path, limits=limits)
    try:
        catalog = source.survey(Check(report=report, limits=limits))
        candidates, lost = grow_candidates([catalog], EmptyInventory(), limits)
        roots = [root for root, _ in lost]
        tree = dependency_tree(candidates, roots, lambda digest: digest in catalog.offers, catalog.thin)
        return _dependencies(catalog, tree, catalog.roots, limits)
    finally:
        source.close()


def deps_store(store: Store, name: str | None = None) -> Dependencies:
    """The tree of the store; with ``name`` only what that image (or several) stands on and what stands on it.

    Without a store the tree is empty, but a ``name`` raises :class:`NotFound`. What images share is told of the whole
    store. A damaged image is a finding and leaves the others to be shown; asked for by name, it raises
    :class:`StoreTrouble`.
    """
    if name is None and not store.layout.exists:
        return Dependencies(store.label, DependencyTree())
    with store.reading() as inventory:
        catalog = store.source(inventory).survey(Check())
        candidates, _ = grow_candidates([catalog], EmptyInventory(), STORE_LIMITS)
        tree = dependency_tree(candidates, (), lambda digest: digest in catalog.offers)
        if name is not None:
            chosen = select(with_platforms(candidates), [name])
            tree = tree.around(_keys(chosen))
            _readable(chosen, tree, store)
            shown = {image.facts.key for image in tree.images}
            also = {one.node.descriptor.digest for one in chosen}
            candidates = [one for one in candidates if one.node.descriptor.digest in also or shown & set(_keys([one]))]
        done = _dependencies(catalog, tree, (one.root for one in candidates), STORE_LIMITS)
        return _damaged(candidates, tree, done)


def _keys(candidates: Iterable[Candidate]) -> list[Digest]:
    return [node.descriptor.digest for one in candidates for node in images_of(one.node)]


def _readable(chosen: Sequence[Candidate], tree: DependencyTree, store: Store) -> None:
    """Raise :class:`StoreTrouble` when nothing of what was asked for can be read."""
    for one in chosen:
        if one.node.absent and not tree.images:
            refuse_objected([one])
            raise StoreTrouble(_unreadable("manifest", one.root.title), where=store.label, hint=_REPAIR)


def _damaged(candidates: Iterable[Candidate], tree: DependencyTree, done: Dependencies) -> Dependencies:
    """Add what a store has but cannot read: a rotten document is neither missing nor any use."""
    told = {gap.digest for gap in done.missing}
    rotten = [
        (one.node.descriptor.digest, _unreadable("manifest", printable(one.root.title)))
        for one in candidates
        if one.node.absent and one.node.fault is None
    ]
    rotten += [
        (image.facts.image_id, _unreadable("config", printable(image.title)))
        for image in tree.images
        if image.facts.diff_ids is None
    ]
    findings = [
        Finding("E_STORE", "error", str(digest), message, 7, _REPAIR)
        for digest, message in rotten
        if digest not in told
    ]
    return replace(done, findings=(*done.findings, *findings))


def _unreadable(kind: str, title: str) -> str:
    return f"the {kind} of {title} is missing or damaged"


def _dependencies(catalog: Catalog, tree: DependencyTree, roots: Iterable[Root], limits: Limits) -> Dependencies:
    narrowed = replace(catalog, roots=tuple(roots))
    missing, findings = _examined(narrowed, limits)
    # What a thin archive leaves out on purpose is required of its receiver, not missing.
    return Dependencies(
        catalog.label, tree, tuple(gap for gap in missing if gap.gap_class != "promised-by-base"), findings
    )


def _examined(catalog: Catalog, limits: Limits) -> tuple[tuple[Missing, ...], tuple[Finding, ...]]:
    """What the images lack, and what is wrong with them.

    An archive that contradicts itself is refused, except over parents: drawing those is what this is for. In a store
    each image is then asked by itself, so that a contradiction hides nothing but itself.
    """
    policy = Policy(parents="ignore", every_form=True)
    try:
        plan = resolve([catalog], EmptyInventory(), policy, limits)
    except Refused as error:
        if error.code != "E_GRAPH" and catalog.form != "store":
            raise
        trouble = Finding.of(error)
    else:
        return plan.missing, plan.findings
    candidates, lost = grow_candidates([catalog], EmptyInventory(), limits)
    gaps = [gap for _, each in lost for gap in each]
    findings = [trouble, *catalog.findings]
    for one in candidates:
        try:
            plan = resolve([replace(catalog, roots=(one.root,), findings=())], EmptyInventory(), policy, limits)
        except Refused as error:
            findings.append(Finding.of(error))
        else:
            gaps += plan.missing
            findings += plan.findings
    return _merged(gaps), tuple(dict.fromkeys(findings))


def _merged(gaps: Iterable[Missing]) -> tuple[Missing, ...]:
    """Each gap once, with all who need it."""
    found: dict[tuple[str, Digest | None, Digest | None, str], Missing] = {}
    for gap in gaps:
        key = (gap.kind, gap.digest, gap.diff_id if gap.digest is None else None, gap.expected_in)
        known = found.get(key, gap)
        found[key] = replace(known, needed_by=tuple(dict.fromkeys((*known.needed_by, *gap.needed_by))))
    return tuple(found.values())
