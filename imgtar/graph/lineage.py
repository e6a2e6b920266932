"""Which image stands on which: what is declared, what annotations and configs say, and what the layers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imgtar.errors import Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.facts import Facts
from imgtar.graph.parents import IN_ANNOTATIONS, Link
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference

__all__ = ["BY_LAYERS", "Family", "Parent", "families"]

BY_LAYERS = "layers"

_PlatformKey = tuple[str, str, str] | None


@frozen
class Parent:
    """The image that another one stands on, and how that is known. ``place`` is where it stands among the images here.

    ``digest`` is what the annotation says (a manifest or an index), else that of the parent's manifest.
    """

    image_id: Digest | None
    digest: Digest | None
    name: str
    learned_from: str
    place: int | None = None

    @property
    def present(self) -> bool:
        """Whether that image is here."""
        return self.place is not None

    def to_json(self) -> dict[str, Any]:
        """The object in ``imgtar.deps/1``."""
        return {
            "image_id": str(self.image_id) if self.image_id is not None else None,
            "digest": str(self.digest) if self.digest is not None else None,
            "name": self.name or None,
            "learned_from": self.learned_from,
            "present": self.present,
        }


@frozen
class Family:
    """What one image stands on: its ``parent``; when that is not here, the ``base`` that its layers show.

    ``above`` is the place of the one of them that is here, ``None`` where the tree begins: there is none, or the
    parents go round in a circle, which is cut here.
    """

    parent: Parent | None = None
    base: Parent | None = None
    above: int | None = None


def families(images: Sequence[Facts], indexes: Mapping[Digest, Sequence[Digest]]) -> list[Family]:
    """Return the family of each of ``images``, which come in order of rank.

    What is declared counts first (``Parent`` in manifest.json, or what the store remembers of it), then the base
    annotations of the manifest, then ``parent`` in the config, and last the layers.
    """
    known = _Known(images, indexes)
    layers = _Stacks(images)
    result = []
    for place, image in enumerate(images):
        parent = known.parent_of(place, image)
        shown = layers.base_of(place) if parent is None or not parent.present else None
        base = known.at(shown, BY_LAYERS) if shown is not None else None
        parent, base = (base, None) if parent is None else (parent, base)
        above = parent.place if parent is not None and parent.present else shown
        result.append(Family(parent, base, above))
    for place in _cuts(images, [family.above for family in result]):
        result[place] = replace(result[place], above=None)
    return result


class _Known:
    """The images here by everything that a claim may call them by."""

    def __init__(self, images: Sequence[Facts], indexes: Mapping[Digest, Sequence[Digest]]) -> None:
        self._images = images
        self._indexes = indexes
        self._by_id: dict[Digest, int] = {}
        self._by_key: dict[Digest, int] = {}
        self._by_name: dict[str, list[int]] = {}
        for place, image in enumerate(images):
            self._by_id.setdefault(image.image_id, place)
            self._by_key[image.key] = place
            for reference in image.references:
                self._by_name.setdefault(reference.full, []).append(place)

    def at(self, place: int, learned_from: str) -> Parent:
        """The image at ``place`` as a parent."""
        image = self._images[place]
        return Parent(image.image_id, image.digest, image.names[0] if image.names else "", learned_from, place)

    def parent_of(self, place: int, image: Facts) -> Parent | None:
        """What the image says it stands on: its strongest word."""
        if not image.links:
            return None
        link = image.links[0]
        return self._annotated(place, image, link) if link.weight == "base" else self._declared(link)

    def _declared(self, parent: Link) -> Parent:
        place = self._by_id.get(parent.identity) if parent.identity is not None else None
        if place is None:
            return Parent(parent.identity, None, parent.name, parent.learned_from)
        found = self.at(place, parent.learned_from)
        return replace(found, name=found.name or parent.name)

    def _annotated(self, place: int, image: Facts, link: Link) -> Parent:
        digest, name = link.identity, link.name
        if digest is not None:
            # A name without this digest is no proof: names move.
            found = self._by_key.get(digest)
            if found is None:
                members = [self._by_key[key] for key in self._indexes.get(digest, ()) if key in self._by_key]
                found = self._member(members, image)
        else:
            found = self._named(name, place, image)
        if found is None:
            return Parent(None, digest, name, IN_ANNOTATIONS)
        parent = self.at(found, IN_ANNOTATIONS)
        return replace(parent, digest=digest or parent.digest, name=parent.name or name)

    def _member(self, members: Sequence[int], image: Facts) -> int | None:
        """The image of an index that another one can stand on: of its platform, else with its first layers."""
        wanted = _platform_key(image.platform)
        for place in members:
            if wanted is not None and _platform_key(self._images[place].platform) == wanted:
                return place
        for place in members:
            own = self._images[place].diff_ids
            if own and image.diff_ids is not None and image.diff_ids[: len(own)] == own:
                return place
        return None

    def _named(self, name: str, place: int, image: Facts) -> int | None:
        try:
            full = replace(Reference.parse(name).tagged(), digest=None).full
        except Refused:
            return None  # An annotation is free text.
        wanted = _platform_key(image.platform)
        for other in self._by_name.get(full, ()):
            platform = _platform_key(self._images[other].platform)
            # The image itself may have taken over the name of the one that it was built on.
            if other != place and (wanted is None or platform is None or wanted == platform):
                return other
        return None


class _Stacks:
    """The images by the stack of all their layers: who starts with which whole image is found without comparing.

    A number stands for each stack that some image begins with, as a chain ID does, but without hashing.
    """

    def __init__(self, images: Sequence[Facts]) -> None:
        self._stacks: list[list[int]] = []
        self._platforms = [_platform_key(image.platform) for image in images]
        self._whole: dict[int, dict[_PlatformKey, int]] = {}
        layers: dict[Digest, int] = {}
        grown: dict[tuple[int, int], int] = {}
        for place, image in enumerate(images):
            stacks: list[int] = []
            for diff_id in image.diff_ids or ():
                layer = layers.setdefault(diff_id, len(layers))
                below = stacks[-1] if stacks else -1
                stacks.append(grown.setdefault((below, layer), len(grown)))
            self._stacks.append(stacks)
            if stacks:
                # The images come in order of rank, so the first one is the one to prefer.
                self._whole.setdefault(stacks[-1], {}).setdefault(self._platforms[place], place)

    def base_of(self, place: int) -> int | None:
        """The image with the most layers of which all, but not all there are, begin this one."""
        platform = self._platforms[place]
        for stack in reversed(self._stacks[place][:-1]):
            whole = self._whole.get(stack)
            if whole is None:
                continue
            fitting = [at for key, at in whole.items() if platform is None or key is None or key == platform]
            if fitting:
                return min(fitting)
        return None


def _platform_key(platform: Platform | None) -> _PlatformKey:
    if platform is None or not platform.architecture:
        return None
    plain = platform.normalized()
    return plain.os, plain.architecture, plain.variant


def _cuts(images: Sequence[Facts], above: Sequence[int | None]) -> list[int]:
    """Where to cut circles of parents: at the image with the fewest layers, the most likely to be the base."""
    cuts = []
    seen_in: dict[int, int] = {}
    for start in range(len(above)):
        place: int | None = start
        path: list[int] = []
        while place is not None and place not in seen_in:
            seen_in[place] = start
            path.append(place)
            place = above[place]
        if place is not None and seen_in[place] == start:
            circle = path[path.index(place) :]
            cuts.append(min(circle, key=lambda at: (len(images[at].layers), at)))
    return cuts
