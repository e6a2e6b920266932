"""Manifests, indexes, configs and ``manifest.json``: parsed strictly, with their exact bytes kept beside.

The shapes are checked in shapes.py; what comes out are plain frozen values. A document that
imgtar did not write is never encoded again: :class:`Document` carries the bytes that were read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.platform import Platform
from imgtar.model.shapes import checked, descriptor_of, parse_digest, platform_of, spelled
from imgtar.model.strictjson import fold, parse_json
from imgtar.text import shown

__all__ = [
    "DockerItem",
    "HistoryEntry",
    "ImageConfig",
    "Index",
    "Manifest",
    "digest_in_path",
    "encode_manifest",
    "image_like",
    "parse_config",
    "parse_docker_manifest",
    "parse_index",
    "parse_layout",
    "parse_manifest",
    "parse_repositories",
    "parse_time",
    "pretended",
    "sniff_document",
]


@frozen
class Manifest:
    """An image manifest (OCI manifest.md, Docker schema 2): a config and layers, base layer first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def is_image(self) -> bool:
        """Whether this calls itself a file system to run: by the types of its config and of all its layers."""
        return mediatype.is_image_config(self.config.media_type) and all(self._are_layers())

    @property
    def mixed(self) -> bool:
        """Whether some of its layers, and not all, are called layers of a file system."""
        return len(set(self._are_layers())) > 1

    def _are_layers(self) -> list[bool]:
        # Asked often, and a thousand layers have few media types.
        return [mediatype.is_layer(media_type) for media_type in {layer.media_type for layer in self.layers}]


@frozen
class Index:
    """An image index (OCI image-index.md, Docker manifest list)."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]


@frozen
class HistoryEntry:
    """One build step; ``empty_layer`` means that it made no layer."""

    created: str
    created_by: str
    author: str
    comment: str
    empty_layer: bool


@frozen
class ImageConfig:
    """The parts of an image config (OCI config.md) that imgtar uses; the image ID is the digest of its bytes."""

    platform: Platform
    created: str
    parent: str
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...]
    labels: Mapping[str, str]


@frozen
class DockerItem:
    """One entry of a docker archive's ``manifest.json`` (moby image/tarexport/tarexport.go)."""

    config: str
    repo_tags: tuple[str, ...]
    layers: tuple[str, ...]
    parent: str
    layer_sources: Mapping[str, Descriptor]


def parse_manifest(raw: bytes, descriptor: Descriptor, what: str, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Parse the manifest that ``descriptor`` points at; ``raw`` must have been verified against it."""
    value = spelled("manifest", parse_json(raw, what, limits=limits))
    _unambiguous(value, what, index=False)
    found = checked("manifest", value, what)
    media_type = found.get("mediaType") or ""
    _declared(found["schemaVersion"], media_type, descriptor.media_type, what)
    layers, subject = found["layers"], found.get("subject")
    if len(layers) > limits.layers_per_image:
        message = f"the image has {len(layers)} layers, the limit is {limits.layers_per_image}"
        raise Refused("E_LIMIT", message, where=what)
    return Manifest(
        media_type or descriptor.media_type,
        descriptor_of(found["config"], what, limits),
        tuple(descriptor_of(layer, what, limits) for layer in layers),
        descriptor_of(subject, what, limits) if subject is not None else None,
        found.get("artifactType") or "",
        found.get("annotations") or {},
    )


def parse_index(raw: bytes, declared: str, what: str, limits: Limits = DEFAULT_LIMITS) -> Index:
    """Parse an image index; ``declared`` is the media type of the descriptor that led here, "" for ``index.json``."""
    value = spelled("index", parse_json(raw, what, limits=limits))
    _unambiguous(value, what, index=True)
    found = checked("index", value, what)
    media_type = found.get("mediaType") or ""
    _declared(found.get("schemaVersion", 2), media_type, declared, what)
    manifests, subject = found["manifests"] or [], found.get("subject")
    if len(manifests) > limits.descriptors:
        raise Refused("E_LIMIT", f"the index lists more than {limits.descriptors} manifests", where=what)
    return Index(
        media_type or declared,
        tuple(descriptor_of(item, what, limits) for item in manifests),
        descriptor_of(subject, what, limits) if subject is not None else None,
        found.get("artifactType") or "",
        found.get("annotations") or {},
    )


def _unambiguous(value: Any, what: str, *, index: bool) -> None:
    """Refuse a document that is two things at once (CVE-2021-41190; containerd images/image.go validateMediaType)."""
    if not isinstance(value, dict):
        raise Refused("E_JSON", "is not a JSON object", where=what)
    keys = {fold(key): key for key in value}
    if "fslayers" in keys or value.get("schemaVersion") == 1:
        raise Refused(
            "E_TYPE",
            "is a schema 1 manifest, which imgtar does not read",
            where=what,
            hint="push it once more with a newer tool",
        )
    foreign = ("config", "layers") if index else ("manifests",)
    for key in foreign:
        if key in keys:
            kind = "an index" if index else "a manifest"
            message = f"is given as {kind} but also has {shown(keys[key])}: it could be read two ways"
            raise Refused("E_TYPE", message, where=what)


def _declared(version: int, inside: str, outside: str, what: str) -> None:
    if version != 2:
        raise Refused("E_TYPE", f"schemaVersion is {version}, not 2", where=what)
    if inside and outside and inside != outside:
        message = f"calls itself {shown(inside)} but its descriptor says {shown(outside)}"
        hint = "whoever wrote the descriptor is wrong: make the archive again from its source"
        raise Refused("E_TYPE", message, where=what, hint=hint)


def parse_config(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS, *, brief: bool = False) -> ImageConfig:
    """Parse an image config. Optional fields may be ``null`` (OCI config.md); ``rootfs`` must be there.

    ``brief`` leaves out what is only shown, as a thousand configs may be kept: the labels, and the texts of the history.
    """
    value = spelled("config", parse_json(raw, what, limit=limits.config, limits=limits))
    if not isinstance(value, dict) or not isinstance(value.get("rootfs"), dict):
        raise Refused("E_JSON", "this image config has no rootfs", where=what)
    found = checked("config", value, what)
    rootfs, runtime = found["rootfs"], found.get("config")
    kind, diff_ids = rootfs.get("type"), rootfs.get("diff_ids") or ()
    if kind not in (None, "", "layers"):
        raise Refused("E_JSON", f"rootfs.type is {shown(kind)}, not layers", where=what)
    if len(diff_ids) > limits.layers_per_image:
        raise Refused("E_LIMIT", f"the config names more than {limits.layers_per_image} layers", where=what)
    return ImageConfig(
        platform_of(found),
        found.get("created") or "",
        found.get("parent") or "",
        tuple(parse_digest(text, what) for text in diff_ids),
        tuple((_brief_entry if brief else _history_entry)(entry) for entry in found.get("history") or ()),
        (runtime.get("Labels") or {}) if runtime is not None and not brief else {},
    )


def image_like(raw: bytes, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether Go programs could read ``raw`` as the config of an image with layers, whatever its media type says.

    containerd never looks at the media type of a config. As lenient as the most lenient reader: what :func:`parse_config`
    would refuse may be a config for others.
    """
    if raw.lstrip()[:1] != b"{":
        return False
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > limits.json_values:
        return True  # More than is read here; so nobody can say that it is none.
    try:
        top = _lenient.decode(raw.decode("utf-8", "replace"))
    except ValueError:
        return False
    except RecursionError:
        return True
    return any(_below(rootfs, "diff_ids", list) for rootfs in _below(top, "rootfs", _Pairs))


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object as it stands: of two equal keys both."""


# Numbers are of no interest, and of any length.
_lenient = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=len, parse_float=len)


def _below(pairs: _Pairs, name: str, kind: type[Any]) -> list[Any]:
    """What is not empty and stands under a property that Go would take for ``name``."""
    return [item for key, item in pairs if item and isinstance(item, kind) and fold(key) == name]


def _brief_entry(found: Mapping[str, Any]) -> HistoryEntry:
    return _BRIEF_ENTRIES[bool(found.get("empty_layer"))]


def _history_entry(found: Mapping[str, Any]) -> HistoryEntry:
    created, by, author, comment = (found.get(key) or "" for key in ("created", "created_by", "author", "comment"))
    return HistoryEntry(created, by, author, comment, bool(found.get("empty_layer")))


_BRIEF_ENTRIES = (HistoryEntry("", "", "", "", False), HistoryEntry("", "", "", "", True))


def parse_docker_manifest(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> tuple[DockerItem, ...]:
    """Parse ``manifest.json`` of a docker archive (moby image/tarexport/tarexport.go; Jib writes lower-case keys)."""
    value = parse_json(raw, what, limits=limits)
    if not isinstance(value, list):
        kind = "null" if value is None else type(value).__name__
        raise Refused("E_JSON", f"is not a list of images but {kind}", where=what)
    if len(value) > limits.images:
        raise Refused("E_LIMIT", f"lists {len(value)} images, the limit is {limits.images}", where=what)
    items = []
    slots = 0
    for entry in value:
        if not isinstance(entry, dict):
            raise Refused("E_JSON", "has an entry that is not an object", where=what)
        found = checked("docker item", spelled("docker item", entry), what)
        config, layers, tags = found["Config"], found["Layers"], found.get("RepoTags") or ()
        if not config:
            raise Refused("E_JSON", "names no config for an image", where=what)
        if len(tags) > limits.names_per_image:
            raise Refused("E_LIMIT", f"gives one image {len(tags)} tags", where=what)
        if len(layers) > limits.layers_per_image:
            raise Refused("E_LIMIT", f"gives one image {len(layers)} layers", where=what)
        slots += len(layers)
        if slots > limits.descriptors:
            # Each becomes a descriptor, however few files there are.
            raise Refused("E_LIMIT", f"lists more than {limits.descriptors} layers in all", where=what)
        sources = found.get("LayerSources") or {}
        known = {key: descriptor_of(source, what, limits) for key, source in sources.items()}
        items.append(DockerItem(config, tuple(tags), tuple(layers), found.get("Parent") or "", known))
    return tuple(items)


def digest_in_path(path: str) -> Digest | None:
    """The digest that the path of a config in ``manifest.json`` names, if it does.

    It is written ``blobs/sha256/<hex>``, ``<hex>.json`` or ``sha256:<hex>``.
    """
    stem = path.rpartition("/")[2].removesuffix(".json").removeprefix("sha256:")
    return Digest("sha256", stem) if len(stem) == 64 and not set(stem) - set("0123456789abcdef") else None


def parse_layout(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check ``oci-layout``: the only version is 1.0.0 (image-layout.md)."""
    value = spelled("layout", parse_json(raw, what, limits=limits))
    version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    if version != "1.0.0":
        raise Refused("E_TYPE", f"the layout version is {shown(str(version))}, only 1.0.0 is known", where=what)


def parse_repositories(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, dict[str, str]]:
    """Parse ``repositories``: name, tag, ID of the top layer (moby image/spec/v1.md). Tags may differ in case only."""
    value = parse_json(raw, what, limits=limits, maps=True)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("E_JSON", "is not a JSON object", where=what)
    for tags in value.values():
        if not isinstance(tags, dict) or not all(isinstance(identity, str) for identity in tags.values()):
            raise Refused("E_JSON", "does not map names to tags to IDs", where=what)
    return value


def sniff_document(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the media type that an untyped manifest or index has by its own word or its shape (``dir`` layout)."""
    value = parse_json(raw, what, limits=limits)
    if isinstance(value, dict):
        found = {fold(key): item for key, item in value.items()}
        declared = found.get("mediatype")
        if isinstance(declared, str) and declared:
            return declared
        if "manifests" in found:
            return mediatype.IMAGE_INDEX
        if "config" in found and "layers" in found:
            return mediatype.IMAGE_MANIFEST
    raise Refused("E_TYPE", "is neither an image manifest nor an index", where=what)


def pretended(raw: bytes) -> str | None:
    """Return the manifest or index type that a document of unknown declared type really has, ``None`` if none."""
    if raw.lstrip()[:1] != b"{":
        return None
    try:
        value = parse_json(raw, "")
    except Refused:
        return None
    found = {fold(key): item for key, item in value.items()}
    declared = found.get("mediatype")
    if isinstance(declared, str) and (mediatype.is_index(declared) or mediatype.is_manifest(declared)):
        return declared
    if not declared and found.get("schemaversion") == 2:
        if isinstance(found.get("manifests"), list):
            return mediatype.IMAGE_INDEX
        if isinstance(found.get("layers"), list) and isinstance(found.get("config"), dict):
            return mediatype.IMAGE_MANIFEST
    return None


def encode_manifest(config: Descriptor, layers: tuple[Descriptor, ...]) -> bytes:
    """Write the OCI manifest of an image that came without one.

    Byte for byte what Docker 25+ writes for the same image in its classic store, so that an image has one manifest
    digest whichever Docker saved it (moby daemon/internal/image/tarexport/save.go).
    """
    body = {
        "schemaVersion": 2,
        "mediaType": mediatype.IMAGE_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> datetime | None:
    """Return an RFC 3339 time, or ``None`` when the text is absent or not a time (both occur in real configs)."""
    if _RFC3339.fullmatch(text) is None:
        return None
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
