"""Bringing a damaged store back into shape. Nothing is ever deleted here: what is wrong is renamed, into ``imgtar/damaged/``.

What is set aside keeps its path below that folder, with a number behind it where the place is taken. It may be all that
is left of something, so nobody but a person removes it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from imgtar.blob.files import is_damage, opened, sync_directory, there
from imgtar.blob.measure import Measure, measure
from imgtar.blob.workers import Checkpoint, each
from imgtar.errors import LocalTrouble, Refused, local_trouble
from imgtar.events import Event, Report
from imgtar.frozen import field, frozen, record
from imgtar.graph.candidates import judged
from imgtar.graph.walk import parts_of
from imgtar.model.digest import Digest
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.held import HeldCache
from imgtar.store.inventory import StoreInventory
from imgtar.store.layout import Layout
from imgtar.store.reach import reach
from imgtar.store.rights import make_folders

__all__ = [
    "Examination",
    "Misfit",
    "bring_home",
    "examine_blobs",
    "make_way",
    "needed",
    "put_aside",
    "set_aside",
    "strays",
]


_UNREAD = "cannot be read"


@frozen
class Misfit:
    """A file in ``blobs/`` that is not what its name says. ``digest`` is its name, ``actual`` what its content is.

    ``digest`` is ``None`` for a name that is none, ``actual`` for content that cannot be read.
    """

    path: str
    digest: Digest | None
    actual: Digest | None
    reason: str
    look: str


@record
class Examination:
    """Every file in ``blobs/``: those that are what they should be, with their sizes, and the others.

    ``renewed`` counts the notes of good ones that said something false.
    """

    sound: dict[Digest, int] = field(default_factory=dict)
    misfits: list[Misfit] = field(default_factory=list)
    size: int = 0
    renewed: int = 0


def examine_blobs(layout: Layout, jobs: int, report: Report, *, note: bool) -> Examination:
    """Read every file in ``blobs/``, and what was set aside or found by a repair of the file system.

    One that is damaged is a misfit; it does not end the examination. Raises :class:`LocalTrouble` for one that may not
    be read. ``note``: remember what was found good.
    """
    found = Examination()
    named = sorted(layout.stored_blobs(), key=lambda pair: -pair[1])
    found.size = sum(size for _, size in named)
    report(Event("start", "checking blobs", total=found.size))
    mutex = threading.Lock()
    inventory = StoreInventory(layout, [])
    cache = inventory.cache

    def look_at(item: tuple[str, Digest | None], checkpoint: Checkpoint) -> None:
        path, digest = item
        checkpoint()

        def advance(count: int) -> None:
            checkpoint()
            report(Event("advance", count=count))

        look = ""
        measured: Measure | None = None
        try:
            status = os.lstat(path)
            look = HeldCache.look_of(status)
            known = cache.get(digest) if note and digest is not None else None
            # A diff ID that is noted is measured, whatever that costs: nobody else would find out that it is wrong.
            diff = known is not None and known.look == look and known.diff_id is not None
            try:
                measured, reason = _measured(path, digest, status, advance, diff=diff)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # What is read the second time is no damage.
                measured, reason = _measured(path, digest, status, advance, diff=diff)
        except FileNotFoundError:
            return  # Another tool has cleaned up behind itself.
        except OSError as error:
            if not is_damage(error):
                raise local_trouble(error, f"reading {path}") from None
            reason = f"{_UNREAD}: {error.strerror}"
        with mutex:
            if measured is not None and measured.digest == digest:
                found.sound[digest] = measured.size
                if note and inventory.renew_note(digest, status, measured) is not None:
                    found.renewed += 1
            else:
                actual = measured.digest if measured is not None else None
                found.misfits.append(Misfit(path, digest, actual, reason, look))

    items: list[tuple[str, Digest | None]] = [(layout.blob_path(digest), digest) for digest, _ in named]
    elsewhere = (os.path.join(layout.damaged, "blobs"), os.path.join(layout.path, "lost+found"))
    aside = [path for folder in elsewhere for path in _files(folder)]
    each(look_at, [*items, *((path, None) for path in (*strays(layout), *aside))], jobs)
    report(Event("end"))
    found.misfits.sort(key=lambda misfit: misfit.path)
    unread = sum(misfit.reason.startswith(_UNREAD) for misfit in found.misfits)
    if unread > max(1, len(found.sound)):
        message = f"{unread} files cannot be read, {len(found.sound)} can: that is the disk, and nothing was moved"
        raise LocalTrouble(
            message, where=layout.path, hint="look into dmesg; copy the store to a sound disk, then repair"
        )
    return found


def _measured(
    path: str, digest: Digest | None, status: os.stat_result, advance: Callable[[int], object], *, diff: bool
) -> tuple[Measure | None, str]:
    if not stat.S_ISREG(status.st_mode):
        return None, "is no regular file"
    algorithm = digest.algorithm if digest is not None else "sha256"
    try:
        with opened(path, status.st_size, path) as content:
            measured = measure(
                content, where=path, algorithm=algorithm, diff=diff, limits=STORE_LIMITS, progress=advance
            )
    except Refused as error:
        return None, error.message
    if digest is None:
        return measured, "its name is no digest"
    return measured, f"has the digest {measured.digest}"


def _files(folder: str) -> list[str]:
    """Every file below a folder of the store. A link to a folder elsewhere is none: nothing there is ours to move."""
    if os.path.islink(folder):
        return []
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)


def strays(layout: Layout) -> list[str]:
    """The paths of files in ``blobs/`` whose place or name is not that of a blob."""
    blobs = {layout.blob_path(digest) for digest, _ in layout.stored_blobs()}
    found: list[str] = []
    if os.path.islink(layout.blobs):
        return found
    for folder, folders, files in os.walk(layout.blobs):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in blobs]
        found += [path for name in files if (path := os.path.join(folder, name)) not in blobs]
    return sorted(found)


def needed(layout: Layout, entries: Iterable[Entry]) -> set[Digest]:
    """Every digest that the images of the store are made of, as far as their documents are there to tell."""
    inventory = StoreInventory(layout, [], forgiving=True)
    digests: set[Digest] = set()
    for entry in entries:
        digests.add(entry.digest)
        node = judged(entry.descriptor, inventory.library, inventory, STORE_LIMITS)
        if node.fault is not None:
            digests |= reach(inventory, entry.digest)[0]  # The verdict at the end tells of it.
        else:
            digests |= {part.descriptor.digest for part in parts_of(node)}
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
        if there(target):
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
        sync_directory(os.path.join(layout.path, "blobs"))
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
        return not misfit.look or HeldCache.look_of(os.lstat(misfit.path)) == misfit.look
    except FileNotFoundError:
        return False


def make_way(layout: Layout, *, dry_run: bool) -> list[tuple[str, str, str]]:
    """Rename what stands in the place of something of the store, before anything else is done.

    Returns the old path of each, the new one, and what is wrong. A link to a folder is no folder: what it leads to is not
    the store's. But one in the place of ``blobs``, or of a folder there, stays, and is refused (see
    :meth:`Layout.check_folders`): whoever made it may have moved the blobs to where it leads.
    """
    moved: list[tuple[str, str, str]] = []
    strange: list[str] = []
    for path, is_own, reason in _own_places(layout):
        if any(path.startswith(os.path.join(above, "")) for above in strange):
            continue  # That would be behind a link: in a dry run, or in what the blobs were moved to.
        try:
            # A disk that cannot tell is an error: what is sound must not be moved away.
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_own(mode):
            continue
        strange.append(path)
        if path in layout.blob_folders and _leads_to_a_folder(path):
            continue
        count, target = 0, f"{path}.damaged"
        while there(target):
            count += 1
            target = f"{path}.damaged.{count}"
        if not dry_run:
            os.rename(path, target)
            sync_directory(os.path.dirname(path))
        moved.append((path, target, reason))
    return moved


def _own_places(layout: Layout) -> Iterator[tuple[str, Callable[[int], bool], str]]:
    """Every place where something of the store's own belongs, from the top down, with what kind of thing that is.

    But for what is said to be damaged anyway when it is no file: the index, its copy and the marks.
    """
    caches = [os.path.join(layout.corner, name) for name in ("held", "layers")]
    aside = [layout.damaged, *(os.path.join(layout.damaged, name) for name in ("imgtar", "blobs"))]
    folders = [layout.corner, *layout.blob_folders, layout.staging, *caches, *aside]
    folders += [os.path.join(place, name) for place in (*caches, aside[-1]) for name in ("sha256", "sha512")]
    for folder in folders:
        yield folder, stat.S_ISDIR, "stood where a folder belongs"
    for lock in (layout.index_lock, layout.blobs_lock, layout.gate_lock):
        yield lock, stat.S_ISREG, "stood where a lock file belongs"
    for name in ("images", "roots"):
        yield os.path.join(layout.corner, name), stat.S_ISREG, "stood where a cache belongs"
    for path in (layout.index_path, layout.kept_path, layout.version_path, layout.mark_path):
        new = os.path.join(layout.corner, f"{os.path.basename(path)}.new")
        # Anything but a folder is replaced when its time comes.
        yield new, lambda mode: not stat.S_ISDIR(mode), "stood where a new file is written"


def _leads_to_a_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False  # A link to nowhere.


def set_aside(layout: Layout, path: str) -> str:
    """Rename ``path`` into ``imgtar/damaged/``; return where it is now. Durable."""
    below = os.path.relpath(path, layout.path)
    target = place = os.path.join(layout.damaged, below)
    make_folders(os.path.dirname(target))
    folder = os.path.dirname(target)
    while folder != layout.path:
        folder = os.path.dirname(folder)
        sync_directory(folder)  # The folders on the way may be new.
    count = 0
    while there(target):
        count += 1
        target = f"{place}.{count}"
    os.rename(path, target)
    for folder in (os.path.dirname(target), os.path.dirname(path)):
        sync_directory(folder)
    return target
