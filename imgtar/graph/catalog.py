"""What a source says it brings: images with their names, the documents behind them, and the blobs on offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from imgtar.frozen import field, frozen
from imgtar.graph.finding import Finding
from imgtar.graph.library import Library
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import ImageConfig
from imgtar.model.reference import Reference

if TYPE_CHECKING:
    from imgtar.graph.claims import Witness
    from imgtar.graph.thin import ThinRecord
    from imgtar.graph.v1 import V1Image

__all__ = ["Catalog", "DeclaredParent", "Draft", "Offers", "Root", "Slot", "smaller_parent"]


@frozen
class DeclaredParent:
    """The image that another one says it was built on, and where that was said."""

    image_id: Digest
    learned_from: str
    name: str = ""


def smaller_parent(one: DeclaredParent | None, other: DeclaredParent | None) -> DeclaredParent | None:
    """Of two declared parents of one image the one with the smaller ID counts: the order of loads must not."""
    known = [parent for parent in (one, other) if parent is not None]
    return min(known, key=lambda parent: parent.image_id) if known else None


@frozen
class Slot:
    """One layer of an image that came without a manifest: its diff ID, and the blob when it is known.

    ``expected_in`` is the archive path that should have held an absent one; ``promised`` is what a thin archive says
    was there when it was left out.
    """

    diff_id: Digest
    layer: Descriptor | None
    expected_in: str = ""
    promised: Descriptor | None = None


@frozen
class Draft:
    """An image as a docker archive describes it: a config and layers, but no manifest."""

    config: Descriptor
    parsed: ImageConfig
    slots: tuple[Slot, ...]

    @property
    def complete(self) -> bool:
        """Whether every layer is known by digest, so that the manifest can be written."""
        return all(slot.layer is not None for slot in self.slots)


@frozen
class Root:
    """One thing a source brings under zero or more names: an image, an index of images, an artifact.

    ``labels`` are the names as they were written, ``references`` those that are whole names with a tag. ``descriptor``
    is ``None`` for a docker archive's image some of whose layers are not in the archive: only the receiver's holdings
    can complete its ``draft``. ``lost_config`` is the path of a config that a docker archive names but does not hold:
    without it only ``lost_layers`` are known, the path of each layer with the blob where that is there. ``v1_id`` is the ID in a pre-1.10 archive; such an image has neither
    ``descriptor`` nor ``draft`` when its parent chain is ``cut`` there: another archive of the load may complete it.
    """

    descriptor: Descriptor | None
    labels: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    parent: DeclaredParent | None = None
    draft: Draft | None = None
    lost_config: str = ""
    lost_layers: tuple[tuple[str, Descriptor | None], ...] = ()
    v1_id: str = ""

    @property
    def cut(self) -> bool:
        """Whether this is an image of a pre-1.10 archive that does not hold all of its layers and parents."""
        return bool(self.v1_id) and self.descriptor is None and self.draft is None

    @property
    def title(self) -> str:
        """What to call it in a message: a name, else a digest."""
        if self.references:
            return self.references[0].familiar
        if self.draft is not None:
            return str(self.draft.config.digest)
        if self.lost_config:
            return self.lost_config
        if self.cut:
            return self.v1_id
        return str(self.descriptor.digest) if self.descriptor is not None else "an image"


class Offers(Protocol):
    """The blobs a source can hand over: digest to size in bytes. A plain ``dict`` is one."""

    def get(self, digest: Digest, /) -> int | None:
        """The size of a blob on offer."""
        ...

    def __contains__(self, digest: object, /) -> bool: ...

    def __iter__(self) -> Iterator[Digest]: ...


@frozen
class Catalog:
    """Everything a source brings. ``form`` is docker, docker-legacy, oci, hybrid, oci-dir, dir or store.

    ``offers`` may hold more than the roots reach: an OCI layout may carry unreferenced blobs (image-layout.md), which
    are never stored. ``entry_names`` say under which name a blob lies, for messages. ``thin`` is what a thin archive says
    about what it leaves out; ``v1`` are the images of a pre-1.10 archive by ID, also those that are only parents.
    ``witness`` says what a store has proved, by which each of its roots is judged.
    """

    label: str
    form: str
    compression: str
    roots: tuple[Root, ...]
    library: Library
    offers: Offers
    findings: tuple[Finding, ...] = ()
    entry_names: Mapping[Digest, str] = field(default_factory=dict)
    thin: ThinRecord | None = None
    v1: Mapping[str, V1Image] = field(default_factory=dict, repr=False)
    witness: Witness | None = field(default=None, repr=False)
