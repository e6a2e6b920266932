"""Anything that can be asked what it has: the store, a transaction, later engines, registries and inventory files."""

from __future__ import annotations

from typing import Protocol

from imgtar.frozen import frozen
from imgtar.graph.library import Library
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest

__all__ = ["EmptyInventory", "Holding", "Inventory", "Tagged"]


@frozen
class Holding:
    """What is held under a digest: its size in bytes, or the knowledge that it is damaged (``sound`` is false)."""

    size: int
    sound: bool = True


@frozen
class Tagged:
    """What a name stands for: the digest of the root, and the image ID where it is one image."""

    digest: Digest
    image_id: Digest | None

    @property
    def identity(self) -> Digest:
        """The ID that people know it by."""
        return self.image_id or self.digest


class Inventory(Protocol):
    """What a receiver holds. "Held" means verified since it last changed, not merely present."""

    label: str
    library: Library

    def holding(self, digest: Digest) -> Holding | None:
        """What is held under ``digest``; ``None`` for nothing. A damaged blob is reported as not sound."""
        ...

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """A held layer with that diff ID, in whatever compression."""
        ...

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """The diff ID of a held layer, if it can be proved (by reading it, or by an earlier reading).

        That it is another one than ``claimed`` is said only after the layer was read now.
        """
        ...

    def document_type(self, digest: Digest) -> str | None:
        """The media type of a held manifest or index, as its content says; ``None`` for whatever else is held."""
        ...

    def has_image(self, identity: Digest) -> bool:
        """Whether an image is held that the index names, by its image ID or by the digest of its manifest.

        True also for the digest of a held index, and for what stands below one at any depth: ``identity`` is whatever
        another image may call its parent by. A document that is damaged, or no longer below a root, is not held.
        """
        ...

    def has_root(self, digest: Digest) -> bool:
        """Whether the index names that manifest, index or artifact."""
        ...

    def tagged(self, name: str) -> Tagged | None:
        """What the full name (``docker.io/library/app:1``) stands for."""
        ...


class EmptyInventory:
    """Holds nothing: the receiver of a verify or of a full save."""

    label = "nothing"

    def __init__(self) -> None:
        self.library = Library([])

    def holding(self, digest: Digest) -> Holding | None:
        """Nothing."""
        return None

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """Nothing."""
        return None

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """Nothing."""
        return None

    def document_type(self, digest: Digest) -> str | None:
        """Nothing."""
        return None

    def has_image(self, identity: Digest) -> bool:
        """Never."""
        return False

    def has_root(self, digest: Digest) -> bool:
        """Never."""
        return False

    def tagged(self, name: str) -> Tagged | None:
        """Nothing."""
        return None
