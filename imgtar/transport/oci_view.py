"""The OCI view of an archive: ``index.json`` and ``blobs/`` (image-spec image-layout.md), and the ``dir`` layout."""

from __future__ import annotations

import re

from imgtar.errors import Refused
from imgtar.frozen import record
from imgtar.graph.catalog import Root
from imgtar.graph.finding import Finding
from imgtar.graph.names import names_of
from imgtar.graph.walk import is_called_attestation
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_index, parse_layout, sniff_document
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import shown
from imgtar.transport.members import Members

__all__ = ["BlobTable", "layout_blobs", "read_dir", "read_layout"]

_BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


@record
class BlobTable:
    """Which member is said to hold which digest. Claims, until the bytes were measured."""

    members: Members
    names: dict[Digest, str]

    def fetch(self, descriptor: Descriptor, cap: int) -> bytes | None:
        """A :data:`imgtar.graph.library.Fetch` over the members. Raises ``E_DIGEST`` when the content is another."""
        digest = descriptor.digest
        name = self.names.get(digest)
        if name is None or not digest.supported:
            return None
        if self.members.files[name] != descriptor.size:
            message = f"has {self.members.files[name]} bytes, a descriptor says {descriptor.size}"
            raise Refused("E_SIZE", message, where=f"{self.members.label}: {name}")
        raw = self.members.read(name, cap)
        actual = Digest.of(raw, digest.algorithm)
        if actual != digest:
            raise Refused(
                "E_DIGEST",
                f"digest mismatch: expected {digest}, actual {actual}",
                where=f"{self.members.label}: {name}",
                hint="the content is damaged or was changed: make the archive again, or copy it again from its source",
                details={"expected": str(digest), "actual": str(actual)},
            )
        return raw


def layout_blobs(members: Members) -> dict[Digest, str]:
    """The files of ``blobs/`` by the digest in their name. Other names there are ignored (H166)."""
    names = {}
    for name in members.files:
        match = _BLOB.fullmatch(name)
        if match is not None:
            algorithm, _, encoded = match[1].partition("/")
            names[Digest(algorithm, encoded)] = name
    return names


def read_layout(members: Members, limits: Limits = DEFAULT_LIMITS) -> tuple[list[Root], list[Finding]]:
    """Return one root for each digest that ``index.json`` lists, with all its names, and what is worth a remark."""
    findings: list[Finding] = []
    where = f"{members.label}: index.json"
    if "oci-layout" in members.files:
        parse_layout(members.read("oci-layout", limits.document), f"{members.label}: oci-layout", limits)
    elif not any(name.startswith("blobs/") for name in members.files):
        raise Refused("E_TYPE", "there is an index.json but neither oci-layout nor blobs/", where=members.label)
    else:
        message = "oci-layout is missing; some tools will refuse this archive"
        findings.append(Finding("E_TYPE", "warning", members.label, message))
    index = parse_index(members.read("index.json", limits.document), "", where, limits)
    groups: dict[Digest, list[Root]] = {}
    for descriptor in index.manifests:
        labels, references = names_of(descriptor)
        for label in labels:
            if not label.isascii() or not label.isprintable():
                raise Refused("E_NAME", f"{shown(label)} cannot be the name of an image", where=where)
        bare = {
            key: value
            for key, value in descriptor.annotations.items()
            if key not in (mediatype.CONTAINERD_NAME, mediatype.REF_NAME)
        }
        root = Root(descriptor.with_annotations(bare), labels, references)
        roots = groups.setdefault(descriptor.digest, [])
        roots.append(root)
        first = roots[0].descriptor
        assert first is not None
        if first.media_type != descriptor.media_type:
            message = f"{descriptor.digest} is called {shown(first.media_type)} and {shown(descriptor.media_type)}"
            raise Refused("E_TYPE", message, where=where)
        if is_called_attestation(first) != is_called_attestation(descriptor):
            message = f"{descriptor.digest} is called an attestation by one entry and an image by another"
            raise Refused("E_TYPE", message, where=where)
        if first.size != descriptor.size:
            message = f"one entry says {first.size} bytes for {descriptor.digest}, another {descriptor.size}"
            raise Refused("E_SIZE", message, where=where)
    merged = []
    for roots in groups.values():
        names = tuple(dict.fromkeys(label for root in roots for label in root.labels))
        references = tuple(dict.fromkeys(reference for root in roots for reference in root.references))
        if len(names) > limits.names_per_image:
            raise Refused(
                "E_LIMIT", f"one image has {len(names)} names, the limit is {limits.names_per_image}", where=where
            )
        merged.append(Root(roots[0].descriptor, names, references))
    if len(merged) > limits.images:
        raise Refused("E_LIMIT", f"lists {len(merged)} images, the limit is {limits.images}", where=where)
    return merged, findings


def read_dir(members: Members, limits: Limits = DEFAULT_LIMITS) -> tuple[Root, dict[Digest, str]]:
    """Read the ``dir`` layout of skopeo and podman: ``manifest.json`` is one manifest, blobs are named by their hex.

    Source: containers/image directory/directory_transport.go. It has no names.
    """
    where = f"{members.label}: manifest.json"
    raw = members.read("manifest.json", limits.document)
    descriptor = Descriptor(sniff_document(raw, where, limits), Digest.of(raw), len(raw))
    names: dict[Digest, str] = {}
    for name in members.files:
        stem = name.removesuffix(".manifest.json")
        if _HEX.fullmatch(stem):
            names[Digest("sha256", stem)] = name
    names[descriptor.digest] = "manifest.json"
    return Root(descriptor), names
