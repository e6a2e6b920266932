"""The dependency resolver: from what is on offer and what is held to a plan. Pure, so that a dry run cannot differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from imgtar.errors import Refused, UsageError
from imgtar.frozen import field, record, replace
from imgtar.graph.candidates import brought_layers, grow_candidates, lost_digest
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.claims import Ledger, hold_against
from imgtar.graph.finding import Finding
from imgtar.graph.gaps import Gaps, needed_by
from imgtar.graph.inventory import Inventory
from imgtar.graph.naming import Names
from imgtar.graph.parents import Named, check_parents, heirs, links_of
from imgtar.graph.plan import LeftBehind, Missing, Plan, PlannedImage, Write
from imgtar.graph.platforms import for_platforms
from imgtar.graph.remarks import image_remarks, part_remarks, root_remarks
from imgtar.graph.select import (
    Candidate,
    Policy,
    is_called,
    one_of_each,
    rename,
    select,
    subject_of,
    subjects_asked_for,
)
from imgtar.graph.shipping import Shipping
from imgtar.graph.thin import ThinImage
from imgtar.graph.walk import Part, images_of, nodes_of, parts_of, platform_of
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

__all__ = ["resolve"]


def resolve(catalogs: Sequence[Catalog], held: Inventory, policy: Policy, limits: Limits = DEFAULT_LIMITS) -> Plan:
    """Return what it takes to bring the wanted images of ``catalogs`` to the receiver that holds ``held``.

    Nothing is written and nothing is raised for gaps: they stand in ``plan.missing``, all of them; with
    ``policy.partial`` the images that have gaps are left behind instead, if any is whole. Raises
    :class:`Refused` for contradictions between documents (``E_SIZE``, ``E_TYPE``, ``E_DIFFID``, ``E_GRAPH``,
    ``E_NAME``), :class:`NotFound` for a name or platform that is not on offer, :class:`Conflict` for a tag that would
    move although that was forbidden.
    """
    candidates, lost = grow_candidates(catalogs, held, limits)
    wanted = [
        text
        for text in policy.select
        if any(is_called(one.root, text) for one in candidates) or not any(is_called(root, text) for root, _ in lost)
    ]
    gone = [
        (root, gaps)
        for root, gaps in lost
        if _has_platform(root, policy) and (not policy.select or any(is_called(root, text) for text in policy.select))
    ]
    chosen = select(candidates, wanted) if wanted or not policy.select else []
    if gone and policy.partial and any(old is None for old, _ in policy.renames):
        message = f"--tag NEW needs exactly one image, there are {len(chosen) + len(gone)}"
        raise UsageError(message, hint="say which: --tag OLD=NEW (a name or an image ID)")
    if not gone or policy.partial:
        known = [pair for pair in policy.renames if pair[0] is None or not any(is_called(r, pair[0]) for r, _ in gone)]
        chosen = rename(chosen, known) if chosen or not gone else chosen
    chosen = for_platforms(chosen, policy) if chosen or not gone else chosen
    if policy.select:
        chosen += subjects_asked_for(chosen, candidates)
    doubles: list[Finding] = []

    def planned(some: Sequence[Candidate]) -> _Resolution:
        work = _Resolution(catalogs, held, policy, limits, candidates)
        work.findings += doubles
        work.arriving = frozenset(
            node.descriptor.digest for one in some for node in nodes_of(one.node) if not node.absent
        )
        for candidate in some:
            work.add(candidate)
        return work

    def lack(candidate: Candidate) -> tuple[int, int]:
        work = planned([candidate])
        return len(work.gaps.found), sum(write.size for write in work.writes.values())

    if not policy.every_form:
        chosen, doubles = one_of_each(chosen, lack)
    work = planned(chosen)
    for root, gaps in gone:
        work.add_lost(root, gaps)
    plan = work.finish()
    if not policy.partial or plan.complete:
        return plan
    behind = [LeftBehind(root.title, tuple(gaps)) for root, gaps in gone]
    return _partial(chosen, work, planned, behind) or plan


def _has_platform(root: Root, policy: Policy) -> bool:
    """Whether an image without a node may be of a wanted platform: what is not known may be."""
    if not policy.platforms or root.draft is None or not root.draft.parsed.platform.architecture:
        return True
    return any(root.draft.parsed.platform.matches(wanted) for wanted in policy.platforms)


def _partial(
    chosen: Sequence[Candidate],
    work: _Resolution,
    planned: Callable[[Sequence[Candidate]], _Resolution],
    behind: list[LeftBehind],
) -> Plan | None:
    """The plan for those that are whole, ``None`` when none is. What stands on an image left behind stays too."""
    while True:
        dropped = [one for place, one in enumerate(chosen) if place in work.gaps.blocked]
        # Two archives may list one image: it is left once.
        lists = {
            one.node.descriptor.digest: (one, place) for place, one in enumerate(chosen) if place in work.gaps.blocked
        }
        behind += [LeftBehind(one.root.title, work.gaps.of(place)) for one, place in lists.values()]
        gaps = tuple(gap for place in work.gaps.blocked for gap in work.gaps.of(place))
        chosen = [one for place, one in enumerate(chosen) if place not in work.gaps.blocked]
        while dropped:
            # What is about an image that is left, and what is about that, has nothing to be about.
            subjects = {node.descriptor.digest for one in dropped for node in nodes_of(one.node)}
            kept = {node.descriptor.digest for one in chosen for node in nodes_of(one.node)}
            dropped = [one for one in chosen if subject_of(one) in subjects - kept]
            behind += [LeftBehind(one.root.title, tuple(dict.fromkeys(gaps))) for one in dropped]
            chosen = [one for one in chosen if subject_of(one) not in subjects - kept]
        if not chosen:
            return None
        work = planned(chosen)
        plan = work.finish()
        if plan.complete:
            return replace(plan, left_behind=tuple(behind))


@record
class _Resolution:
    """The plan in the making."""

    catalogs: Sequence[Catalog]
    held: Inventory
    policy: Policy
    limits: Limits
    offered: Sequence[Candidate]
    images: list[tuple[Digest, Named]] = field(default_factory=list)
    writes: dict[Digest, Write] = field(default_factory=dict)
    reused: dict[Digest, int] = field(default_factory=dict)
    relied_on: dict[Digest, Write] = field(default_factory=dict)
    diff_ids: dict[Digest, tuple[Digest, str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    owners: dict[Digest, list[int]] = field(default_factory=dict)
    arriving: frozenset[Digest] = frozenset()
    ledger: Ledger = field(default_factory=Ledger)
    lost: list[tuple[Named, list[int]]] = field(default_factory=list)
    gaps: Gaps = field(init=False)
    names: Names = field(init=False)
    shipping: Shipping = field(init=False)
    count: int = 0
    brought: Mapping[Digest, tuple[Descriptor, Catalog]] | None = None

    def __post_init__(self) -> None:
        self.gaps = Gaps(self.catalogs, self.limits)
        self.names = Names(self.held, self.policy)
        self.shipping = Shipping(self.catalogs, self.held, self.policy, self.gaps)

    def add(self, candidate: Candidate) -> None:
        """Take in one root: its parts, its images, its names."""
        node, root = candidate.node, candidate.root
        names = needed_by(candidate)
        left_out, remarks = self.shipping.left_out(candidate, self.count)
        self.findings += remarks
        if node.fault is not None:
            self._objected(candidate, node.fault)
            return
        if self.catalogs[candidate.position].form != "store":
            self.ledger.enter(node)
            hold_against(self.held, node, left_out, self.limits)
        said = self._said_of(candidate) if node.absent else None
        if said is not None:
            parts = self._promised_parts(candidate, said)
        else:
            parts = list(parts_of(node, lambda child: id(child) not in left_out))
        self.findings += root_remarks(node, root)
        fresh = False
        for part in parts:
            fresh |= self._part(part, candidate)
        self._subject(candidate)
        present = not fresh and self.held.has_root(node.descriptor.digest)
        state: Literal["present", "new"] = "present" if present else "new"
        self.owners.setdefault(node.descriptor.digest, []).append(self.count)
        if said is not None and said.image_id is not None:
            planned = PlannedImage(names, said.image_id, said.digest, said.platform, state)
            self.images.append((node.descriptor.digest, Named(planned, None, links_of(root.parent, None, None))))
        for image in images_of(node):
            if id(image) in left_out or image.manifest is None:
                continue
            digest = image.descriptor.digest
            planned = PlannedImage(names, image.manifest.config.digest, digest, platform_of(image), state)
            self.images.append(
                (
                    node.descriptor.digest,
                    Named(planned, image.config, links_of(root.parent, image.manifest, image.config)),
                )
            )
            self.owners.setdefault(digest, []).append(self.count)
            self.findings += image_remarks(image, printable(root.title))
        self.names.add(candidate, self.catalogs[candidate.position].label, tuple(parts), said)
        self.count += 1

    def _objected(self, candidate: Candidate, fault: Refused) -> None:
        """Take in a root of a store that is not believed: of what it says nothing counts, but its document is one blob."""
        digest, title = candidate.node.descriptor.digest, printable(candidate.root.title)
        message = f"{title}: {fault.code}: {fault}"
        self.findings.append(Finding("E_STORE", "error", str(digest), message, 7, fault.hint))
        catalog = self.catalogs[candidate.position]
        size = catalog.offers.get(digest) if digest.supported else None
        if size is not None and digest not in self.writes:
            self.writes[digest] = Write(digest, size, "blob", f"the document of {title}", catalog=catalog)
        self.owners.setdefault(digest, []).append(self.count)
        self.names.add(candidate, catalog.label, ())
        self.count += 1

    def add_lost(self, root: Root, gaps: Sequence[Missing]) -> None:
        """Take in an image that has no node because parts of it are nowhere: its gaps, and what it stands on."""
        places = [self.gaps.add(gap) for gap in gaps]
        config = root.draft.parsed if root.draft is not None else None
        image_id = root.draft.config.digest if root.draft is not None else lost_digest(root)
        if image_id is not None:
            names = tuple(reference.familiar for reference in root.references)
            planned = PlannedImage(names, image_id, image_id, config.platform if config is not None else None, "new")
            self.lost.append((Named(planned, config, links_of(root.parent, None, config)), places))

    def _said_of(self, candidate: Candidate) -> ThinImage | None:
        """What a thin archive says about a root that it leaves out altogether."""
        thin = self.catalogs[candidate.position].thin
        return thin.image(candidate.node.descriptor.digest) if thin is not None else None

    def _promised_parts(self, candidate: Candidate, said: ThinImage) -> list[Part]:
        """The blobs of a root whose documents nobody has at hand, by the word of the archive that left them out."""
        places = {digest: place for place, digest in reversed([*enumerate(said.layers, 1)])}
        parts = []
        for digest in said.requires:
            one = self.gaps.promised(digest)
            if one is not None and digest != candidate.node.descriptor.digest:
                parts.append(Part(one.descriptor, one.kind, candidate.node, one.diff_id, places.get(digest, 0)))
        parts.sort(key=lambda part: (part.kind != "layer", part.position))
        return [*parts, *parts_of(candidate.node)]

    def _subject(self, candidate: Candidate) -> None:
        """An artifact that was asked for by itself is about something: that must be there, or come."""
        subject = subject_of(candidate) if self.policy.select else None
        if subject is None or subject in self.arriving or self.held.has_image(subject):
            return
        document = candidate.node.manifest or candidate.node.index
        size = document.subject.size if document is not None and document.subject is not None else None
        title = printable(candidate.root.title)
        gap = Missing(
            "manifest",
            subject,
            None,
            size,
            needed_by(candidate) or (candidate.root.title,),
            self.catalogs[candidate.position].label,
            "absent",
            f"bring the archive that holds the image which {title} is about, or load without naming {title}",
            ((title, "subject"),),
        )
        self.gaps.add(gap, self.count)

    def _part(self, part: Part, candidate: Candidate) -> bool:
        """Decide about one blob; return whether it must be written."""
        descriptor = part.descriptor
        digest = descriptor.digest
        title = _title(part, candidate.root)
        if not digest.supported:
            message = f"the digest algorithm {printable(digest.algorithm)} of {title} is not supported"
            raise Refused("E_DIGEST", message, where=str(digest), hint="imgtar verifies sha256 and sha512")
        self._claim(part, title, candidate)
        if self.catalogs[candidate.position].form != "store":  # That is no archive which an engine would read.
            self.findings += part_remarks(part, title, self._is_blob)
        if digest in self.writes:
            known = self.writes[digest]
            if known.diff_id is None and part.diff_id is not None:
                # Who listed it first said nothing of its content; who does now must be right all the same.
                known = replace(known, kind=part.kind, title=title, diff_id=part.diff_id)
            self.writes[digest] = replace(known, inert=known.inert or part.inert)
            return True
        if digest in self.reused:
            self._relies_on(part, title)
            return False
        holding = self.held.holding(digest)
        if holding is not None and holding.sound:
            if holding.size != descriptor.size:
                message = f"a descriptor says {descriptor.size} bytes for {title}, the receiver holds {holding.size}"
                raise Refused("E_SIZE", message, where=str(digest))
            self.reused[digest] = descriptor.size
            self._relies_on(part, title)
            return False
        write = self._write(part, title, candidate.position)
        if write is not None:
            self.writes[digest] = replace(write, inert=part.inert)
            return True
        if part.kind == "blob" and part.owner.opaque:
            message = f"{title} of an unknown kind is not in the archive"
            self.findings.append(Finding("E_MISSING", "warning", str(digest), message, 4))
            return False
        own_store = self.catalogs[candidate.position].form == "store"
        damaged = holding is not None or (own_store and digest in self.catalogs[candidate.position].offers)
        self.gaps.part(part, candidate, self.count, damaged=damaged)
        return False

    def _is_blob(self, digest: Digest) -> bool:
        return any(digest in catalog.offers for catalog in self.catalogs) or self.held.holding(digest) is not None

    def _relies_on(self, part: Part, title: str) -> None:
        digest = part.descriptor.digest
        known = self.relied_on.get(digest)
        inert = part.inert or (known is not None and known.inert)
        if known is None or (known.diff_id is None and part.diff_id is not None):
            media_type = part.descriptor.media_type
            known = Write(digest, part.descriptor.size, part.kind, title, part.diff_id, media_type=media_type)
        self.relied_on[digest] = replace(known, inert=inert)

    def _claim(self, part: Part, title: str, candidate: Candidate) -> None:
        """Remember which diff ID a config claims for a layer; two claims for one layer cannot both be true."""
        if part.diff_id is None:
            return
        if not part.diff_id.supported:
            message = (
                f"the diff ID of {title} has the algorithm {printable(part.diff_id.algorithm)}, which is not supported"
            )
            raise Refused("E_DIGEST", message, where=str(part.diff_id), hint="diff IDs are sha256")
        known = self.diff_ids.setdefault(part.descriptor.digest, (part.diff_id, title))
        # Of a store's roots those that are wrong were left out; where nothing can be measured, the layer is damaged.
        if known[0] != part.diff_id and self.catalogs[candidate.position].form != "store":
            message = f"{known[1]} has the diff ID {known[0]}, but {title} is the same blob and claims {part.diff_id}"
            raise Refused("E_DIFFID", message, where=str(part.descriptor.digest))

    def _write(self, part: Part, title: str, first: int) -> Write | None:
        """How the blob comes in: carried by an archive, kept in memory, or made from another compression of it."""
        if self.policy.remake == "first":
            made = self._made(part, title)
            if made is not None:
                return made
        carried = self._carried(part, title, first)
        return carried if carried is not None or self.policy.remake != "last" else self._made(part, title)

    def _carried(self, part: Part, title: str, first: int) -> Write | None:
        digest, size = part.descriptor.digest, part.descriptor.size
        order = [first, *(place for place in range(len(self.catalogs)) if place != first)]
        wrong: tuple[Catalog, int] | None = None
        for place in order:
            catalog = self.catalogs[place]
            offered = catalog.offers.get(digest)
            if offered == size:
                return Write(digest, size, part.kind, title, part.diff_id, None, catalog, part.descriptor.media_type)
            if offered is not None and catalog.form != "store":
                wrong = wrong or (catalog, offered)  # A stored blob of another size is damaged: as good as absent.
            elif (size <= self.limits.document and part.kind != "layer") or part.descriptor.data is not None:
                kept = catalog.library.raw(part.descriptor, cap=self.limits.config)
                if kept is not None:
                    return Write(digest, size, part.kind, title, part.diff_id, kept, catalog)
        if wrong is not None:
            message = f"a descriptor says {size} bytes for {title}, the archive has {wrong[1]}"
            raise Refused("E_SIZE", message, where=f"{wrong[0].label}: {digest}")
        return None

    def _made(self, part: Part, title: str) -> Write | None:
        """A plain layer out of a compressed one with its diff ID; the reverse cannot be done to the byte.

        A plain layer is one whose digest is the diff ID of some content. So it needs no config to be found, and one that
        can be made for one image is there for every other, also for one whose own config is nowhere.
        """
        digest = part.descriptor.digest
        if part.kind != "layer" or part.diff_id not in (None, digest):
            return None
        source: Descriptor | None = self.held.layer_for(digest)
        catalog: Catalog | None = None
        if source is None and self.policy.remake == "last":
            if self.brought is None:
                self.brought = brought_layers(self.catalogs, self.offered)
            source, catalog = self.brought.get(digest, (None, None))
        if source is None or source.digest == digest:
            return None
        if part.descriptor.size > self.limits.layer_uncompressed:
            # No bytes say how long it will be: the space for it is looked for by the word of the descriptor.
            message = f"a descriptor says {part.descriptor.size} bytes for {title}, the limit is {self.limits.layer_uncompressed}"
            raise Refused("E_LIMIT", message, where=str(digest))
        return Write(
            digest, part.descriptor.size, part.kind, title, digest, None, catalog, part.descriptor.media_type, source
        )

    def finish(self) -> Plan:
        """Check parents and names, and close the plan."""
        self._proofs()
        self._parents()
        self.findings += self.names.several()
        missing = tuple(self.gaps.found)
        moves = self.names.moves(checked=not (self.policy.partial and missing))
        order = self._parents_first()
        rank = {digest: place for place, digest in enumerate(order)}
        images = sorted(self.images, key=lambda pair: rank[pair[0]])
        return Plan(
            tuple(self.names.roots[digest] for digest in order),
            _once(named.planned for _, named in images),
            tuple(self.writes.values()),
            self.reused,
            missing,
            tuple(sorted(moves, key=lambda move: rank[move.root])),
            tuple(finding for catalog in self.catalogs for finding in catalog.findings) + tuple(self.findings),
            tuple(self.relied_on.values()),
            self.policy.no_clobber,
        )

    def _parents_first(self) -> list[Digest]:
        """The roots, each after the one that holds its declared parent. A circle is broken where it is entered."""
        home: dict[Digest, Digest] = {}
        for root, named in self.images:
            home.setdefault(named.planned.image_id, root)
        order: dict[Digest, None] = {}
        for start in self.names.roots:
            chain: dict[Digest, None] = {}
            current: Digest | None = start
            while current is not None and current not in order and current not in chain:
                chain[current] = None
                parent = self.names.roots[current].parent
                current = home.get(parent.image_id) if parent is not None else None
            order.update(dict.fromkeys(reversed(chain)))
        return list(order)

    def _proofs(self) -> None:
        """A layer that is reused must be proved to have the diff ID that this config claims for it."""
        for digest in self.relied_on:
            claim = self.diff_ids.get(digest)
            if claim is None:
                continue
            actual = self.held.diff_id_of(digest, claim[0])
            if actual != claim[0]:
                message = f"{claim[1]} claims the diff ID {claim[0]}, its content has {actual}"
                raise Refused(
                    "E_DIFFID", message, where=str(digest), details={"expected": str(claim[0]), "actual": str(actual)}
                )

    def _parents(self) -> None:
        images = [*(named for _, named in self.images), *(named for named, _ in self.lost)]
        gaps, findings = check_parents(images, self.names.roots, self.names.full, self.held, self.policy)
        self.findings += findings
        if self.policy.parents == "require":
            self._inherit(images)
        for gap, blocked in gaps:
            place = self.gaps.add(gap)
            for digest in blocked:
                for candidate in self.owners.get(digest, ()):
                    self.gaps.block(candidate, place)

    def _inherit(self, images: Sequence[Named]) -> None:
        """Whoever declares an incomplete image as its parent needs what that lacks."""
        lacking = [
            (named, list(self.gaps.blocked[candidate]))
            for _, named in self.images
            for candidate in self.owners[named.planned.digest]
            if candidate in self.gaps.blocked
        ]
        if not lacking and not self.lost:
            return
        above = heirs(images, bases=self.policy.require_base)
        for named, places in [*lacking, *self.lost]:
            for way in above(named):
                steps = [*(printable(step.title) for step in way), printable(named.title)]
                for place in places:
                    self.gaps.inherit(place, way[0].title, steps)
                for candidate in self.owners.get(way[0].planned.digest, ()):
                    for place in places:
                        self.gaps.block(candidate, place)


def _once(images: Iterable[PlannedImage]) -> tuple[PlannedImage, ...]:
    """Each image once, with the names of all its appearances: two archives of one load may both bring it.

    One that is there by itself already is present, also where it comes once more inside a new index.
    """
    merged: dict[Digest, PlannedImage] = {}
    for image in images:
        known = merged.get(image.digest)
        names = tuple(dict.fromkeys((*(known.names if known else ()), *image.names)))
        state = "present" if known is not None and known.state == "present" else image.state
        merged[image.digest] = replace(known or image, names=names, state=state)
    return tuple(merged.values())


def _title(part: Part, root: Root) -> str:
    of = printable(root.title)
    if part.kind == "layer":
        return f"layer {part.position} of {of}"
    return f"the {part.kind} of {of}"
