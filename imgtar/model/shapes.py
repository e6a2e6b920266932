"""The shapes that documents from strangers must have. pydantic checks them here, at the rim, and nowhere else."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from imgtar.errors import Refused
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import Limits
from imgtar.model.platform import Platform
from imgtar.text import printable

__all__ = [
    "ConfigShape",
    "DescriptorShape",
    "DockerItemShape",
    "IndexShape",
    "InventoryDocumentShape",
    "InventoryHeadShape",
    "ListedBlobShape",
    "ListedImageShape",
    "ManifestShape",
    "ThinShape",
    "checked",
    "parse_digest",
]

_INT64 = (1 << 63) - 1


def _none_is_empty_list(value: Any) -> Any:
    return [] if value is None else value


def _none_is_empty_map(value: Any) -> Any:
    return {} if value is None else value


# ``null`` for a text or a map is as good as none. What stands in every descriptor is ``... | None`` and made empty by
# ``value``: a validator written in Python would be called for each of the thousands in an index.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Annotations = Annotated[dict[str, str], BeforeValidator(_none_is_empty_map)]
Texts = Annotated[list[str], BeforeValidator(_none_is_empty_list)]


class Shape(BaseModel):
    """Strict types, unknown properties allowed (image-spec: considerations.md, extensibility)."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _PlatformShape(Shape):
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    os_version: str | None = Field(None, alias="os.version")
    os_features: list[str] | None = Field(None, alias="os.features")

    def value(self) -> Platform:
        return Platform(
            self.os or "",
            self.architecture or "",
            self.variant or "",
            self.os_version or "",
            tuple(self.os_features or ()),
        )


def parse_digest(text: str, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except Refused as error:
        raise error.within(what) from None


class DescriptorShape(Shape):
    media_type: str | None = Field(None, alias="mediaType")
    digest: str
    size: int = Field(ge=0, le=_INT64)
    platform: _PlatformShape | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str | None = Field(None, alias="artifactType")
    urls: list[str] | None = None
    data: str | None = None

    def value(self, what: str, limits: Limits) -> Descriptor:
        digest = parse_digest(self.digest, what)
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
            self.media_type or "",
            digest,
            self.size,
            self.platform.value() if self.platform else None,
            self.annotations or {},
            self.artifact_type or "",
            tuple(self.urls or ()),
            data,
        )


class ManifestShape(Shape):
    schema_version: int = Field(alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    artifact_type: Text = Field("", alias="artifactType")
    config: DescriptorShape
    layers: list[DescriptorShape]
    subject: DescriptorShape | None = None
    annotations: Annotations = Field(default_factory=dict)


class IndexShape(Shape):
    schema_version: int = Field(2, alias="schemaVersion")
    media_type: Text = Field("", alias="mediaType")
    artifact_type: Text = Field("", alias="artifactType")
    # Docker 25.0.0-25.0.2 wrote null here (moby#47210); an index without the key at all is damaged.
    manifests: Annotated[list[DescriptorShape], BeforeValidator(_none_is_empty_list)]
    subject: DescriptorShape | None = None
    annotations: Annotations = Field(default_factory=dict)


class _HistoryShape(Shape):
    created: Text = ""
    created_by: Text = ""
    author: Text = ""
    comment: Text = ""
    empty_layer: bool | None = False


class _RootfsShape(Shape):
    type: Text = "layers"
    diff_ids: Texts = Field(default_factory=list)


class _RuntimeShape(Shape):
    labels: Annotations = Field(default_factory=dict, alias="Labels")


class ConfigShape(Shape):
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


class DockerItemShape(Shape):
    config: str
    repo_tags: Texts = Field(default_factory=list, alias="repotags")
    layers: list[str]
    parent: Text = ""
    layer_sources: Annotated[dict[str, DescriptorShape], BeforeValidator(_none_is_empty_map)] = Field(
        default_factory=dict, alias="layersources"
    )


# Documents of imgtar's own: strict too, for they travel on media that strangers may touch. Unknown keys are allowed, so
# that a later version may say more.

Size = Annotated[int, Field(ge=0, le=_INT64)]
Place = Annotated[int, Field(ge=0, le=_INT64)]


class InventoryHeadShape(Shape):
    """The first line of an inventory file (graph/listing.py)."""

    schema_: str = Field(alias="schema")
    where: str
    root: str
    blobs: Size
    images: Size
    check: str
    redacted: bool = False


class ListedBlobShape(Shape):
    """The line of one blob in an inventory file."""

    digest: str
    size: Size
    kind: Literal["manifest", "index", "config", "layer", "blob"]
    diff_id: str | None = None
    media_type: str = ""


class ListedImageShape(Shape):
    """The line of one image under one name in an inventory file; ``blobs`` counts the blob lines from 0."""

    name: str | None
    digest: str | None
    image_id: str | None
    complete: bool
    platform: str | None = None
    blobs: list[Place] = Field(default_factory=list)


class InventoryDocumentShape(Shape):
    """The same as one document: what ``imgtar inventory --json`` writes."""

    schema_: str = Field(alias="schema")
    where: str
    root: str
    blobs: list[ListedBlobShape]
    images: list[ListedImageShape]
    redacted: bool = False


class _BaseShape(Shape):
    names: list[str]
    image_id: str | None
    digest: str | None
    inventory: str


class _ThinImageShape(Shape):
    names: list[str]
    digest: str
    image_id: str | None
    platform: str | None
    requires: list[Place]
    layers: list[Place | None] = Field(default_factory=list)


class _RequiredShape(Shape):
    kind: Literal["manifest", "index", "config", "layer", "blob"]
    media_type: str = Field(alias="mediaType")
    digest: str
    size: Size
    diff_id: str | None = None
    base: Place | None = None


class ThinShape(Shape):
    """``imgtar.json`` of a thin archive (graph/thin.py)."""

    schema_: str = Field(alias="schema")
    bases: list[_BaseShape]
    images: list[_ThinImageShape]
    requires: list[_RequiredShape]


_S = TypeVar("_S", bound=Shape)


def checked(kind: type[_S], value: Any, what: str) -> _S:
    """Return ``value`` as that shape. Raises ``E_JSON`` naming the place and what is wrong there."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise Refused("E_JSON", f"{printable(place)}: {printable(first['msg'])}", where=what) from None
