"""Which layers several images hold, and what that comes to in bytes."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.frozen import field, frozen, record
from imgtar.graph.facts import Facts
from imgtar.model.digest import Digest

__all__ = ["MOST", "Share", "SharedLayers", "Shares"]

MOST = 50
"""How many other images are listed for one image or layer: a base of a thousand images would name a million."""


@frozen
class Share:
    """What an image has in common with the one at ``place``; bytes as this image carries them."""

    place: int
    layers: int
    size: int


@frozen
class SharedLayers:
    """Layers that just these images hold, by place; bytes as the first of them carries them."""

    places: tuple[int, ...]
    layers: int
    size: int


@record
class Shares:
    """Layers are the same when their digests are, or their diff IDs: compression does not make another layer of it.

    Each different layer has a number here. One that stands twice in an image counts once in everything that is told.
    """

    images: Sequence[Facts]
    rows: list[list[int]] = field(default_factory=list)
    """For each image the numbers of its layers, position by position."""
    sizes: list[dict[int, int]] = field(default_factory=list)
    """For each image its different layers, with their bytes (of all blobs, should it carry one layer in several)."""
    holders: dict[int, list[int]] = field(default_factory=dict)
    """For each layer the images that hold it, in order of rank."""
    _first: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = _numbered(self.images)
        for place, (image, row) in enumerate(zip(self.images, self.rows, strict=True)):
            blobs = {
                layer.digest: (number, layer.size) for number, layer in zip(row, image.layers, strict=True) if layer
            }
            sizes = dict.fromkeys(row, 0)
            for number, size in blobs.values():
                sizes[number] += size
            self.sizes.append(sizes)
            for number in sizes:
                self.holders.setdefault(number, []).append(place)
        self._first = {number: tuple(holders[:MOST]) for number, holders in self.holders.items()}

    def own_size(self, place: int) -> int:
        """The bytes of the layers that no other image here holds."""
        return sum(size for number, size in self.sizes[place].items() if len(self.holders[number]) == 1)

    def others(self, place: int, position: int) -> tuple[int, ...]:
        """The other images that hold the layer at ``position``, in order of rank; at most :data:`MOST`."""
        number = self.rows[place][position]
        first = self._first[number]
        if place > first[-1]:
            return first
        return tuple(other for other in self.holders[number][: MOST + 1] if other != place)

    def added(self, place: int, above: int | None) -> tuple[int, int]:
        """How many layers, and bytes of them, an image has that the one it stands on has not."""
        below = self.sizes[above] if above is not None else {}
        new = [size for number, size in self.sizes[place].items() if number not in below]
        return len(new), sum(new)

    def of(self, place: int) -> list[Share]:
        """What an image shares with each other one, the most bytes first.

        Of more than :data:`MOST` others those are told that hold its rarest layers: that everything here stands on
        one base is said by the tree.
        """
        own = self.sizes[place]
        others: dict[int, None] = {}
        for number in sorted(own, key=lambda each: len(self.holders[each])):
            for other in self.holders[number]:
                if len(others) >= MOST:
                    break
                if other != place:
                    others.setdefault(other)
            if len(others) >= MOST:
                break
        shares = []
        for other in others:
            common = own.keys() & self.sizes[other].keys()
            shares.append(Share(other, len(common), sum(map(own.__getitem__, common))))
        return sorted(shares, key=lambda share: (-share.size, -share.layers, share.place))

    def groups(self) -> list[SharedLayers]:
        """The layers that several images hold, those with the same holders put together; the most bytes first."""
        found: dict[tuple[int, ...], tuple[int, int]] = {}
        for number, holders in self.holders.items():
            if len(holders) > 1:
                places = tuple(holders)
                layers, size = found.get(places, (0, 0))
                found[places] = layers + 1, size + self.sizes[holders[0]][number]
        groups = [SharedLayers(places, layers, size) for places, (layers, size) in found.items()]
        return sorted(groups, key=lambda group: (-group.size, group.places))


def _numbered(images: Sequence[Facts]) -> list[list[int]]:
    """A number for each layer of each image; the same for those that are the same."""
    numbers: dict[Digest, int] = {}
    known: list[tuple[list[int | None], list[int] | None]] = []
    claims: dict[int, int] = {}
    for image in images:
        blobs = [numbers.setdefault(layer.digest, len(numbers)) if layer else None for layer in image.layers]
        claimed = image.diff_ids
        diffs = [numbers.setdefault(each, len(numbers)) for each in claimed] if claimed is not None else None
        known.append((blobs, diffs))
        for blob, diff in zip(blobs, diffs or (), strict=False):
            if blob is not None:
                claims.setdefault(blob, diff)
    rows = []
    for blobs, diffs in known:
        row = []
        for position, blob in enumerate(blobs):
            number = claims.get(blob, blob) if blob is not None else diffs[position] if diffs is not None else None
            assert number is not None  # A layer without a blob is known by its diff ID.
            row.append(number)
        rows.append(row)
    return rows
