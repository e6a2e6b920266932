"""Every form that can be read, behind one handle, and what can be asked of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import zstandard

from imgtar.blob.measure import measure
from imgtar.blob.stream import Readable
from imgtar.graph.select import Policy
from imgtar.model.budget import Budget
from imgtar.model.digest import Digest
from imgtar.ops.transfer import transfer
from imgtar.ports import Blob, Dock, Source, Staged
from imgtar.store.store import Store
from imgtar.transport.location import open_archive
from tests.builders import images as build
from tests.builders.images import Image

Open = Callable[[Path, Sequence[Image]], AbstractContextManager[Source]]


class MemoryDock:
    """A dock that keeps everything in memory."""

    def stage(
        self,
        content: Readable,
        size: int,
        *,
        where: str,
        claimed: Digest | None = None,
        budget: Budget | None = None,
    ) -> Staged:
        kept = bytearray()
        algorithm = claimed.algorithm if claimed is not None else "sha256"
        return Staged(measure(content, write=kept.extend, where=where, algorithm=algorithm), bytes(kept))

    def read_staged(self, staged: Staged, cap: int) -> bytes | None:
        assert isinstance(staged.token, bytes)
        return staged.token if len(staged.token) <= cap else None


def content(blob: Blob, dock: Dock) -> bytes:
    """Every byte of a blob, whichever way it is handed over."""
    if blob.staged is not None:
        raw = dock.read_staged(blob.staged, 1 << 30)
        assert raw is not None
        return raw
    assert blob.open is not None
    with blob.open() as stream:
        data = bytearray()
        piece = memoryview(bytearray(4096))
        while count := stream.readinto(piece):
            data += piece[:count]
        return bytes(data)


@dataclass(frozen=True)
class Form:
    """One way to carry images. ``ids``: the image IDs are those of the configs; ``digests``: the manifests come along."""

    name: str
    form: str
    open: Open
    compression: str = "none"
    ids: bool = True
    digests: bool = True
    named: bool = True
    several: bool = True
    nameless: bool = True
    seekable: bool = True

    def __str__(self) -> str:
        return self.name


def _file(lay_out: Callable[[Sequence[Image]], bytes], pack: Callable[[bytes], bytes] = bytes) -> Open:
    @contextmanager
    def opened(folder: Path, images: Sequence[Image]) -> Iterator[Source]:
        path = folder / "archive.tar"
        path.write_bytes(pack(lay_out(images)))
        source = open_archive(str(path))
        try:
            yield source
        finally:
            source.close()

    return opened


def _pipe(lay_out: Callable[[Sequence[Image]], bytes]) -> Open:
    @contextmanager
    def opened(folder: Path, images: Sequence[Image]) -> Iterator[Source]:
        reader, writer = os.pipe()

        def feed() -> None:
            with open(writer, "wb") as out:
                out.write(lay_out(images))

        feeder = threading.Thread(target=feed)
        feeder.start()
        with ExitStack() as stack:
            stack.callback(feeder.join)
            source = open_archive("-", stdin_fd=reader)
            os.close(reader)
            stack.callback(source.close)
            yield source

    return opened


def _folder(lay_out: Callable[[Sequence[Image]], build.Files]) -> Open:
    @contextmanager
    def opened(folder: Path, images: Sequence[Image]) -> Iterator[Source]:
        path = lay_out(images).directory(folder / "layout")
        source = open_archive(str(path))
        try:
            yield source
        finally:
            source.close()

    return opened


@contextmanager
def _store(folder: Path, images: Sequence[Image]) -> Iterator[Source]:
    store = Store(str(folder / "other-store"))
    path = folder / "for-the-store.tar"
    path.write_bytes(build.hybrid_archive(images))
    source = open_archive(str(path))
    with store.begin() as transaction:
        transfer([source], transaction, Policy())
    source.close()
    with store.reading() as inventory:
        yield store.source(inventory)


def _docker(style: str) -> Callable[[Sequence[Image]], bytes]:
    return lambda images: build.docker_archive(images, style)


FORMS = (
    Form("docker", "docker", _file(_docker("podman")), digests=False),
    Form("docker-v1-folders", "docker", _file(_docker("v1")), digests=False, nameless=False),
    Form("docker-crane", "docker", _file(_docker("crane")), digests=False),
    Form("docker-pipe", "docker", _pipe(_docker("podman")), digests=False, seekable=False),
    Form("docker-gzip", "docker", _file(_docker("podman"), gzip.compress), "gzip", digests=False, seekable=False),
    Form(
        "docker-zstd",
        "docker",
        _file(_docker("podman"), zstandard.ZstdCompressor(write_checksum=True).compress),
        "zstd",
        digests=False,
        seekable=False,
    ),
    Form("oci", "oci", _file(build.oci_archive)),
    Form("oci-pipe", "oci", _pipe(build.oci_archive), seekable=False),
    Form("oci-bzip2", "oci", _file(build.oci_archive, bz2.compress), "bzip2", seekable=False),
    Form("hybrid", "hybrid", _file(build.hybrid_archive)),
    Form("hybrid-pipe", "hybrid", _pipe(build.hybrid_archive), seekable=False),
    Form("hybrid-xz", "hybrid", _file(build.hybrid_archive, lzma.compress), "xz", seekable=False),
    Form("legacy", "docker-legacy", _file(build.legacy_archive), ids=False, digests=False, nameless=False),
    Form(
        "legacy-pipe",
        "docker-legacy",
        _pipe(build.legacy_archive),
        ids=False,
        digests=False,
        nameless=False,
        seekable=False,
    ),
    Form("dir", "dir", _folder(lambda images: build.dir_files(images[0])), named=False, several=False),
    Form("oci-dir", "oci-dir", _folder(build.oci_files)),
    Form("store", "store", _store),
)
SEVERAL = tuple(form for form in FORMS if form.several)


def family(form: Form) -> list[Image]:
    """Images that share layers, with one, two and no names; one image where the form holds only one."""
    base = build.make_image("base:1", 2, seed=1)
    if not form.several:
        return [base]
    app = build.make_image(("app:1", "registry.example:5000/team/app:new"), 2, seed=2, base=base)
    bare = build.make_image((), 1, seed=3, platform="linux/arm64/v8")
    return [base, app, bare] if form.nameless else [base, app]
