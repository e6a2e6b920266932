"""What a thin archive carries and what it leaves out, and why. Made from the plan of a load at the receiver."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Catalog
from imgtar.graph.inventory import Inventory
from imgtar.graph.listing import ListedImage, Listing
from imgtar.graph.plan import Plan, PlannedRoot, Write
from imgtar.graph.thin import Base, Required, ThinImage, ThinRecord
from imgtar.graph.walk import Node, Part, platform_of
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.text import printable

__all__ = ["Fate", "Lean", "fates_of_full", "lean"]

_DOCUMENTS = ("manifest", "index", "config")


@frozen
class Fate:
    """What becomes of one blob, and why. ``title`` says what it is ("layer 3 of app:1")."""

    digest: Digest
    size: int
    diff_id: Digest | None
    kind: str
    title: str
    carried: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Its entry in ``imgtar.save/1``."""
        return {
            "digest": str(self.digest),
            "diff_id": str(self.diff_id) if self.diff_id is not None else None,
            "size": self.size,
            "kind": self.kind,
            "title": self.title,
            "carried": self.carried,
            "reason": self.reason,
        }


@frozen
class Lean:
    """A plan whose writes are what the archive carries; the record of the rest, if anything is left out."""

    plan: Plan
    record: ThinRecord | None
    fates: tuple[Fate, ...]


def fates_of_full(plan: Plan) -> tuple[Fate, ...]:
    """A full archive carries everything."""
    return tuple(
        Fate(w.digest, w.size, w.diff_id, w.kind, w.title, True, "no base was given: everything goes in")
        for w in plan.writes
    )


def lean(
    plan: Plan,
    catalog: Catalog,
    receiver: Inventory,
    bases: Sequence[Listing],
    receivers: Sequence[Listing],
    *,
    every_document: bool,
) -> Lean:
    """Divide the blobs of ``plan``, made against ``receiver``, into those that travel and those left out.

    Layers and artifacts that the receiver holds are left out, and plain layers that it can make from what it holds.
    Documents travel with every image that is not wholly held, so that whoever has the archive can read what it is; the
    documents of a wholly held image stay at home, unless ``every_document`` (a docker archive cannot name an image
    without its config). ``bases`` and ``receivers`` are asked which image has what.
    """
    writes = {write.digest: write for write in plan.writes}
    carried: dict[Digest, tuple[Write, str]] = {}
    required: dict[Digest, Part] = {}
    for root in plan.roots:
        wholly = all(part.descriptor.digest in plan.reused for part in root.parts)
        for part in root.parts:
            digest = part.descriptor.digest
            write = writes.get(digest)
            if write is not None and write.made_from is None:
                carried[digest] = (write, _why_carried(part, receiver, bases, receivers))
            elif part.kind in _DOCUMENTS and (every_document or not wholly):
                reason = "a document: it travels with an image that does not stay at home altogether"
                carried[digest] = (_document(part, root, catalog), reason)
            elif write is not None or digest in plan.reused:
                required.setdefault(digest, part)
    for digest in carried:
        required.pop(digest, None)
    sources = {d: writes[d].source if d in writes else d for d in required}
    found = _bases(sources, [*bases, *receivers])
    record = _record(plan, required, found) if required else None
    fates = [
        Fate(d, write.size, write.diff_id, write.kind, write.title, True, reason)
        for d, (write, reason) in carried.items()
    ]
    titles = {write.digest: write.title for write in (*plan.relied_on, *plan.writes)}
    for digest, part in required.items():
        reason = _why_left_out(sources[digest], digest, found.get(digest))
        title = titles.get(digest, str(digest))
        fates.append(Fate(digest, part.descriptor.size, part.diff_id, part.kind, title, False, reason))
    return Lean(replace(plan, writes=tuple(write for write, _ in carried.values())), record, tuple(fates))


def _document(part: Part, root: PlannedRoot, catalog: Catalog) -> Write:
    digest, size = part.descriptor.digest, part.descriptor.size
    name = root.references[0].familiar if root.references else str(root.descriptor.digest)
    title = f"the {part.kind} of {printable(name)}"
    kept = None if catalog.offers.get(digest) == size else catalog.library.raw(part.descriptor, cap=size)
    return Write(digest, size, part.kind, title, None, kept, catalog, part.descriptor.media_type)


def _why_carried(part: Part, receiver: Inventory, bases: Sequence[Listing], receivers: Sequence[Listing]) -> str:
    digest = part.descriptor.digest
    if part.diff_id is not None and part.diff_id != digest:
        other = receiver.layer_for(part.diff_id)
        if other is not None:
            form = mediatype.layer_compression(other.media_type)
            how = "plain" if form == "none" else f"{form} compressed" if form else "in another compression"
            return (
                f"the base holds this layer {how} ({other.digest}), from which these bytes cannot be made again; "
                "with --layers none it would be left out (the digest of the manifest changes, the image ID stays)"
            )
    lacking = [one.label for one in receivers if one.holding(digest) is None]
    if lacking and len(lacking) < len(receivers):
        return f"not all of them hold it: {', '.join(lacking)} {'do' if len(lacking) > 1 else 'does'} not"
    everybody = [*bases, *receivers]
    return f"{everybody[0].label} does not hold it" if len(everybody) == 1 else "none of them holds it"


def _why_left_out(source: Digest, digest: Digest, base: Base | None) -> str:
    by = f"held by {base.title}" if base is not None else "held"
    return by if source == digest else f"made at the receiver from {source}, {by}"


def _record(plan: Plan, required: Mapping[Digest, Part], bases: Mapping[Digest, Base]) -> ThinRecord:
    images = []
    for root in plan.roots:
        needs = {part.descriptor.digest for part in root.parts} & set(required)
        node = _image_in(root)
        image_id = node.manifest.config.digest if node.is_image and node.manifest else None
        names = tuple(sorted(reference.familiar for reference in root.references))
        platform = platform_of(node) if node.is_image else None
        manifest = node.manifest if image_id is not None else None
        layers = tuple(
            layer.digest if layer.digest in required else None
            for layer in (manifest.layers if manifest is not None else ())
        )
        images.append(
            ThinImage(names, root.descriptor.digest, image_id, platform, tuple(sorted(needs, key=str)), layers)
        )
    images.sort(key=lambda image: (image.names or ("~",), str(image.digest)))
    requires = {
        digest: Required(
            part.kind,
            replace(part.descriptor, platform=None, annotations={}, artifact_type="", urls=(), data=None),
            part.diff_id,
            bases.get(digest),
        )
        for digest, part in sorted(required.items(), key=lambda item: str(item[0]))
    }
    return ThinRecord(tuple(images), requires)


def _image_in(root: PlannedRoot) -> Node:
    """The one image that comes along, where a docker archive takes one platform out of an index; else the root."""
    owners = {id(part.owner): part.owner for part in root.parts if part.owner.is_image}
    return next(iter(owners.values())) if len(owners) == 1 else root.node


def _bases(sources: Mapping[Digest, Digest], listings: Sequence[Listing]) -> dict[Digest, Base]:
    """For each blob left out, an image that has it; as few images as will do, the smaller ones of equals."""
    wanted: dict[Digest, list[Digest]] = {}
    for digest, source in sources.items():
        wanted.setdefault(source, []).append(digest)
    covers: list[tuple[ListedImage, Listing, set[Digest]]] = []
    names: dict[tuple[Digest, Digest | None, Digest | None], list[str]] = {}
    for listing in listings:
        for image in listing.images:
            if image.name is not None:
                names.setdefault((listing.root, image.digest, image.image_id), []).append(image.name.familiar)
            found = {digest for blob in image.blobs for digest in wanted.get(blob, ())}
            if found:
                covers.append((image, listing, found))
    covers.sort(key=lambda one: (not one[0].complete, one[0].name is None, len(one[0].blobs), one[0].title))
    heap = [(-len(found), place) for place, (_, _, found) in enumerate(covers)]
    heapq.heapify(heap)
    bases: dict[Digest, Base] = {}
    while heap:
        size, place = heapq.heappop(heap)
        image, listing, found = covers[place]
        left = found - bases.keys()
        if len(left) == -size:
            known = names.get((listing.root, image.digest, image.image_id), [])
            base = Base(tuple(sorted(set(known))), image.image_id, image.digest, listing.root)
            bases.update(dict.fromkeys(left, base))
        elif left:  # Others have had some of it meanwhile.
            heapq.heappush(heap, (-len(left), place))
    return bases
