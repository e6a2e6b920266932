"""Images as people and scripts look at them: the IMAGE objects of the command line contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from typing import Any

from imgtar.graph.catalog import Catalog, DeclaredParent, Root
from imgtar.graph.thin import ThinImage, ThinRecord
from imgtar.graph.walk import Node, Walker, is_attestation, platform_of
from imgtar.model import mediatype
from imgtar.model.chain import chain_ids
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import HistoryEntry, ImageConfig, parse_time
from imgtar.model.platform import Platform

__all__ = ["flat_images", "history_view", "requires_view", "rfc3339", "root_views"]

Present = Callable[[Digest], bool]


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


def root_views(
    catalog: Catalog, roots: Iterable[Root], present: Present
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the images (an index is one, with its own inside) and the other things: artifacts, unknown kinds."""
    walker = Walker(catalog.library)
    images: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for root in roots:
        names = list(root.labels)
        if root.lost_config or root.cut:
            continue
        if root.draft is not None:
            images.append(_draft_view(root, names, present))
            continue
        assert root.descriptor is not None
        # Roots of a store were judged one by one, and need not agree.
        node = (Walker(catalog.library) if catalog.form == "store" else walker).grow(root.descriptor)
        said = catalog.thin.image(root.descriptor.digest) if catalog.thin is not None and node.absent else None
        if said is not None and catalog.thin is not None:
            images.append(_left_out_view(said, root.descriptor, catalog.thin))
        elif node.index is not None:
            images.append(_index_view(node, names, root.parent, present, set()))
        elif node.is_image:
            images.append(_image_view(node, names, root.parent, present))
        else:
            others.append({"names": names, **_other_view(node, present)})
    return images, others


def flat_images(images: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The images of ``root_views`` with those inside indexes brought up; they take the names of their index."""
    flat: list[dict[str, Any]] = []
    for image in images:
        if "manifests" in image:
            flat += [{**inner, "names": inner["names"] or image["names"]} for inner in flat_images(image["manifests"])]
        else:
            flat.append(image)
    return flat


def _index_view(
    node: Node, names: list[str], parent: DeclaredParent | None, present: Present, seen: set[int]
) -> dict[str, Any]:
    manifests: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    absent: list[dict[str, Any]] = []
    # Each node once in the whole tree: an index may list the same one a thousand times on each of its levels.
    for child in node.children:
        if id(child) in seen:
            continue
        seen.add(id(child))
        if child.index is not None:
            manifests.append(_index_view(child, names, parent, present, seen))
        elif child.absent and not is_attestation(child.descriptor):
            absent.append(_absent_view(child.descriptor))
        elif child.is_image:
            view = _image_view(child, names, parent, present)
            if child.config is None and not any(layer["present"] for layer in view["layers"]):
                absent.append(_absent_view(child.descriptor))
            else:
                manifests.append(view)
        else:
            other.append(_other_view(child, present))
    return {
        "names": names,
        "digest": str(node.descriptor.digest),
        "media_type": node.descriptor.media_type,
        "manifests": manifests,
        "other": other,
        "absent": absent,
    }


def _absent_view(descriptor: Descriptor) -> dict[str, Any]:
    platform = descriptor.platform
    return {"digest": str(descriptor.digest), "platform": str(platform) if platform else None, "size": descriptor.size}


def _other_view(node: Node, present: Present) -> dict[str, Any]:
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


def _image_view(node: Node, names: list[str], parent: DeclaredParent | None, present: Present) -> dict[str, Any]:
    manifest = node.manifest
    assert manifest is not None
    layers = [(layer, layer.media_type, present(layer.digest)) for layer in manifest.layers]
    view = _view(names, manifest.config, node.config, platform_of(node), layers)
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


def _left_out_view(said: ThinImage, root: Descriptor, thin: ThinRecord) -> dict[str, Any]:
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


def _parent_view(parent: DeclaredParent) -> dict[str, Any]:
    return {"image_id": str(parent.image_id), "name": parent.name or None, "learned_from": parent.learned_from}


def _draft_view(root: Root, names: list[str], present: Present) -> dict[str, Any]:
    draft = root.draft
    assert draft is not None
    layers: list[tuple[Descriptor | None, str | None, bool]] = [
        (slot.layer or slot.promised, None, slot.layer is not None and present(slot.layer.digest))
        for slot in draft.slots
    ]
    platform = draft.parsed.platform if draft.parsed.platform.architecture else None
    view = _view(names, draft.config, draft.parsed, platform, layers)
    view["parent"] = _parent_view(root.parent) if root.parent is not None else None
    return view


def _view(
    names: list[str],
    config: Descriptor,
    parsed: ImageConfig | None,
    platform: Platform | None,
    layers: Sequence[tuple[Descriptor | None, str | None, bool]],
) -> dict[str, Any]:
    diff_ids: Sequence[Digest | None] = parsed.diff_ids if parsed is not None else [None] * len(layers)
    chains: Sequence[Digest | None] = chain_ids(parsed.diff_ids) if parsed is not None else [None] * len(layers)
    history = parsed.history if parsed is not None else ()
    steps = [entry.created_by for entry in history if not entry.empty_layer]
    rows: list[dict[str, Any]] = []
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


def history_view(entry: HistoryEntry) -> dict[str, Any]:
    """One build step."""
    return {
        "created": rfc3339(entry.created),
        "created_by": entry.created_by,
        "empty_layer": entry.empty_layer,
        "comment": entry.comment,
    }


def requires_view(thin: ThinRecord) -> list[dict[str, Any]]:
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
