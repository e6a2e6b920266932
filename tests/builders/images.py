"""Images and archives made in code: pure, deterministic, small, and easy to spoil.

``make_image`` makes an image. ``docker_files``, ``oci_files``, ``hybrid_files``, ``legacy_files`` and ``dir_files`` lay
images out as :class:`Files`, an ordered table of archive members that can be edited; ``Files.tar`` and
``Files.directory`` write it. ``docker_archive`` and the other ``*_archive`` functions are short for ``…_files().tar()``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import zstandard

from tests.builders import rawtar

__all__ = [
    "EMPTY",
    "Document",
    "Files",
    "Image",
    "Index",
    "Layer",
    "Member",
    "attestation",
    "dir_files",
    "docker_archive",
    "docker_files",
    "dumps",
    "hybrid_archive",
    "hybrid_files",
    "layer_tar",
    "legacy_archive",
    "legacy_files",
    "make_image",
    "make_index",
    "make_layer",
    "oci_archive",
    "oci_directory",
    "oci_files",
    "oci_layout",
    "sha256",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
IN_TOTO = "application/vnd.in-toto+json"
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
EMPTY = b"{}"

Json = Any
Compression = str | None
"""``None`` (plain), ``gzip`` or ``zstd``."""


def sha256(data: bytes) -> str:
    """Return the digest of ``data`` as OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dumps(value: Json) -> bytes:
    """Return compact JSON, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def compress(data: bytes, compression: Compression) -> bytes:
    """Compress ``data``; the same input gives the same output."""
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)
    assert compression is None
    return data


# -- parts ---------------------------------------------------------------------------------------------------------


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """Return a file system layer with these files."""
    return b"".join(rawtar.entry(name.encode(), data) for name, data in files.items()) + rawtar.END


@dataclass(frozen=True)
class Layer:
    """A layer: its plain tar, and the blob as it is carried."""

    tar: bytes
    blob: bytes
    compression: Compression = None
    media_type: str = OCI_LAYER

    @cached_property
    def diff_id(self) -> str:
        """The digest of the plain tar."""
        return sha256(self.tar)

    @cached_property
    def digest(self) -> str:
        """The digest of the blob."""
        return sha256(self.blob)

    def descriptor(self) -> dict[str, Json]:
        """The descriptor that a manifest holds."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.blob)}

    def plain(self) -> Layer:
        """The same layer, not compressed."""
        return make_layer(self.tar)


def make_layer(tar: bytes, compression: Compression = None) -> Layer:
    """Return the layer with this plain tar."""
    suffix = f"+{compression}" if compression else ""
    return Layer(tar, compress(tar, compression), compression, OCI_LAYER + suffix)


def random_layer(seed: int, compression: Compression = None, size: int = 700) -> Layer:
    """Return a layer with one file of ``size`` bytes that depend on ``seed`` alone."""
    return make_layer(layer_tar({f"data/{seed}": random.Random(seed).randbytes(size)}), compression)


@dataclass(frozen=True)
class Document:
    """A manifest or an index: bytes with a descriptor, and every blob below it."""

    raw: bytes
    media_type: str
    platform: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, bytes] = field(default_factory=dict)
    """Digest to content of all that it refers to, not itself."""

    @cached_property
    def digest(self) -> str:
        """The digest of the document."""
        return sha256(self.raw)

    def descriptor(self, annotations: Mapping[str, str] | None = None) -> dict[str, Json]:
        """The descriptor that an index holds."""
        result: dict[str, Json] = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}
        if self.platform is not None:
            result["platform"] = dict(zip(("os", "architecture", "variant"), self.platform.split("/"), strict=False))
        if merged := {**self.annotations, **(annotations or {})}:
            result["annotations"] = merged
        return result

    def blobs(self) -> dict[str, bytes]:
        """Digest to content, itself included."""
        return {**self.below, self.digest: self.raw}


@dataclass(frozen=True)
class Image:
    """An image under zero or more names. ``config`` and ``manifest`` are the exact bytes."""

    names: tuple[str, ...]
    platform: str
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes
    parent: str | None = None

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]

    @cached_property
    def image_id(self) -> str:
        """The digest of the config."""
        return sha256(self.config)

    @cached_property
    def digest(self) -> str:
        """The digest of the manifest."""
        return sha256(self.manifest)

    @cached_property
    def document(self) -> Document:
        """The manifest with all blobs below it."""
        below = {layer.digest: layer.blob for layer in self.layers}
        return Document(self.manifest, OCI_MANIFEST, self.platform, {}, {**below, self.image_id: self.config})

    def with_config(self, edit: Callable[[Json], Json | None] | bytes) -> Image:
        """The image with another config; the manifest refers to it. ``edit`` changes in place or returns a value."""
        raw = edit if isinstance(edit, bytes) else _edited(self.config, edit)

        def refer(manifest: Json) -> None:
            manifest["config"]["digest"], manifest["config"]["size"] = sha256(raw), len(raw)

        return replace(self, config=raw, manifest=_edited(self.manifest, refer))

    def with_manifest(self, edit: Callable[[Json], Json | None] | bytes) -> Image:
        """The image with another manifest."""
        raw = edit if isinstance(edit, bytes) else _edited(self.manifest, edit)
        return replace(self, manifest=raw)

    def named(self, *names: str) -> Image:
        """The same image under other names."""
        return replace(self, names=names)


Index = Document


def _edited(raw: bytes, edit: Callable[[Json], Json | None]) -> bytes:
    value = json.loads(raw)
    result = edit(value)
    return dumps(value if result is None else result)


def make_image(
    name: str | Sequence[str] = "demo:1",
    layers: int | Sequence[Layer] = 3,
    platform: str = "linux/amd64",
    compression: Compression = None,
    seed: int = 0,
    base: Image | None = None,
) -> Image:
    """Return an image of ``layers`` layers on top of those of ``base``."""
    own = (
        tuple(random_layer(1000 * seed + place, compression) for place in range(layers))
        if isinstance(layers, int)
        else tuple(layers)
    )
    every = (*(base.layers if base else ()), *own)
    os, architecture, *variant = platform.split("/")
    config = dumps(
        {
            "architecture": architecture,
            "os": os,
            **({"variant": variant[0]} if variant else {}),
            "created": "2024-01-02T03:04:05Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/demo"], "Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in every]},
            "history": [
                {"created": "2024-01-02T03:04:05Z", "created_by": f"COPY {place}"} for place in range(len(every))
            ],
        }
    )
    manifest = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [layer.descriptor() for layer in every],
        }
    )
    names = (name,) if isinstance(name, str) else tuple(name)
    return Image(names, platform, every, config, manifest, base.image_id if base else None)


def attestation(image: Image) -> Document:
    """Return a BuildKit attestation manifest for ``image``."""
    statement = dumps({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": image.digest}]})
    config = dumps(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(statement)]},
        }
    )
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [
                {
                    "mediaType": IN_TOTO,
                    "digest": sha256(statement),
                    "size": len(statement),
                    "annotations": {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"},
                }
            ],
        }
    )
    marks = {
        "vnd.docker.reference.digest": image.digest,
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return Document(raw, OCI_MANIFEST, "unknown/unknown", marks, {sha256(statement): statement, sha256(config): config})


def make_index(
    *items: Image | Document, sparse: Iterable[Image] = (), extra: Mapping[str, Json] | None = None
) -> Document:
    """Return a multi-platform index. The images in ``sparse`` are listed, but none of their blobs is carried."""
    documents = [item.document if isinstance(item, Image) else item for item in items]
    left_out = [image.document for image in sparse]
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [each.descriptor() for each in (*documents, *left_out)],
            **(extra or {}),
        }
    )
    below: dict[str, bytes] = {}
    for each in documents:
        below.update(each.blobs())
    return Document(raw, OCI_INDEX, None, {}, below)


# -- members and their containers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One member of an archive; ``kind`` is the tar type flag, ``link`` the target of a link."""

    name: str
    data: bytes = b""
    kind: bytes = b"0"
    link: str = ""

    def block(self) -> bytes:
        """The member as tar blocks: ustar, with a pax header where the name is too long."""
        name, link = self.name.encode(), self.link.encode()
        records = [(b"path", name)] if len(name) > 100 else []
        records += [(b"linkpath", link)] if len(link) > 100 else []
        head = rawtar.pax(*records) if records else b""
        mode = b"0000755\0" if self.kind == b"5" else b"0000644\0"
        return head + rawtar.entry(name[:100], self.data, kind=self.kind, link=link[:100], mode=mode)


@dataclass(frozen=True)
class Files:
    """The members of an archive in order. Every method returns a new table."""

    members: tuple[Member, ...]

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Files:
        """Regular files by name."""
        return cls(tuple(Member(name, data) for name, data in files.items()))

    def __getitem__(self, name: str) -> bytes:
        return next(member.data for member in self.members if member.name == name)

    @property
    def names(self) -> list[str]:
        """All names in order."""
        return [member.name for member in self.members]

    def plus(self, *members: Member, first: bool = False) -> Files:
        """With more members, at the end or at the front."""
        return Files((*members, *self.members) if first else (*self.members, *members))

    def put(self, name: str, data: bytes) -> Files:
        """With ``data`` under ``name``, in its old place if it was there."""
        if name not in self.names:
            return self.plus(Member(name, data))
        return self._each(name, lambda member: replace(member, data=data))

    def without(self, *names: str) -> Files:
        """Without these members; they must be there."""
        assert not set(names) - set(self.names), f"{names} not in {self.names}"
        return Files(tuple(member for member in self.members if member.name not in names))

    def renamed(self, old: str, new: str) -> Files:
        """With a member under another name."""
        return self._each(old, lambda member: replace(member, name=new))

    def linked(self, name: str, target: str, kind: bytes = b"2") -> Files:
        """With a link in place of a member."""
        return self._each(name, lambda member: Member(name, b"", kind, target))

    def edited(self, name: str, edit: Callable[[Json], Json | None]) -> Files:
        """With a JSON document changed: ``edit`` changes it in place or returns another value."""
        return self.put(name, _edited(self[name], edit))

    def mapped(self, change: Callable[[str], str]) -> Files:
        """With every name changed."""
        return Files(tuple(replace(member, name=change(member.name)) for member in self.members))

    def reversed(self) -> Files:
        """In the opposite order."""
        return Files(self.members[::-1])

    def tar(self, *, end: bytes = rawtar.END, record: int = 0) -> bytes:
        """Write a tar; ``record`` pads it to a multiple of so many bytes."""
        data = b"".join(member.block() for member in self.members) + end
        return data + bytes(-len(data) % record) if record else data

    def directory(self, path: Path) -> Path:
        """Write the members below the new directory ``path``."""
        for member in self.members:
            target = path / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.kind == b"5":
                target.mkdir(exist_ok=True)
            elif member.kind == b"2":
                target.symlink_to(member.link)
            else:
                target.write_bytes(member.data)
        return path

    def _each(self, name: str, change: Callable[[Member], Member]) -> Files:
        assert name in self.names, f"{name} not in {self.names}"
        return Files(tuple(change(member) if member.name == name else member for member in self.members))


# -- forms ---------------------------------------------------------------------------------------------------------


def hexed(digest: str) -> str:
    """The digest without its algorithm."""
    return digest.partition(":")[2]


def blob_name(digest: str) -> str:
    """The place of a blob in an OCI layout."""
    return "blobs/" + digest.replace(":", "/", 1)


def _docker_item(image: Image, config: str, layers: Sequence[str]) -> dict[str, Json]:
    return {"Config": config, "RepoTags": list(image.names) or None, "Layers": list(layers)}


def docker_files(images: Sequence[Image], style: str = "podman", *, repositories: bool = False) -> Files:
    """Lay out a docker archive: configs, layers once each, ``manifest.json`` last.

    ``podman``: ``<hex>.json`` and ``<hex>.tar``; ``crane``: configs named ``sha256:<hex>``, layers ``<hex>.tar.gz``,
    ``manifest.json`` last; ``v1``: as Docker 1.10 to 24 wrote it, layers in v1 folders that hold ``VERSION``, ``json``
    and ``layer.tar``, a layer that came before as a symbolic link.
    """
    members: list[Member] = []
    items = []
    placed: dict[str, str] = {}
    tags: dict[str, dict[str, str]] = {}
    for image in images:
        config = image.image_id if style == "crane" else f"{hexed(image.image_id)}.json"
        paths: list[str] = []
        chain = ""
        for layer in image.layers:
            suffix = ".tar.gz" if style == "crane" else ".tar"
            path = f"{hexed(layer.digest)}{suffix}"
            if style == "v1":
                parent, chain = chain, hexed(sha256(f"{chain} {layer.diff_id} {image.name}".encode()))
                path = f"{chain}/layer.tar"
                v1 = dumps({"id": chain, **({"parent": parent} if parent else {}), "created": "2024-01-02T03:04:05Z"})
                members += [Member(f"{chain}/", kind=b"5"), Member(f"{chain}/VERSION", b"1.0")]
                members.append(Member(f"{chain}/json", v1))
                if layer.digest in placed:
                    members.append(Member(path, kind=b"2", link=f"../{placed[layer.digest]}"))
                else:
                    placed[layer.digest] = path
                    members.append(Member(path, layer.blob))
            elif layer.digest not in placed:
                placed[layer.digest] = path
                members.append(Member(path, layer.blob))
            paths.append(path)
        for name in image.names:
            repository, _, tag = name.rpartition(":")
            tags.setdefault(repository, {})[tag] = chain or hexed(image.image_id)
        if config not in [member.name for member in members]:
            members.append(Member(config, image.config))
        items.append(_docker_item(image, config, paths))
    members.append(Member("manifest.json", dumps(items)))
    if repositories or style == "v1":
        members.append(Member("repositories", dumps(tags)))
    return Files(tuple(members))


def oci_layout(roots: Sequence[Image | tuple[Document, Sequence[str]]], *, hybrid: bool = False) -> Files:
    """Lay out an OCI image layout. A root is an image, or an index (or any document) with its names."""
    entries: list[Json] = []
    blobs: dict[str, bytes] = {}
    for root in roots:
        document, names = (root.document, root.names) if isinstance(root, Image) else root
        blobs.update(document.blobs())
        for name in names:
            marks = {CONTAINERD_NAME: _full(name), REF_NAME: name.rpartition(":")[2]} if hybrid else {REF_NAME: name}
            entries.append(document.descriptor(marks))
        if not names:
            entries.append(document.descriptor())
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    return Files.of({**files, **{blob_name(digest): data for digest, data in sorted(blobs.items())}})


def oci_files(roots: Sequence[Image | tuple[Document, Sequence[str]]]) -> Files:
    """Lay out an OCI archive."""
    return oci_layout(roots)


def hybrid_files(images: Sequence[Image]) -> Files:
    """Lay out both views, as Docker 25 and later do: ``manifest.json`` names files in ``blobs/``."""
    items = [
        _docker_item(image, blob_name(image.image_id), [blob_name(layer.digest) for layer in image.layers])
        for image in images
    ]
    return oci_layout(images, hybrid=True).plus(Member("manifest.json", dumps(items)))


def legacy_files(images: Sequence[Image]) -> Files:
    """Lay out a pre-1.10 archive: ``repositories`` and v1 folders, no ``manifest.json``, no configs."""
    files = docker_files(images, "v1")
    return files.without("manifest.json", *{f"{hexed(image.image_id)}.json" for image in images})


def dir_files(image: Image) -> Files:
    """Lay out the ``dir:`` form of skopeo and podman."""
    return Files.of(
        {
            "version": b"Directory Transport Version: 1.1\n",
            "manifest.json": image.manifest,
            **{hexed(digest): data for digest, data in sorted(image.document.below.items())},
        }
    )


def docker_archive(images: Sequence[Image], style: str = "podman", *, repositories: bool = False) -> bytes:
    """Return a docker archive."""
    return docker_files(images, style, repositories=repositories).tar()


def oci_archive(roots: Sequence[Image | tuple[Document, Sequence[str]]]) -> bytes:
    """Return an OCI archive."""
    return oci_files(roots).tar()


def hybrid_archive(images: Sequence[Image]) -> bytes:
    """Return a hybrid archive."""
    return hybrid_files(images).tar()


def legacy_archive(images: Sequence[Image]) -> bytes:
    """Return a pre-1.10 archive."""
    return legacy_files(images).tar()


def oci_directory(path: Path, roots: Sequence[Image | tuple[Document, Sequence[str]]]) -> Path:
    """Write an OCI layout directory."""
    return oci_layout(roots).directory(path)


def _full(name: str) -> str:
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
