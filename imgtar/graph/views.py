"""Images as people and scripts look at them: the IMAGE objects of the command line contract.

A view is made when it is looked at and then let go (:class:`Views`): a thousand of them at once take far more memory than
the documents they show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from functools import partial
from typing import Any, overload

from imgtar.graph.catalog import Catalog, DeclaredParent, Root
from imgtar.graph.library import Library
from imgtar.graph.thin import ThinImage, ThinRecord
from imgtar.graph.walk import Node, Walker, platform_of
from imgtar.model import mediatype
from imgtar.model.chain import chain_ids
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import HistoryEntry, ImageConfig, parse_time
from imgtar.model.platform import Platform

__all__ = ["View", "Views", "history_view", "requires_view", "rfc3339", "root_views"]

Present = Callable[[Digest], bool]
View = dict[str, Any]
_Make = Callable[[], View]


class Views(Sequence[View]):
    """A list of views. Those of images are made whenever they are asked for; those of indexes are there."""

    def __init__(self, items: Iterable[View | _Make]) -> None:
        self._items: list[View | _Make] = list(items._items if isinstance(items, Views) else items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> View: ...
    @overload
    def __getitem__(self, place: slice) -> Views: ...
    def __getitem__(self, place: int | slice) -> View | Views:
        return Views(self._items[place]) if isinstance(place, slice) else _made(self._items[place])

    def __iter__(self) -> Iterator[View]:
        return map(_made, self._items)

    def each(self, change: Callable[[View], View]) -> Views:
        """What ``change`` makes of each of them."""
        return Views(
            change(item) if isinstance(item, dict) else partial(_changed, change, item) for item in self._items
        )

    def where(self, wanted: Callable[[View], bool]) -> Views:
        """Those that are wanted."""
        return Views(item for item in self._items if wanted(_made(item)))

    def made(self) -> Views:
        """All of them, now."""
        return Views({**view, "manifests": view["manifests"].made()} if "manifests" in view else view for view in self)

    def flat(self) -> Views:
        """The images, with those inside indexes brought up; they take the names of their index."""
        flat: list[View | _Make] = []
        for item in self._items:
            if isinstance(item, dict) and "manifests" in item:
                named = partial(_named, item["names"])
                flat += Views(item["manifests"]).flat().each(named)._items
            else:
                flat.append(item)
        return Views(flat)


def _named(names: Sequence[str], view: View) -> View:
    return {**view, "names": view["names"] or names}


def _changed(change: Callable[[View], View], item: _Make) -> View:
    return change(item())


def _made(item: View | _Make) -> View:
    return item if isinstance(item, dict) else item()


def rfc3339(text: str) -> str | None:
    """A time of a config in UTC, or ``None`` when there is none that means anything."""
    moment = parse_time(text)
    if moment is None or moment.year <= 1:
        return None
    if text.endswith("Z"):
        return text  # As it was written: nanoseconds and all.
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return None  # The last day of the year 9999, west of Greenwich: no time that means anything.


def root_views(catalog: Catalog, roots: Iterable[Root], present: Present) -> tuple[Views, list[View]]:
    """Return the images (an index is one, with its own inside) and the other things: artifacts, unknown kinds."""
    library = catalog.library
    walker = Walker(library)
    images: list[View | _Make] = []
    others: list[View] = []
    for root in roots:
        names = list(root.labels)
        if root.lost_config or root.cut:
            continue
        if root.draft is not None:
            library.reserve(root.draft.config)
            images.append(partial(_draft_view, root, names, present, library))
            continue
        assert root.descriptor is not None
        # Roots of a store were judged one by one, and need not agree.
        node = (Walker(catalog.library) if catalog.form == "store" else walker).grow(root.descriptor)
        said = catalog.thin.image(root.descriptor.digest) if catalog.thin is not None and node.absent else None
        if said is not None and catalog.thin is not None:
            images.append(partial(_left_out_view, said, root.descriptor, catalog.thin))
        elif node.index is not None:
            index = _index_view(node, names, root.parent, present, set(), library)
            images.append(index)
        elif node.is_image:
            _reserve(node, library)
            images.append(partial(_image_view, node, names, root.parent, present, library))
        else:
            others.append({"names": names, **_other_view(node, present)})
    return Views(images), others


def _index_view(
    node: Node, names: list[str], parent: DeclaredParent | None, present: Present, seen: set[int], library: Library
) -> View:
    manifests: list[View | _Make] = []
    other: list[View] = []
    absent: list[View] = []
    # Each node once in the whole tree: an index may list the same one a thousand times on each of its levels.
    for child in node.children:
        if id(child) in seen:
            continue
        seen.add(id(child))
        if child.index is not None:
            manifests.append(_index_view(child, names, parent, present, seen, library))
        elif child.absent and not child.is_attestation:
            absent.append(_absent_view(child.descriptor))
        elif child.is_image:
            layers = child.manifest.layers if child.manifest is not None else ()
            if child.config is None and not any(present(layer.digest) for layer in layers):
                absent.append(_absent_view(child.descriptor))
            else:
                _reserve(child, library)
                manifests.append(partial(_image_view, child, names, parent, present, library))
        else:
            other.append(_other_view(child, present))
    return {
        "names": names,
        "digest": str(node.descriptor.digest),
        "media_type": node.descriptor.media_type,
        "manifests": Views(manifests),
        "other": other,
        "absent": absent,
    }


def _reserve(node: Node, library: Library) -> None:
    if node.manifest is not None and node.config is not None:
        library.reserve(node.manifest.config)


def _absent_view(descriptor: Descriptor) -> View:
    platform = descriptor.platform
    return {"digest": str(descriptor.digest), "platform": str(platform) if platform else None, "size": descriptor.size}


def _other_view(node: Node, present: Present) -> View:
    document = node.manifest or node.index
    artifact_type = node.descriptor.artifact_type
    subject = None
    if document is not None:
        artifact_type = document.artifact_type or artifact_type
        subject = str(document.subject.digest) if document.subject is not None else None
    if node.manifest is not None and not artifact_type:
        artifact_type = node.manifest.config.media_type
    subject = subject or node.descriptor.annotations.get(mediatype.DOCKER_REFERENCE_DIGEST)
    return {
        "digest": str(node.descriptor.digest),
        "media_type": node.descriptor.media_type,
        "artifact_type": artifact_type or None,
        "subject": subject,
        "size": node.descriptor.size,
        "present": not node.absent and (not node.opaque or present(node.descriptor.digest)),
    }


def _image_view(
    node: Node, names: list[str], parent: DeclaredParent | None, present: Present, library: Library
) -> View:
    manifest = node.manifest
    assert manifest is not None
    layers = [(layer, layer.media_type, present(layer.digest)) for layer in manifest.layers]
    config = library.whole_config(manifest.config) if node.config is not None else None
    view = _view(names, manifest.config, config, platform_of(node), layers)
    view["digest"] = str(node.descriptor.digest)
    view["media_type"] = manifest.media_type or None
    base_digest = manifest.annotations.get(mediatype.BASE_DIGEST)
    base_name = manifest.annotations.get(mediatype.BASE_NAME)
    if parent is not None:
        view["parent"] = _parent_view(parent)
    elif base_digest or base_name:
        view["parent"] = {"digest": base_digest, "name": base_name, "learned_from": "base annotations"}
    elif node.config is not None and node.config.parent:
        view["parent"] = {"image_id": node.config.parent, "name": None, "learned_from": "parent in the config"}
    return view


def _left_out_view(said: ThinImage, root: Descriptor, thin: ThinRecord) -> View:
    """An image of which a thin archive carries nothing but the name, by what its record says."""
    needs = [thin.requires[digest] for digest in said.requires]
    known = [thin.requires[digest] for digest in said.layers if digest is not None]
    layers = known or [one for one in needs if one.kind == "layer"]
    return {
        "names": list(said.names),
        "image_id": str(said.image_id) if said.image_id is not None else None,
        "digest": str(root.digest),
        "media_type": root.media_type,
        "platform": str(said.platform) if said.platform is not None else None,
        "created": None,
        "size": sum(one.descriptor.size for one in needs if one.kind in ("layer", "config")),
        "parent": None,
        "layers": [
            {
                "digest": str(one.descriptor.digest),
                "diff_id": str(one.diff_id) if one.diff_id is not None else None,
                "chain_id": None,
                "size": one.descriptor.size,
                "media_type": one.descriptor.media_type,
                "compression": mediatype.layer_compression(one.descriptor.media_type),
                "present": False,
                "created_by": None,
            }
            for one in layers
        ],
        "history": [],
        "labels": {},
    }


def _parent_view(parent: DeclaredParent) -> View:
    return {"image_id": str(parent.image_id), "name": parent.name or None, "learned_from": parent.learned_from}


def _draft_view(root: Root, names: list[str], present: Present, library: Library) -> View:
    draft = root.draft
    assert draft is not None
    layers: list[tuple[Descriptor | None, str | None, bool]] = [
        (slot.layer or slot.promised, None, slot.layer is not None and present(slot.layer.digest))
        for slot in draft.slots
    ]
    platform = draft.parsed.platform if draft.parsed.platform.architecture else None
    view = _view(names, draft.config, library.whole_config(draft.config) or draft.parsed, platform, layers)
    view["parent"] = _parent_view(root.parent) if root.parent is not None else None
    return view


def _view(
    names: list[str],
    config: Descriptor,
    parsed: ImageConfig | None,
    platform: Platform | None,
    layers: Sequence[tuple[Descriptor | None, str | None, bool]],
) -> View:
    diff_ids: Sequence[Digest | None] = parsed.diff_ids if parsed is not None else [None] * len(layers)
    chains: Sequence[Digest | None] = chain_ids(parsed.diff_ids) if parsed is not None else [None] * len(layers)
    history = parsed.history if parsed is not None else ()
    steps = [entry.created_by for entry in history if not entry.empty_layer]
    rows: list[View] = []
    for place, ((layer, media_type, here), diff_id, chain_id) in enumerate(zip(layers, diff_ids, chains, strict=True)):
        declared = mediatype.layer_compression(layer.media_type) if layer is not None else None
        rows.append(
            {
                "digest": str(layer.digest) if layer is not None else None,
                "diff_id": str(diff_id) if diff_id is not None else None,
                "chain_id": str(chain_id) if chain_id is not None else None,
                "size": layer.size if layer is not None else None,
                "media_type": media_type,
                "compression": declared,
                "present": here,
                "created_by": steps[place] if place < len(steps) else None,
            }
        )
    return {
        "names": names,
        "image_id": str(config.digest),
        "digest": None,
        "media_type": None,
        "platform": str(platform) if platform is not None else None,
        "created": rfc3339(parsed.created) if parsed is not None else None,
        "size": config.size + sum(row["size"] or 0 for row in rows),
        "parent": None,
        "layers": rows,
        "history": [history_view(entry) for entry in history],
        "labels": dict(parsed.labels) if parsed is not None else {},
    }


def history_view(entry: HistoryEntry) -> View:
    """One build step."""
    return {
        "created": rfc3339(entry.created),
        "created_by": entry.created_by,
        "empty_layer": entry.empty_layer,
        "comment": entry.comment,
    }


def requires_view(thin: ThinRecord) -> list[View]:
    """The ``requires`` of ``imgtar.inspect/1``: what is not in the archive and must be with the receiver."""
    return [
        {
            "digest": str(digest),
            "diff_id": str(one.diff_id) if one.diff_id is not None else None,
            "size": one.descriptor.size,
            "media_type": one.descriptor.media_type,
            "kind": one.kind,
            "needed_by": [str(image.image_id or image.digest) for image in thin.needed_by(digest)],
            "base": one.base.to_json() if one.base is not None else None,
        }
        for digest, one in thin.requires.items()
    ]
