"""An inventory as a list: which blobs, layers and names some receiver holds. What an inventory file says.

The file is JSON lines, sorted, without a clock or a path in it, so that the same content gives the same bytes::

    {"schema": "imgtar.inventory/1", "where", "created": null, "root", "blobs", "images", "check"}
    {"digest", "size", "kind", "diff_id"?, "media_type"?}             one for each blob, by digest
    {"name", "digest", "image_id", "complete", "platform"?, "blobs"}  one for each name; ``blobs`` counts blob lines

``root`` is one hash over what is held, whatever it is called: equal roots mean equal content. ``check`` is the SHA-256
of everything else (the first line without it, and all others), so that a damaged or truncated file is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from imgtar.errors import Refused, UsageError
from imgtar.frozen import frozen, replace
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.inventory import EmptyInventory, Holding, Tagged
from imgtar.graph.library import Library
from imgtar.graph.thin import ThinImage, ThinRecord
from imgtar.graph.walk import BlobKind, Node, Part, parts_of, platform_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.model.shapes import checked, parse_digest
from imgtar.model.strictjson import parse_json
from imgtar.text import shown

__all__ = ["SCHEMA", "ListedBlob", "ListedImage", "Listing", "parse_listing", "take_stock"]

SCHEMA = "imgtar.inventory/1"

_MOST_LINES = 100_000
_MOST_PLACES = 2_000_000


@frozen
class ListedBlob:
    """One blob that is held. ``diff_id`` is known for layers of images."""

    digest: Digest
    size: int
    kind: BlobKind
    diff_id: Digest | None = None
    media_type: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its line in the file."""
        body: dict[str, Any] = {"digest": str(self.digest), "size": self.size, "kind": self.kind}
        if self.diff_id is not None:
            body["diff_id"] = str(self.diff_id)
        if self.media_type:
            body["media_type"] = self.media_type
        return body


@frozen
class ListedImage:
    """One root under one name, or under none. ``complete``: everything that it refers to is held.

    ``image_id`` is ``None`` for what is not one image; ``digest`` for an image of a docker archive whose layers are not
    all there, so that it has no manifest. ``blobs`` are those of its own that are held.
    """

    name: Reference | None
    digest: Digest | None
    image_id: Digest | None
    complete: bool
    platform: str | None = None
    blobs: tuple[Digest, ...] = ()

    @property
    def title(self) -> str:
        """What to call it in a message."""
        return self.name.familiar if self.name is not None else str(self.image_id or self.digest)


class Listing:
    """What is held, as a value; an :class:`imgtar.graph.inventory.Inventory`. ``where`` is a word, never a path.

    ``library`` holds the documents where they are at hand: an inventory file has none.
    """

    def __init__(
        self,
        where: str,
        blobs: Iterable[ListedBlob],
        images: Iterable[ListedImage],
        *,
        label: str = "",
        library: Library | None = None,
        redacted: bool = False,
    ) -> None:
        self.where = where
        self.label = label or where
        self.library = library if library is not None else Library([])
        self.redacted = redacted
        self.blobs: Mapping[Digest, ListedBlob] = {
            blob.digest: blob for blob in sorted(blobs, key=lambda blob: str(blob.digest))
        }
        ordered = (replace(image, blobs=tuple(sorted(set(image.blobs), key=str))) for image in images)
        self.images = tuple(sorted(dict.fromkeys(ordered), key=_image_order))

    @cached_property
    def root(self) -> Digest:
        """One hash over every blob: digest, size and diff ID. Names do not count."""
        lines = (f"{blob.digest} {blob.size} {blob.diff_id or '-'}\n" for blob in self.blobs.values())
        return Digest.of("".join(lines).encode())

    @cached_property
    def _layers(self) -> Mapping[Digest, ListedBlob]:
        layers: dict[Digest, ListedBlob] = {}
        for blob in self.blobs.values():
            if blob.diff_id is not None and (blob.diff_id not in layers or blob.digest == blob.diff_id):
                layers[blob.diff_id] = blob
        return layers

    @cached_property
    def _names(self) -> Mapping[str, ListedImage]:
        return {image.name.full: image for image in self.images if image.name is not None}

    @cached_property
    def _roots(self) -> frozenset[Digest]:
        return frozenset(image.digest for image in self.images if image.digest is not None)

    def holding(self, digest: Digest) -> Holding | None:
        """See :class:`imgtar.graph.inventory.Inventory`."""
        blob = self.blobs.get(digest)
        return Holding(blob.size) if blob is not None else None

    def layer_for(self, diff_id: Digest) -> Descriptor | None:
        """See :class:`imgtar.graph.inventory.Inventory`."""
        blob = self._layers.get(diff_id)
        return Descriptor(blob.media_type or mediatype.LAYER, blob.digest, blob.size) if blob is not None else None

    def diff_id_of(self, digest: Digest, claimed: Digest | None = None) -> Digest | None:
        """What the list says; the receiver itself will prove it."""
        blob = self.blobs.get(digest)
        return (blob.diff_id or blob.digest) if blob is not None else None

    def document_type(self, digest: Digest) -> str | None:
        """What the list says, which knows no more than which of the two it is."""
        blob = self.blobs.get(digest)
        return blob.kind if blob is not None and blob.kind in ("manifest", "index") else None

    def has_image(self, identity: Digest) -> bool:
        """See :class:`imgtar.graph.inventory.Inventory`."""
        blob = self.blobs.get(identity)
        return blob is not None and blob.kind in ("config", "manifest", "index")

    def has_root(self, digest: Digest) -> bool:
        """See :class:`imgtar.graph.inventory.Inventory`."""
        return digest in self._roots

    def tagged(self, name: str) -> Tagged | None:
        """See :class:`imgtar.graph.inventory.Inventory`; nothing when the names were left out."""
        image = self._names.get(name)
        return Tagged(image.digest, image.image_id) if image is not None and image.digest is not None else None

    def without_names(self) -> Listing:
        """The same content, names left out."""
        bare = (replace(image, name=None) for image in self.images)
        return Listing(self.where, self.blobs.values(), bare, label=self.label, library=self.library, redacted=True)

    def header(self) -> dict[str, Any]:
        """The first line, without ``check``."""
        return {
            "schema": SCHEMA,
            "where": self.where,
            # A clock in here would make two lists of the same content differ; the file has a time of its own.
            "created": None,
            "root": str(self.root),
            "blobs": len(self.blobs),
            "images": len(self.images),
            **({"redacted": True} if self.redacted else {}),
        }

    def image_lines(self) -> Iterator[dict[str, Any]]:
        """The line of each image."""
        places = {digest: place for place, digest in enumerate(self.blobs)}
        for image in self.images:
            yield {
                "name": image.name.familiar if image.name is not None else None,
                "digest": str(image.digest) if image.digest is not None else None,
                "image_id": str(image.image_id) if image.image_id is not None else None,
                "complete": image.complete,
                **({"platform": image.platform} if image.platform is not None else {}),
                "blobs": sorted(places[digest] for digest in image.blobs),
            }

    def encode(self) -> bytes:
        """The bytes of the file: always the same for the same content. Raises :class:`UsageError` for one too long."""
        if len(self.blobs) + len(self.images) > _MOST_LINES:
            message = f"the inventory would have more than {_MOST_LINES} lines, which no reader takes"
            raise UsageError(message, hint="list only what is to be the base: --of IMAGE, or --of ARCHIVE")
        lines = [_line(blob.to_json()) for blob in self.blobs.values()]
        lines += [_line(image) for image in self.image_lines()]
        body = b"".join(lines)
        head = self.header()
        return _line({**head, "check": str(_check(head, body))}) + body


def _image_order(image: ListedImage) -> tuple[bool, str, str, str]:
    return (image.name is None, image.name.full if image.name else "", str(image.digest), str(image.image_id))


def _check(head: Mapping[str, Any], body: bytes | memoryview) -> Digest:
    hasher = Digest("sha256", "").hasher()
    hasher.update(_line({key: value for key, value in head.items() if key != "check"}))
    hasher.update(body)
    return Digest.from_hex(hasher.hexdigest())


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def parse_listing(raw: bytes | bytearray, what: str, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """Read an inventory file. Raises :class:`Refused`: ``E_TRUNC``, ``E_DIGEST`` (damaged), ``E_TYPE``, ``E_JSON``,
    ``E_NAME``, ``E_DUP``, ``E_LIMIT``."""
    end = raw.find(b"\n") + 1
    if bytes(raw[:end]).strip() == b"{":
        return _parse_document(bytes(raw), what, limits)  # Written with line breaks, as --json writes it.
    value = parse_json(bytes(memoryview(raw)[:end]) if end else bytes(raw), what, limits=limits)
    _of_this_schema(value, what)
    if isinstance(value.get("blobs"), list):
        return _parse_document(bytes(raw), what, limits)
    head = checked("inventory head", value, what)
    blob_lines, promised = head["blobs"], head["blobs"] + head["images"]
    if not end or not raw.endswith(b"\n"):
        raise Refused("E_TRUNC", "the inventory ends in the middle of a line", where=what, hint=_AGAIN)
    if promised > _MOST_LINES:
        raise Refused("E_LIMIT", f"the inventory has more than {_MOST_LINES} lines", where=what)
    count = raw.count(b"\n") - 1
    if count != promised:
        message = f"the inventory has {count} lines, its first one promises {promised}"
        raise Refused("E_TRUNC", message, where=what, hint=_AGAIN)
    if _check(value, memoryview(raw)[end:]) != parse_digest(head["check"], what):
        raise Refused("E_DIGEST", "the inventory is damaged: it is not what it was made as", where=what, hint=_AGAIN)
    blobs: dict[Digest, ListedBlob] = {}
    images: list[ListedImage] = []
    digests: list[Digest] = []
    places = 0
    for number, line in enumerate(_lines(raw, end), 2):
        where = f"{what}: line {number}"
        if number < 2 + blob_lines:
            blob = _blob(line, where, limits)
            if blob.digest in blobs:
                raise Refused("E_DUP", f"the inventory lists {blob.digest} twice", where=where)
            blobs[blob.digest] = blob
            digests.append(blob.digest)
            continue
        places += line.count(b",")
        if places > _MOST_PLACES:
            raise Refused("E_LIMIT", f"the images count more than {_MOST_PLACES} blobs", where=where)
        images.append(_image(line, digests, where, limits))
    listing = Listing(head["where"], blobs.values(), images, label=what, redacted=head.get("redacted", False))
    if listing.root != parse_digest(said := head["root"], what):
        raise Refused("E_DIGEST", f"the inventory's root is {listing.root}, it says {shown(said)}", where=what)
    return listing


def _of_this_schema(value: Any, what: str) -> None:
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        hint = (
            "a newer imgtar made it" if str(schema).startswith("imgtar.inventory/") else "imgtar inventory -o makes one"
        )
        raise Refused("E_TYPE", f"is not an inventory of a known kind but {shown(str(schema))}", where=what, hint=hint)


def _parse_document(raw: bytes, what: str, limits: Limits) -> Listing:
    """An inventory as the one document that ``--json`` writes: the lines as two lists, covered by the root only."""
    value = parse_json(raw, what, limits=limits)
    _of_this_schema(value, what)
    head = checked("inventory document", value, what)
    blobs = [_listed_blob(found, what) for found in head["blobs"]]
    digests = [blob.digest for blob in blobs]
    if len(set(digests)) != len(digests):
        raise Refused("E_DUP", "the inventory lists a blob twice", where=what)
    images = [_listed_image(found, digests, what) for found in head["images"]]
    listing = Listing(head["where"], blobs, images, label=what, redacted=head.get("redacted", False))
    if listing.root != parse_digest(said := head["root"], what):
        raise Refused("E_DIGEST", f"the inventory's root is {listing.root}, it says {shown(said)}", where=what)
    return listing


def _lines(raw: bytes | bytearray, start: int) -> Iterator[bytes]:
    """The lines from ``start`` on, one at a time: all of them together would be the file once more in memory."""
    while start < len(raw):
        end = raw.index(b"\n", start)
        yield bytes(raw[start:end])
        start = end + 1


_AGAIN = "copy it again, or make it again: imgtar inventory -o FILE"


def _blob(line: bytes, where: str, limits: Limits) -> ListedBlob:
    return _listed_blob(checked("listed blob", parse_json(line, where, limits=limits), where), where)


def _listed_blob(found: Mapping[str, Any], where: str) -> ListedBlob:
    said = found.get("diff_id")
    diff_id = parse_digest(said, where) if said is not None else None
    digest = parse_digest(found["digest"], where)
    return ListedBlob(digest, found["size"], found["kind"], diff_id, found.get("media_type", ""))


def _image(line: bytes, blobs: list[Digest], where: str, limits: Limits) -> ListedImage:
    return _listed_image(checked("listed image", parse_json(line, where, limits=limits), where), blobs, where)


def _listed_image(found: Mapping[str, Any], blobs: list[Digest], where: str) -> ListedImage:
    places, name = found.get("blobs", []), found["name"]
    if places and places[-1] >= len(blobs):
        raise Refused("E_JSON", "an image counts a blob that is not listed", where=where)
    if any(one >= other for one, other in pairwise(places)):
        raise Refused("E_JSON", "an image counts its blobs out of order, or one of them twice", where=where)
    try:
        reference = Reference.parse(name).tagged() if name is not None else None
    except Refused as error:
        raise error.within(where) from None
    digest, image_id = (
        parse_digest(text, where) if text is not None else None for text in (found["digest"], found["image_id"])
    )
    own = tuple(blobs[place] for place in places)
    return ListedImage(reference, digest, image_id, found["complete"], found.get("platform"), own)


# --- taking stock


Have = Callable[[Part], bool]
"""Whether the content of a part is there, whole and of the size that its descriptor says."""


def take_stock(
    catalogs: Iterable[Catalog],
    where: str,
    have: Have,
    *,
    diff_id_of: Callable[[Digest, Digest], Digest | None] | None = None,
    label: str = "",
    library: Library | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Listing:
    """List what the images of ``catalogs`` consist of, as far as ``have`` says that it is there.

    What no image needs is not listed: it may be deleted at any time. ``diff_id_of`` proves diff IDs where that can be
    done; else what the configs claim is listed. Raises what damaged documents of an archive raise.
    """
    blobs: dict[Digest, ListedBlob] = {}
    images: list[ListedImage] = []
    for catalog in catalogs:
        candidates, lost = grow_candidates([catalog], EmptyInventory(), limits)
        for candidate in candidates:
            own: list[Digest] = []
            complete = candidate.node.fault is None
            for part in parts_of(candidate.node):
                digest = part.descriptor.digest
                if not digest.supported or not have(part):
                    complete = False
                    continue
                own.append(digest)
                # Somebody may carry another's manifest about as a file; that it is one is what counts.
                known = blobs.get(digest)
                if known is None or (known.diff_id is None and known.kind not in ("manifest", "index")):
                    proved = part.diff_id
                    if proved is not None and diff_id_of is not None:
                        proved = diff_id_of(digest, proved)
                    media_type = part.descriptor.media_type if part.kind == "layer" else ""
                    blobs[digest] = ListedBlob(digest, part.descriptor.size, part.kind, proved, media_type)
            said = catalog.thin.image(candidate.node.descriptor.digest) if catalog.thin is not None else None
            if said is not None and catalog.thin is not None and candidate.node.absent:
                own += _left_at_home(said, catalog.thin, have, blobs)
                complete = len(set(own)) == len({*said.requires, said.digest})
            images += _named(candidate.root, candidate.node, complete, tuple(dict.fromkeys(own)), said)
        images += [image for root, _ in lost for image in _lost(root, catalog, blobs)]
    return Listing(where, blobs.values(), images, label=label, library=library)


def _left_at_home(said: ThinImage, thin: ThinRecord, have: Have, blobs: dict[Digest, ListedBlob]) -> Iterator[Digest]:
    """The blobs of an image that a thin archive leaves out altogether, of those that are there after all."""
    for digest in said.requires:
        one = thin.requires[digest]
        if digest.supported and have(Part(one.descriptor, one.kind, Node(one.descriptor, absent=True), one.diff_id)):
            media_type = one.descriptor.media_type if one.kind == "layer" else ""
            blobs.setdefault(digest, ListedBlob(digest, one.descriptor.size, one.kind, one.diff_id, media_type))
            yield digest


def _named(
    root: Root, node: Node, complete: bool, own: tuple[Digest, ...], said: ThinImage | None
) -> Iterator[ListedImage]:
    image_id = node.manifest.config.digest if node.is_image and node.manifest is not None else None
    platform = platform_of(node) if node.is_image else None
    if said is not None and node.absent:
        image_id, platform = said.image_id, said.platform
    text = str(platform) if platform is not None else None
    for name in root.references or (None,):
        yield ListedImage(name, node.descriptor.digest, image_id, complete, text, own)


def _lost(root: Root, catalog: Catalog, blobs: dict[Digest, ListedBlob]) -> Iterator[ListedImage]:
    """An image of a docker archive that lacks layers: what there is of it is listed all the same."""
    draft = root.draft
    own: list[Digest] = []
    if draft is not None:
        blobs.setdefault(draft.config.digest, ListedBlob(draft.config.digest, draft.config.size, "config"))
        own.append(draft.config.digest)
        for slot in draft.slots:
            layer = slot.layer
            if layer is not None and catalog.offers.get(layer.digest) == layer.size:
                blobs.setdefault(
                    layer.digest, ListedBlob(layer.digest, layer.size, "layer", slot.diff_id, layer.media_type)
                )
                own.append(layer.digest)
    image_id = draft.config.digest if draft is not None else None
    for name in root.references or ((None,) if image_id is not None else ()):
        yield ListedImage(name, None, image_id, False, None, tuple(dict.fromkeys(own)))
