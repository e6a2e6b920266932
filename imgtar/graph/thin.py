"""The record in a thin archive: what was left out, who needs it, and which base has it. ``imgtar.json``.

::

    {"schema": "imgtar.thin/1",
     "bases":    [{"names", "image_id", "digest", "inventory"}],
     "images":   [{"names", "digest", "image_id", "platform", "requires": [place in requires, …],
                   "layers": [place in requires or null, …]}],
     "requires": [{"kind", "mediaType", "digest", "size", "diff_id"?, "base"?: place in bases}]}

``layers`` stand for the layers of an image one by one, null for those that are carried: a docker archive has no
manifest to say which blob stood where. It is made from the images and from what the bases hold, and from nothing else, so that it repeats. When read it is a
stranger's word: it names what is missing and where it may be had, but no blob is believed to be anything because of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from imgtar.errors import Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.walk import BlobKind
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference
from imgtar.model.shapes import checked, parse_digest
from imgtar.model.strictjson import parse_json
from imgtar.text import printable, shown

__all__ = ["FILE_NAME", "SCHEMA", "Base", "Required", "ThinImage", "ThinRecord", "parse_thin"]

FILE_NAME = "imgtar.json"
SCHEMA = "imgtar.thin/1"


@frozen
class Base:
    """An image of the receiver on which a thin archive leans, and the root of the inventory that says so.

    ``names`` are empty when the inventory was made without them, ``image_id`` is ``None`` for what is not one image.
    """

    names: tuple[str, ...]
    image_id: Digest | None
    digest: Digest | None
    inventory: Digest

    @property
    def title(self) -> str:
        """Name and ID, as it stands in messages: what to ask for at the other end."""
        identity = str(self.image_id or self.digest or self.inventory)
        return f"{printable(self.names[0])} ({identity})" if self.names else identity

    def to_json(self) -> dict[str, Any]:
        """Its entry in the record, and in a GAP."""
        return {
            "names": list(self.names),
            "image_id": str(self.image_id) if self.image_id else None,
            "digest": str(self.digest) if self.digest else None,
            "inventory": str(self.inventory),
        }


@frozen
class Required:
    """One blob that was left out. ``diff_id`` is known for layers of images."""

    kind: BlobKind
    descriptor: Descriptor
    diff_id: Digest | None = None
    base: Base | None = None


@frozen
class ThinImage:
    """One root of a thin archive, and the blobs that it needs of those left out. ``names`` are familiar.

    ``layers`` are those of one image, base layer first: the digest where it was left out, ``None`` where it is carried.
    """

    names: tuple[str, ...]
    digest: Digest
    image_id: Digest | None
    platform: Platform | None
    requires: tuple[Digest, ...]
    layers: tuple[Digest | None, ...] = ()

    @property
    def title(self) -> str:
        """A name, else an ID."""
        return self.names[0] if self.names else str(self.image_id or self.digest)


@frozen
class ThinRecord:
    """Everything that a thin archive says about what it lacks."""

    __slots__ = ("__dict__",)  # For what is made of it when asked.

    images: tuple[ThinImage, ...]
    requires: Mapping[Digest, Required]

    @cached_property
    def bases(self) -> tuple[Base, ...]:
        """The bases, each once, in the order in which the requirements name them."""
        return tuple(dict.fromkeys(one.base for one in self.requires.values() if one.base is not None))

    @cached_property
    def _by_root(self) -> Mapping[Digest, ThinImage]:
        return {image.digest: image for image in self.images}

    @cached_property
    def _slots(self) -> Mapping[tuple[Digest, int, Digest], Descriptor]:
        slots: dict[tuple[Digest, int, Digest], Descriptor] = {}
        for image in self.images:
            for place, digest in enumerate(image.layers):
                diff_id = self.requires[digest].diff_id if digest is not None else None
                if digest is not None and diff_id is not None and image.image_id is not None:
                    slots.setdefault((image.image_id, place, diff_id), self.requires[digest].descriptor)
        return slots

    @cached_property
    def _needing(self) -> Mapping[Digest, list[ThinImage]]:
        needing: dict[Digest, list[ThinImage]] = {}
        for image in self.images:
            for digest in image.requires:
                needing.setdefault(digest, []).append(image)
        return needing

    def layer_of(self, image_id: Digest, place: int, diff_id: Digest) -> Descriptor | None:
        """The layer that was left out at ``place`` (from 0) of an image; it must be said to have ``diff_id``.

        Its media type is one that imgtar itself would write, for it will stand in a manifest that imgtar writes.
        """
        said = self._slots.get((image_id, place, diff_id))
        if said is None:
            return None
        compression = "none" if said.digest == diff_id else mediatype.layer_compression(said.media_type)
        known = mediatype.layer_media_type(compression) if compression else mediatype.DOCKER_LAYER
        return replace(said, media_type=known)

    def image(self, root: Digest) -> ThinImage | None:
        """What is said about the root with that digest."""
        return self._by_root.get(root)

    def needed_by(self, digest: Digest) -> list[ThinImage]:
        """The images that need a blob."""
        return list(self._needing.get(digest, ()))

    def encode(self) -> bytes:
        """The bytes of ``imgtar.json``."""
        places = {digest: place for place, digest in enumerate(self.requires)}
        bases = {base: place for place, base in enumerate(self.bases)}
        body = {
            "schema": SCHEMA,
            "bases": [base.to_json() for base in self.bases],
            "images": [
                {
                    "names": list(image.names),
                    "digest": str(image.digest),
                    "image_id": str(image.image_id) if image.image_id else None,
                    "platform": str(image.platform) if image.platform else None,
                    "requires": [places[digest] for digest in image.requires],
                    "layers": [places[digest] if digest is not None else None for digest in image.layers],
                }
                for image in self.images
            ],
            "requires": [_required_json(one, bases) for one in self.requires.values()],
        }
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _required_json(one: Required, bases: Mapping[Base, int]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": one.kind,
        "mediaType": one.descriptor.media_type,
        "digest": str(one.descriptor.digest),
        "size": one.descriptor.size,
    }
    if one.diff_id is not None:
        body["diff_id"] = str(one.diff_id)
    if one.base is not None:
        body["base"] = bases[one.base]
    return body


def parse_thin(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> ThinRecord:
    """Read ``imgtar.json``. Raises :class:`Refused`: ``E_TYPE`` for another kind, ``E_JSON``, ``E_DUP``, ``E_LIMIT``."""
    value = parse_json(raw, what, limits=limits)
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        newer = isinstance(schema, str) and schema.startswith("imgtar.thin/")
        hint = "a newer imgtar made this archive: use that one" if newer else "the archive was not made by imgtar"
        raise Refused("E_TYPE", f"is of the unknown kind {shown(str(schema))}", where=what, hint=hint)
    record = checked("thin", value, what)
    if len(record["images"]) > limits.images or len(record["bases"]) > limits.images:
        raise Refused("E_LIMIT", f"names more than {limits.images} images or bases", where=what)
    bases = [_base(base, what, limits) for base in record["bases"]]
    requires: dict[Digest, Required] = {}
    for one in record["requires"]:
        digest = parse_digest(one["digest"], what)
        if digest in requires:
            raise Refused("E_DUP", f"lists {digest} twice", where=what)
        place = one.get("base")
        _in_range([place] if place is not None else [], bases, what)
        requires[digest] = Required(
            one["kind"],
            Descriptor(one["mediaType"], digest, one["size"]),
            _digest(one.get("diff_id"), what),
            bases[place] if place is not None else None,
        )
    digests = list(requires)
    images = [_image(image, digests, what, limits) for image in record["images"]]
    return ThinRecord(tuple(images), requires)


def _base(found: Mapping[str, Any], what: str, limits: Limits) -> Base:
    names = _names(found["names"], what, limits)
    inventory = parse_digest(found["inventory"], what)
    return Base(names, _digest(found["image_id"], what), _digest(found["digest"], what), inventory)


def _image(found: Mapping[str, Any], digests: Sequence[Digest], what: str, limits: Limits) -> ThinImage:
    requires, layers = found["requires"], found.get("layers", [])
    _in_range([*requires, *(place for place in layers if place is not None)], digests, what)
    parts = found["platform"].split("/") if found["platform"] is not None else []
    return ThinImage(
        _names(found["names"], what, limits),
        parse_digest(found["digest"], what),
        _digest(found["image_id"], what),
        Platform(parts[0], parts[1], "".join(parts[2:])) if 2 <= len(parts) <= 3 else None,
        tuple(dict.fromkeys(digests[place] for place in requires)),
        tuple(digests[place] if place is not None else None for place in layers),
    )


def _digest(text: str | None, what: str) -> Digest | None:
    return parse_digest(text, what) if text is not None else None


def _names(texts: Sequence[str], what: str, limits: Limits) -> tuple[str, ...]:
    if len(texts) > limits.names_per_image:
        raise Refused("E_LIMIT", f"one image has {len(texts)} names", where=what)
    try:
        return tuple(Reference.parse(text).familiar for text in texts)
    except Refused as error:
        raise error.within(what) from None


def _in_range(places: Sequence[int], of: Sequence[object], what: str) -> None:
    if any(place >= len(of) for place in places):
        raise Refused("E_JSON", "counts an entry that is not there", where=what)
