"""Catalogs and receivers in memory, for what is decided without reading a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imgtar.graph.catalog import Catalog, DeclaredParent, Root
from imgtar.graph.inventory import Holding, Tagged
from imgtar.graph.library import Library
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_index, pretended
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference
from tests.builders.images import Document, Image

Item = Image | Document


def descriptor_of(item: Item, annotations: Mapping[str, str] | None = None) -> Descriptor:
    """The descriptor of an image's manifest, or of a document, as an index would hold it."""
    document = item.document if isinstance(item, Image) else item
    raw = json.dumps({"schemaVersion": 2, "manifests": [document.descriptor(annotations)]}).encode()
    return parse_index(raw, "", "test").manifests[0]


def blobs_of(*items: Item) -> dict[str, bytes]:
    """Every blob of these, by digest."""
    blobs: dict[str, bytes] = {}
    for item in items:
        blobs.update((item.document if isinstance(item, Image) else item).blobs())
    return blobs


def library_of(blobs: Mapping[str, bytes]) -> Library:
    """A library that finds documents among ``blobs``."""

    def fetch(descriptor: Descriptor, cap: int) -> bytes | None:
        raw = blobs.get(str(descriptor.digest))
        return raw if raw is not None and len(raw) <= cap else None

    return Library([fetch])


def root_of(
    item: Item,
    names: Sequence[str] | None = None,
    *,
    parent: str | None = None,
    labels: Sequence[str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Root:
    """One root under its own names, or under ``names``."""
    chosen = names if names is not None else item.names if isinstance(item, Image) else ()
    references = tuple(Reference.parse(name).tagged() for name in chosen)
    shown = tuple(labels) if labels is not None else tuple(reference.familiar for reference in references)
    declared = DeclaredParent(Digest.parse(parent), "the test") if parent else None
    return Root(descriptor_of(item, annotations), shown, references, declared)


def catalog_of(
    *roots: Root | Item,
    blobs: Mapping[str, bytes] | None = None,
    without: Iterable[str] = (),
    label: str = "archive",
    form: str = "oci",
) -> Catalog:
    """An archive with these roots. ``blobs`` is what it carries (default: everything), less ``without``."""
    items = [root for root in roots if not isinstance(root, Root)]
    carried = dict(blobs_of(*items) if blobs is None else blobs)
    for digest in without:
        del carried[digest]
    listed = tuple(root if isinstance(root, Root) else root_of(root) for root in roots)
    offers = {Digest.parse(digest): len(raw) for digest, raw in carried.items()}
    return Catalog(label, form, "none", listed, library_of(carried), offers)


class Held:
    """A receiver in memory: blobs, some of them damaged, images, and names."""

    label = "the receiver"

    def __init__(
        self,
        blobs: Mapping[str, bytes] | None = None,
        *,
        images: Iterable[Image] = (),
        roots: Iterable[Item] = (),
        damaged: Iterable[str] = (),
        names: Mapping[str, Image] | None = None,
    ) -> None:
        self.images = list(images)
        self.names = {**{name: image for image in self.images for name in image.names}, **(names or {})}
        self.images += [image for image in self.names.values() if image not in self.images]
        self.blobs = {**(blobs or {}), **blobs_of(*self.images)}
        self.roots = {descriptor_of(root).digest for root in (*self.images, *roots)}
        self._below = {Digest.parse(digest) for root in roots if isinstance(root, Document) for digest in root.below}
        self.damaged = set(damaged)
        self.library = library_of({d: raw for d, raw in self.blobs.items() if d not in self.damaged})
        self.diff_ids = {layer.digest: layer.diff_id for image in self.images for layer in image.layers}

    def holding(self, digest: Digest) -> Holding | None:
        raw = self.blobs.get(str(digest))
        return None if raw is None else Holding(len(raw), str(digest) not in self.damaged)

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        for image in self.images:
            for layer in image.layers:
                if layer.diff_id == str(diff_id) and layer.digest not in self.damaged:
                    return Descriptor(layer.media_type, Digest.parse(layer.digest), len(layer.blob))
        return None

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        known = self.diff_ids.get(str(digest))
        return Digest.parse(known) if known else digest

    def document_type(self, digest: Digest) -> str | None:
        return pretended(self.blobs.get(str(digest), b""))

    def has_image(self, identity: Digest) -> bool:
        if identity in self.roots or identity in self._below:
            return True
        return any(str(identity) in (image.image_id, image.digest) for image in self.images)

    def has_root(self, digest: Digest) -> bool:
        return digest in self.roots

    def tagged(self, name: str) -> Tagged | None:
        for known, image in self.names.items():
            if Reference.parse(known).full == name:
                return Tagged(Digest.parse(image.digest), Digest.parse(image.image_id))
        return None


def document(value: Any, media_type: str = mediatype.IMAGE_INDEX, below: Mapping[str, bytes] | None = None) -> Document:
    """A document with this content."""
    return Document(json.dumps(value).encode(), media_type, None, {}, below or {})


def index_over(*descriptors: Mapping[str, Any], below: Mapping[str, bytes] | None = None, **extra: Any) -> Document:
    """An index that lists these descriptors."""
    return document({"schemaVersion": 2, "manifests": list(descriptors), **extra}, below=below)


def platforms(*texts: str) -> tuple[Platform, ...]:
    """Platforms as a user writes them."""
    return tuple(Platform.parse(text) for text in texts)
