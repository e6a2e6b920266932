"""Inspect: what is in an archive or behind a name, without extracting anything."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from imgtar.errors import NotFound, UsageError
from imgtar.events import Report, silent
from imgtar.frozen import frozen, replace
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.graph.views import View, Views, requires_view, root_views
from imgtar.graph.walk import images_of, platform_of
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.platform import Platform
from imgtar.ops.choose import choose, refuse_objected
from imgtar.transport.check import Check
from imgtar.transport.location import Fingerprint, is_layout, open_archive

if TYPE_CHECKING:  # An archive is looked at without a store.
    from imgtar.store.store import Store

__all__ = ["Inspection", "RawRequest", "inspect_archive", "inspect_store", "is_archive"]


@frozen
class RawRequest:
    """Asks for the exact bytes of one ``manifest``, ``config`` or ``index``."""

    kind: str
    platform: Platform | None = None


@frozen
class Inspection:
    """The body of ``imgtar.inspect/1``, and the catalog it was made from."""

    catalog: Catalog
    roots: tuple[Root, ...]
    document: dict[str, Any]
    raw: bytes | None = None


def is_archive(what: str) -> bool:
    """Whether ``what`` means an archive rather than a name in the store: standard input, a file, an image layout.

    A folder that only happens to be called like an image is no archive, unless it is written as a path.
    """
    if what == "-" or what.startswith(("/", "./", "../")):
        return True
    if not os.path.lexists(what):
        return False
    return not os.path.isdir(what) or os.sep in what or is_layout(what)


def inspect_archive(
    path: str,
    raw: RawRequest | None = None,
    platforms: tuple[Platform, ...] = (),
    *,
    report: Report = silent,
    limits: Limits = DEFAULT_LIMITS,
    stack: ExitStack | None = None,
) -> Inspection:
    """Look into an archive. A seekable one is read by headers and small documents only; a pipe is read to its end.

    With a ``stack`` the archive is closed with that, and until then each image is read when it is looked at, so that many
    do not stand in memory at once.
    """
    fingerprint = Fingerprint()
    with ExitStack() as own:
        source = open_archive(path, limits=limits, fingerprint=fingerprint)
        own.callback(source.close)
        check = Check(report=report, limits=limits)
        catalog = source.survey(check)
        size = fingerprint.size if fingerprint.size is not None else getattr(source, "size", None)
        inspection = _inspection(catalog, catalog.roots, size, raw, platforms)
        if stack is not None:
            stack.push(own.pop_all())
            return inspection
        return _whole(inspection)


def _whole(inspection: Inspection) -> Inspection:
    """With all that there is to be looked at, for when nothing more can be read."""
    document = inspection.document
    whole = {**document, "images": document["images"].made(), "missing": list(document["missing"])}
    return replace(inspection, document=whole)


def inspect_store(
    name: str, store: Store, raw: RawRequest | None = None, platforms: tuple[Platform, ...] = ()
) -> Inspection:
    """Look at an image of the store by name, ID or digest. Raises :class:`NotFound`."""
    with store.reading() as inventory:
        catalog, _, chosen = choose(store, inventory, [name])
        refuse_objected(chosen)
        roots = tuple(one.root if one.root.references else _unnamed(one.root) for one in chosen)
        return _whole(_inspection(catalog, roots, None, raw, platforms))


def _unnamed(root: Root) -> Root:
    return replace(root, labels=())


def _inspection(
    catalog: Catalog,
    roots: tuple[Root, ...],
    size: int | None,
    raw: RawRequest | None,
    platforms: tuple[Platform, ...],
) -> Inspection:
    def present(digest: Digest) -> bool:
        return digest in catalog.offers

    narrowed = replace(catalog, roots=roots)
    images, other = root_views(catalog, roots, present)
    if platforms:
        images = _for_platforms(images, platforms, catalog.label)
    plan = resolve([narrowed], EmptyInventory(), Policy(parents="ignore", every_form=True))
    body = {
        "archive": {
            "path": catalog.label,
            "format": catalog.form,
            "compression": catalog.compression,
            "size": size,
            "thin": catalog.thin is not None,
        },
        "images": images,
        "other": other,
        "requires": requires_view(catalog.thin) if catalog.thin is not None else [],
        "bases": [base.to_json() for base in catalog.thin.bases] if catalog.thin is not None else [],
        # What a thin archive leaves out on purpose is required, not missing.
        "missing": Views(gap.to_json for gap in plan.missing if gap.gap_class != "promised-by-base"),
        "findings": [finding.to_json() for finding in plan.findings],
    }
    return Inspection(catalog, roots, body, _raw_document(narrowed, raw) if raw is not None else None)


def _for_platforms(images: Views, wanted: tuple[Platform, ...], label: str) -> Views:
    """The images of the wanted platforms; an index keeps those of its own that fit."""

    def fits(image: View) -> bool:
        text = image["platform"]
        return text is not None and any(Platform(*text.split("/")[:3]).matches(one) for one in wanted)

    def inside(image: View) -> View:
        if "manifests" not in image:
            return image
        inner = image["manifests"].where(lambda each: "manifests" in each or fits(each))
        return {**image, "manifests": inner, "absent": [a for a in image["absent"] if fits(a)]}

    kept = images.each(inside).where(lambda image: image["manifests"] if "manifests" in image else fits(image))
    if not kept:
        listing = ", ".join(map(str, wanted))
        raise NotFound(
            f"no image for platform {listing}", where=label, hint="inspect without --platform shows what there is"
        )
    return kept


def _raw_document(catalog: Catalog, wanted: RawRequest) -> bytes:
    candidates, _ = grow_candidates([catalog], EmptyInventory())
    found: dict[Digest, bytes] = {}
    for candidate in candidates:
        if wanted.kind == "index":
            if candidate.node.index is not None and (raw := catalog.library.raw(candidate.node.descriptor)) is not None:
                found[candidate.node.descriptor.digest] = raw
            continue
        for node in images_of(candidate.node):
            own = platform_of(node)
            if node.manifest is None or (
                wanted.platform is not None and (own is None or not own.matches(wanted.platform))
            ):
                continue
            if wanted.kind == "manifest" and candidate.root.draft is not None:
                continue  # A docker archive has no manifests; the one that imgtar would write is not its content.
            target = node.descriptor if wanted.kind == "manifest" else node.manifest.config
            raw = catalog.library.raw(target, cap=DEFAULT_LIMITS.config)
            if raw is not None:
                found[target.digest] = raw
    if not found:
        raise NotFound(f"there is no {wanted.kind} here", where=catalog.label)
    if len(found) > 1:
        listing = ", ".join(str(digest) for digest in found)
        raise UsageError(
            f"{len(found)} documents are meant: {listing}",
            where=catalog.label,
            hint="name one image, or one platform with --platform",
        )
    return next(iter(found.values()))
