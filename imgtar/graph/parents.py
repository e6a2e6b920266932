"""Which parent images the planned images name, where they are, and what it means when they are nowhere.

Three kinds of word are told apart. A **declared** parent (``Parent`` in ``manifest.json``, or remembered by the store) is
required by default. The **base** of ``org.opencontainers.image.base.digest`` and ``base.name`` (image-spec
annotations.md) informs, unless the caller requires it. ``parent`` in a config is **hearsay**: buildah leaves the ID of
its base in every Docker config, and no engine has ever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.graph.catalog import DeclaredParent
from imgtar.graph.finding import Finding, Severity
from imgtar.graph.inventory import Inventory
from imgtar.graph.plan import Missing, PlannedImage
from imgtar.graph.select import Policy
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import ImageConfig, Manifest
from imgtar.model.reference import Reference
from imgtar.text import printable

__all__ = [
    "IN_ANNOTATIONS",
    "IN_CONFIG",
    "WEIGHTS",
    "Link",
    "Named",
    "check_parents",
    "heirs",
    "links_of",
    "parent_in_config",
]

IN_CONFIG = "parent in the config"
IN_ANNOTATIONS = "base annotations"

_LONGEST_WAY = 100
_MOST_WAYS = 100
"""A chain of a thousand images is told by its first steps; who needs what is always told in full."""

Weight = Literal["declared", "base", "hearsay"]
WEIGHTS: tuple[Weight, ...] = ("declared", "base", "hearsay")
"""From the strongest word to the weakest."""


@frozen
class Link:
    """One image names another. ``identity`` is an image ID, or for a base the digest of a manifest or an index."""

    identity: Digest | None
    name: str
    learned_from: str
    weight: Weight

    @property
    def title(self) -> str:
        """Name and ID, as far as they are known."""
        if self.identity is None:
            return printable(self.name)
        return f"{printable(self.name)} ({self.identity})" if self.name else str(self.identity)


def parent_in_config(config: ImageConfig | None) -> Digest | None:
    """The image ID that a config names as its parent."""
    text = config.parent if config is not None else ""
    if not text:
        return None
    try:
        return Digest.parse(text if ":" in text else f"sha256:{text}")
    except Refused:
        return None  # Docker before 1.10 wrote random IDs of other lengths here; such a one names no image of today.


def links_of(
    declared: DeclaredParent | None, manifest: Manifest | None, config: ImageConfig | None
) -> tuple[Link, ...]:
    """Every image that this one names, the strongest word first."""
    return tuple(_links(declared, manifest, config))


def _links(declared: DeclaredParent | None, manifest: Manifest | None, config: ImageConfig | None) -> Iterator[Link]:
    if declared is not None:
        yield Link(declared.image_id, declared.name, declared.learned_from, "declared")
    annotations = manifest.annotations if manifest is not None else {}
    name, text = annotations.get(mediatype.BASE_NAME, ""), annotations.get(mediatype.BASE_DIGEST, "")
    try:
        digest = Digest.parse(text) if text else None
    except Refused:
        digest = None  # Free text: what is no digest names nothing.
    if digest is not None or name:
        yield Link(digest, name, IN_ANNOTATIONS, "base")
    hearsay = parent_in_config(config)
    if hearsay is not None and (declared is None or hearsay != declared.image_id):
        yield Link(hearsay, "", IN_CONFIG, "hearsay")


@frozen
class Named:
    """An image that comes, or would if it were whole, its config, and the links it has."""

    planned: PlannedImage
    config: ImageConfig | None
    links: tuple[Link, ...]

    @property
    def title(self) -> str:
        """A name, else the image ID."""
        return self.planned.names[0] if self.planned.names else str(self.planned.image_id)


def check_parents(
    images: Sequence[Named], roots: Iterable[Digest], names: Iterable[str], held: Inventory, policy: Policy
) -> tuple[list[tuple[Missing, list[Digest]]], list[Finding]]:
    """Return the parents that are nowhere, as gaps (each with the manifests of the images it blocks) and as findings.

    ``roots`` and ``names`` (full) are what comes in by this plan. Raises :class:`Refused` ``E_GRAPH`` for an image that
    does not start with the layers of the parent that it declares.
    """
    coming: dict[Digest, Named] = {image.planned.image_id: image for image in images}
    arriving = {*coming, *(image.planned.digest for image in images), *roots}
    named = set(names)
    gaps: dict[tuple[Digest | None, str], tuple[Missing, list[Digest]]] = {}
    findings: list[Finding] = []
    children = _children(images, bases=policy.require_base)
    for image in images:
        for link in image.links:
            if link.identity is not None and link.weight != "base":
                above = coming.get(link.identity)
                config = above.config if above is not None else _held_config(link.identity, held)
                _starts_with(image, config, link)
            if policy.parents == "ignore" or _is_there(link, arriving, named, held):
                continue
            counts = link.weight == "declared" or (link.weight == "base" and policy.require_base)
            if not counts or policy.parents == "warn":
                findings.append(_remark(image, link, "warning" if counts else "info"))
            else:
                _add(gaps, image, link, _descendants(image, children))
    return list(gaps.values()), findings


def _is_there(link: Link, arriving: set[Digest], named: set[str], held: Inventory) -> bool:
    if link.identity is not None:
        return link.identity in arriving or held.has_image(link.identity)
    try:
        full = Reference.parse(link.name).tagged().full
    except Refused:
        return False
    return full in named or held.tagged(full) is not None


def _held_config(identity: Digest, held: Inventory) -> ImageConfig | None:
    """The config of a parent that only the receiver has; ``None`` where nobody can read it."""
    holding = held.holding(identity)
    if holding is None or not holding.sound or not held.has_image(identity):
        return None
    try:
        return held.library.config(Descriptor(mediatype.IMAGE_CONFIG, identity, holding.size))
    except Refused:
        return None  # It is the digest of something else: no image to start with.


def _starts_with(image: Named, base: ImageConfig | None, link: Link) -> None:
    if base is None or image.config is None:
        return
    if image.config.diff_ids[: len(base.diff_ids)] != base.diff_ids:
        message = f"says that it was built on {link.identity}, but does not start with its layers"
        raise Refused("E_GRAPH", message, where=", ".join(image.planned.names) or str(image.planned.image_id))


def _remark(image: Named, link: Link, severity: Severity) -> Finding:
    what = "base image" if link.weight == "base" else "parent image"
    message = f"the {what} {link.title} of {printable(image.title)} is nowhere ({link.learned_from})"
    return Finding("E_MISSING", severity, str(link.identity or printable(link.name)), message, 4)


def _children(images: Sequence[Named], *, bases: bool) -> dict[Digest, list[Named]]:
    children: dict[Digest, list[Named]] = {}
    for image in images:
        for link in image.links:
            counts = link.weight == "declared" or (bases and link.weight == "base")
            if counts and link.identity is not None:
                children.setdefault(link.identity, []).append(image)
    return children


def heirs(images: Sequence[Named], *, bases: bool) -> Callable[[Named], list[list[Named]]]:
    """Return the function that says who declares an image as an ancestor: the way up from each, without the image.

    ``bases``: an annotated base counts like a declared parent.
    """
    children = _children(images, bases=bases)
    return lambda image: [way[:-1] for way in _descendants(image, children)[1:]]


def _descendants(image: Named, children: Mapping[Digest, Sequence[Named]]) -> list[list[Named]]:
    """The ways up to ``image`` from every planned image that declares it as an ancestor, itself first."""
    ways = {image.planned.digest: [image]}
    queue = [image]
    for one in queue:
        for child in (*children.get(one.planned.image_id, ()), *children.get(one.planned.digest, ())):
            if child.planned.digest not in ways:
                ways[child.planned.digest] = [child, *ways[one.planned.digest]][:_LONGEST_WAY]
                queue.append(child)
    return list(ways.values())


def _add(
    gaps: dict[tuple[Digest | None, str], tuple[Missing, list[Digest]]],
    image: Named,
    link: Link,
    ways: Sequence[Sequence[Named]],
) -> None:
    key = (link.identity, link.name if link.identity is None else "")
    known = gaps.get(key)
    needed = [name for way in ways for name in (way[0].planned.names or (str(way[0].planned.image_id),))]
    through = [(*(printable(step.title) for step in way), link.title) for way in ways]
    if known is not None:
        needed = [*known[0].needed_by, *needed]
        through = [*known[0].through, *through]
    what = "base image" if link.weight == "base" else "parent image"
    option = "without --require-base" if link.weight == "base" else "with --parents warn"
    hint = f"bring the {what} {link.title}, or load {option} if {printable(image.title)} itself is all you need"
    missing = Missing(
        "parent",
        link.identity,
        None,
        None,
        tuple(dict.fromkeys(needed)),
        f"{link.title}: {link.learned_from}" if link.name else link.learned_from,
        "absent",
        hint,
        tuple(dict.fromkeys(through))[:_MOST_WAYS],
    )
    blocked = [*(known[1] if known else []), *(way[0].planned.digest for way in ways)]
    gaps[key] = (missing, blocked)
