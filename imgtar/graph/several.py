"""Several inventories asked as one: what any of them holds, or what all of them hold."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.graph.inventory import Holding, Inventory, Tagged
from imgtar.graph.library import Library
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest

__all__ = ["AllOf", "AnyOf"]


def _shelves(inventories: Sequence[Inventory]) -> Library:
    return Library([]).then(*(one.library for one in inventories))


class AnyOf:
    """One receiver that is described in parts: what at least one of the inventories holds."""

    def __init__(self, inventories: Sequence[Inventory]) -> None:
        self._all = tuple(inventories)
        self.label = ", ".join(one.label for one in self._all)
        self.library = _shelves(self._all)

    def holding(self, digest: Digest) -> Holding | None:
        """A sound holding where there is one, else a damaged one."""
        found = [holding for one in self._all if (holding := one.holding(digest)) is not None]
        return next((holding for holding in found if holding.sound), found[0] if found else None)

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """The first layer that any of them has."""
        return next((layer for one in self._all if (layer := one.layer_for(diff_id)) is not None), None)

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """What the first one that knows says."""
        return next((diff_id for one in self._all if (diff_id := one.diff_id_of(digest, claimed)) is not None), None)

    def document_type(self, digest: Digest) -> str | None:
        """What the first one that knows says."""
        return next((kind for one in self._all if (kind := one.document_type(digest)) is not None), None)

    def has_image(self, identity: Digest) -> bool:
        """Whether any of them has it."""
        return any(one.has_image(identity) for one in self._all)

    def has_root(self, digest: Digest) -> bool:
        """Whether any of them names it."""
        return any(one.has_root(digest) for one in self._all)

    def tagged(self, name: str) -> Tagged | None:
        """What the first one that knows the name says."""
        return next((tagged for one in self._all if (tagged := one.tagged(name)) is not None), None)


class AllOf:
    """Several receivers that one archive must serve: only what every one of them holds counts."""

    def __init__(self, inventories: Sequence[Inventory]) -> None:
        self._all = tuple(inventories)
        self.label = ", ".join(one.label for one in self._all)
        self.library = _shelves(self._all)

    def holding(self, digest: Digest) -> Holding | None:
        """What they all hold; damaged when it is so with one of them, or when they disagree about the size."""
        found = [one.holding(digest) for one in self._all]
        held = [holding for holding in found if holding is not None]
        if not held or len(held) < len(found):
            return None
        sound = all(holding.sound and holding.size == held[0].size for holding in held)
        return Holding(held[0].size, sound)

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """A layer with that diff ID when each of them has one; it need not be the same blob.

        Of different ones a compressed one is named: whoever has it will have to make the plain one.
        """
        found = [layer for one in self._all if (layer := one.layer_for(diff_id)) is not None]
        if not found or len(found) < len(self._all):
            return None
        return next((layer for layer in found if layer.digest != diff_id), found[0])

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """What they all say."""
        found = {one.diff_id_of(digest, claimed) for one in self._all}
        return found.pop() if len(found) == 1 else None

    def document_type(self, digest: Digest) -> str | None:
        """What they all say."""
        found = {one.document_type(digest) for one in self._all}
        return found.pop() if len(found) == 1 else None

    def has_image(self, identity: Digest) -> bool:
        """Whether all of them have it."""
        return bool(self._all) and all(one.has_image(identity) for one in self._all)

    def has_root(self, digest: Digest) -> bool:
        """Whether all of them name it."""
        return bool(self._all) and all(one.has_root(digest) for one in self._all)

    def tagged(self, name: str) -> Tagged | None:
        """Nothing: a name may mean another image with each of them."""
        return None
