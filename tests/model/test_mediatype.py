"""Media types: every type belongs to one kind, and strangers to none."""

from __future__ import annotations

import pytest

from imgtar.model import mediatype as mt

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."

INDEXES = [OCI + "index.v1+json", DOCKER + "distribution.manifest.list.v2+json"]
MANIFESTS = [OCI + "manifest.v1+json", DOCKER + "distribution.manifest.v2+json"]
CONFIGS = [OCI + "config.v1+json", DOCKER + "container.image.v1+json"]
LAYERS: dict[str, str | None] = {
    OCI + "layer.v1.tar": "none",
    OCI + "layer.v1.tar+gzip": "gzip",
    OCI + "layer.v1.tar+zstd": "zstd",
    DOCKER + "image.rootfs.diff.tar": None,
    DOCKER + "image.rootfs.diff.tar.gzip": "gzip",
    DOCKER + "image.rootfs.diff.tar.zstd": "zstd",
    OCI + "layer.v1.tar+encrypted": None,
    OCI + "layer.v1.tar+gzip+encrypted": None,
}
FOREIGN_LAYERS: dict[str, str | None] = {
    OCI + "layer.nondistributable.v1.tar": "none",
    OCI + "layer.nondistributable.v1.tar+gzip": "gzip",
    OCI + "layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER + "image.rootfs.foreign.diff.tar": None,
    DOCKER + "image.rootfs.foreign.diff.tar.gzip": "gzip",
    OCI + "layer.nondistributable.v1.tar+gzip+encrypted": None,
}
ATTESTATIONS = ["application/vnd.in-toto+json"]
OTHERS = [
    "",
    "application/json",
    "application/vnd.oci.empty.v1+json",
    "application/vnd.oci.descriptor.v1+json",
    "application/vnd.oci.layout.header.v1+json",
    "application/vnd.erofs.layer.v1",
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    DOCKER + "distribution.manifest.v1+json",
    DOCKER + "distribution.manifest.v1+prettyjws",
    DOCKER + "attestation.manifest.v1+json",
    OCI + "layer.v1.tar+gzip ",
    OCI + "layer.v1.tar+encrypted+encrypted",
    (OCI + "index.v1+json").upper(),
    "+encrypted",
]

KINDS = {
    "index": (mt.is_index, INDEXES),
    "manifest": (mt.is_manifest, MANIFESTS),
    "config": (mt.is_image_config, CONFIGS),
    "layer": (mt.is_layer, [*LAYERS, *FOREIGN_LAYERS]),
    "foreign layer": (mt.is_foreign_layer, [*FOREIGN_LAYERS]),
    "attestation": (mt.is_attestation_layer, ATTESTATIONS),
}
EVERY_TYPE = [*INDEXES, *MANIFESTS, *CONFIGS, *LAYERS, *FOREIGN_LAYERS, *ATTESTATIONS, *OTHERS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_is_answered_yes_for_its_own_types_and_for_no_other(kind: str) -> None:
    question, own = KINDS[kind]
    assert [media_type for media_type in EVERY_TYPE if question(media_type)] == own


@pytest.mark.parametrize(("media_type", "compression"), [*LAYERS.items(), *FOREIGN_LAYERS.items()])
def test_a_layer_type_declares_its_compression_or_leaves_it_to_the_bytes(
    media_type: str, compression: str | None
) -> None:
    assert mt.layer_compression(media_type) == compression


@pytest.mark.parametrize("media_type", [*INDEXES, *MANIFESTS, *CONFIGS, *ATTESTATIONS, *OTHERS])
def test_what_is_no_layer_declares_no_compression(media_type: str) -> None:
    assert mt.layer_compression(media_type) is None


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_layer_type_that_is_written_declares_the_compression_it_was_asked_for(compression: str) -> None:
    written = mt.layer_media_type(compression)
    assert mt.layer_compression(written) == compression
    assert written.startswith(OCI + "layer.v1.tar")


@pytest.mark.parametrize("compression", ["", "bzip2", "GZIP"])
def test_no_layer_type_is_invented_for_another_compression(compression: str) -> None:
    with pytest.raises(ValueError, match="no OCI layer type"):
        mt.layer_media_type(compression)


def test_annotation_keys_are_those_that_other_tools_write() -> None:
    assert mt.REF_NAME == "org.opencontainers.image.ref.name"
    assert mt.BASE_NAME == "org.opencontainers.image.base.name"
    assert mt.BASE_DIGEST == "org.opencontainers.image.base.digest"
    assert mt.CONTAINERD_NAME == "io.containerd.image.name"
    assert mt.CONTAINERD_SUBJECT == "io.containerd.manifest.subject"
    assert mt.DOCKER_REFERENCE_TYPE == "vnd.docker.reference.type"
    assert mt.DOCKER_REFERENCE_DIGEST == "vnd.docker.reference.digest"
    assert mt.ATTESTATION_ARTIFACT_TYPE == "application/vnd.docker.attestation.manifest.v1+json"


def test_no_two_public_constants_have_one_value() -> None:
    values = [value for name in mt.__all__ if isinstance(value := getattr(mt, name), str)]
    assert len(values) == len(set(values)) > 30
