"""Which layers several images hold, and what that comes to in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from imgtar.graph.facts import Facts
from imgtar.model.digest import Digest

__all__ = ["MOST", "Share", "SharedLayers", "Shares"]

MOST = 50
"""How many other images are listed for one image or layer: a base of a thousand images would name a million."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an image has in common with the one at ``place``; bytes as this image carries them."""

    place: int
    layers: int
    size: int


@dataclass(frozen=True, slots=True)
class SharedLayers:
    """Layers that just these images hold, by place; bytes as the first of them carries them."""

    places: tuple[int, ...]
    layers: int
    size: int


@dataclass(slots=True)
class Shares:
    """Layers are the same when their digests are, or their diff IDs: compression does not make another layer of it.

    A layer that stands twice in an image counts once in everything that is told here.
    """

    images: Sequence[Facts]
    kinds: list[dict[Digest, int]] = field(default_factory=list)
    """For each image its different layers, with their bytes (of all blobs, should it carry one layer in several)."""
    holders: dict[Digest, list[int]] = field(default_factory=dict)
    _claims: dict[Digest, Digest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        claims = self._claims
        for image in self.images:
            for layer, diff_id in zip(image.layers, image.diff_ids or (), strict=False):
                if layer is not None:
                    claims.setdefault(layer.digest, diff_id)
        for place, image in enumerate(self.images):
            sizes: dict[Digest, int] = {}
            blobs: set[Digest] = set()
            for position in range(len(image.layers)):
                layer = image.layers[position]
                kind = _kind(image, position, claims)
                blob = layer.digest if layer is not None else kind
                sizes[kind] = sizes.get(kind, 0) + (layer.size if layer is not None and blob not in blobs else 0)
                blobs.add(blob)
            self.kinds.append(sizes)
            for kind in sizes:
                self.holders.setdefault(kind, []).append(place)

    def own_size(self, place: int) -> int:
        """The bytes of the layers that no other image here holds."""
        return sum(size for kind, size in self.kinds[place].items() if len(self.holders[kind]) == 1)

    def others(self, place: int, position: int) -> list[int]:
        """The other images that hold the layer at ``position``, in order of rank; at most :data:`MOST`."""
        holders = self.holders[_kind(self.images[place], position, self._claims)]
        return list(islice((other for other in holders if other != place), MOST))

    def added(self, place: int, above: int | None) -> tuple[int, int]:
        """How many layers, and bytes of them, an image has that the one it stands on has not."""
        below = self.kinds[above] if above is not None else {}
        new = [size for kind, size in self.kinds[place].items() if kind not in below]
        return len(new), sum(new)

    def of(self, place: int) -> list[Share]:
        """What an image shares with each other one, the most bytes first.

        Of more than :data:`MOST` others those are told that hold its rarest layers: that everything here stands on
        one base is said by the tree.
        """
        own = self.kinds[place]
        others: dict[int, None] = {}
        for kind in sorted(own, key=lambda each: len(self.holders[each])):
            for other in self.holders[kind]:
                if len(others) >= MOST:
                    break
                if other != place:
                    others.setdefault(other)
        shares = []
        for other in others:
            common = own.keys() & self.kinds[other].keys()
            shares.append(Share(other, len(common), sum(own[kind] for kind in common)))
        return sorted(shares, key=lambda share: (-share.size, -share.layers, share.place))

    def groups(self) -> list[SharedLayers]:
        """The layers that several images hold, those with the same holders put together; the most bytes first."""
        found: dict[tuple[int, ...], tuple[int, int]] = {}
        for kind, holders in self.holders.items():
            if len(holders) > 1:
                layers, size = found.get(tuple(holders), (0, 0))
                found[tuple(holders)] = layers + 1, size + self.kinds[holders[0]][kind]
        groups = [SharedLayers(places, layers, size) for places, (layers, size) in found.items()]
        return sorted(groups, key=lambda group: (-group.size, group.places))


def _kind(image: Facts, position: int, claims: dict[Digest, Digest]) -> Digest:
    """What stands for a layer and all that are the same."""
    layer = image.layers[position]
    claimed = claims.get(layer.digest) if layer is not None else None
    if claimed is not None:
        return claimed
    if image.diff_ids is not None:
        return image.diff_ids[position]
    assert layer is not None
    return layer.digest
