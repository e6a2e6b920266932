"""What archives and stores hold, worked out without imgtar: by ``tarfile``, ``json``, ``hashlib`` and the decompressors.

This is the second opinion of the campaigns. It believes honest structure and no digest.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["Meaning", "changes", "compact", "members", "plain", "sha256", "stored_images"]

Meaning = tuple[tuple[tuple[str, ...], str, str | None, str | None, tuple[tuple[str, str], ...]], ...]
"""Images, sorted: names, image ID, manifest digest, platform, and each layer's digest and diff ID."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


def sha256(data: bytes) -> str:
    """The digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compact(value: Any) -> bytes:
    """A document as one line without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def plain(data: bytes) -> bytes:
    """``data`` without its compression, whichever that is."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18")):
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return bytes(reader.read())
    if data.startswith(b"BZh"):
        return bz2.decompress(data)
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.decompress(data)
    return data


def members(data: bytes) -> list[tuple[str, bytes, str, bytes]]:
    """The members of a tar in order: name, type, link and content, as Python's own reader sees them."""
    rows = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for one in tar:
            file = tar.extractfile(one) if one.isreg() else None
            rows.append((one.name.removesuffix("/"), one.type, one.linkname, file.read() if file else b""))
    return rows


def stored_images(store: Path) -> set[tuple[str, tuple[str, ...]]]:
    """Prove a store by its bytes, and return the image ID and the diff IDs of every image in it.

    Every blob must be what its name says; what a manifest refers to must be there in the size that it says; the layers
    must have the diff IDs that the config says. Children of an index may be absent.
    """
    for path in store.glob("blobs/*/*"):
        assert hashlib.new(path.parent.name, path.read_bytes()).hexdigest() == path.name, f"{path} is not its digest"
    index = json.loads((store / "index.json").read_bytes())
    found: set[tuple[str, tuple[str, ...]]] = set()
    for entry in index["manifests"]:
        found.update(_images(store, entry, must=True))
    return found


def _images(store: Path, entry: dict[str, Any], *, must: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    data = _blob(store, entry, must=must)
    if data is None:
        return
    document = json.loads(data)
    if (entry.get("mediaType") or document.get("mediaType")) in _INDEXES or (
        not entry.get("mediaType") and "manifests" in document
    ):
        for child in document.get("manifests") or ():
            yield from _images(store, child, must=False)
        return
    config = _blob(store, document["config"], must=True)
    layers = [_blob(store, layer, must=True) for layer in document.get("layers") or ()]
    assert config is not None
    if "image.config" not in document["config"].get("mediaType", "") and "container.image" not in document[
        "config"
    ].get("mediaType", ""):
        return  # An artifact: its layers are files.
    if "vnd.docker.reference.type" in (entry.get("annotations") or {}):
        return  # An attestation, by the word of its index: it is carried and not judged.
    kinds = [layer.get("mediaType", "") for layer in document.get("layers") or ()]
    if not all("image.layer" in kind or "image.rootfs" in kind for kind in kinds):
        return  # An artifact or an attestation, whatever its config is called: it is carried and not judged.
    diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
    assert [sha256(plain(layer)) for layer in layers if layer is not None] == diff_ids, "layers are not their diff IDs"
    yield sha256(config), tuple(diff_ids)


def _blob(store: Path, descriptor: dict[str, Any], *, must: bool) -> bytes | None:
    path = store / "blobs" / descriptor["digest"].replace(":", "/", 1)
    if not path.exists():
        assert not must, f"{path} is not there"
        return None
    data = path.read_bytes()
    assert len(data) == descriptor["size"], f"{path} has another size than its descriptor says"
    return data


def changes(before: Any, after: Any) -> tuple[set[str], set[str]]:
    """The places of a JSON document whose values were lost, and those that came; a renamed key is both."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    lost = {path for path, value in old.items() if path not in new or not _same(new[path], value)}
    return lost, {path for path, value in new.items() if path not in old or not _same(old[path], value)}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, f"{path}/{key}")
