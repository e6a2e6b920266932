"""Roots that say something false about blobs of an honest image, without carrying these: what the store knows later."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from tests.builders.images import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Document,
    Image,
    dumps,
    make_image,
    sha256,
)

__all__ = ["ALIVE", "LIES", "artifact", "index_of", "left_out"]

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
THING = "application/vnd.example.thing"

OWN = make_image("own:1", 1, platform="linux/riscv64", seed=900)
"""What a liar brings along, so that there is something to load."""


def index_of(*entries: Any, below: dict[str, bytes] | None = None, own: Image = OWN, first: bool = False) -> Document:
    """An index of ``own`` and of whatever ``entries`` say; ``first``: before it."""
    mine = [own.document.descriptor()]
    listed = [*entries, *mine] if first else [*mine, *entries]
    raw = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})
    return Document(raw, OCI_INDEX, None, {}, {**own.document.blobs(), **(below or {})})


def left_out(
    config: Any, layers: list[Any], platform: str = "linux/s390x", **extra: Any
) -> tuple[Any, dict[str, bytes]]:
    """The entry of a platform whose manifest comes along and whose config does not, and that manifest.

    It is embedded in the entry too: a store keeps no manifest of what was never shipped.
    """
    raw = dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers, **extra})
    os, architecture = platform.split("/")
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": sha256(raw),
        "size": len(raw),
        "data": base64.b64encode(raw).decode(),
        "platform": {"os": os, "architecture": architecture},
    }
    return entry, {sha256(raw): raw}


def artifact(*files: bytes, subject: Image | None = None) -> Document:
    """An artifact of these files."""
    config = b"{}"
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": THING,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(config), "size": 2},
        "layers": [{"mediaType": THING, "digest": sha256(raw), "size": len(raw)} for raw in files],
    }
    if subject is not None:
        value["subject"] = subject.document.descriptor()
    return Document(
        dumps(value), OCI_MANIFEST, None, {}, {sha256(config): config, **{sha256(raw): raw for raw in files}}
    )


def _nowhere(number: int = 0, media_type: str = OCI_CONFIG) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(b"nowhere %d" % number), "size": 1000 + number}


def _entry(image: Image, **changes: Any) -> dict[str, Any]:
    return {**json.loads(dumps(image.document.descriptor())), **changes}


def _wrong_size(image: Image) -> Document:
    return index_of(_entry(image, size=len(image.manifest) + 1))


def _as_index(image: Image) -> Document:
    return index_of(_entry(image, mediaType=OCI_INDEX))


def _as_docker(image: Image) -> Document:
    return index_of(_entry(image, mediaType=DOCKER_MANIFEST))


def _as_thing(image: Image) -> Document:
    return index_of(_entry(image, mediaType=THING, platform=None))


def _as_layer_entry(image: Image) -> Document:
    return index_of(_entry(image, mediaType=OCI_LAYER))


def _as_config_entry(image: Image) -> Document:
    return index_of(_entry(image, mediaType=OCI_CONFIG))


def _config_as_manifest(image: Image) -> Document:
    return index_of(_entry(image, digest=image.image_id, size=len(image.config)))


def _layer_as_manifest(image: Image) -> Document:
    layer = image.layers[0]
    return index_of(_entry(image, digest=layer.digest, size=len(layer.blob)))


def _first(image: Image) -> Document:
    return index_of(_entry(image, size=len(image.manifest) + 1), first=True)


def _as_attestation(image: Image) -> Document:
    marks = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": OWN.digest}
    unknown = {"os": "unknown", "architecture": "unknown"}
    return index_of(_entry(image, size=len(image.manifest) - 1, annotations=marks, platform=unknown))


def _nested(image: Image) -> Document:
    inner = index_of(_entry(image, size=len(image.manifest) + 3))
    return index_of(inner.descriptor(), below=inner.blobs())


def _layer_size(image: Image) -> Document:
    layer = image.layers[0]
    entry, below = left_out(_nowhere(), [{**layer.descriptor(), "size": len(layer.blob) + 7}])
    return index_of(entry, below=below)


def _config_size(image: Image) -> Document:
    config = {"mediaType": OCI_CONFIG, "digest": image.image_id, "size": len(image.config) + 1}
    entry, below = left_out(config, [layer.descriptor() for layer in image.layers])
    return index_of(entry, below=below)


def _manifest_as_config(image: Image) -> Document:
    config = {"mediaType": OCI_CONFIG, "digest": image.digest, "size": len(image.manifest)}
    entry, below = left_out(config, [_nowhere(1, OCI_LAYER)])
    return index_of(entry, below=below)


def _count_of_layers(image: Image) -> Document:
    config = {"mediaType": OCI_CONFIG, "digest": image.image_id, "size": len(image.config)}
    entry, below = left_out(config, [image.layers[0].descriptor()])
    return index_of(entry, below=below)


def _manifest_as_layer(image: Image) -> Document:
    layer = {"mediaType": OCI_LAYER, "digest": image.digest, "size": len(image.manifest)}
    entry, below = left_out(_nowhere(2), [layer])
    return index_of(entry, below=below)


LIES: dict[str, tuple[Callable[[Image], Document], str | tuple[str, ...]]] = {
    "size": (_wrong_size, "E_SIZE"),
    "size, first in its index": (_first, "E_SIZE"),
    "size, of an attestation": (_as_attestation, "E_SIZE"),
    "size, two indexes down": (_nested, "E_SIZE"),
    "size of a layer": (_layer_size, "E_SIZE"),
    "size of the config": (_config_size, "E_SIZE"),
    "an index": (_as_index, ("E_TYPE", "E_JSON")),
    "another media type": (_as_docker, "E_TYPE"),
    "a thing": (_as_thing, "E_TYPE"),
    "a layer": (_as_layer_entry, "E_TYPE"),
    "a config": (_as_config_entry, "E_TYPE"),
    "the config is a manifest": (_config_as_manifest, ("E_TYPE", "E_JSON")),
    "a layer is a manifest": (_layer_as_manifest, ("E_TYPE", "E_JSON")),
    "the manifest is a config": (_manifest_as_config, ("E_TYPE", "E_JSON")),
    "another count of layers": (_count_of_layers, "E_DIFFID"),
    "the manifest is a layer": (_manifest_as_layer, "E_TYPE"),
}
"""What is said of an image, who says it, and with which code it is refused where the image is held."""

ALIVE = ("the manifest is a layer",)
"""Lies that only matter to who puts both into one archive: what is said of the content may be true."""
