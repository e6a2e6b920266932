"""Make the archives that the benchmarks read: real files of this machine, packed as container images.

    python benchmarks/archives.py [--megabytes 700] [--memory-megabytes 1024] [--folder DIR]

Everything is kept in ``$IMGTAR_BENCH_DIR`` or ``benchmarks/work/`` and made only once. Prints what there is, as JSON.
Layers are tars of files below /usr, so that they hash and compress like images do; they differ between machines.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

VERSION = 2
BUFFER = 1 << 20
ROOTS = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/local", "/opt")
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"


def default_folder() -> Path:
    """Where archives and stores of the benchmarks live."""
    return Path(os.environ.get("IMGTAR_BENCH_DIR") or Path(__file__).resolve().parent / "work")


def real_files() -> Iterator[Path]:
    """Regular files of this machine, over and over, in a fixed order."""
    found: list[Path] = []
    for root in ROOTS:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                    found.append(path)
                    yield path
    if not found:
        raise SystemExit("found no files to pack below " + ", ".join(ROOTS))
    while True:
        yield from found


@dataclass
class Layer:
    """One layer as it lies in a file."""

    path: Path
    digest: str
    diff_id: str
    size: int
    media_type: str


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_layer(path: Path, size: int, files: Iterator[Path], mark: str) -> Layer:
    """Pack files until the tar has ``size`` bytes; the last entry is cut so that it has exactly these."""
    count = 0
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        while True:
            left = size - tar.offset - 2 * tarfile.RECORDSIZE
            if left <= 0:
                break
            source = next(files)
            info = tarfile.TarInfo(f"layer-{mark}/{count % 10}{source}")
            info.size = min(source.stat().st_size, left)
            info.mtime = 1_700_000_000
            count += 1
            with source.open("rb") as data:
                tar.addfile(info, data)
    with path.open("r+b") as file:
        file.truncate(size)  # Only zeros end here: the rest of the last record.
    digest = _digest_of(path)
    return Layer(path, digest, digest, size, LAYER_TAR)


def gzipped(layer: Layer, path: Path, level: int = 6) -> Layer:
    """The same layer in gzip."""
    compress_file(layer.path, path, level)
    return Layer(path, _digest_of(path), layer.diff_id, path.stat().st_size, f"{LAYER_TAR}+gzip")


def compress_file(source: Path, target: Path, level: int) -> None:
    """gzip with zlib."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
    with source.open("rb") as file, target.open("wb") as out:
        while data := file.read(BUFFER):
            out.write(deflate.compress(data))
        out.write(deflate.flush())


def compress_zstd(source: Path, target: Path) -> None:
    """zstd, with imgtar itself: the standard library has none before Python 3.14."""
    from imgtar.blob.compress import compressing
    from imgtar.blob.compression import Compression

    with source.open("rb") as file, target.open("wb") as out:
        compressor = compressing(Compression.ZSTD, 3, out.write, jobs=os.cpu_count() or 1)
        while data := file.read(BUFFER):
            compressor.write(data)
        compressor.finish()


def _config(layers: list[Layer]) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "COPY files /"} for _ in layers],
        }
    ).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes | BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else data)


def docker_archive(path: Path, name: str, layers: list[Layer]) -> None:
    """What ``docker save`` wrote before version 25: layers first, ``manifest.json`` last."""
    config = _config(layers)
    image_id = hashlib.sha256(config).hexdigest()
    names = [f"{layer.digest}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": f"{image_id}.json", "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for layer, entry in zip(layers, names, strict=True):
            with layer.path.open("rb") as data:
                _add(tar, entry, data, layer.size)
        _add(tar, f"{image_id}.json", config, len(config))
        _add(tar, "manifest.json", manifest, len(manifest))


def oci_archive(path: Path, name: str, layers: list[Layer]) -> list[tuple[int, int]]:
    """A tar of an OCI image layout; returns where the layers lie in it (offset, size)."""
    config = _config(layers)
    image_id = hashlib.sha256(config).hexdigest()

    def descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", image_id, len(config)),
            "layers": [descriptor(layer.media_type, layer.digest, layer.size) for layer in layers],
        }
    ).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    root = descriptor("application/vnd.oci.image.manifest.v1+json", digest, len(manifest))
    root["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [root]}).encode()
    places = []
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for layer in layers:
            places.append((tar.offset + tarfile.BLOCKSIZE, layer.size))
            with layer.path.open("rb") as data:
                _add(tar, f"blobs/sha256/{layer.digest}", data, layer.size)
        _add(tar, f"blobs/sha256/{image_id}", config, len(config))
        _add(tar, f"blobs/sha256/{digest}", manifest, len(manifest))
        _add(tar, "index.json", index, len(index))
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 30)
    return places


def make(folder: Path, megabytes: int, memory_megabytes: int) -> dict[str, object]:
    """Make what is not there yet; return the table of contents."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = folder / f"archives-{megabytes}-{memory_megabytes}.json"
    if contents.exists():
        known: dict[str, object] = json.loads(contents.read_text())
        if known.get("version") == VERSION:
            return known
    size = megabytes * 1_000_000 // 512 * 512
    eighth = size // 8 // 512 * 512
    memory = memory_megabytes * 1_000_000 // 4 // 512 * 512

    def path(name: str) -> Path:
        return folder / f"{megabytes}-{name}"

    def note(text: str) -> None:
        print(f"making {text}", file=sys.stderr, flush=True)

    files = real_files()
    note(f"one layer of {megabytes} MB")
    one = make_layer(path("layer-one"), size, files, "one")
    docker_archive(path("one.tar"), "bench/one:1", [one])
    one.path.unlink()
    note("eight layers, plain and gzip")
    files = real_files()
    eight = [make_layer(path(f"layer-{number}"), eighth, files, str(number)) for number in range(8)]
    docker_archive(path("eight.tar"), "bench/eight:1", eight)
    oci_archive(path("eight-oci.tar"), "bench/eight-oci:1", eight)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        packed = list(pool.map(lambda layer: gzipped(layer, layer.path.with_suffix(".gz")), eight))
    places = oci_archive(path("gzip-oci.tar"), "bench/gzip-oci:1", packed)
    for layer in (*eight, *packed):
        layer.path.unlink()
    note("the same, compressed as a whole with gzip and zstd")
    compress_file(path("eight.tar"), path("eight.tar.gz"), 6)
    compress_zstd(path("eight.tar"), path("eight.tar.zst"))
    note(f"four layers of {memory_megabytes} MB together, for the memory check")
    files = real_files()
    four = [make_layer(path(f"memory-{number}"), memory, files, f"memory-{number}") for number in range(4)]
    docker_archive(path("memory.tar"), "bench/memory:1", four)
    for layer in four:
        layer.path.unlink()
    compress_file(path("memory.tar"), path("memory.tar.gz"), 1)
    compress_zstd(path("memory.tar"), path("memory.tar.zst"))
    result: dict[str, object] = {
        "version": VERSION,
        "layers": {
            "one": size,
            "eight": 8 * eighth,
            "gzip-oci": sum(layer.size for layer in packed),
            "memory": 4 * memory,
        },
        "gzip_places": places,
        "archives": {
            name: {"path": str(path(name)), "size": path(name).stat().st_size}
            for name in (
                *("one.tar", "eight.tar", "eight-oci.tar", "gzip-oci.tar", "eight.tar.gz", "eight.tar.zst"),
                *("memory.tar", "memory.tar.gz", "memory.tar.zst"),
            )
        },
    }
    temporary = contents.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1))
    temporary.rename(contents)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=700)
    parser.add_argument("--memory-megabytes", type=int, default=1024)
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), default=default_folder())
    options = parser.parse_args()
    print(json.dumps(make(options.folder, options.megabytes, options.memory_megabytes)))


if __name__ == "__main__":
    main()
