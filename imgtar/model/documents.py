"""Manifests, indexes, configs and ``manifest.json``: parsed strictly, with their exact bytes kept beside.

pydantic checks the shape here, at the rim, and nowhere else; what comes out are plain frozen values. A document that
imgtar did not write is never encoded again: :class:`Document` carries the bytes that were read.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from imgtar.errors import Refused
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.platform import Platform
from imgtar.model.strictjson import parse_json
from imgtar.text import printable, shown

__all__ = [
    "DockerItem",
    "HistoryEntry",
    "ImageConfig",
    "Index",
    "Manifest",
    "encode_manifest",
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

_INT64 = (1 << 63) - 1


def _none_is_empty_list(value: Any) -> Any:
    return [] if value is None else value


def _none_is_empty_map(value: Any) -> Any:
    return {} if value is None else value


def _none_is_empty_text(value: Any) -> Any:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_none_is_empty_text)]
Annotations = Annotated[dict[str, str], BeforeValidator(_none_is_empty_map)]
Texts = Annotated[list[str], BeforeValidator(_none_is_empty_list)]


class _Shape(BaseModel):
    """Strict types, unknown properties allowed (image-spec: considerations.md, extensibility)."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _PlatformShape(_Shape):
    os: Text = ""
    architecture: Text = ""
    variant: Text = ""
    os_version: Text = Field("", alias="os.version")
    os_features: Texts = Field(default_factory=list, alias="os.features")

    def value(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant, self.os_version, tuple(self.os_features))


def _digest(text: str, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except Refused as error:
        raise error.within(what) from None


class _DescriptorShape(_Shape):
    media_type: Text = Field("", alias="mediaType")
    digest: str
    size: int = Field(ge=0, le=_INT64)
    platform: _PlatformShape | None = None
    annotations: Annotations = Field(default_factory=dict)
    artifact_type: Text = Field("", alias="artifactType")
    urls: Texts = Field(default_factory=list)
    data: str | None = None

    def value(self, what: str, limits: Limits) -> Descriptor:
        digest = _digest(self.digest, what)
        data = None
        if self.data is not None:
            if len(self.data) > limits.document * 4 // 3 + 4:
                raise Refused("E_LIMIT", f"the data embedded for {digest} is too large", where=what)
            try:
                data = base64.b64decode(self.data, validate=True)
            except (binascii.Error, ValueError):
                raise Refused("E_DIGEST", f"the data embedded for {digest} is not base64", where=what) from None
            if len(data) != self.size:
                message = f"the data embedded for {digest} has {len(data)} bytes, its descriptor says {self.size}"
                raise Refused("E_DIGEST", message, where=what)
            if digest.supported and Digest.of(data, digest.algorithm) != digest:
                raise Refused("E_DIGEST", f"the data embedded for {digest} has another digest", where=what)
        return Descriptor(
            self.media_type,
            digest,
            self.size,
            self.platform.value() if self.platform else None,
            self.annotations,
            self.artifact_type,
            tuple(self.urls),
            data,
        )


class _ManifestShape(_Shape):
    schema_version: int = Field(alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    artifact_type: Text = Field("", alias="artifactType")
    config: _DescriptorShape
    layers: list[_DescriptorShape]
    subject: _DescriptorShape | None = None
    annotations: Annotations = Field(default_factory=dict)


class _IndexShape(_Shape):
    schema_version: int = Field(2, alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    artifact_type: Text = Field("", alias="artifactType")
    # Docker 25.0.0-25.0.2 wrote null here (moby#47210); an index without the key at all is damaged.
    manifests: Annotated[list[_DescriptorShape], BeforeValidator(_none_is_empty_list)]
    subject: _DescriptorShape | None = None
    annotations: Annotations = Field(default_factory=dict)


class _HistoryShape(_Shape):
    created: Text = ""
    created_by: Text = ""
    author: Text = ""
    comment: Text = ""
    empty_layer: bool | None = False


class _RootfsShape(_Shape):
    type: Text = "layers"
    diff_ids: Texts = Field(default_factory=list)


class _RuntimeShape(_Shape):
    labels: Annotations = Field(default_factory=dict, alias="Labels")


class _ConfigShape(_Shape):
    architecture: Text = ""
    os: Text = ""
    variant: Text = ""
    os_version: Text = Field("", alias="os.version")
    os_features: Texts = Field(default_factory=list, alias="os.features")
    created: Text = ""
    parent: Text = ""
    rootfs: _RootfsShape
    history: Annotated[list[_HistoryShape], BeforeValidator(_none_is_empty_list)] = Field(default_factory=list)
    config: _RuntimeShape | None = None


class _DockerItemShape(_Shape):
    config: str
    repo_tags: Texts = Field(default_factory=list, alias="repotags")
    layers: list[str]
    parent: Text = ""
    layer_sources: Annotated[dict[str, _DescriptorShape], BeforeValidator(_none_is_empty_map)] = Field(
        default_factory=dict, alias="layersources"
    )


@dataclass(frozen=True, slots=True)
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
        """Whether this describes a file system to run, not an artifact or an attestation."""
        if not mediatype.is_image_config(self.config.media_type):
            return False
        return all(mediatype.is_layer(layer.media_type) for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (OCI image-index.md, Docker manifest list)."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One build step; ``empty_layer`` means that it made no layer."""

    created: str
    created_by: str
    author: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The parts of an image config (OCI config.md) that imgtar uses; the image ID is the digest of its bytes."""

    platform: Platform
    created: str
    parent: str
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DockerItem:
    """One entry of a docker archive's ``manifest.json`` (moby image/tarexport/tarexport.go)."""

    config: str
    repo_tags: tuple[str, ...]
    layers: tuple[str, ...]
    parent: str
    layer_sources: Mapping[str, Descriptor]


_S = TypeVar("_S", bound=_Shape)


def _shape(kind: type[_S], value: Any, what: str) -> _S:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise Refused("E_JSON", f"{printable(place)}: {printable(first['msg'])}", where=what) from None


def parse_manifest(raw: bytes, descriptor: Descriptor, what: str, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Parse the manifest that ``descriptor`` points at; ``raw`` must have been verified against it."""
    value = parse_json(raw, what, limits=limits)
    _unambiguous(value, what, index=False)
    shape = _shape(_ManifestShape, value, what)
    _declared(shape.schema_version, shape.media_type, descriptor.media_type, what)
    if len(shape.layers) > limits.layers_per_image:
        message = f"the image has {len(shape.layers)} layers, the limit is {limits.layers_per_image}"
        raise Refused("E_LIMIT", message, where=what)
    return Manifest(
        shape.media_type or descriptor.media_type,
        shape.config.value(what, limits),
        tuple(layer.value(what, limits) for layer in shape.layers),
        shape.subject.value(what, limits) if shape.subject else None,
        shape.artifact_type,
        shape.annotations,
    )


def parse_index(raw: bytes, declared: str, what: str, limits: Limits = DEFAULT_LIMITS) -> Index:
    """Parse an image index; ``declared`` is the media type of the descriptor that led here, "" for ``index.json``."""
    value = parse_json(raw, what, limits=limits)
    _unambiguous(value, what, index=True)
    shape = _shape(_IndexShape, value, what)
    _declared(shape.schema_version, shape.media_type, declared, what)
    if len(shape.manifests) > limits.descriptors:
        raise Refused("E_LIMIT", f"the index lists more than {limits.descriptors} manifests", where=what)
    return Index(
        shape.media_type or declared,
        tuple(item.value(what, limits) for item in shape.manifests),
        shape.subject.value(what, limits) if shape.subject else None,
        shape.artifact_type,
        shape.annotations,
    )


def _unambiguous(value: Any, what: str, *, index: bool) -> None:
    """Refuse a document that is two things at once (CVE-2021-41190; containerd images/image.go validateMediaType)."""
    if not isinstance(value, dict):
        raise Refused("E_JSON", "is not a JSON object", where=what)
    if "fsLayers" in value or value.get("schemaVersion") == 1:
        raise Refused(
            "E_TYPE",
            "is a schema 1 manifest, which imgtar does not read",
            where=what,
            hint="push it once more with a newer tool",
        )
    foreign = ("config", "layers") if index else ("manifests",)
    for key in foreign:
        if key in value:
            kind = "an index" if index else "a manifest"
            raise Refused(
                "E_TYPE", f"is given as {kind} but also has {shown(key)}: it could be read two ways", where=what
            )


def _declared(version: int, inside: str, outside: str, what: str) -> None:
    if version != 2:
        raise Refused("E_TYPE", f"schemaVersion is {version}, not 2", where=what)
    if inside and outside and inside != outside:
        message = f"calls itself {shown(inside)} but its descriptor says {shown(outside)}"
        raise Refused("E_TYPE", message, where=what)


def parse_config(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> ImageConfig:
    """Parse an image config. Optional fields may be ``null`` (OCI config.md); ``rootfs`` must be there."""
    value = parse_json(raw, what, limit=limits.config, limits=limits)
    if not isinstance(value, dict) or not isinstance(value.get("rootfs"), dict):
        raise Refused("E_JSON", "this image config has no rootfs", where=what)
    shape = _shape(_ConfigShape, value, what)
    if shape.rootfs.type not in ("", "layers"):
        raise Refused("E_JSON", f"rootfs.type is {shown(shape.rootfs.type)}, not layers", where=what)
    if len(shape.rootfs.diff_ids) > limits.layers_per_image:
        raise Refused("E_LIMIT", f"the config names more than {limits.layers_per_image} layers", where=what)
    return ImageConfig(
        Platform(shape.os, shape.architecture, shape.variant, shape.os_version, tuple(shape.os_features)),
        shape.created,
        shape.parent,
        tuple(_digest(text, what) for text in shape.rootfs.diff_ids),
        tuple(
            HistoryEntry(entry.created, entry.created_by, entry.author, entry.comment, bool(entry.empty_layer))
            for entry in shape.history
        ),
        shape.config.labels if shape.config else {},
    )


def parse_docker_manifest(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> tuple[DockerItem, ...]:
    """Parse ``manifest.json`` of a docker archive. Keys are taken in any case, as Go takes them (Jib writes lower)."""
    value = parse_json(raw, what, limits=limits)
    if not isinstance(value, list):
        kind = "null" if value is None else type(value).__name__
        raise Refused("E_JSON", f"is not a list of images but {kind}", where=what)
    if len(value) > limits.images:
        raise Refused("E_LIMIT", f"lists {len(value)} images, the limit is {limits.images}", where=what)
    items = []
    for entry in value:
        if not isinstance(entry, dict):
            raise Refused("E_JSON", "has an entry that is not an object", where=what)
        shape = _shape(_DockerItemShape, {key.lower(): item for key, item in entry.items()}, what)
        if not shape.config:
            raise Refused("E_JSON", "names no config for an image", where=what)
        if len(shape.repo_tags) > limits.names_per_image:
            raise Refused("E_LIMIT", f"gives one image {len(shape.repo_tags)} tags", where=what)
        if len(shape.layers) > limits.layers_per_image:
            raise Refused("E_LIMIT", f"gives one image {len(shape.layers)} layers", where=what)
        sources = {key: source.value(what, limits) for key, source in shape.layer_sources.items()}
        items.append(DockerItem(shape.config, tuple(shape.repo_tags), tuple(shape.layers), shape.parent, sources))
    return tuple(items)


def parse_layout(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check ``oci-layout``: the only version is 1.0.0 (image-layout.md)."""
    value = parse_json(raw, what, limits=limits)
    version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    if version != "1.0.0":
        raise Refused("E_TYPE", f"the layout version is {shown(str(version))}, only 1.0.0 is known", where=what)


def parse_repositories(raw: bytes, what: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, dict[str, str]]:
    """Parse ``repositories``: name, tag, ID of the top layer (moby image/spec/v1.md)."""
    value = parse_json(raw, what, limits=limits)
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
        declared = value.get("mediaType")
        if isinstance(declared, str) and declared:
            return declared
        if "manifests" in value:
            return mediatype.IMAGE_INDEX
        if "config" in value and "layers" in value:
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
    declared = value.get("mediaType")
    if isinstance(declared, str) and (mediatype.is_index(declared) or mediatype.is_manifest(declared)):
        return declared
    if declared is None and value.get("schemaVersion") == 2:
        if isinstance(value.get("manifests"), list):
            return mediatype.IMAGE_INDEX
        if isinstance(value.get("layers"), list) and isinstance(value.get("config"), dict):
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
