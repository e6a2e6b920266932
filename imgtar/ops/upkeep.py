"""Store upkeep: list, tag, remove, prune. Nothing here ever breaks an image that stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from imgtar.blob.files import sync_directory
from imgtar.errors import Conflict, ImgtarError, NotFound, StoreTrouble, UsageError
from imgtar.frozen import frozen, replace
from imgtar.graph.candidates import grow_candidates, judged
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.select import Candidate, matches_identity, subject_of
from imgtar.graph.walk import Node, images_of, nodes_of, parts_of
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference, parse_user_reference
from imgtar.ops.choose import choose, refuse_objected
from imgtar.store.collector import collector_paused
from imgtar.store.entry import STORE_LIMITS, Entry
from imgtar.store.inventory import StoreInventory
from imgtar.store.reach import reach
from imgtar.store.roots import RootCache
from imgtar.store.staging import sweep
from imgtar.store.store import Store
from imgtar.text import printable, shown
from imgtar.transport.check import Check

__all__ = ["Removal", "list_images", "prune", "remove", "tag"]


def list_images(store: Store, *, everything: bool = False) -> list[dict[str, Any]]:
    """Return one row for each name and platform: the ``images`` of ``imgtar.images/1``.

    Untagged images only with ``everything``. An image that cannot be read is listed with what is known.
    """
    if not store.layout.exists:
        return []
    with store.reading() as inventory, collector_paused():
        roots = RootCache(inventory)
        rows: list[dict[str, Any]] = []
        for entry in inventory.entries:
            if entry.name is None and not everything:
                continue
            name = entry.name.familiar if entry.name is not None else None
            row = {"name": name, "image_id": None, "digest": str(entry.digest), "platform": None}
            try:
                facts = roots.facts(entry)
            except ImgtarError as error:
                rows.append({**row, "created": None, "size": None, "problem": str(error)})
                continue
            if facts.absent:
                rows.append({**row, "created": None, "size": None, "problem": "its manifest is missing or damaged"})
            for image in facts.images:
                rows.append(
                    {
                        "name": name,
                        "image_id": image.image_id,
                        "digest": row["digest"],
                        "platform": image.platform,
                        "created": image.created,
                        "size": image.size,
                    }
                )
        roots.keep(inventory.entries)
        rows.sort(key=lambda row: (row["name"] is None, row["name"] or "", row["image_id"] or ""))
    return rows


def _candidates(inventory: StoreInventory, store: Store) -> list[Candidate]:
    with collector_paused():
        return grow_candidates([store.source(inventory).survey(Check())], EmptyInventory(), STORE_LIMITS)[0]


def tag(store: Store, source: str, target: str) -> dict[str, str | None]:
    """Give the image ``source`` (a name or an ID) the name ``target``, moving it from whatever had it.

    Returns ``{"name", "from", "to"}`` with IDs. Raises :class:`NotFound`, :class:`UsageError`.
    """
    name = parse_user_reference(target)
    if name.digest is not None:
        raise UsageError(f"{shown(target)} has a digest, a tag cannot", hint="write NAME:TAG")
    name = name.tagged()
    with store.reading() as inventory:
        _, candidates, chosen = choose(store, inventory, [source], lambda one: subject_of(one) is None)
        exact = [one for one in chosen if _default_tag(source) in one.root.references]
        chosen = exact or chosen
        if len(chosen) > 1:
            raise UsageError(f"{shown(source)} means {len(chosen)} images", hint="name one of its tags, or an ID")
        refuse_objected(chosen)
        root = chosen[0].root
        descriptor = chosen[0].node.descriptor
        before = inventory.tagged(name.full)
        after = inventory.tagged(root.references[0].full) if root.references else None

        def edit(entries: list[Entry]) -> list[Entry]:
            like = next((entry for entry in entries if entry.digest == descriptor.digest), None)
            inner = all(one.node.descriptor.digest != descriptor.digest for one in candidates)
            if like is None and not inner:
                raise Conflict(
                    f"{printable(source)} was removed by another process meanwhile", hint="look with imgtar images"
                )
            kept = [entry.renamed(None) if entry.name == name else entry for entry in entries]
            return [*kept, like.renamed(name) if like is not None else Entry.make(descriptor, name, None)]

        store.change(edit)
    image_id = next(
        (node.manifest.config.digest for node in images_of(chosen[0].node) if node.manifest), descriptor.digest
    )
    identity = after.identity if after is not None else image_id if chosen[0].node.index is None else descriptor.digest
    return {"name": name.familiar, "from": str(before.identity) if before else None, "to": str(identity)}


def _default_tag(text: str) -> Reference | None:
    try:
        return Reference.parse(text).tagged()
    except ImgtarError:
        return None


@frozen
class Removal:
    """What was, or would be, removed. Sizes in bytes."""

    untagged: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    blobs: int = 0
    size: int = 0
    kept_untagged: int = 0

    def to_json(self) -> dict[str, Any]:
        """The body of the ``rmi`` and ``prune`` documents."""
        return {
            "untagged": list(self.untagged),
            "deleted": list(self.images),
            "blobs_deleted": self.blobs,
            "bytes_freed": self.size,
        }


def remove(store: Store, names: Sequence[str], *, force: bool = False) -> Removal:
    """Take away names, and each image with its last name; then delete the blobs that nothing else needs.

    Raises :class:`NotFound`; :class:`Conflict` for an ID that has several names, or an image that another one names
    as its parent, unless ``force``.
    """
    with store.deleting(), collector_paused():
        inventory = store.inventory()
        dropped = _names_beside_others(inventory.entries, names)
        if dropped is not None:
            store.change(lambda entries: [one for one in entries if (one.digest, one.name) not in dropped])
            return Removal(tuple(dict.fromkeys(name.familiar for _, name in dropped)))
        candidates = _candidates(inventory, store)
        drop: set[tuple[Digest, Reference | None]] = set()
        gone: dict[Digest, Candidate] = {}
        untagged: list[str] = []
        for text in names:
            for one in _meant(candidates, text):
                digest = one.node.descriptor.digest
                full = next(each for each in candidates if each.node.descriptor.digest == digest)
                all_names = list(full.root.references)
                wanted = list(one.root.references)
                by_identity = not wanted
                if by_identity and _is_one_of_several(full, text) and not force:
                    raise Conflict(
                        f"{shown(text)} is one platform of {printable(full.root.title)}",
                        hint=f"remove {printable(full.root.title)} with all its platforms, or use -f",
                    )
                if by_identity and len(all_names) > 1 and not force:
                    listing = ", ".join(reference.familiar for reference in all_names)
                    raise Conflict(
                        f"{shown(text)} has several names: {listing}", hint="remove the names, or use -f for all"
                    )
                removed = all_names if by_identity else wanted
                untagged += [reference.familiar for reference in removed]
                drop |= {(digest, reference) for reference in removed}
                left = [reference for reference in all_names if (digest, reference) not in drop]
                if not left:
                    gone[digest] = full
        _no_orphans(candidates, gone, force=force)
        _take_referrers(candidates, gone)

        def edit(entries: list[Entry]) -> list[Entry]:
            return [entry for entry in entries if entry.digest not in gone and (entry.digest, entry.name) not in drop]

        store.change(edit)
        inventory = store.inventory()
        reachable, whole = _reachable(inventory, inventory.entries, candidates)
        candidates_to_delete = {
            digest for one in gone.values() for digest in _needed(inventory, one.node)[0] if digest.supported
        }
        deleted = _delete(store, candidates_to_delete - reachable if whole else set())
    staying = {i for one in candidates if one.node.descriptor.digest not in gone for i in _ids(one)}
    images = [str(identity) for one in gone.values() for identity in _ids(one) if identity not in staying]
    return Removal(tuple(dict.fromkeys(untagged)), tuple(dict.fromkeys(images)), *deleted)


def _names_beside_others(entries: Sequence[Entry], names: Sequence[str]) -> dict[tuple[Digest, Reference], None] | None:
    """What ``names`` stand for, when each image that they mean keeps another name: then nothing but the index changes.

    ``None`` when that is not so, or when one of them is no name here.
    """
    wanted = [_default_tag(text) for text in names]
    if None in wanted:
        return None
    meant: dict[Reference, Digest] = {}
    for entry in entries:
        name = entry.name if entry.name in wanted else None
        if name is not None and meant.setdefault(name, entry.digest) != entry.digest:
            return None
    drop = {(meant[name], name): None for name in wanted if name in meant}
    left = {entry.digest for entry in entries if entry.name is not None and (entry.digest, entry.name) not in drop}
    return drop if all(name in meant and meant[name] in left for name in wanted) else None


def _ids(candidate: Candidate) -> list[Digest]:
    return [n.manifest.config.digest for n in images_of(candidate.node) if n.manifest] or [
        candidate.node.descriptor.digest
    ]


def _is_one_of_several(candidate: Candidate, text: str) -> bool:
    """Whether ``text`` means an image inside an index that has others beside it."""
    images = list(images_of(candidate.node))
    own = matches_identity(text, [candidate.node.descriptor.digest])
    return candidate.node.index is not None and len(images) > 1 and not own


def _meant(candidates: Sequence[Candidate], text: str) -> list[Candidate]:
    """What ``rmi TEXT`` means: a name (``latest`` without a tag, as Docker has it), or an ID."""
    name = _default_tag(text)
    for one in candidates:
        if name is not None and name in one.root.references:
            return [replace(one, root=replace(one.root, references=(name,)))]
    labelled = [one for one in candidates if text in one.root.labels and not one.root.references]
    if labelled:
        return [replace(one, root=replace(one.root, references=())) for one in labelled[:1]]
    meant = {i for one in candidates for i in (one.node.descriptor.digest, *_ids(one)) if matches_identity(text, [i])}
    hits = [one for one in candidates if meant & {one.node.descriptor.digest, *_ids(one)}]
    # That somebody's index lists the image too is no reason to lay hands on that index.
    hits = [one for one in hits if one.node.index is None] or hits
    if len(meant) > 1 and len(hits) > 1:
        raise UsageError(f"{shown(text)} means more than one image", hint="give more digits, or a name")
    if not hits:
        if name is None and not matches_identity(text, [Digest("sha256", text.rpartition(":")[2])]):
            parse_user_reference(text)  # What is no name at all is a usage error, not something absent.
        raise NotFound(f"no image {shown(text)}", hint="imgtar images -a lists what there is")
    # One image ID may stand behind several manifests: they are one image, and go together.
    return [replace(one, root=replace(one.root, references=())) for one in hits]


def _no_orphans(candidates: Sequence[Candidate], gone: dict[Digest, Candidate], *, force: bool) -> None:
    leaving = {identity for one in gone.values() for identity in _ids(one)}
    staying = {i for one in candidates if one.node.descriptor.digest not in gone for i in _ids(one)}
    for one in candidates:
        parent = one.root.parent
        if parent is None or one.node.descriptor.digest in gone or parent.image_id in staying:
            continue
        if parent.image_id in leaving and not force:
            raise Conflict(
                f"{printable(one.root.title)} names {parent.image_id} as its parent image",
                hint="remove the child first, or use -f",
            )


def _take_referrers(candidates: Sequence[Candidate], gone: dict[Digest, Candidate]) -> None:
    """Nameless artifacts go with the image they refer to, unless something that stays has that image too."""
    growing = True
    while growing:
        growing = False
        inner = {n.descriptor.digest for one in gone.values() for n in (one.node, *one.node.children)}
        staying = (one.node for one in candidates if one.node.descriptor.digest not in gone)
        inner -= {node.descriptor.digest for root in staying for node in nodes_of(root) if not node.absent}
        for one in candidates:
            digest = one.node.descriptor.digest
            if digest not in gone and not one.root.references and subject_of(one) in inner:
                gone[digest] = one
                growing = True


def _reachable(
    inventory: StoreInventory, entries: Sequence[Entry], candidates: Sequence[Candidate]
) -> tuple[set[Digest], bool]:
    """Every digest that ``entries`` reach, and whether that is certain: a document that cannot be read hides others."""
    reachable: set[Digest] = set()
    certain = True
    for node in _nodes(inventory, entries, candidates):
        needed, whole = _needed(inventory, node)
        reachable |= needed
        certain &= whole
    return reachable, certain


def _needed(inventory: StoreInventory, node: Node) -> tuple[set[Digest], bool]:
    """Every digest that a root may need, and whether that is certain."""
    if node.fault is not None:
        return reach(inventory, node.descriptor.digest)
    needed: set[Digest] = set()
    # A root whose document is gone hides what it needs: that may be all there is left to repair it with.
    certain = not node.absent
    for part in parts_of(node):
        needed.add(part.descriptor.digest)
        # An index may name platforms that are not here; a manifest that is here but unreadable is another matter.
        if part.owner.absent and inventory.status(part.owner.descriptor.digest) is not None:
            certain = False
    return needed, certain


def _nodes(inventory: StoreInventory, entries: Sequence[Entry], candidates: Sequence[Candidate]) -> Iterator[Node]:
    """The node of every root in ``entries``. ``candidates`` were read under the same lock, so they are not read again."""
    known = {one.node.descriptor.digest: one.node for one in candidates}
    done: set[tuple[object, ...]] = set()
    for entry in entries:
        points = (entry.digest, *_points(entry.descriptor))
        if points in done:
            continue
        done.add(points)
        node = known.get(entry.digest)
        if node is None or _points(node.descriptor) != points[1:]:
            node = judged(entry.descriptor, inventory.library, inventory, STORE_LIMITS)
        yield node


def _points(descriptor: Descriptor) -> tuple[object, ...]:
    return descriptor.media_type, descriptor.size, descriptor.platform, descriptor.data


def _delete(store: Store, digests: set[Digest]) -> tuple[int, int]:
    inventory_cache = store.inventory().cache
    count = size = 0
    folders: set[str] = set()
    for digest in digests:
        path = store.layout.blob_path(digest)
        try:
            status = os.lstat(path)
            os.unlink(path)
        except FileNotFoundError:
            continue
        except IsADirectoryError:
            raise StoreTrouble("a directory stands in a blob's place", where=path, hint="move it away") from None
        inventory_cache.forget(digest)
        folders.add(os.path.dirname(path))
        count += 1
        size += status.st_size
    for folder in folders:
        sync_directory(folder)
    return count, size


def _lacks(candidate: Candidate, inventory: StoreInventory) -> bool:
    if candidate.node.fault is not None:
        return any(inventory.status(digest) is None for digest in _needed(inventory, candidate.node)[0])
    return any(
        inventory.status(part.descriptor.digest) is None
        for part in parts_of(candidate.node)
        if part.descriptor.digest.supported and not part.foreign and not part.owner.absent
    )


def prune(store: Store, *, untagged: bool = False, dry_run: bool = False) -> Removal:
    """Delete every blob that nothing in the index reaches; with ``untagged``, first every image without a name.

    Raises :class:`StoreTrouble` when a damaged document makes it uncertain what is reachable: then nothing is deleted.
    """
    with store.reading() if dry_run else store.deleting():
        inventory = store.inventory()
        candidates = _candidates(inventory, store)
        nameless: dict[Digest, Candidate] = {
            one.node.descriptor.digest: one
            for one in candidates
            if not one.root.references and not one.root.labels and subject_of(one) is None
        }
        gone = nameless if untagged else {}
        if untagged:
            _take_referrers(candidates, gone)
        kept = [one for one in candidates if one.node.descriptor.digest not in gone]
        reachable, certain = _reachable(inventory, inventory.entries, candidates)
        if not certain:
            raise StoreTrouble(
                "a damaged document hides what is still needed: nothing was deleted",
                where=store.label,
                hint="imgtar verify names it; load an archive that carries it",
            )
        if gone:
            reachable, _ = _reachable(inventory, [one for one in inventory.entries if one.digest not in gone], kept)
        doomed = {digest: size for digest, size in store.layout.stored_blobs() if digest not in reachable}
        if any(_lacks(one, inventory) for one in kept):
            # What an image lacks may be among them under a wrong name: that is for repair to find.
            doomed = {digest: size for digest, size in doomed.items() if inventory.verify(digest, diff=False)}
        images = tuple(str(identity) for one in gone.values() for identity in _ids(one))
        kept_untagged = 0 if untagged else len(nameless)
        if dry_run:
            return Removal((), images, len(doomed), sum(doomed.values()), kept_untagged)
        sweep(store.layout)
        if gone:
            store.change(lambda entries: [entry for entry in entries if entry.digest not in gone])
        elif doomed:
            # Whoever took the last name of these may have been killed before that was durable.
            store.layout.sync_index()
        deleted = _delete(store, set(doomed))
    return Removal((), images, *deleted, kept_untagged)
