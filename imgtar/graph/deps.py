"""The dependency tree: which image stands on which, and what they share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any

from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Root
from imgtar.graph.facts import Facts, Present, facts_of
from imgtar.graph.lineage import Family, Parent, families
from imgtar.graph.select import Candidate
from imgtar.graph.shares import MOST, Share, SharedLayers, Shares
from imgtar.graph.thin import ThinRecord
from imgtar.graph.views import Views
from imgtar.model.digest import Digest

__all__ = ["MOST", "DependencyTree", "ImageDeps", "LayerDeps", "dependency_tree"]


@frozen
class LayerDeps:
    """One layer of an image; ``shared_with`` are the places of the other images that hold it, at most :data:`MOST`."""

    digest: Digest | None
    diff_id: Digest | None
    size: int | None
    present: bool
    shared_with: tuple[int, ...]


@frozen
class ImageDeps:
    """One image of the tree. ``place`` is what others call it by; sizes are bytes.

    ``above`` is the place of the image that it is drawn under: its parent, or the base that its layers show when the
    parent is not here; ``None`` where a tree begins, or a circle of parents was cut. ``children`` are drawn under it.
    ``added`` counts the layers and bytes that the image above does not hold, ``own_size`` the bytes that no other
    image here holds. ``shared`` lists at most :data:`MOST` others, see :meth:`Shares.of`.
    """

    place: int
    facts: Facts
    title: str
    size: int
    own_size: int
    family: Family
    children: tuple[int, ...]
    added: tuple[int, int]
    layers: tuple[LayerDeps, ...]
    shared: tuple[Share, ...]

    @property
    def above(self) -> int | None:
        """The place of the image it is drawn under."""
        return self.family.above

    @property
    def parent(self) -> Parent | None:
        """What it says it stands on, or what its layers show."""
        return self.family.parent

    @property
    def circular(self) -> bool:
        """Whether its parents lead back to it, so that the tree was cut here."""
        return self.above is None and self.parent is not None and self.parent.present


@frozen
class DependencyTree:
    """Images, each after the one it is drawn under. ``everything`` has them all by place, shown here or not."""

    images: tuple[ImageDeps, ...] = ()
    everything: tuple[ImageDeps, ...] = ()
    groups: tuple[SharedLayers, ...] = ()

    def around(self, keys: Iterable[Digest]) -> DependencyTree:
        """The images with these keys, with all they stand on and all that stands on them, and what those share."""
        wanted = set(keys)
        focus = [image.place for image in self.images if image.facts.key in wanted]
        kept: set[int] = set()
        for start in focus:
            place: int | None = start
            while place is not None and place not in kept:
                kept.add(place)
                place = self.everything[place].above
        below: set[int] = set()
        stack = list(focus)
        while stack:
            at = stack.pop()
            if at not in below:
                below.add(at)
                stack.extend(self.everything[at].children)
        kept |= below
        images = tuple(
            replace(image, children=tuple(child for child in image.children if child in kept))
            for image in self.images
            if image.place in kept
        )
        groups = tuple(group for group in self.groups if not kept.isdisjoint(group.places))
        return DependencyTree(images, self.everything, groups)

    def to_json(self) -> Views:
        """The ``images`` of ``imgtar.deps/1``."""
        return Views(partial(self._view, image) for image in self.images)

    def _view(self, image: ImageDeps) -> dict[str, Any]:
        facts, family = image.facts, image.family
        children = (str(self.everything[place].facts.image_id) for place in image.children)
        return {
            "names": list(facts.names),
            "image_id": str(facts.image_id),
            "digest": str(facts.digest) if facts.digest is not None else None,
            "platform": str(facts.platform) if facts.platform is not None else None,
            "size": image.size,
            "own_bytes": image.own_size,
            "parent": family.parent.to_json() if family.parent is not None else None,
            "base": family.base.to_json() if family.base is not None else None,
            "children": list(dict.fromkeys(children)),
            "layers": [self._layer_view(layer) for layer in image.layers],
            "shared": [self._share_view(share) for share in image.shared],
        }

    def _layer_view(self, layer: LayerDeps) -> dict[str, Any]:
        return {
            "digest": str(layer.digest) if layer.digest is not None else None,
            "diff_id": str(layer.diff_id) if layer.diff_id is not None else None,
            "size": layer.size,
            "present": layer.present,
            "shared_with": [self.everything[place].title for place in layer.shared_with],
        }

    def _share_view(self, share: Share) -> dict[str, Any]:
        other = self.everything[share.place].facts
        return {
            "names": list(other.names),
            "image_id": str(other.image_id),
            "layers": share.layers,
            "bytes": share.size,
        }


def dependency_tree(
    candidates: Iterable[Candidate], lost: Iterable[Root], present: Present, thin: ThinRecord | None = None
) -> DependencyTree:
    """Return the tree of all images of ``candidates`` and of the drafts among the ``lost`` roots.

    Each platform inside an index is an image of its own. ``present`` says whether a blob is here.
    """
    here = cache(present)
    images, indexes = facts_of(candidates, lost, here, thin)
    family = families(images, indexes)
    shares = Shares(images)
    children: list[list[int]] = [[] for _ in images]
    for place, each in enumerate(family):
        if each.above is not None:
            children[each.above].append(place)
    titles = _titles(images)
    everything = tuple(
        ImageDeps(
            place,
            facts,
            titles[place],
            facts.config_size + sum(layer.size for layer in facts.layers if layer is not None),
            shares.own_size(place),
            family[place],
            tuple(children[place]),
            shares.added(place, family[place].above),
            _layers(place, facts, shares, here),
            tuple(shares.of(place)),
        )
        for place, facts in enumerate(images)
    )
    return DependencyTree(_in_order(everything), everything, tuple(shares.groups()))


def _layers(place: int, facts: Facts, shares: Shares, here: Present) -> tuple[LayerDeps, ...]:
    return tuple(
        LayerDeps(
            layer.digest if layer is not None else None,
            facts.diff_ids[position] if facts.diff_ids is not None else None,
            layer.size if layer is not None else None,
            layer is not None and here(layer.digest),
            shares.others(place, position),
        )
        for position, layer in enumerate(facts.layers)
    )


def _in_order(images: Sequence[ImageDeps]) -> tuple[ImageDeps, ...]:
    """Parents before their children, each tree as one piece."""
    ordered: list[ImageDeps] = []
    stack = [image.place for image in reversed(images) if image.above is None]
    while stack:
        image = images[stack.pop()]
        ordered.append(image)
        stack.extend(reversed(image.children))
    return tuple(ordered)


def _titles(images: Sequence[Facts]) -> list[str]:
    """What to call each image: its first name, with the platform where an index gave several the same; else its ID."""
    count: dict[str, int] = {}
    for image in images:
        for name in image.names[:1]:
            count[name] = count.get(name, 0) + 1
    return [_title(image, count) for image in images]


def _title(image: Facts, count: dict[str, int]) -> str:
    if not image.names:
        return str(image.image_id)
    name = image.names[0]
    return f"{name} ({image.platform or 'no platform'})" if count[name] > 1 else name
