"""From what the user wrote after ``--base``, ``--for``, ``--against`` and ``--of`` to something that can be asked what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imgtar.blob.files import inside
from imgtar.errors import ImgtarError, NotFound, UsageError
from imgtar.events import Event, Report, silent
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog
from imgtar.graph.inventory import EmptyInventory, Inventory
from imgtar.graph.listing import Listing, take_stock
from imgtar.graph.walk import Part
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ops.choose import choose
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.inventory import StoreInventory
from imgtar.store.store import Store
from imgtar.text import printable, shown
from imgtar.transport.check import Check
from imgtar.transport.inventory_file import is_inventory, read_inventory
from imgtar.transport.location import is_layout, medium_paths, open_archive

__all__ = [
    "STORE",
    "opened_inventory",
    "opened_listing",
    "refuse_to_replace",
    "stock_of_archive",
    "stock_of_store",
]

STORE = "store"
"""The word for the store of this run, where no file has that name."""

_ARCHIVE_KINDS = ("docker-archive:", "oci-archive:", "oci:")
_NOT_YET = ("docker-daemon:", "containerd:", "podman:", "docker://")


def _kind(where: str) -> str:
    """What ``where`` is: ``store`` (this run's), ``folder`` (another store), ``inventory``, ``archive`` or ``image``."""
    for kind in _NOT_YET:
        if where.startswith(kind):
            raise UsageError(
                f"{shown(where)} is an engine or a registry, which imgtar cannot ask yet",
                hint="make an inventory of what it holds: docker save it there and imgtar inventory --of ARCHIVE",
            )
    if os.path.isdir(where):
        if os.path.isfile(os.path.join(where, "imgtar", "version")):
            return "folder"
        if not is_layout(where) and os.sep not in where and where not in (".", ".."):
            return "store" if where == STORE else "image"  # A folder that only happens to be called like one.
        if not is_layout(where):
            raise UsageError(
                f"{shown(where)} is a folder, but neither a store nor an image layout", hint="name one archive in it"
            )
        return "archive"
    if os.path.lexists(where):
        return "inventory" if is_inventory(where) else "archive"
    if where == STORE:
        return "store"
    if where == "-" or where.startswith(("/", "./", "../")):
        return "archive"
    return "image"


def _bare(where: str) -> str:
    """Without the kind that people of skopeo put before a path; ``oci:1`` may also be an image called oci."""
    for kind in _ARCHIVE_KINDS:
        if where.startswith(kind) and os.path.lexists(where.removeprefix(kind)):
            return where.removeprefix(kind)
    return where


def refuse_to_replace(target: str, inputs: Sequence[str], store: Store) -> None:
    """Raise :class:`UsageError` when a file written to ``target`` would take the place of what is read, or of a store's file."""
    store.refuse_as_target(target)
    if not os.path.isfile(target) or os.path.islink(target):
        return  # Nothing is lost there: a link is replaced, not followed.
    for where in map(_bare, inputs):
        if not os.path.exists(where) or _is_name(where):
            continue  # An image of the store, standard input, or something that will not be found.
        if os.path.isdir(where) and (is_layout(where) or os.path.isdir(os.path.join(where, "blobs"))):
            destroyed = inside(target, (place for place, _, _ in os.walk(where)))
        else:
            files = medium_paths(where)[0] if os.path.isdir(where) else [where]
            destroyed = any(os.path.exists(file) and os.path.samefile(file, target) for file in files)
        if destroyed:
            raise UsageError(
                f"{shown(target)} is what would be read: writing it would destroy it", hint="write to another file"
            )


def _is_name(where: str) -> bool:
    """Whether it names the store or an image, though there is a file or folder of that name too."""
    try:
        return _kind(where) in ("image", "store")
    except ImgtarError:
        return False  # A folder of archives, which verify takes.


@contextmanager
def opened_inventory(
    where: str, store: Store, *, report: Report = silent, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Inventory]:
    """What ``where`` holds, to be asked: the store (or another one's folder) itself, or a list of anything else.

    A store that does not exist yet holds nothing. Raises what opening and reading raise.
    """
    kind = _kind(_bare(where))
    if kind in ("store", "folder"):
        other = store if kind == "store" else Store(where, report=report, lock_timeout=store.lock_timeout)
        if not other.layout.exists:
            yield EmptyInventory()
            return
        with other.reading() as inventory:
            yield inventory
        return
    with opened_listing(where, store, report=report, limits=limits) as listing:
        yield listing


@contextmanager
def opened_listing(
    where: str, store: Store, *, loaded: bool = False, report: Report = silent, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Listing]:
    """What ``where`` holds, as a list; its documents can be read inside the block.

    ``loaded``: who is meant has loaded that archive, and so has what a thin one leaves out.
    """
    bare = _bare(where)
    kind = _kind(bare)
    if kind == "inventory":
        yield read_inventory(bare, limits)
    elif kind == "archive":
        source = open_archive(bare, limits=limits)
        try:
            yield stock_of_archive(source.survey(Check(report=report, limits=limits)), loaded=loaded, limits=limits)
        finally:
            source.close()
    else:
        other = Store(bare, report=report, lock_timeout=store.lock_timeout) if kind == "folder" else store
        if kind == "image":
            _image_there(bare, store)
        elif not other.layout.exists:
            report(Event("notice", f"there is no store at {printable(other.label)} yet: it holds nothing"))
            yield Listing("store", (), (), label=other.label)
            return
        with other.reading() as inventory:
            yield stock_of_store(other, inventory, [bare] if kind == "image" else ())


def _image_there(name: str, store: Store) -> None:
    """Raise :class:`NotFound` for what is neither a path nor the name of an image in the store."""
    try:
        if store.layout.exists:
            with store.reading() as inventory:
                choose(store, inventory, [name])
            return
        lack = "there is no store yet"
    except (NotFound, UsageError) as error:
        if isinstance(error, UsageError) and "more than one" in error.message:
            raise
        lack = "no image of the store has that name"
    raise NotFound(f"{shown(name)} is no file, and {lack}", hint="check the path; imgtar images lists the store")


def stock_of_archive(catalog: Catalog, *, loaded: bool = False, limits: Limits = DEFAULT_LIMITS) -> Listing:
    """List what an archive carries, as far as its images need it. Layers are believed to be what they are called."""

    def have(part: Part) -> bool:
        descriptor = part.descriptor
        if catalog.offers.get(descriptor.digest) == descriptor.size or descriptor.data is not None:
            return True
        if part.kind not in ("layer", "blob") and catalog.library.raw(descriptor, cap=limits.config) is not None:
            return True
        return loaded and catalog.thin is not None and descriptor.digest in catalog.thin.requires

    return take_stock([catalog], "archive", have, label=catalog.label, library=catalog.library, limits=limits)


def stock_of_store(store: Store, inventory: StoreInventory, names: Sequence[str] = ()) -> Listing:
    """List what a store holds: what was verified since it last changed. With ``names``, only those images."""
    if names:
        catalog, _, chosen = choose(store, inventory, names)
        catalog = replace(catalog, roots=tuple(one.root for one in chosen))
    else:
        catalog = store.source(inventory).survey(Check())

    def have(part: Part) -> bool:
        holding = inventory.holding(part.descriptor.digest)
        return holding is not None and holding.sound and holding.size == part.descriptor.size

    return take_stock(
        [catalog],
        "store",
        have,
        diff_id_of=inventory.diff_id_of,
        label=", ".join(names) or store.label,
        library=inventory.library,
        limits=STORE_LIMITS,
    )
