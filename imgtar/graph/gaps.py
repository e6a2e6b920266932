"""Gaps as they are found: each once, with everybody who needs it, of which class it is, and the next step."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog
from imgtar.graph.plan import GapClass, GapKind, Missing
from imgtar.graph.select import Candidate
from imgtar.graph.thin import Required
from imgtar.graph.walk import Node, Part, images_of, platform_of
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

__all__ = ["Gaps", "needed_by", "owner_id"]

_MOST_WAYS = 100
_GAP = 10  # A gap takes as much as so many names.

_GENERAL: tuple[GapClass, ...] = ("damaged", "promised-by-base", "foreign", "absent", "platform-not-shipped")
"""The class that counts when several images need one blob and it is of another class with each: the one that comes first."""


def owner_id(node: Node) -> str:
    """What an image without a name is called: its image ID, else the digest of its document."""
    return str(node.manifest.config.digest) if node.is_image and node.manifest else str(node.descriptor.digest)


def needed_by(candidate: Candidate) -> tuple[str, ...]:
    """The names of a root; empty for one without."""
    return tuple(reference.familiar for reference in candidate.root.references)


class Gaps:
    """Collects gaps; ``blocked`` says which candidate (by its place) has which gaps (by theirs)."""

    def __init__(self, catalogs: Sequence[Catalog], limits: Limits = DEFAULT_LIMITS) -> None:
        self._catalogs = catalogs
        self._places: dict[tuple[Digest | None, Digest | None, bool, str], int] = {}
        self._found: list[Missing] = []
        self._needed: list[dict[str, None]] = []
        self._ways: list[dict[tuple[str, ...], None]] = []
        self.blocked: dict[int, dict[int, None]] = {}
        self._whole: dict[int, Sequence[Node]] = {}
        self._limits = limits
        self._needs = 0

    def promised(self, digest: Digest) -> Required | None:
        """What a thin archive of this load says about a blob that it left out."""
        for catalog in self._catalogs:
            if catalog.thin is not None and digest in catalog.thin.requires:
                return catalog.thin.requires[digest]
        return None

    @property
    def found(self) -> list[Missing]:
        """Every gap, with everybody who needs it."""
        return [self._at(place) for place in range(len(self._found))]

    def _at(self, place: int) -> Missing:
        needed, ways = tuple(self._needed[place]), tuple(self._ways[place])
        return replace(self._found[place], needed_by=needed, through=ways)

    def add(self, gap: Missing, candidate: int | None = None) -> int:
        """Enter a gap, or join it with what is known of the same one; return its place."""
        nameless = gap.digest is None and gap.diff_id is None
        key = (
            gap.digest,
            gap.diff_id if gap.digest is None else None,
            gap.kind == "parent",
            gap.expected_in if nameless else "",
        )
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._found)
            self._found.append(gap)
            self._needed.append({})
            self._ways.append({})
            self._needs += _GAP
        elif _weight(gap) < _weight(self._found[place]):
            self._found[place] = gap  # What is said of a gap must not depend on who came first.
        self._needs -= len(self._needed[place])
        self._needed[place].update(dict.fromkeys(gap.needed_by))
        self._needs += len(self._needed[place])
        if self._needs > self._limits.needs:
            # A thousand names that lack a thousand layers each are a million in every answer.
            message = f"too much is missing to be told: {len(self._found)} things, needed under many names"
            raise Refused("E_LIMIT", message, where=gap.expected_in, details={"limit": "needs"})
        if len(self._ways[place]) < _MOST_WAYS:
            self._ways[place].update(dict.fromkeys(gap.through))
        if candidate is not None:
            self.block(candidate, place)
        return place

    def inherit(self, place: int, name: str, way: Sequence[str]) -> None:
        """Say that ``name`` needs what is missing too, because it stands on an image that does: ``way`` leads there."""
        self._needed[place].setdefault(name)
        for known in list(self._ways[place]):
            if known[0] == way[-1] and len(self._ways[place]) < _MOST_WAYS:
                self._ways[place].setdefault((*way[:-1], *known))

    def block(self, candidate: int, place: int) -> None:
        """Say that the candidate cannot come because of the gap at ``place``."""
        self.blocked.setdefault(candidate, {}).setdefault(place)

    def of(self, candidate: int) -> tuple[Missing, ...]:
        """The gaps of one candidate."""
        return tuple(self._at(place) for place in self.blocked.get(candidate, ()))

    def part(self, part: Part, candidate: Candidate, place: int, *, damaged: bool) -> None:
        """Enter one blob that is nowhere. ``damaged``: the receiver has it, but rotten."""
        names = needed_by(candidate) or (owner_id(part.owner),)
        digest = part.descriptor.digest
        catalog = self._catalogs[candidate.position]
        promise = self.promised(digest)
        base = promise.base if promise is not None else None
        gap_class: GapClass = (
            "damaged" if damaged else "promised-by-base" if promise else "foreign" if part.foreign else "absent"
        )
        whom = printable(names[0])
        if gap_class == "damaged":
            hint = f"load an archive that carries {whom} in full: that repairs the receiver's copy"
        elif gap_class == "promised-by-base":
            what = base.title if base is not None else "the archive that has it"
            hint = f"bring {what}, or save {whom} without --base"
        elif gap_class == "foreign":
            hint = "fetch it where its maker allows that, and bring it as a blob of an OCI layout"
        else:
            hint = f"bring the archive that holds it, or save {whom} again in full where it is whole"
            whole = [one for one in self._with_config(candidate.node) if one is not part.owner]
            if whole:
                hint += f"; or load only what may be whole, with --platform {printable(str(platform_of(whole[0])))}"
        kind: GapKind = (
            "manifest" if part.kind in ("manifest", "index") else "config" if part.kind == "config" else "layer"
        )
        self.add(
            Missing(
                kind,
                digest,
                part.diff_id,
                part.descriptor.size,
                names,
                base.title if base is not None else catalog.label,
                gap_class,
                hint,
                (_way(part, candidate, whom),),
                base,
            ),
            place,
        )

    def _with_config(self, node: Node) -> Sequence[Node]:
        """The first two images of an index whose config is here; asked for each blob that is not."""
        if node.index is None:
            return ()
        found = self._whole.get(id(node))
        if found is None:
            found = self._whole[id(node)] = [one for one in images_of(node) if one.config is not None][:2]
        return found

    def platform(self, child: Node, candidate: Candidate, place: int) -> None:
        """Enter a platform that was asked for, or the only one, and was not shipped."""
        names = needed_by(candidate) or (candidate.root.title,)
        name = printable(str(platform_of(child) or child.descriptor.digest))
        self.add(
            Missing(
                "manifest",
                child.descriptor.digest,
                None,
                child.descriptor.size,
                names,
                "",
                "platform-not-shipped",
                f"save {printable(names[0])} again on a host that has {name}",
                ((printable(names[0]), name),),
            ),
            place,
        )


def _weight(gap: Missing) -> tuple[int, bool]:
    """Of two words about one gap the lighter one counts: by class, then the one that knows the diff ID."""
    return _GENERAL.index(gap.gap_class), gap.diff_id is None


def _way(part: Part, candidate: Candidate, whom: str) -> tuple[str, ...]:
    """From the image (as ``whom`` it is called) to the blob: the platform inside an index, and the role of the blob."""
    way = [whom]
    if part.owner is not candidate.node:
        platform = platform_of(part.owner)
        digest = part.owner.descriptor.digest
        way.append(f"{printable(str(platform))} {digest}" if platform is not None else str(digest))
    way.append(f"layer {part.position}" if part.kind == "layer" and part.position else part.kind)
    return tuple(way)
