"""Which part of which image a member of a damaged archive is, for the message about the damage."""

from __future__ import annotations

from imgtar.errors import Refused
from imgtar.graph.catalog import Root
from imgtar.graph.library import Library
from imgtar.graph.walk import Walker, images_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.documents import parse_docker_manifest, pretended
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.model.strictjson import parse_json
from imgtar.text import printable
from imgtar.transport.members import Members
from imgtar.transport.oci_view import BlobTable, layout_blobs, read_layout

__all__ = ["describe_entry"]


def describe_entry(members: Members, entry: str, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """Say which part of which image the member ``entry`` is ("layer 3 of app:1"), as far as the documents are here.

    For messages about damage only: whatever cannot be read makes the answer ``None``.
    """
    try:
        return (
            _in_docker_view(members, entry, limits)
            or _in_oci_view(members, entry, limits)
            or _in_v1_chain(members, entry)
        )
    except Refused:
        return None


def _in_docker_view(members: Members, entry: str, limits: Limits) -> str | None:
    if "manifest.json" not in members.files:
        return None
    where = f"{members.label}: manifest.json"
    for item in parse_docker_manifest(members.read("manifest.json", limits.document), where, limits):
        for position, path in enumerate(item.layers, 1):
            if path.removeprefix("./") == entry:
                name = Reference.parse(item.repo_tags[0]).familiar if item.repo_tags else item.config
                return f"layer {position} of {printable(name)}"
    return None


def _in_oci_view(members: Members, entry: str, limits: Limits) -> str | None:
    names = layout_blobs(members)
    library = Library([BlobTable(members, names).fetch], limits, members.budget)
    walker = Walker(library, limits)
    roots = read_layout(members, limits)[0] if "index.json" in members.files else []
    if not roots:
        # index.json stands last in archives by Docker and containerd; the manifest itself may have come before.
        for digest, name in names.items():
            if members.files[name] <= _SMALL_MANIFEST:
                raw = members.read(name, _SMALL_MANIFEST)
                if pretended(raw) == mediatype.IMAGE_MANIFEST:
                    roots.append(Root(Descriptor(mediatype.IMAGE_MANIFEST, digest, len(raw))))
    for root in roots:
        for node in images_of(walker.grow(root.descriptor)) if root.descriptor else ():
            for position, layer in enumerate(node.manifest.layers if node.manifest else (), 1):
                if f"blobs/{layer.digest.path}" == entry:
                    return f"layer {position} of {printable(root.title)}"
    return None


_SMALL_MANIFEST = 64 << 10


def _in_v1_chain(members: Members, entry: str) -> str | None:
    """Docker 1.10-24 writes ``manifest.json`` last, but each layer's parent beside the layer."""
    identity, _, rest = entry.partition("/")
    position = 0
    while rest == "layer.tar" and f"{identity}/json" in members.files and position < DEFAULT_LIMITS.layers_per_image:
        position += 1
        value = parse_json(members.read(f"{identity}/json", _SMALL_MANIFEST), entry)
        parent = value.get("parent") if isinstance(value, dict) else None
        if not isinstance(parent, str):
            return f"layer {position} of an image that is named in the part that is missing"
        identity = parent
    # The chain goes down through layers that come later in the file: their number is not known here.
    return "a layer of an image that is named in the part that is missing" if position else None
