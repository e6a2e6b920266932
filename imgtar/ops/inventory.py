"""Inventories: what a receiver holds as a list, and what changed between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgtar.events import Report, silent
from imgtar.frozen import frozen
from imgtar.graph.listing import ListedBlob, ListedImage, Listing
from imgtar.model.digest import Digest
from imgtar.ops.where import opened_listing, refuse_to_replace
from imgtar.store.store import Store
from imgtar.transport.inventory_file import write_inventory
from imgtar.transport.target import check_file_name

__all__ = ["Difference", "TagChange", "differ", "inventory_diff", "listing_json", "make_inventory"]


def make_inventory(
    where: str, store: Store, *, target: str | None = None, redact: bool = False, report: Report = silent
) -> Listing:
    """List what ``where`` holds, and write it to ``target`` if there is one.

    Of a store that counts which was verified since it last changed; what nobody has verified yet is read now. Raises
    what opening and reading ``where`` raises.
    """
    if target is not None:
        check_file_name(target)
        refuse_to_replace(target, [where], store)
    with opened_listing(where, store, report=report) as listing:
        done = listing.without_names() if redact else listing
    if target is not None:
        write_inventory(done, target)
    return done


def listing_json(listing: Listing) -> dict[str, Any]:
    """The body of ``imgtar.inventory/1`` as one document: the file's header and its lines."""
    head = {key: value for key, value in listing.header().items() if key != "schema"}
    blobs = [blob.to_json() for blob in listing.blobs.values()]
    return {**head, "blobs": blobs, "images": list(listing.image_lines())}


@frozen
class TagChange:
    """A name that means something else: digests before and after, ``None`` where it did not exist."""

    name: str
    before: ListedImage | None
    after: ListedImage | None

    def to_json(self) -> dict[str, Any]:
        """Its entry in the document."""
        return {"name": self.name, "from": _identity(self.before), "to": _identity(self.after)}


def _content(image: ListedImage) -> tuple[Digest | None, Digest | None]:
    return image.digest, image.image_id


def _identity(image: ListedImage | None) -> str | None:
    return str(image.image_id or image.digest) if image is not None else None


@frozen
class Difference:
    """What a second inventory holds more and less than a first one. Sizes in bytes."""

    before: Listing
    after: Listing
    added: tuple[ListedBlob, ...]
    removed: tuple[ListedBlob, ...]
    tags: tuple[TagChange, ...]
    completed: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        changed = self.added or self.removed or self.tags or self.completed or self.broken
        return not changed and self.before.root == self.after.root

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.inventory-diff/1``."""
        return {
            "same": self.same,
            "from": {"where": self.before.label, "root": str(self.before.root)},
            "to": {"where": self.after.label, "root": str(self.after.root)},
            "added": [blob.to_json() for blob in self.added],
            "removed": [blob.to_json() for blob in self.removed],
            "bytes_added": sum(blob.size for blob in self.added),
            "bytes_removed": sum(blob.size for blob in self.removed),
            "tags": [tag.to_json() for tag in self.tags],
            "completed": list(self.completed),
            "broken": list(self.broken),
        }


def differ(before: Listing, after: Listing) -> Difference:
    """Compare by digest. Names are compared only when neither list was made without them."""
    added = tuple(blob for digest, blob in after.blobs.items() if digest not in before.blobs)
    removed = tuple(blob for digest, blob in before.blobs.items() if digest not in after.blobs)
    tags: list[TagChange] = []
    if not before.redacted and not after.redacted:
        old, new = _by_name(before), _by_name(after)
        for name in sorted({*old, *new}):
            if set(map(_content, old.get(name, ()))) != set(map(_content, new.get(name, ()))):
                tags.append(TagChange(name, *(next(iter(side.get(name, ())), None) for side in (old, new))))
    was, now = _completeness(before), _completeness(after)
    completed = tuple(sorted(title for title, whole in now.items() if whole and was.get(title) is False))
    broken = tuple(sorted(title for title, whole in now.items() if not whole and was.get(title) is True))
    return Difference(before, after, added, removed, tuple(tags), completed, broken)


def _by_name(listing: Listing) -> Mapping[str, list[ListedImage]]:
    names: dict[str, list[ListedImage]] = {}
    for image in listing.images:  # One name may stand for several platforms.
        if image.name is not None:
            names.setdefault(image.name.familiar, []).append(image)
    return names


def _completeness(listing: Listing) -> dict[str, bool]:
    return {f"{image.title} ({image.digest})": image.complete for image in listing.images}


def inventory_diff(first: str, second: str, store: Store, *, report: Report = silent) -> Difference:
    """Open both and compare; each is an inventory file, an archive, a store or an image of it."""
    with (
        opened_listing(first, store, report=report) as before,
        opened_listing(second, store, report=report) as after,
    ):
        return differ(before, after)
