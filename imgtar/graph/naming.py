"""Roots under their names: which entries the receiver's index will have, and which tags move."""

from __future__ import annotations

from imgtar.errors import Conflict, Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import smaller_parent
from imgtar.graph.finding import Finding
from imgtar.graph.inventory import Inventory
from imgtar.graph.plan import PlannedRoot, TagMove
from imgtar.graph.select import REFERRERS_TAG, Candidate, Policy
from imgtar.graph.thin import ThinImage
from imgtar.graph.walk import Node, Part
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform

__all__ = ["Names", "bare_descriptor"]


class Names:
    """Collects roots and names as they are planned. One name for two different images is refused."""

    def __init__(self, held: Inventory, policy: Policy) -> None:
        self._held = held
        self._policy = policy
        self._names: dict[str, list[tuple[TagMove, _Kind]]] = {}
        self.roots: dict[Digest, PlannedRoot] = {}

    @property
    def full(self) -> list[str]:
        """Every name that comes in."""
        return list(self._names)

    def add(self, candidate: Candidate, where: str, parts: tuple[Part, ...], said: ThinImage | None = None) -> None:
        """Enter a root with its names; ``where`` is the archive that brings it.

        ``said`` is what a thin archive says of a root whose documents nobody has at hand.
        """
        node, root = candidate.node, candidate.root
        digest = node.descriptor.digest
        labels = tuple(label for label in root.labels if REFERRERS_TAG.fullmatch(label))
        known = self.roots.get(digest)
        references = tuple(dict.fromkeys((*(known.references if known else ()), *root.references)))
        descriptor = bare_descriptor(node)
        parent = smaller_parent(root.parent, known.parent if known else None)
        labels = labels or (known.labels if known else ())
        unused = () if references else tuple(label for label in root.labels if label not in labels)
        self.roots[digest] = PlannedRoot(descriptor, references, parent, node, labels, unused, parts)
        for reference in root.references:
            before = self._held.tagged(reference.full)
            kind = _Kind.of(node, said)
            image_id = kind.image_id
            move = TagMove(
                reference,
                before.identity if before else None,
                image_id or digest,
                digest,
                before.digest if before else None,
            )
            others = self._names.setdefault(reference.full, [])
            for other, other_kind in others:
                if other.root != digest and not kind.may_share(other_kind):
                    message = f"{reference.familiar} is the name of two different images"
                    raise Refused(
                        "E_NAME",
                        message,
                        where=where,
                        details={"name": reference.familiar, "images": [str(other.after), str(move.after)]},
                        hint=f"they are {other.after} and {move.after}; load one of them by its ID",
                    )
            if all(other.root != digest for other, _ in others):
                others.append((move, kind))

    def several(self) -> list[Finding]:
        """Names that stand for several platforms without an index: each engine takes what it comes upon."""
        return [
            Finding(
                "E_NAME",
                "info",
                name,
                f"the name stands for {len(images)} platforms without an index: containerd takes the last of them, "
                "skopeo the first; what imgtar saves has an index",
            )
            for name, group in self._names.items()
            if len(images := {kind.image_id for _, kind in group if kind.image_id is not None}) > 1
        ]

    def moves(self, *, checked: bool) -> list[TagMove]:
        """Every name and what it will stand for. Raises :class:`Conflict` for tags that may not move, if ``checked``."""
        moves = [move for group in self._names.values() for move, _ in group]
        taken = [move for move in moves if move.moves] if checked and self._policy.no_clobber else []
        if taken:
            listing = ", ".join(f"{move.reference.familiar} is {move.before}" for move in taken)
            raise Conflict(
                f"{len(taken)} tags would move: {listing}",
                hint="load without --no-clobber, or rename on the way in: --tag OLD=NEW",
                details={
                    "tags": [{"name": m.reference.familiar, "from": str(m.before), "to": str(m.after)} for m in taken]
                },
            )
        return moves


@frozen
class _Kind:
    """What stands behind a name: one image with its ID and platform, an index, or something else."""

    image_id: Digest | None
    platform: Platform | None
    index: bool

    @classmethod
    def of(cls, node: Node, said: ThinImage | None) -> _Kind:
        if said is not None:
            return cls(said.image_id, said.platform, said.image_id is None)
        if node.is_image and node.manifest is not None:
            # The config's word counts first: under one name engines take the first or the last, whatever the entry says.
            return cls(node.manifest.config.digest, bare_descriptor(node).platform, index=False)
        return cls(None, None, node.index is not None)

    def may_share(self, other: _Kind) -> bool:
        """One name may stand for several platforms of an image, for an artifact beside its image (rulings, H178), and
        for one image in several forms."""
        if self.image_id is None or other.image_id is None:
            return not self.index and not other.index
        if self.image_id == other.image_id:
            return True
        first, second = self.platform, other.platform
        return first is not None and second is not None and first.machine != second.machine


_MEANINGFUL = (mediatype.DOCKER_REFERENCE_TYPE, mediatype.DOCKER_REFERENCE_DIGEST, mediatype.CONTAINERD_SUBJECT)


def bare_descriptor(node: Node) -> Descriptor:
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
    if platform is not None and platform.is_unknown:
        platform = None  # That would mark it as an attestation.
    return Descriptor(own.media_type, own.digest, own.size, platform)
