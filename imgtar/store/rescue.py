"""Bringing a damaged store back into shape. Nothing is ever deleted here: what is wrong is renamed, into ``imgtar/damaged/``.

What is set aside keeps its path below that folder, with a number behind it where the place is taken. It may be all that
is left of something, so nobody but a person removes it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from imgtar.blob.files import opened, read_small, sync_directory
from imgtar.blob.measure import Measure, measure
from imgtar.blob.workers import Checkpoint, each
from imgtar.errors import ImgtarError, Refused, StoreTrouble
from imgtar.events import Event, Report
from imgtar.graph.walk import Walker, parts_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_index, parse_layout, pretended
from imgtar.store.held import HeldCache
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import STORE_LIMITS, Entry, Layout, parse_entries
from imgtar.store.rights import make_folders

__all__ = [
    "Examination",
    "Mended",
    "Misfit",
    "examine_blobs",
    "mend_index",
    "mend_marks",
    "needed",
    "put_aside",
    "strays",
]


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of ``index.json``: ``whole``, ``restored`` from the kept copy, or ``rebuilt`` from the blobs."""

    state: str
    reason: str = ""
    set_aside: str = ""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A file in ``blobs/`` that is not what its name says. ``digest`` is its name, ``actual`` what its content is.

    ``digest`` is ``None`` for a name that is none, ``actual`` for content that cannot be read.
    """

    path: str
    digest: Digest | None
    actual: Digest | None
    reason: str
    look: str


@dataclass(slots=True)
class Examination:
    """Every file in ``blobs/``: those that are what they should be, with their sizes, and the others."""

    sound: dict[Digest, int] = field(default_factory=dict)
    misfits: list[Misfit] = field(default_factory=list)
    size: int = 0


def mend_marks(layout: Layout, *, dry_run: bool) -> list[str]:
    """Write the version marker and ``oci-layout`` anew where they are damaged or missing; return which.

    Call with the index lock. Raises :class:`StoreTrouble` (``E_VERSION``) for the store of a newer imgtar, as ever.
    """
    wrong = []
    marker, mark = layout.version_path, layout.mark_path
    try:
        parse_layout(read_small(mark, 1 << 16), "oci-layout")
    except (OSError, Refused):
        wrong.append(mark)
    try:
        if not read_small(marker, 20).strip().isdigit():
            wrong.append(marker)
    except FileNotFoundError:
        pass  # A layout made by another tool has none; it gets one when it is written to.
    except (OSError, Refused):
        wrong.append(marker)
    if not dry_run:
        for path in wrong:
            if os.path.lexists(path):
                set_aside(layout, path)
        layout.write_marks()
    return [os.path.relpath(path, layout.path) for path in wrong]


def mend_index(layout: Layout, *, dry_run: bool) -> tuple[Mended, list[Entry]]:
    """Make ``index.json`` readable again, and return what was done and its entries. Call with the index lock.

    From the kept copy if that is good; else from the documents among the blobs, which know no names. An index that can
    be read stays, unless it names what is nowhere while the copy does not: a flipped bit leaves JSON what it is.
    """
    copy = layout.read_kept()
    kept = _entries(copy) if copy is not None else None
    chosen: list[Entry] | None
    try:
        entries = layout.read_index()
        better = _without_flips(layout, entries, kept or [])
        if better == entries:
            return Mended("whole"), entries
        reason, chosen, state = "it names what is nowhere, its copy does not", better, "restored"
    except StoreTrouble as error:
        reason, chosen, state = error.message, kept, "restored"
    if chosen is None:
        chosen, state = list(_roots_among_blobs(layout)), "rebuilt"
    aside = ""
    if not dry_run:
        if os.path.lexists(layout.index_path):
            aside = set_aside(layout, layout.index_path)
        layout.write_index(chosen)
    return Mended(state, reason, aside), chosen


def _entries(raw: bytes) -> list[Entry] | None:
    try:
        return parse_entries(raw)
    except Refused:
        return None


def _without_flips(layout: Layout, entries: list[Entry], kept: list[Entry]) -> list[Entry]:
    """``entries``, and instead of those that lead nowhere the ones of the copy that are not among them, if they do not."""
    if entries == kept or len(entries) != len(kept):
        return entries
    walker = Walker(StoreInventory(layout, []).library, STORE_LIMITS)

    def leads_somewhere(entry: Entry) -> bool:
        try:
            return not walker.grow(entry.descriptor).absent
        except ImgtarError:
            return False

    changed = [entry for entry in entries if entry not in kept and not leads_somewhere(entry)]
    before = [entry for entry in kept if entry not in entries and leads_somewhere(entry)]
    return [*(entry for entry in entries if entry not in changed), *before] if len(changed) == len(before) else entries


def _roots_among_blobs(layout: Layout) -> Iterator[Entry]:
    """An entry without a name for every manifest and index among the blobs that no index names."""
    inventory = StoreInventory(layout, [])
    documents: dict[Digest, Descriptor] = {}
    below: set[Digest] = set()
    for digest, size in sorted(layout.stored_blobs()):
        raw = inventory.document(digest) if digest.supported else None
        media_type = pretended(raw) if raw is not None else None
        if raw is None or media_type is None:
            continue
        documents[digest] = Descriptor(media_type, digest, size)
        if mediatype.is_index(media_type):
            try:
                below |= {child.digest for child in parse_index(raw, media_type, str(digest)).manifests}
            except Refused:
                continue
    for digest, descriptor in documents.items():
        if digest not in below:
            yield Entry.make(descriptor, None, None)


def examine_blobs(layout: Layout, jobs: int, report: Report) -> Examination:
    """Read every file in ``blobs/``. One that cannot be read is a misfit too; it does not end the examination."""
    found = Examination()
    named = sorted(layout.stored_blobs(), key=lambda pair: -pair[1])
    found.size = sum(size for _, size in named)
    report(Event("start", "checking blobs", total=found.size))
    mutex = threading.Lock()
    cache = HeldCache(layout.corner)

    def look_at(item: tuple[str, Digest | None], checkpoint: Checkpoint) -> None:
        path, digest = item
        checkpoint()

        def advance(count: int) -> None:
            checkpoint()
            report(Event("advance", count=count))

        status = os.lstat(path)
        measured, reason = _measured(path, digest, status, advance)
        with mutex:
            if measured is not None and measured.digest == digest:
                found.sound[digest] = measured.size
                known = cache.get(digest)
                kept = known.diff_id if known is not None and known.look == HeldCache.look_of(status) else None
                cache.note(digest, status, kept)
            else:
                actual = measured.digest if measured is not None else None
                found.misfits.append(Misfit(path, digest, actual, reason, HeldCache.look_of(status)))

    items: list[tuple[str, Digest | None]] = [(layout.blob_path(digest), digest) for digest, _ in named]
    each(look_at, [*items, *((path, None) for path in strays(layout))], jobs)
    report(Event("end"))
    found.misfits.sort(key=lambda misfit: misfit.path)
    return found


def _measured(
    path: str, digest: Digest | None, status: os.stat_result, advance: Callable[[int], object]
) -> tuple[Measure | None, str]:
    if not stat.S_ISREG(status.st_mode):
        return None, "is no regular file"
    algorithm = digest.algorithm if digest is not None else "sha256"
    try:
        with opened(path, status.st_size, path) as content:
            measured = measure(
                content, where=path, algorithm=algorithm, diff=False, limits=STORE_LIMITS, progress=advance
            )
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except Refused as error:
        return None, error.message
    if digest is None:
        return measured, "its name is no digest"
    return measured, f"has the digest {measured.digest}"


def strays(layout: Layout) -> list[str]:
    """The paths of files in ``blobs/`` whose place or name is not that of a blob."""
    base = os.path.join(layout.path, "blobs")
    blobs = {layout.blob_path(digest) for digest, _ in layout.stored_blobs()}
    found = []
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in blobs]
        found += [path for name in files if (path := os.path.join(folder, name)) not in blobs]
    return sorted(found)


def needed(layout: Layout, entries: Iterable[Entry]) -> set[Digest]:
    """Every digest that the images of the store are made of, as far as their documents are there to tell."""
    walker = Walker(StoreInventory(layout, []).library, STORE_LIMITS)
    digests: set[Digest] = set()
    for entry in entries:
        digests.add(entry.descriptor.digest)
        try:
            digests |= {part.descriptor.digest for part in parts_of(walker.grow(entry.descriptor))}
        except ImgtarError:
            continue  # It contradicts itself; the verdict at the end says so.
    return digests


def bring_home(
    layout: Layout, misfits: Sequence[Misfit], sound: Collection[Digest], wanted: Collection[Digest], *, dry_run: bool
) -> tuple[list[tuple[str, str]], list[Misfit]]:
    """Rename misfits whose content some image needs, and nobody has, to where that belongs; what lies there goes aside.

    Returns the old and the new path of everything that was renamed, and the other misfits. A file that changed since it
    was read is neither: another imgtar has put a good one there. Call while no one else uses blobs.
    """
    homes: dict[Digest, Misfit] = {}
    left: list[Misfit] = []
    for misfit in filter(_unchanged, misfits):
        home = misfit.actual
        if home is None or home not in wanted or home in sound or home in homes:
            left.append(misfit)
        else:
            homes[home] = misfit
    moves: list[tuple[str, str]] = []
    now = {misfit.path: misfit.path for misfit in homes.values()}
    for home, misfit in homes.items():
        target = layout.blob_path(home)
        moves.append((misfit.path, target))
        if dry_run:
            continue
        if os.path.lexists(target):
            # What lies there may be waiting for its own turn: two blobs may have changed places.
            aside = set_aside(layout, target)
            if target in now:
                now[target] = aside
            else:
                moves.append((target, aside))
                left = [one for one in left if one.path != target]
        make_folders(os.path.dirname(target))
        os.rename(now[misfit.path], target)
        for path in (target, misfit.path):
            sync_directory(os.path.dirname(path))
    return moves, left


def put_aside(layout: Layout, misfits: Sequence[Misfit], *, dry_run: bool) -> list[tuple[str, str]]:
    """Set every misfit aside that has the name of a blob; other files are somebody else's and stay."""
    return [
        (misfit.path, "" if dry_run else set_aside(layout, misfit.path))
        for misfit in misfits
        if misfit.digest is not None and _unchanged(misfit)
    ]


def _unchanged(misfit: Misfit) -> bool:
    try:
        return HeldCache.look_of(os.lstat(misfit.path)) == misfit.look
    except FileNotFoundError:
        return False


def set_aside(layout: Layout, path: str) -> str:
    """Rename ``path`` into ``imgtar/damaged/``; return where it is now. Durable."""
    below = os.path.relpath(path, layout.path)
    target = place = os.path.join(layout.corner, "damaged", below)
    make_folders(os.path.dirname(target))
    count = 0
    while os.path.lexists(target):
        count += 1
        target = f"{place}.{count}"
    os.rename(path, target)
    for folder in (os.path.dirname(target), os.path.dirname(path)):
        sync_directory(folder)
    return target
