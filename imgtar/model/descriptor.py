"""The OCI descriptor: how one document points at another (image-spec descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgtar.frozen import field, frozen, replace
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform

__all__ = ["Descriptor"]


@frozen
class Descriptor:
    """What is pointed at: its kind, the digest of its bytes and their number (``size``, bytes)."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    def with_annotations(self, annotations: Mapping[str, str]) -> Descriptor:
        """The same pointer with other annotations."""
        return replace(self, annotations=dict(annotations))

    def to_json(self) -> dict[str, Any]:
        """The JSON object, keys in the order in which Docker and containerd write them."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            out["urls"] = list(self.urls)
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            platform: dict[str, Any] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.os_version:
                platform["os.version"] = self.platform.os_version
            if self.platform.os_features:
                platform["os.features"] = list(self.platform.os_features)
            if self.platform.variant:
                platform["variant"] = self.platform.variant
            out["platform"] = platform
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out
