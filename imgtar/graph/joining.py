"""One name for several platforms without an index is read by every engine in its own way: an index says what is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence

from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.graph.catalog import Root
from imgtar.graph.choice import one_image_for_each_platform
from imgtar.graph.library import Library
from imgtar.graph.naming import bare_descriptor
from imgtar.graph.select import Candidate
from imgtar.graph.walk import Node, Walker
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import Limits
from imgtar.model.reference import Reference

__all__ = ["join_platforms"]


def join_platforms(candidates: Sequence[Candidate], library: Library, limits: Limits) -> list[Candidate]:
    """Put an index in the place of images that share a name, each for a platform of its own.

    ``library`` gets the new document, the same for the same images. An image stays beside its index under the names that
    it has for itself.
    """
    named: dict[Reference, list[int]] = {}
    for place, one in enumerate(candidates):
        for reference in one.root.references if one.node.is_image else ():
            named.setdefault(reference, []).append(place)
    groups: dict[tuple[int, ...], list[Reference]] = {}
    for reference, places in named.items():
        if len(places) > 1:
            groups.setdefault(tuple(places), []).append(reference)
    result, joined = list(candidates), set[int]()
    for members, references in groups.items():
        children = [_child(candidates[place]) for place in members]
        children.sort(key=lambda child: (str(child.platform) != "linux/amd64", str(child.platform), str(child.digest)))
        descriptor = _index(children, library)
        node = Walker(library, limits).grow(descriptor)
        platforms = {child.platform.machine for child in children if child.platform is not None}
        if len(platforms) < len(members) or not _is_clear(node):
            continue  # One image in several forms, or nobody knows for what: then no index can tell.
        joined.update(members)
        for place in members:
            left = tuple(one for one in result[place].root.references if one not in references)
            result[place] = replace(result[place], root=replace(result[place].root, references=left))
        labels = tuple(reference.familiar for reference in references)
        result.append(Candidate(Root(descriptor, labels, tuple(references)), node, candidates[members[0]].position))
    return [one for place, one in enumerate(result) if place not in joined or one.root.references]


def _child(candidate: Candidate) -> Descriptor:
    """The descriptor of an image in the index, with the platform in the one spelling that every engine knows."""
    own = bare_descriptor(candidate.node)
    return replace(own, platform=own.platform.normalized() if own.platform is not None else None)


def _is_clear(index: Node) -> bool:
    try:
        one_image_for_each_platform(index)
    except Refused:
        return False
    return True


def _index(children: Sequence[Descriptor], library: Library) -> Descriptor:
    body = {
        "schemaVersion": 2,
        "mediaType": mediatype.IMAGE_INDEX,
        "manifests": [child.to_json() for child in children],
    }
    raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    digest = Digest.of(raw)
    library.add(digest, raw)
    return Descriptor(mediatype.IMAGE_INDEX, digest, len(raw))
