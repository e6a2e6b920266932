"""A plan is a value: what a load would write, reuse, name and lack. The same value serves the dry run and the load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from imgtar.frozen import field, frozen
from imgtar.graph.catalog import Catalog, DeclaredParent
from imgtar.graph.finding import Finding
from imgtar.graph.thin import Base
from imgtar.graph.walk import Node, Part
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference

__all__ = ["GapClass", "GapKind", "LeftBehind", "Missing", "Plan", "PlannedImage", "PlannedRoot", "TagMove", "Write"]

GapKind = Literal["layer", "config", "manifest", "parent"]
GapClass = Literal["absent", "promised-by-base", "damaged", "platform-not-shipped", "foreign"]


@frozen
class Missing:
    """One gap. ``digest`` is absent when only the diff ID is known; ``needed_by`` are names, or IDs without a name.

    ``through`` holds, for each image that needs it, the way that leads from the image to the gap; ``base`` is the image
    that should have had it at the receiver, when a thin archive relied on one.
    """

    kind: GapKind
    digest: Digest | None
    diff_id: Digest | None
    size: int | None
    needed_by: tuple[str, ...]
    expected_in: str
    gap_class: GapClass
    hint: str
    through: tuple[tuple[str, ...], ...] = ()
    base: Base | None = None

    def to_json(self) -> dict[str, Any]:
        """The GAP object of the command line contract."""
        return {
            "kind": self.kind,
            "digest": str(self.digest) if self.digest else None,
            "diff_id": str(self.diff_id) if self.diff_id else None,
            "size": self.size,
            "needed_by": list(self.needed_by),
            "expected_in": self.expected_in,
            "class": self.gap_class,
            "hint": self.hint,
            "through": [list(way) for way in self.through],
            "base": self.base.to_json() if self.base is not None else None,
        }


@frozen
class Write:
    """One blob to bring in. ``title`` says what it is in a message ("layer 3 of app:1").

    ``diff_id`` is what the config claims for a layer: the bytes must decompress to it. ``kept`` holds the content of a
    document that is in memory already. ``made_from`` is set for a plain layer that nobody carries, but whose content is
    there in a compressed one: in ``catalog``, or held by the receiver when there is no catalog. ``inert`` promises that
    it is no archive (see :class:`imgtar.graph.walk.Part`).
    """

    digest: Digest
    size: int
    kind: str
    title: str
    diff_id: Digest | None = None
    kept: bytes | None = None
    catalog: Catalog | None = field(default=None, repr=False, compare=False)
    media_type: str = ""
    made_from: Descriptor | None = None
    inert: bool = False

    @property
    def looks_inside(self) -> bool:
        """Whether compressed bytes have to be decompressed to prove it."""
        return self.diff_id is not None or self.inert

    @property
    def source(self) -> Digest:
        """The blob whose bytes are read: itself, or the one that it is made from."""
        return self.made_from.digest if self.made_from is not None else self.digest


@frozen
class TagMove:
    """A name and what it stands for: IDs ``before`` (``None`` for a new name) and ``after``, and the roots behind them."""

    reference: Reference
    before: Digest | None
    after: Digest
    root: Digest
    before_root: Digest | None = None

    @property
    def moves(self) -> bool:
        """Whether an existing name would point elsewhere."""
        return self.before is not None and self.before != self.after


@frozen
class PlannedRoot:
    """One entry for the receiver's index. ``unused_labels`` are words of the archive that are no image names.

    ``parts`` are the blobs that come along with it or are there already.
    """

    descriptor: Descriptor
    references: tuple[Reference, ...]
    parent: DeclaredParent | None
    node: Node
    labels: tuple[str, ...] = ()
    unused_labels: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


@frozen
class PlannedImage:
    """One image of the plan; an index gives one for each platform that comes along."""

    names: tuple[str, ...]
    image_id: Digest
    digest: Digest
    platform: Platform | None
    state: Literal["new", "present"]


@frozen
class LeftBehind:
    """An image that a partial load leaves, and what it lacks. ``title`` is a name, else an ID."""

    title: str
    missing: tuple[Missing, ...]

    def to_json(self) -> dict[str, Any]:
        """Its entry in ``imgtar.load/1``."""
        return {"image": self.title, "missing": [gap.to_json() for gap in self.missing]}


@frozen
class Plan:
    """What happens if it is carried out. ``writes`` stand children first, each digest once; roots parents first.

    ``left_behind`` are images that a partial load does without.
    """

    roots: tuple[PlannedRoot, ...]
    images: tuple[PlannedImage, ...]
    writes: tuple[Write, ...]
    reused: Mapping[Digest, int]
    missing: tuple[Missing, ...]
    tags: tuple[TagMove, ...]
    findings: tuple[Finding, ...]
    relied_on: tuple[Write, ...] = ()
    no_clobber: bool = False
    left_behind: tuple[LeftBehind, ...] = ()

    @property
    def bytes_to_write(self) -> int:
        """Bytes that will enter the receiver's blobs."""
        return sum(write.size for write in self.writes)

    @property
    def bytes_reused(self) -> int:
        """Bytes that the receiver holds already."""
        return sum(self.reused.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def require_complete(self) -> None:
        """Raise :class:`DependencyMissing` with every gap when there is one."""
        if self.missing:
            from imgtar.graph.explain import explain_missing

            raise explain_missing(self.missing)
