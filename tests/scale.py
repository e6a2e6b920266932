"""Archives too large to build in memory: made block by block, or as files with holes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tests.builders import rawtar
from tests.builders.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, dumps, sha256

__all__ = ["many_entries", "many_files", "sparse_archive", "zeros_digest"]


def _numbered(prefix: bytes, count: int) -> Iterator[bytes]:
    # A checksum of a name with other digits is the old one and the difference: building each block takes too long.
    width = 8
    base = rawtar.header(prefix + b"0" * width)
    total = int(base[148:154], 8)
    front, middle, back = base[: len(prefix)], base[len(prefix) + width : 148], base[156:]
    zeros = width * 48
    for number in range(count):
        digits = b"%0*d" % (width, number)
        yield b"".join((front, digits, middle, b"%06o\0 " % (total + sum(digits) - zeros), back))


def many_entries(count: int) -> Iterator[bytes]:
    """A tar of so many empty entries, in pieces."""
    piece: list[bytes] = []
    for block in _numbered(b"e", count):
        piece.append(block)
        if len(piece) == 128:
            yield b"".join(piece)
            piece.clear()
    yield b"".join(piece) + rawtar.END


def many_files(count: int) -> Iterator[bytes]:
    """The blocks of so many empty files of a layer."""
    return _numbered(b"usr/share/file-", count)


def zeros_digest(size: int) -> str:
    """The digest of so many zeros."""
    hasher = hashlib.sha256()
    piece = bytes(1 << 22)
    while size:
        hasher.update(piece[: min(size, len(piece))])
        size -= min(size, len(piece))
    return "sha256:" + hasher.hexdigest()


def sparse_archive(path: Path, size: int, *, digest: str = "", how: str = "pax") -> str:
    """Write an OCI archive of the image ``big:1``: one layer of ``size`` zeros, as a hole. Returns the layer's digest.

    ``digest`` is taken as it is if given: for what is not read. ``how`` the header tells a size that octal cannot.
    """
    digest = digest or zeros_digest(size)
    config = dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    )
    manifest = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest, "size": size}],
        }
    )
    index = dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": sha256(manifest),
                    "size": len(manifest),
                    "annotations": {"org.opencontainers.image.ref.name": "big:1"},
                }
            ],
        }
    )

    def name(of: str) -> bytes:
        return b"blobs/sha256/" + of.partition(":")[2].encode()

    with open(path, "wb") as file:
        file.write(rawtar.entry(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}'))
        file.write(rawtar.entry(b"index.json", index))
        file.write(rawtar.entry(name(sha256(manifest)), manifest) + rawtar.entry(name(sha256(config)), config))
        if how == "base-256":
            file.write(rawtar.header(name(digest), size=rawtar.base256(size, 12)))
        elif size < 1 << 33:
            file.write(rawtar.header(name(digest), size=size))
        else:
            file.write(rawtar.pax((b"size", b"%d" % size)) + rawtar.header(name(digest), size=0))
        file.truncate(file.tell() + size + -size % 512 + len(rawtar.END))
    return digest
