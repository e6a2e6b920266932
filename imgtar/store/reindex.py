"""Making ``index.json`` and the marks of a store readable again. Nothing is deleted: what is wrong is set aside."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from imgtar.blob.files import is_damage, read_small, sync_directory, there
from imgtar.errors import Conflict, ImgtarError, Refused, StoreTrouble, local_trouble
from imgtar.frozen import frozen
from imgtar.graph.candidates import judged
from imgtar.graph.walk import Walker
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_layout, pretended
from imgtar.model.limits import DEFAULT_LIMITS
from imgtar.store.entry import STORE_LIMITS, Entry, parse_entries
from imgtar.store.inventory import StoreInventory, is_object
from imgtar.store.layout import Layout
from imgtar.store.rescue import needed, set_aside

__all__ = ["Mended", "is_document", "mend_index", "mend_marks", "unnamed_roots"]

_FLIPPED = 8
"""So many bytes of an index may differ from its copy and still be called damage, not another tool's work."""


@frozen
class Mended:
    """What became of ``index.json``: ``whole``, ``restored`` from the kept copy, or ``rebuilt`` from the blobs.

    ``set_aside`` is where the old one is now, relative to the store. ``found`` counts images that nothing named, and
    that are there without a name now.
    """

    state: str
    reason: str = ""
    set_aside: str = ""
    found: int = 0


def mend_marks(layout: Layout, *, dry_run: bool) -> list[str]:
    """Write the version marker and ``oci-layout`` anew where they are damaged or missing; return which.

    Call with the index lock. Raises :class:`StoreTrouble` (``E_VERSION``) for the store of a newer imgtar, as ever.
    """
    wrong = []
    marker, mark = layout.version_path, layout.mark_path
    try:
        parse_layout(_read(mark) or b"", "oci-layout")
    except Refused:
        wrong.append(mark)
    said = _read(marker)
    # A layout made by another tool has no version; it gets one when it is written to.
    if not (said or b"").strip().isdigit() and there(marker):
        wrong.append(marker)
    if not dry_run:
        for path in wrong:
            if there(path):
                set_aside(layout, path)
        layout.write_marks()
        for folder in (layout.corner, layout.path):
            sync_directory(folder)
    return [os.path.relpath(path, layout.path) for path in wrong]


def mend_index(layout: Layout, *, dry_run: bool) -> tuple[Mended, list[Entry]]:
    """Make ``index.json`` readable again, and return what was done and its entries. Call with the index lock.

    From the kept copy if that is good; else from what can be read of it, and from the documents among the blobs, which
    know no names. Images that neither names are taken in without a name, so that no prune takes them for nobody's. An
    index that can be read stays, unless a few flipped bytes are what tells it from its copy, and the copy is right.
    Raises :class:`LocalTrouble` when the reason is a right that is lacking, or this machine, and not damage.
    """
    raw, good, unread = _copy(layout)
    kept = _entries(raw)
    try:
        entries = layout.read_index()
        better = _without_flips(layout, entries, raw if good else b"")
        if better is None:
            if not good and not dry_run:
                _put_aside(layout, layout.kept_path)
                layout.keep(layout.raw_index)
            return Mended("whole"), entries
        reason, chosen, state = "a flipped bit", better, "restored"
    except StoreTrouble as error:
        if unread is not None:
            # It may be the last that knows the names, and the next reading may succeed.
            trouble = local_trouble(unread, "reading the copy of the index, which is needed")
            trouble.hint = (
                f"try again; if it cannot be read any more, move {layout.kept_path} away: then names are lost"
            )
            raise trouble from None
        reason, state = error.message, "restored" if good else "rebuilt"
        chosen = list(kept) if good else [entry for entry in kept if _leads_somewhere(layout, [entry])]
    reached = needed(layout, chosen)
    found = [entry for entry in unnamed_roots(layout) if entry.descriptor.digest not in reached]
    chosen += found
    aside = ""
    if not dry_run:
        moved = _put_aside(layout, layout.index_path)
        aside = os.path.relpath(moved, layout.path) if moved else ""
        if not good:
            _put_aside(layout, layout.kept_path)
        if not layout.write_index(chosen, like=raw if kept else None):
            raise Conflict(
                "another program has made a new index while this one was mended",
                where=layout.index_path,
                hint=f"look at it, move it away, and run imgtar repair again: the names are in {layout.kept_path}",
            )
    return Mended(state, reason, aside, len(found)), chosen


def _read(path: str) -> bytes | None:
    """The beginning of a file; ``None`` when it is missing or damaged, or is something else. Raises for a lacking right."""
    try:
        return read_small(path, 1 << 16)
    except FileNotFoundError:
        return None
    except Refused:
        return None
    except OSError as error:
        if not is_damage(error):
            raise local_trouble(error, "reading the store") from None
        return None


def _copy(layout: Layout) -> tuple[bytes, bool, OSError | None]:
    """What the kept copy says, whether its digest is right, and why the disk did not give it if that is so."""
    try:
        head, _, raw = read_small(layout.kept_path, STORE_LIMITS.document + 100).partition(b"\n")
    except (FileNotFoundError, Refused):
        return b"", False, None
    except OSError as error:
        if not is_damage(error):
            raise local_trouble(error, "reading the copy of the index") from None
        return b"", False, error if error.errno != errno.EINVAL else None  # EINVAL: it is no file at all.
    return raw, head.decode("ascii", "replace") == str(Digest.of(raw)) and bool(raw), None


def _put_aside(layout: Layout, path: str) -> str:
    return set_aside(layout, path) if there(path) else ""


def _entries(raw: bytes) -> list[Entry]:
    try:
        return parse_entries(raw) if raw else []
    except Refused:
        return []


def _leads_somewhere(layout: Layout, entries: Sequence[Entry]) -> bool:
    library = StoreInventory(layout, [], forgiving=True).library
    try:
        return not any(Walker(library, STORE_LIMITS).grow(entry.descriptor).absent for entry in entries)
    except ImgtarError:
        return False


def _without_flips(layout: Layout, entries: list[Entry], copy: bytes) -> list[Entry] | None:
    """The entries of the copy, if nothing but a few bytes tells it from the index, and these lead the index astray."""
    raw = layout.raw_index
    if raw == copy or len(raw) != len(copy):
        return None
    if sum(one != other for one, other in zip(raw, copy, strict=True)) > _FLIPPED:
        return None
    kept = _entries(copy)
    changed = [entry for entry in entries if entry not in kept]
    before = [entry for entry in kept if entry not in entries]
    astray = bool(changed) and not any(_leads_somewhere(layout, [entry]) for entry in changed)
    return kept if astray and _leads_somewhere(layout, before) else None


def unnamed_roots(layout: Layout) -> Iterator[Entry]:
    """An entry without a name for every manifest and index among the blobs that no index there names."""
    inventory = StoreInventory(layout, [], forgiving=True)
    documents: dict[Digest, Descriptor] = {}
    below: set[Digest] = set()
    for digest, size in sorted(layout.stored_blobs()):
        raw = inventory.document(digest, DEFAULT_LIMITS.document) if is_object(layout.blob_path(digest)) else None
        media_type = pretended(raw) if raw is not None else None
        if raw is None or media_type is None:
            continue
        documents[digest] = Descriptor(media_type, digest, size)
        # One that is objected to hides nothing: what it lists may be somebody else's.
        if mediatype.is_index(media_type):
            node = judged(documents[digest], inventory.library, inventory, STORE_LIMITS)
            below |= {child.descriptor.digest for child in node.children}
    for digest, descriptor in documents.items():
        if digest not in below:
            yield Entry.make(descriptor, None, None)


def is_document(path: str) -> bool:
    """Whether a file holds a manifest or an index."""
    try:
        return is_object(path) and pretended(read_small(path, DEFAULT_LIMITS.document)) is not None
    except (OSError, Refused):
        return False
