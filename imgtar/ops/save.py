"""Save: images from the store into an archive that every engine accepts."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from imgtar.blob.compression import Compression
from imgtar.blob.workers import default_jobs
from imgtar.errors import DependencyMissing, LocalTrouble, NotFound, Refused, StoreTrouble, UsageError
from imgtar.events import Event, Report, silent
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.claims import Ledger
from imgtar.graph.inventory import EmptyInventory, Inventory
from imgtar.graph.joining import join_platforms
from imgtar.graph.lean import Fate, fates_of_full, lean
from imgtar.graph.listing import Listing
from imgtar.graph.plan import Plan
from imgtar.graph.platforms import attested_by
from imgtar.graph.remarks import LONGEST_REPOSITORY
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Candidate, Policy, identities, is_called, matches_identity
from imgtar.graph.several import AllOf, AnyOf
from imgtar.graph.thin import ThinRecord
from imgtar.graph.walk import images_of, platform_of
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS
from imgtar.model.platform import Platform
from imgtar.ops.choose import choose, refuse_objected
from imgtar.ops.recompress import recompress
from imgtar.ops.where import opened_listing, refuse_to_replace
from imgtar.ports import Source, blob_finder
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.inventory import StoreInventory
from imgtar.store.store import Store
from imgtar.text import human_size, plural, printable, shown
from imgtar.transport.check import Check
from imgtar.transport.target import whole_file
from imgtar.transport.writer import (
    Form,
    Written,
    check_target,
    docker_images,
    docker_plan,
    write_directory,
    write_tar,
)

__all__ = ["SaveOptions", "Saved", "save"]


@frozen
class SaveOptions:
    """How to write. ``layers`` is ``None`` to keep every layer as it is.

    ``bases`` say where to find what the receiver has (any of them is enough for a blob to stay at home); ``receivers``
    are several who get the same archive (what stays at home must be with all of them).
    """

    form: Form = "hybrid"
    compression: Compression = Compression.NONE
    level: int | None = None
    layers: Compression | None = None
    layer_level: int | None = None
    platforms: tuple[Platform, ...] = ()
    bases: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()


@frozen
class Saved:
    """What was written, or in a dry run would be. ``fates`` say of each blob whether it travels, and why.

    ``based``: a base was given, though it may not have helped.
    """

    path: str
    form: Form
    plan: Plan
    written: Written | None
    fates: tuple[Fate, ...] = ()
    record: ThinRecord | None = None
    based: bool = False

    def about(self, text: str) -> tuple[Fate, ...]:
        """The blobs that ``text``, a digest or diff ID or the beginning of one, means. Raises :class:`NotFound`."""
        found = tuple(
            fate
            for fate in self.fates
            if matches_identity(text, [fate.digest, *([fate.diff_id] if fate.diff_id is not None else [])])
        )
        if not found:
            hint = "--dry-run lists the digests of all of them"
            raise NotFound(f"no blob of these images begins with {shown(text)}", hint=hint)
        return found

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.save/1``."""
        return {
            "path": self.path,
            "format": self.form,
            "dry_run": self.written is None,
            "size": self.written.size if self.written else None,
            "sha256": self.written.sha256 if self.written else None,
            "images": [
                {"names": list(image.names), "image_id": str(image.image_id), "digest": str(image.digest)}
                for image in self.plan.images
            ],
            "blobs": self.written.blobs if self.written else len(self.plan.writes),
            "bytes": self.plan.bytes_to_write,
            "thin": self.record is not None,
            "left_out": [
                {**fate.to_json(), "base": _base_json(self.record, fate.digest)}
                for fate in self.fates
                if not fate.carried
            ],
            "bases": [base.to_json() for base in self.record.bases] if self.record is not None else [],
            **({"contents": [fate.to_json() for fate in self.fates]} if self.written is None else {}),
        }


def _base_json(record: ThinRecord | None, digest: Digest) -> dict[str, Any] | None:
    required = record.requires.get(digest) if record is not None else None
    return required.base.to_json() if required is not None and required.base is not None else None


def save(
    names: Sequence[str],
    store: Store,
    target: str | int,
    options: SaveOptions,
    *,
    dry_run: bool = False,
    jobs: int | None = None,
    report: Report = silent,
) -> Saved:
    """Write the images called ``names`` to ``target``: a path, or an open descriptor (which is not closed).

    Raises :class:`NotFound` for a name the store does not have, :class:`StoreTrouble` for a damaged blob; a file target
    then keeps what it held before.
    """
    if not names:
        raise UsageError("no image to save", hint="name one: imgtar save -o FILE NAME")
    jobs = jobs or default_jobs()
    path = target if isinstance(target, str) else "-"
    with ExitStack() as stack:
        inventory = stack.enter_context(store.reading())
        try:
            return _save(names, store, inventory, target, path, options, stack, dry_run, jobs, report)
        except StoreTrouble as error:
            damaged = error.details.get("digest")
            if isinstance(damaged, str):
                inventory.cache.forget(Digest.parse(damaged))  # The next load that carries it must write it again.
            raise


def _save(
    names: Sequence[str],
    store: Store,
    inventory: StoreInventory,
    target: str | int,
    path: str,
    options: SaveOptions,
    stack: ExitStack,
    dry_run: bool,
    jobs: int,
    report: Report,
) -> Saved:
    if isinstance(target, str) and not dry_run:
        check_target(target, options.form)
        refuse_to_replace(target, (*options.bases, *options.receivers), store)
    source: Source = store.source(inventory)
    catalog = _chosen(store, inventory, names, options.platforms, report)
    _takeable(catalog.roots)
    policy = Policy(platforms=options.platforms, parents="ignore", every_name=True, remake="never", every_form=True)
    if options.layers is not None:
        plan = _whole(resolve([catalog], EmptyInventory(), policy), store)
        scratch = _scratch(store, path, stack) if not dry_run else None
        changed = recompress(plan, catalog, source, options.layers, options.layer_level, scratch, jobs, report)
        source, catalog = changed, changed.survey(Check())
    bases, receivers, there = _receivers(store, options, stack, report)
    if there is not None:
        policy = replace(policy, remake="first")
    plan = _whole(resolve([catalog], there or EmptyInventory(), policy), store)
    if len(plan.roots) > DEFAULT_LIMITS.images:
        raise UsageError(
            f"{len(plan.roots)} images are more than any reader takes in one archive ({DEFAULT_LIMITS.images})",
            hint="save them into several archives: one load takes them all",
        )
    _remarks(plan, options, report)
    if options.form == "docker":
        plan = docker_plan(plan)
    record, fates = None, fates_of_full(plan)
    if there is not None:
        reduced = lean(plan, catalog, there, bases, receivers, every_document=options.form == "docker")
        plan, record, fates = reduced.plan, reduced.record, reduced.fates
    if dry_run:
        return Saved(path, options.form, plan, None, fates, record, there is not None)
    thin = _encoded(record) if record is not None else None
    fetch = blob_finder([catalog], [source])
    if options.form == "oci-dir":
        if not isinstance(target, str):
            raise UsageError("a directory cannot go to standard output", hint="give -o DIR, or another --format")
        return Saved(
            path,
            options.form,
            plan,
            write_directory(plan, fetch, target, report, thin),
            fates,
            record,
            there is not None,
        )
    arguments = (options.form, options.compression, options.level, jobs, report, thin)
    if isinstance(target, int):
        return Saved(
            path, options.form, plan, write_tar(plan, fetch, target, *arguments), fates, record, there is not None
        )
    with whole_file(target) as fd:
        written = write_tar(plan, fetch, fd, *arguments)
    return Saved(os.path.abspath(target), options.form, plan, written, fates, record, there is not None)


def _receivers(
    store: Store, options: SaveOptions, stack: ExitStack, report: Report
) -> tuple[list[Listing], list[Listing], Inventory | None]:
    """What those who get the archive have, as lists and as the one inventory that counts; nothing for a full archive."""

    def opened(where: str) -> Listing:
        return stack.enter_context(opened_listing(where, store, loaded=True, report=report))

    bases = [opened(where) for where in options.bases]
    receivers = [opened(where) for where in options.receivers]
    if not bases and not receivers:
        return [], [], None
    return bases, receivers, AnyOf([*bases, *([AllOf(receivers)] if receivers else [])])


def _encoded(record: ThinRecord) -> bytes:
    raw = record.encode()
    if len(raw) > DEFAULT_LIMITS.document:
        raise UsageError(
            f"the list of what is left out would have {human_size(len(raw))}, more than any reader takes",
            hint="save fewer images into one archive",
        )
    return raw


_REPAIR = "load an archive that carries what is missing: that repairs the store"


def _chosen(
    store: Store, inventory: StoreInventory, names: Sequence[str], platforms: tuple[Platform, ...], report: Report
) -> Catalog:
    """The catalog reduced to what was named; an image ID may also mean one platform inside an index."""
    catalog, _, chosen = choose(store, inventory, names)
    refuse_objected(chosen)
    chosen = _agreeing(chosen, names, report)
    chosen = join_platforms(chosen, catalog.library, STORE_LIMITS)
    if len(platforms) == 1:
        chosen = [each for one in chosen for each in _only(one, platforms[0])]
    return replace(catalog, roots=tuple(one.root for one in chosen))


def _agreeing(chosen: Sequence[Candidate], names: Sequence[str], report: Report) -> list[Candidate]:
    """Those that no reader takes for contradicting each other: roots of a store need not know of each other.

    What only comes along, an artifact about an image, stays behind; of two that were asked for neither may.
    """

    ledger = Ledger()
    try:
        for one in chosen:
            ledger.enter(one.node)
    except Refused:
        pass  # Who it is that gives way depends on who was asked for, which takes long to find out for many.
    else:
        return list(chosen)

    def asked(one: Candidate) -> bool:
        own = identities(one)
        return any(is_called(one.root, text) or matches_identity(text, own) for text in names)

    wanted = list(map(asked, chosen))
    ledger = Ledger()
    kept: set[int] = set()
    for place in sorted(range(len(chosen)), key=lambda place: not wanted[place]):
        try:
            ledger.enter(chosen[place].node)
        except Refused as error:
            title = printable(chosen[place].root.title)
            if wanted[place]:
                message = f"{title} contradicts another image that was asked for: {error.message}"
                hint = "save it into an archive of its own"
                raise StoreTrouble(message, where=error.where, hint=hint) from None
            report(Event("notice", f"{title} stays behind: it contradicts what it is about: {error.message}"))
        else:
            kept.add(place)
    return [one for place, one in enumerate(chosen) if place in kept]


def _scratch(store: Store, path: str, stack: ExitStack) -> str:
    """A folder for new layers: in the store's staging, or beside the target when the store is read-only."""
    try:
        return stack.enter_context(store.scratch())
    except PermissionError:
        trouble = "permission"
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        trouble = "a read-only file system"
    if path == "-":
        raise LocalTrouble(
            f"there is no place for new layers: {trouble}", code="E_PERMISSION", where=store.label, hint="give -o FILE"
        )
    folder = os.path.dirname(os.path.abspath(path))
    scratch = tempfile.mkdtemp(prefix=".imgtar-", dir=folder)
    # Not a TemporaryDirectory: where every question about it is answered with an error, the cleaning of that never ends.
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def _only(candidate: Candidate, platform: Platform) -> list[Candidate]:
    """One platform of an index, standing for the whole under its names, as ``docker save --platform`` does.

    Its attestations come along beside it: without the index nothing else would lead to them.
    """
    if candidate.node.index is None:
        return [candidate]
    for node in images_of(candidate.node):
        own = platform_of(node)
        if own is not None and own.matches(platform):
            chosen = replace(candidate, root=replace(candidate.root, descriptor=node.descriptor), node=node)
            about = [
                Candidate(Root(child.descriptor), child, candidate.position)
                for child in candidate.node.children
                if attested_by(child) == node.descriptor.digest and not child.absent
            ]
            return [chosen, *about]
    return [candidate]


def _whole(plan: Plan, store: Store) -> Plan:
    """Raise unless the store has everything: a gap here is damage of the store, not a missing dependency."""
    for root in plan.roots:
        if root.node.fault is not None:  # Nothing of it would be in the archive.
            raise StoreTrouble(root.node.fault.message, where=root.node.fault.where, hint=root.node.fault.hint)
    absent = [gap for gap in plan.missing if gap.gap_class == "platform-not-shipped"]
    if absent and len(absent) == len(plan.missing):
        names = ", ".join(dict.fromkeys(name for gap in absent for name in gap.needed_by))
        present = {str(platform_of(node)) for root in plan.roots for node in images_of(root.node) if node.config}
        there = ", ".join(sorted(present)) or "none of its platforms"
        raise NotFound(
            f"that platform of {printable(names)} was never loaded", hint=f"the store has {printable(there)}"
        )
    try:
        plan.require_complete()
    except DependencyMissing as error:
        message = error.message.replace("nothing was loaded", "nothing was saved", 1)
        raise StoreTrouble(
            message,
            where=store.label,
            details=error.details,
            hint=_REPAIR,
        ) from None
    return plan


def _takeable(roots: Sequence[Root]) -> None:
    """Raise :class:`UsageError` for a name that no engine takes: the archive would be good for imgtar alone."""
    for root in roots:
        for reference in root.references:
            if len(reference.repository) > LONGEST_REPOSITORY:
                raise UsageError(
                    f"{shown(reference.familiar)} has {len(reference.repository)} characters with its registry, engines "
                    f"refuse more than {LONGEST_REPOSITORY}",
                    hint="give it a shorter name: imgtar tag OLD NEW",
                )


def _remarks(plan: Plan, options: SaveOptions, report: Report) -> None:
    """Say which common engines will not read this, and which option helps (formats: W1, W8, W16)."""

    def notice(text: str) -> None:
        report(Event("notice", text))

    zstd = any(
        mediatype.layer_compression(layer.media_type) == "zstd"
        for root in plan.roots
        for node in images_of(root.node)
        if node.manifest is not None
        for layer in node.manifest.layers
    )
    if zstd:
        notice("layers are zstd compressed, which Docker before 23 cannot read: --layers gzip (or none) helps")
    if options.compression is Compression.ZSTD:
        notice("the archive is zstd compressed, which Docker before 23 cannot load: --compress gzip helps")
    if options.compression is not Compression.NONE:
        notice("ctr 1.6 and crane read only uncompressed archives: leave out --compress for them")
    if options.form in ("oci", "oci-dir"):
        notice("Docker's classic image store cannot load a pure OCI layout: --format hybrid helps")
        if len(plan.roots) > 1:
            notice("podman load takes only one image from an OCI layout, skopeo wants a name: --format hybrid helps")
    fetched = sum(
        1
        for root in plan.roots
        for part in root.parts
        if part.kind == "layer" and part.descriptor.urls and part.owner.is_image
    )
    if fetched and options.form != "docker":
        notice(
            f"{plural(fetched, 'layer')} keep their URLs, because the manifest stays to the byte: podman and skopeo fetch "
            "from there; --layers gzip (or none) helps, and so does --format docker"
        )
    if any(write.digest.algorithm != "sha256" for write in plan.writes):
        notice("some digests are sha512, which umoci, crane and older skopeo do not read; no option changes that")
    shown = docker_images(plan)
    if options.form in ("docker", "hybrid"):
        coming = {image.digest for image in plan.images}
        several = [
            root for root in plan.roots if sum(node.descriptor.digest in coming for node in images_of(root.node)) > 1
        ]
        for root in several:
            name = root.references[0].familiar if root.references else str(root.descriptor.digest)
            platform = next((str(platform_of(node)) for other, node in shown if other is root), "none")
            lack = "a docker archive holds" if options.form == "docker" else "Docker's classic store loads"
            notice(
                f"{printable(name)} has several platforms, {lack} only {platform}: --platform OS/ARCH chooses another"
            )
    if options.form == "docker":
        left = len(plan.roots) - len(shown)
        if left:
            notice(f"{left} artifacts or attestations cannot be carried by a docker archive: --format hybrid helps")
        if not shown:
            raise UsageError("there is no image that a docker archive can carry", hint="use --format hybrid or oci")
    for finding in plan.findings:
        if finding.severity == "warning":
            lacking = " (it was not in the store either)" if finding.code == "E_MISSING" else ""
            notice(f"{printable(finding.message)}{lacking}")
