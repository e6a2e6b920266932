"""Media types and annotation keys, and what may be concluded from them.

Sources: OCI image-spec media-types.md and annotations.md, distribution manifest-v2-2.md, containerd
core/images/mediatypes.go, BuildKit docs/attestations/attestation-storage.md. Media types are compared to the letter, as
every engine does.
"""

from __future__ import annotations

__all__ = [
    "ATTESTATION_ARTIFACT_TYPE",
    "ATTESTATION_MANIFEST",
    "BASE_DIGEST",
    "BASE_NAME",
    "CONTAINERD_NAME",
    "CONTAINERD_SUBJECT",
    "DESCRIPTOR",
    "DOCKER_CONFIG",
    "DOCKER_FOREIGN_LAYER",
    "DOCKER_FOREIGN_LAYER_GZIP",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_MANIFEST",
    "DOCKER_MANIFEST_LIST",
    "DOCKER_REFERENCE_DIGEST",
    "DOCKER_REFERENCE_TYPE",
    "DOCKER_SCHEMA1",
    "DOCKER_SCHEMA1_SIGNED",
    "EMPTY_JSON_TYPE",
    "ENCRYPTED_SUFFIX",
    "EROFS_LAYER",
    "FOREIGN_LAYER",
    "FOREIGN_LAYER_GZIP",
    "FOREIGN_LAYER_ZSTD",
    "IMAGE_CONFIG",
    "IMAGE_INDEX",
    "IMAGE_MANIFEST",
    "IN_TOTO",
    "LAYER",
    "LAYER_GZIP",
    "LAYER_ZSTD",
    "LAYOUT_HEADER",
    "PREDICATE_TYPE",
    "REF_NAME",
    "is_attestation_layer",
    "is_foreign_layer",
    "is_image_config",
    "is_index",
    "is_layer",
    "is_manifest",
    "layer_compression",
    "layer_media_type",
]

# --- media types: OCI

IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"
FOREIGN_LAYER_GZIP = FOREIGN_LAYER + "+gzip"
FOREIGN_LAYER_ZSTD = FOREIGN_LAYER + "+zstd"
LAYOUT_HEADER = "application/vnd.oci.layout.header.v1+json"
EMPTY_JSON_TYPE = "application/vnd.oci.empty.v1+json"
DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"
ENCRYPTED_SUFFIX = "+encrypted"

# --- media types: Docker

DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP = DOCKER_FOREIGN_LAYER + ".gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

# --- media types: others

IN_TOTO = "application/vnd.in-toto+json"
EROFS_LAYER = "application/vnd.erofs.layer.v1"
ATTESTATION_ARTIFACT_TYPE = "application/vnd.docker.attestation.manifest.v1+json"

# --- annotation keys

REF_NAME = "org.opencontainers.image.ref.name"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
CONTAINERD_NAME = "io.containerd.image.name"
CONTAINERD_SUBJECT = "io.containerd.manifest.subject"
DOCKER_REFERENCE_TYPE = "vnd.docker.reference.type"
DOCKER_REFERENCE_DIGEST = "vnd.docker.reference.digest"
PREDICATE_TYPE = "in-toto.io/predicate-type"

ATTESTATION_MANIFEST = "attestation-manifest"
"""The value of ``DOCKER_REFERENCE_TYPE`` on BuildKit attestations."""

_INDEXES = frozenset({IMAGE_INDEX, DOCKER_MANIFEST_LIST})
_MANIFESTS = frozenset({IMAGE_MANIFEST, DOCKER_MANIFEST})
_CONFIGS = frozenset({IMAGE_CONFIG, DOCKER_CONFIG})

_FOREIGN_LAYERS: dict[str, str | None] = {
    FOREIGN_LAYER: "none",
    FOREIGN_LAYER_GZIP: "gzip",
    FOREIGN_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN_LAYER: None,
    DOCKER_FOREIGN_LAYER_GZIP: "gzip",
}
# Docker's raw types promise nothing: compressed blobs under them are in circulation, and containerd looks at the bytes.
_LAYERS: dict[str, str | None] = {
    LAYER: "none",
    LAYER_GZIP: "gzip",
    LAYER_ZSTD: "zstd",
    DOCKER_LAYER: None,
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    **_FOREIGN_LAYERS,
}
_OCI_LAYER_BY_COMPRESSION = {"none": LAYER, "gzip": LAYER_GZIP, "zstd": LAYER_ZSTD}


def is_index(media_type: str) -> bool:
    """Whether it is an OCI image index or a Docker manifest list."""
    return media_type in _INDEXES


def is_manifest(media_type: str) -> bool:
    """Whether it is an OCI or Docker schema 2 manifest; schema 1, which Docker gave up, is not."""
    return media_type in _MANIFESTS


def is_image_config(media_type: str) -> bool:
    """Whether it is the config of a runnable image, not of some other artifact."""
    return media_type in _CONFIGS


def is_layer(media_type: str) -> bool:
    """Whether it is a file system layer (a tar) of an image: raw, compressed, foreign or encrypted."""
    return media_type.removesuffix(ENCRYPTED_SUFFIX) in _LAYERS


def is_foreign_layer(media_type: str) -> bool:
    """Whether it is a layer that a complete archive may leave out (OCI "nondistributable", Docker "foreign")."""
    return media_type.removesuffix(ENCRYPTED_SUFFIX) in _FOREIGN_LAYERS


def is_attestation_layer(media_type: str) -> bool:
    """Whether it is an in-toto statement, as BuildKit puts into attestation manifests."""
    return media_type == IN_TOTO


def layer_compression(media_type: str) -> str | None:
    """Return the compression a layer type declares (``none``, ``gzip``, ``zstd``), or None when it declares none.

    None means that the bytes have to be looked at: Docker's raw types, encrypted layers, unknown types.
    """
    return _LAYERS.get(media_type)


def layer_media_type(compression: str) -> str:
    """Return the OCI layer type for ``none``, ``gzip`` or ``zstd``. Raises :class:`ValueError` for anything else."""
    try:
        return _OCI_LAYER_BY_COMPRESSION[compression]
    except KeyError:
        raise ValueError(f"no OCI layer type for compression {compression!r}") from None
