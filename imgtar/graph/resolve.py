"""The dependency resolver: from what is on offer and what is held to a plan. Pure, so that a dry run cannot differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from imgtar.errors import Conflict, Refused
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog, DeclaredParent, Root
from imgtar.graph.chains import join_gaps
from imgtar.graph.finding import Finding, Severity
from imgtar.graph.inventory import Inventory
from imgtar.graph.plan import GapClass, GapKind, Missing, Plan, PlannedImage, PlannedRoot, TagMove, Write
from imgtar.graph.platforms import attested_by, for_platforms
from imgtar.graph.select import REFERRERS_TAG, Candidate, Policy, is_called, rename, select
from imgtar.graph.walk import Node, Part, images_of, is_attestation, nodes_of, parts_of, platform_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

__all__ = ["IN_CONFIG", "resolve"]

IN_CONFIG = "parent in the config"
"""Where a parent was learned from that only informs."""


def resolve(catalogs: Sequence[Catalog], held: Inventory, policy: Policy, limits: Limits = DEFAULT_LIMITS) -> Plan:
    """Return what it takes to bring the wanted images of ``catalogs`` to the receiver that holds ``held``.

    Nothing is written and nothing is raised for gaps: they stand in ``plan.missing``, all of them. Raises
    :class:`Refused` for contradictions between documents (``E_SIZE``, ``E_TYPE``, ``E_DIFFID``, ``E_GRAPH``,
    ``E_NAME``), :class:`NotFound` for a name or platform that is not on offer, :class:`Conflict` for a tag that would
    move although that was forbidden.
    """
    candidates, lost = grow_candidates(catalogs, held, limits)
    work = _Resolution(catalogs, held, policy, limits)
    wanted = list(policy.select)
    lacking: list[Missing] = []
    for root, gaps in lost:
        meant = [text for text in policy.select if is_called(root, text)]
        if meant or not policy.select:
            lacking.extend(gaps)
        wanted = [text for text in wanted if text not in meant or any(is_called(one.root, text) for one in candidates)]
    work.missing.extend(join_gaps(lacking))
    chosen = select(candidates, wanted) if wanted or not policy.select else []
    chosen = rename(chosen, policy.renames) if not work.missing else chosen
    for candidate in for_platforms(chosen, policy):
        work.add(candidate)
    return work.finish()


@dataclass(slots=True)
class _Resolution:
    """The plan in the making."""

    catalogs: Sequence[Catalog]
    held: Inventory
    policy: Policy
    limits: Limits
    roots: dict[Digest, PlannedRoot] = field(default_factory=dict)
    images: list[tuple[PlannedImage, Node, DeclaredParent | None]] = field(default_factory=list)
    writes: dict[Digest, Write] = field(default_factory=dict)
    reused: dict[Digest, int] = field(default_factory=dict)
    relied_on: dict[Digest, Write] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    gap_of: dict[Digest, int] = field(default_factory=dict)
    names: dict[str, list[tuple[TagMove, Node]]] = field(default_factory=dict)
    diff_ids: dict[Digest, tuple[Digest, str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Take in one root: its parts, its images, its names."""
        node, root = candidate.node, candidate.root
        needed_by = tuple(reference.familiar for reference in root.references)
        left_out = self._left_out(node, needed_by or (root.title,))
        if node.fault is not None:
            self.findings.append(Finding("E_STORE", "error", str(node.descriptor.digest), str(node.fault), 7))
        fresh = False
        for part in parts_of(node, lambda child: id(child) not in left_out):
            fresh |= self._part(part, candidate, needed_by)
        present = not fresh and self.held.has_root(node.descriptor.digest)
        for image in images_of(node):
            if id(image) in left_out or image.manifest is None:
                continue
            planned = PlannedImage(
                needed_by,
                image.manifest.config.digest,
                image.descriptor.digest,
                platform_of(image),
                "present" if present else "new",
            )
            self.images.append((planned, image, root.parent or _parent_in_config(image)))
            self.findings += _oddities(image, printable(root.title))
        self._name(candidate)

    def _left_out(self, root: Node, needed_by: tuple[str, ...]) -> set[int]:
        """What below an index does not come along: platforms not wanted, or not shipped."""
        left: set[int] = set()
        for node in nodes_of(root):
            left |= self._left_out_of(node, needed_by)
        return left

    def _left_out_of(self, node: Node, needed_by: tuple[str, ...]) -> set[int]:
        left: set[int] = set()
        if node.index is None:
            return left
        kept_digests: set[Digest] = set()
        absent: list[Node] = []
        wanted = self.policy.platforms
        for child in node.children:
            platform = platform_of(child)
            if is_attestation(child.descriptor, child.manifest):
                continue
            if wanted and not (platform is not None and any(platform.matches(one) for one in wanted)):
                if child.index is None:
                    left.add(id(child))
                continue
            if self._not_shipped(child):
                left.add(id(child))
                absent.append(child)
            else:
                kept_digests.add(child.descriptor.digest)
        for child in node.children:
            if is_attestation(child.descriptor, child.manifest):
                subject = attested_by(child)
                orphan = subject is not None and subject not in kept_digests
                if child.absent or orphan or (wanted and subject is None):
                    left.add(id(child))
        asked = bool(wanted)
        for child in absent:
            platform_name = str(platform_of(child) or child.descriptor.digest)
            if asked or not kept_digests:
                hint = f"save {needed_by[0]} again on a host that has {printable(platform_name)}"
                self._gap(child.descriptor, "manifest", needed_by, "platform-not-shipped", hint)
            else:
                message = f"platform {printable(platform_name)} of {printable(needed_by[0])} is not in the archive"
                self.findings.append(Finding("E_MISSING", "warning", str(child.descriptor.digest), message, 4))
        return left

    def _not_shipped(self, child: Node) -> bool:
        if child.absent:
            return True
        # Docker keeps the manifest of a platform whose content it does not have (moby image_exporter.go).
        if child.manifest is None or not child.is_image or child.config is not None:
            return False
        return not self._available(child.manifest.config)

    def _available(self, descriptor: Descriptor) -> bool:
        if any(descriptor.digest in catalog.offers for catalog in self.catalogs):
            return True
        holding = self.held.holding(descriptor.digest)
        return holding is not None and holding.sound

    def _part(self, part: Part, candidate: Candidate, needed_by: tuple[str, ...]) -> bool:
        """Decide about one blob; return whether it must be written."""
        descriptor = part.descriptor
        digest = descriptor.digest
        title = _title(part, candidate.root)
        if not digest.supported:
            message = f"the digest algorithm {printable(digest.algorithm)} of {title} is not supported"
            raise Refused("E_DIGEST", message, where=str(digest), hint="imgtar verifies sha256 and sha512")
        self._claim(part, title)
        if digest in self.writes:
            return True
        if digest in self.reused:
            return False
        holding = self.held.holding(digest)
        if holding is not None and holding.sound:
            if holding.size != descriptor.size:
                message = f"a descriptor says {descriptor.size} bytes for {title}, the receiver holds {holding.size}"
                raise Refused("E_SIZE", message, where=str(digest))
            self.reused[digest] = descriptor.size
            self.relied_on[digest] = Write(digest, descriptor.size, part.kind, title, part.diff_id)
            return False
        write = self._write(part, title, candidate.position)
        if write is not None:
            self.writes[digest] = write
            return True
        if part.kind == "blob" and part.owner.opaque:
            message = f"{title} of an unknown kind is not in the archive"
            self.findings.append(Finding("E_MISSING", "warning", str(digest), message, 4))
            return False
        kind: GapKind = (
            "manifest" if part.kind in ("manifest", "index") else "config" if part.kind == "config" else "layer"
        )
        owner = needed_by or (_owner_id(part.owner),)
        hint = f"bring the archive that holds it, or save {printable(owner[0])} again in full where it is whole"
        whole = [
            platform_of(one) for one in images_of(candidate.node) if one is not part.owner and one.config is not None
        ]
        if candidate.node.index is not None and whole:
            hint += f"; or load only what may be whole, with --platform {printable(str(whole[0]))}"
        own_store = self.catalogs[candidate.position].form == "store"
        damaged = holding is not None or (own_store and digest in self.catalogs[candidate.position].offers)
        gap_class: GapClass = "damaged" if damaged else "foreign" if part.foreign else "absent"
        if gap_class == "damaged":
            hint = f"load an archive that carries {printable(owner[0])} in full: that repairs the receiver's copy"
        elif gap_class == "foreign":
            hint = "fetch it where its maker allows that, and bring it as a blob of an OCI layout"
        expected = self.catalogs[candidate.position].label
        self._gap(descriptor, kind, owner, gap_class, hint, part.diff_id, expected)
        return False

    def _gap(
        self,
        descriptor: Descriptor,
        kind: GapKind,
        needed_by: tuple[str, ...],
        gap_class: GapClass,
        hint: str,
        diff_id: Digest | None = None,
        expected: str = "",
    ) -> None:
        place = self.gap_of.get(descriptor.digest)
        if place is not None:
            known = self.missing[place]
            both = tuple(dict.fromkeys((*known.needed_by, *needed_by)))
            self.missing[place] = replace(known, needed_by=both)
            return
        self.gap_of[descriptor.digest] = len(self.missing)
        gap = Missing(
            kind,
            descriptor.digest,
            diff_id,
            descriptor.size,
            needed_by,
            expected,
            gap_class,
            hint,
        )
        self.missing.append(gap)

    def _claim(self, part: Part, title: str) -> None:
        """Remember which diff ID a config claims for a layer; two claims for one layer cannot both be true."""
        if part.diff_id is None:
            return
        if not part.diff_id.supported:
            message = (
                f"the diff ID of {title} has the algorithm {printable(part.diff_id.algorithm)}, which is not supported"
            )
            raise Refused("E_DIGEST", message, where=str(part.diff_id), hint="diff IDs are sha256")
        known = self.diff_ids.setdefault(part.descriptor.digest, (part.diff_id, title))
        if known[0] != part.diff_id:
            message = f"{known[1]} has the diff ID {known[0]}, but {title} is the same blob and claims {part.diff_id}"
            raise Refused("E_DIFFID", message, where=str(part.descriptor.digest))

    def _write(self, part: Part, title: str, first: int) -> Write | None:
        digest, size = part.descriptor.digest, part.descriptor.size
        order = [first, *(place for place in range(len(self.catalogs)) if place != first)]
        for place in order:
            catalog = self.catalogs[place]
            offered = catalog.offers.get(digest)
            if offered != size and catalog.form == "store":
                offered = None  # A stored blob of another size is damaged: as good as absent.
            if offered is not None:
                if offered != size:
                    message = f"a descriptor says {size} bytes for {title}, the archive has {offered}"
                    raise Refused("E_SIZE", message, where=f"{catalog.label}: {digest}")
                return Write(digest, size, part.kind, title, part.diff_id, None, catalog, part.descriptor.media_type)
            if (size <= self.limits.document and part.kind != "layer") or part.descriptor.data is not None:
                kept = catalog.library.raw(part.descriptor, cap=self.limits.config)
                if kept is not None:
                    return Write(digest, size, part.kind, title, part.diff_id, kept, catalog)
        return None

    def _name(self, candidate: Candidate) -> None:
        node, root = candidate.node, candidate.root
        digest = node.descriptor.digest
        labels = tuple(label for label in root.labels if REFERRERS_TAG.fullmatch(label))
        known = self.roots.get(digest)
        references = tuple(dict.fromkeys((*(known.references if known else ()), *root.references)))
        descriptor = _bare(node)
        parent = root.parent or (known.parent if known else None)
        labels = labels or (known.labels if known else ())
        unused = () if references else tuple(label for label in root.labels if label not in labels)
        self.roots[digest] = PlannedRoot(descriptor, references, parent, node, labels, unused)
        for reference in root.references:
            before = self.held.tagged(reference.full)
            image_id = node.manifest.config.digest if node.is_image and node.manifest else None
            move = TagMove(
                reference,
                before.identity if before else None,
                image_id or digest,
                digest,
                before.digest if before else None,
            )
            others = self.names.setdefault(reference.full, [])
            for other, other_node in others:
                if other.root != digest and not _may_share(node, other_node):
                    message = f"{reference.familiar} is the name of two different images"
                    raise Refused(
                        "E_NAME",
                        message,
                        where=self.catalogs[candidate.position].label,
                        details={"name": reference.familiar, "images": [str(other.after), str(move.after)]},
                        hint=f"they are {other.after} and {move.after}; load one of them by its ID",
                    )
            if all(other.root != digest for other, _ in others):
                others.append((move, node))

    def finish(self) -> Plan:
        """Check parents and names, and close the plan."""
        self._proofs()
        self._parents()
        moves = [move for group in self.names.values() for move, _ in group]
        if self.policy.no_clobber and (taken := [move for move in moves if move.moves]):
            listing = ", ".join(f"{move.reference.familiar} is {move.before}" for move in taken)
            raise Conflict(
                f"{len(taken)} tags would move: {listing}",
                hint="load without --no-clobber, or rename on the way in: --tag OLD=NEW",
                details={
                    "tags": [{"name": m.reference.familiar, "from": str(m.before), "to": str(m.after)} for m in taken]
                },
            )
        return Plan(
            tuple(self.roots.values()),
            _once(planned for planned, _, _ in self.images),
            tuple(self.writes.values()),
            self.reused,
            tuple(self.missing),
            tuple(moves),
            tuple(finding for catalog in self.catalogs for finding in catalog.findings) + tuple(self.findings),
            tuple(self.relied_on.values()),
            self.policy.no_clobber,
        )

    def _proofs(self) -> None:
        """A layer that is reused must be proved to have the diff ID that this config claims for it."""
        for digest in self.relied_on:
            claim = self.diff_ids.get(digest)
            if claim is None:
                continue
            actual = self.held.diff_id_of(digest)
            if actual != claim[0]:
                message = f"{claim[1]} claims the diff ID {claim[0]}, its content has {actual}"
                raise Refused(
                    "E_DIFFID", message, where=str(digest), details={"expected": str(claim[0]), "actual": str(actual)}
                )

    def _parents(self) -> None:
        coming: Mapping[Digest, Node] = {planned.image_id: node for planned, node, _ in self.images}
        for planned, node, parent in self.images:
            if parent is None:
                continue
            base = coming.get(parent.image_id)
            if base is not None and base.config is not None and node.config is not None:
                count = len(base.config.diff_ids)
                if node.config.diff_ids[:count] != base.config.diff_ids:
                    message = f"says that it was built on {parent.image_id}, but does not start with its layers"
                    raise Refused("E_GRAPH", message, where=", ".join(planned.names) or str(planned.image_id))
            if base is not None or self.policy.parents == "ignore" or self.held.has_image(parent.image_id):
                continue
            needed = planned.names or (str(planned.image_id),)
            hint = f"bring the parent image {parent.image_id}, or load with --parents warn (all layers are there)"
            # buildah leaves the ID of its base in every Docker config; no engine has ever asked for it.
            hearsay = parent.learned_from == IN_CONFIG
            if self.policy.parents == "warn" or hearsay:
                message = (
                    f"the parent image {parent.image_id} of {printable(needed[0])} is nowhere ({parent.learned_from})"
                )
                severity: Severity = "info" if hearsay else "warning"
                self.findings.append(Finding("E_MISSING", severity, str(parent.image_id), message, 4))
            else:
                self.missing.append(
                    Missing("parent", parent.image_id, None, None, needed, parent.learned_from, "absent", hint)
                )


def _once(images: Iterable[PlannedImage]) -> tuple[PlannedImage, ...]:
    """Each image once, with the names of all its appearances: two archives of one load may both bring it."""
    merged: dict[Digest, PlannedImage] = {}
    for image in images:
        known = merged.get(image.digest)
        names = tuple(dict.fromkeys((*(known.names if known else ()), *image.names)))
        merged[image.digest] = replace(known or image, names=names)
    return tuple(merged.values())


def _oddities(node: Node, title: str) -> list[Finding]:
    """What a document says of an image that its config contradicts, though it does not change what is loaded."""
    if node.config is None or node.manifest is None:
        return []
    found = []
    said, own = node.descriptor.platform, node.config.platform
    if said is not None and said.architecture and own.architecture:
        one, other = said.normalized(), own.normalized()
        if (one.os, one.architecture) != (other.os, other.architecture):
            message = f"{title}: the index says {printable(str(said))}, the config says {printable(str(own))}"
            found.append(Finding("E_TYPE", "warning", str(node.descriptor.digest), message))
    steps = sum(1 for entry in node.config.history if not entry.empty_layer)
    if node.config.history and steps > len(node.manifest.layers):
        message = (
            f"{title}: the history counts {steps} layers, there are {len(node.manifest.layers)}; Docker refuses that"
        )
        found.append(Finding("E_TYPE", "warning", str(node.manifest.config.digest), message))
    return found


def _parent_in_config(node: Node) -> DeclaredParent | None:
    text = node.config.parent if node.config is not None else ""
    if not text:
        return None
    try:
        return DeclaredParent(Digest.parse(text if ":" in text else f"sha256:{text}"), IN_CONFIG)
    except Refused:
        return None  # Docker before 1.10 wrote random IDs of other lengths here; such a one names no image of today.


def _may_share(one: Node, other: Node) -> bool:
    """One name may stand for several platforms of an image, or for an artifact beside its image (rulings, H178)."""
    if not (one.is_image and other.is_image):
        return one.index is None and other.index is None
    first, second = platform_of(one), platform_of(other)
    return first is not None and second is not None and first.normalized() != second.normalized()


def _owner_id(node: Node) -> str:
    return str(node.manifest.config.digest) if node.is_image and node.manifest else str(node.descriptor.digest)


_MEANINGFUL = (mediatype.DOCKER_REFERENCE_TYPE, mediatype.DOCKER_REFERENCE_DIGEST, mediatype.CONTAINERD_SUBJECT)


def _bare(node: Node) -> Descriptor:
    """The descriptor for the receiver's index. For an image nothing of it depends on who wrote the archive, so that
    the same image is saved as the same bytes wherever it came from; artifacts keep what describes them."""
    own = node.descriptor
    if node.index is not None:
        return Descriptor(own.media_type, own.digest, own.size)
    if not node.is_image:
        document = node.manifest or node.index
        kind = own.artifact_type
        if node.manifest is not None:
            kind = node.manifest.artifact_type or node.manifest.config.media_type
        kept = {key: value for key, value in own.annotations.items() if key in _MEANINGFUL or document is None}
        return replace(own, data=None, annotations=kept, artifact_type=kind)
    config = node.config.platform if node.config is not None else None
    platform = config if config is not None and config.architecture else own.platform
    return Descriptor(own.media_type, own.digest, own.size, platform)


def _title(part: Part, root: Root) -> str:
    of = printable(root.title)
    if part.kind == "layer":
        return f"layer {part.position} of {of}"
    return f"the {part.kind} of {of}"
