"""Small whole archives, one of each family, and what imgtar makes of a file: the ground of the campaigns on bytes."""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import gzip
import lzma
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import zstandard

from imgtar.errors import ImgtarError
from imgtar.graph.select import Policy
from imgtar.ops.inspect import inspect_archive
from imgtar.ops.load import load
from imgtar.ops.verdict import Verification
from imgtar.ops.verify import verify
from imgtar.store.store import Store
from tests.builders.images import (
    Image,
    Member,
    docker_files,
    dumps,
    hybrid_files,
    layer_tar,
    legacy_files,
    make_image,
    make_index,
    make_layer,
    oci_files,
)
from tests.campaigns.independent import Meaning
from tests.hostile.test_thin_records import record, thin_files

__all__ = ["DOCUMENTED", "FAMILIES", "Family", "archive", "judged", "loaded", "meaning", "memory", "pipe", "status"]

DOCUMENTED = (2, 3, 4, 5, 6, 7, 9)
"""Exit statuses that an archive can lead to, besides 0. Status 1 is a fault of imgtar itself."""

_SMALL = {"etc/a": b"a small file\n"}
PLAIN = make_image("demo:1", [make_layer(layer_tar(_SMALL))])
GZIP = make_image("demo:2", [make_layer(layer_tar(_SMALL), "gzip")])
ZSTD = make_image("demo:3", [make_layer(layer_tar(_SMALL), "zstd")])
BASE = make_image("base:1", [make_layer(layer_tar(_SMALL))])
APP = make_image("app:1", [make_layer(layer_tar({"etc/b": b"b\n"}), "gzip")], base=BASE)
"""What the thin archive brings to a receiver that has :data:`BASE`."""


def _streamed(data: bytes) -> bytes:
    """Zstandard as a pipe writes it: neither the size nor a checksum of the content is said."""
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


def _thin() -> bytes:
    layer = BASE.layers[0]
    about = record(APP, BASE.layers)
    about["bases"] = [{"names": ["base:1"], "image_id": BASE.image_id, "digest": BASE.digest, "inventory": BASE.digest}]
    return thin_files(APP, (layer,)).plus(Member("imgtar.json", dumps(about))).tar()


def _index() -> bytes:
    arm = make_image((), [make_layer(layer_tar({"etc/c": b"c\n"}), "gzip")], platform="linux/arm64/v8")
    return oci_files([(make_index(GZIP, arm), ("both:1",))]).tar()


@dataclass(frozen=True)
class Family:
    """How archives of one kind are made, and what is so in them. ``unpack`` undoes the outer compression."""

    build: Callable[[], bytes]
    unpack: Callable[[bytes], bytes] | None = None
    base: Image | None = None
    """What the receiver must have."""
    hashed: bool = True
    """Whether digests tie the parts together. They do not before Docker 1.10."""


def _packed(pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes], build: Callable[[], bytes]) -> Family:
    return Family(lambda: pack(build()), unpack)


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _oci() -> bytes:
    return oci_files([GZIP]).tar()


def _hybrid() -> bytes:
    return hybrid_files([PLAIN]).tar()


FAMILIES: dict[str, Family] = {
    "docker": Family(lambda: docker_files([PLAIN]).tar()),
    "v1": Family(lambda: docker_files([PLAIN], "v1").tar()),
    "crane": Family(lambda: docker_files([GZIP], "crane").tar()),
    "oci": Family(lambda: oci_files([GZIP, ZSTD]).tar()),
    "index": Family(_index),
    "hybrid": Family(_hybrid),
    "legacy": Family(lambda: legacy_files([PLAIN]).tar(), hashed=False),
    "padded": Family(lambda: docker_files([PLAIN]).tar(record=10240)),
    "thin": Family(_thin, base=BASE),
    "oci.gz": _packed(lambda data: gzip.compress(data, mtime=0), gzip.decompress, _oci),
    "hybrid.gz": _packed(lambda data: gzip.compress(data, mtime=0), gzip.decompress, _hybrid),
    "members.gz": _packed(
        lambda data: gzip.compress(data[:3000], mtime=0) + gzip.compress(data[3000:], mtime=0), gzip.decompress, _oci
    ),
    "nuls.gz": _packed(lambda data: gzip.compress(data, mtime=0) + bytes(512), gzip.decompress, _oci),
    "oci.zst": _packed(_zstd, _unzstd, _oci),
    "hybrid.zst": _packed(_streamed, _unzstd, _hybrid),
    "hybrid.bz2": _packed(bz2.compress, bz2.decompress, _hybrid),
    "oci.xz": _packed(lzma.compress, lzma.decompress, _oci),
}


@cache
def archive(family: str) -> bytes:
    """The bytes of one specimen."""
    return FAMILIES[family].build()


@contextlib.contextmanager
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: what is tested does not depend on the disk, but its speed does."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="imgtar-campaign-", dir=where) as path:
        yield Path(path)


@contextlib.contextmanager
def pipe(data: bytes) -> Iterator[str]:
    """A path at which ``data`` can be read once, from front to back."""
    reader, writer = os.pipe()
    try:
        room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        assert len(data) <= room, "too large for a pipe that nobody empties"
        os.write(writer, data)
        os.close(writer)
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


def judged(path: Path, data: bytes) -> Verification:
    """What verify says of ``data``, put into the file ``path``."""
    path.write_bytes(data)
    return verify([str(path)], jobs=1)


def loaded(data: bytes | str, store: Path, base: Image | None = None) -> int:
    """Load into the store at ``store``, made anew and holding ``base``, and return the exit status.

    ``data`` is bytes, which come through a pipe, or a path. What is not an error of imgtar's own tree is not caught.
    """
    shutil.rmtree(store, ignore_errors=True)
    if base is not None:
        shutil.copytree(_store_with(base, store.parent / "with-base"), store)
    if isinstance(data, bytes):
        with pipe(data) as path:
            return _load(path, store)
    return _load(data, store)


def _load(path: str, store: Path) -> int:
    try:
        load([path], Store(str(store)), Policy(), jobs=1)
    except ImgtarError as error:
        return status(error)
    return 0


def status(error: ImgtarError) -> int:
    """The exit status of an error, which must be one of the documented ones and have something to say."""
    assert error.exit_code in DOCUMENTED, error
    assert str(error), "an error without words"
    return error.exit_code


def _store_with(base: Image, store: Path) -> Path:
    if not store.exists():
        archive = store.parent / "base.tar"
        archive.write_bytes(oci_files([base]).tar())
        assert _load(str(archive), store) == 0
    return store


def meaning(path: Path | str) -> Meaning:
    """What imgtar says an archive means: each image with its names, its digests and those of its layers."""
    document = inspect_archive(str(path)).document
    rows = []
    for image in document["images"]:
        for one in image.get("manifests", [image]):
            layers = tuple((layer["digest"], layer["diff_id"]) for layer in one["layers"])
            names = tuple(sorted(image["names"]))
            rows.append((names, one["image_id"], one["digest"], one["platform"], layers))
    return tuple(sorted(rows, key=repr))
