"""Archives from before Docker 1.10: ``repositories`` and ``<id>/{VERSION,json,layer.tar}`` with a parent chain.

Docker 29 no longer reads them. Here the members become a table of images (:mod:`imgtar.graph.v1`); what is whole within
the archive gets its config of today at once, what is not may be completed by another archive of the same load.
"""

from __future__ import annotations

import re

from imgtar.errors import Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Root
from imgtar.graph.chains import check_height, draft_of_chain
from imgtar.graph.finding import Finding
from imgtar.graph.library import Library
from imgtar.graph.v1 import Chains, V1Image, parse_v1
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_repositories
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.text import shown
from imgtar.transport.docker_view import layer_descriptor
from imgtar.transport.members import Members

__all__ = ["LegacyView", "is_legacy", "read_legacy"]

_JSON = re.compile(r"([^/]+)/json")


@frozen
class LegacyView:
    """What such an archive says: its roots, every image by ID, the names of the layers, and what is worth a remark."""

    roots: list[Root]
    images: dict[str, V1Image]
    names: dict[Digest, str]
    findings: list[Finding]


def is_legacy(members: Members) -> bool:
    """Whether this looks like an archive of that form. One that lost its layers is known by ``VERSION``."""
    beside = {*members.files, *members.links}
    return any(
        _JSON.fullmatch(name) and (f"{name[:-5]}/layer.tar" in beside or f"{name[:-5]}/VERSION" in beside)
        for name in members.files
    )


def read_legacy(members: Members, library: Library, limits: Limits = DEFAULT_LIMITS) -> LegacyView:
    """Return the images: one root for each tagged ID, and for each ID that is nobody's parent.

    Reads every layer, because a config of today names the layers' diff IDs. A chain that is cut in this archive gives a
    root without a draft. Raises :class:`Refused` (``E_GRAPH``) for a chain that loops.
    """
    bare: dict[str, V1Image] = {}
    for name in members.files:
        match = _JSON.fullmatch(name)
        if match is not None:
            image = parse_v1(match[1], members.label, members.read(name, limits.config), limits)
            members.budget.keep([image.raw, image.value, image.history], image.where)
            bare[match[1]] = image
    tags, findings = _tags(members, bare, limits)
    heads = sorted({*tags, *(set(bare) - {image.parent for image in bare.values()})})
    if len(heads) > limits.images:
        raise Refused("E_LIMIT", f"has {len(heads)} images, the limit is {limits.images}", where=members.label)
    _check_chains(bare, heads, limits)
    names: dict[Digest, str] = {}
    images = {identity: _with_layer(image, members, names) for identity, image in bare.items()}
    chains = Chains(images.get, limits)
    roots = []
    for identity in heads:
        references = tuple(tags.get(identity, ()))
        labels = tuple(reference.familiar for reference in references)
        root = Root(None, labels, references, v1_id=identity)
        top = chains.up_to(images[identity])
        if top.whole:
            draft, raw = draft_of_chain(top, limits)
            library.add(draft.config.digest, raw)
            library.know(draft.config, draft.parsed)
            root = replace(root, draft=draft)
        roots.append(root)
    return LegacyView(roots, images, names, findings)


def _check_chains(images: dict[str, V1Image], heads: list[str], limits: Limits) -> None:
    """Refuse what goes in circles, or is too much, before any layer is read."""
    chains = Chains(images.get, limits)
    check_height((chains.up_to(images[identity]) for identity in heads), limits)
    for identity in sorted(images):
        if identity not in chains:
            # Nobody's child and nobody's parent at once cannot be: these go round in a circle that nothing leads into.
            raise Refused("E_GRAPH", "the parent chain loops", where=images[identity].where)


def _with_layer(image: V1Image, members: Members, names: dict[Digest, str]) -> V1Image:
    path = f"{image.identity}/layer.tar"
    name = path if path in members.files else members.links.get(path)
    if name is None:
        return image
    measured = members.known(name) or members.measured(name)
    if measured.fault is not None:
        raise measured.fault
    if measured.diff_id is None:
        message = f"{shown(path)} is a link to a compressed file that was not decompressed"
        raise Refused("E_COMPRESS", message, where=f"{members.label}: {name}", hint="verify without --fast")
    layer = layer_descriptor(members, name, measured.diff_id)
    names.setdefault(layer.digest, name)
    return replace(image, diff_id=measured.diff_id, layer=layer)


def _tags(
    members: Members, images: dict[str, V1Image], limits: Limits
) -> tuple[dict[str, list[Reference]], list[Finding]]:
    tags: dict[str, list[Reference]] = {}
    if "repositories" not in members.files:
        message = "there is no repositories file: the images have no names"
        return tags, [Finding("E_NAME", "warning", members.label, message)]
    where = f"{members.label}: repositories"
    for repository, entries in parse_repositories(members.read("repositories", limits.document), where, limits).items():
        for tag, identity in entries.items():
            if identity not in images:
                raise Refused(
                    "E_GRAPH", f"{shown(f'{repository}:{tag}')} names the unknown ID {shown(identity)}", where=where
                )
            names = tags.setdefault(identity, [])
            names.append(Reference.parse(f"{repository}:{tag}"))
            if len(names) > limits.names_per_image:
                message = f"one image has more than {limits.names_per_image} names"
                raise Refused("E_LIMIT", message, where=where)
    return tags, []
