"""Make the archives that the benchmarks read: real files of this machine, packed as container images.

    python benchmarks/archives.py [--megabytes 700] [--memory-megabytes 1024] [--folder DIR]

Everything is kept in ``$IMGTAR_BENCH_DIR`` or ``benchmarks/work/`` and made only once. Prints what there is, as JSON:
for each archive its path, its size, the bytes of its layers as they lie there, and for gzip layers where they lie.
Layers are tars of files below /usr, so that they hash and compress like images do; they differ between machines.
``sparse.tar`` is the exception: ten gigabytes of holes, with made-up digests, for commands that read no layer.
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
from typing import Any, BinaryIO

VERSION = 3
BUFFER = 1 << 20
ROOTS = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/local", "/opt")
ONE = ("one.tar", "one-gzip-oci.tar")
EIGHT = ("eight.tar", "eight-oci.tar", "gzip-oci.tar", "eight.tar.gz", "eight.tar.zst")
MEMORY = ("memory.tar", "memory.tar.gz", "memory.tar.zst")
NAMES = (*ONE, *EIGHT, "small.tar", "sparse.tar", "tiny.tar", *MEMORY)
MEMORY_LAYERS = 4  # Of memory.tar, and of tiny.tar, which it is compared with.
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


def _config(diff_ids: list[str]) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "COPY files /"} for _ in diff_ids],
        }
    ).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes | BinaryIO, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else data)


def docker_archive(path: Path, name: str, layers: list[Layer]) -> None:
    """What ``docker save`` wrote before version 25: layers first, ``manifest.json`` last."""
    config = _config([layer.diff_id for layer in layers])
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
    config = _config([layer.diff_id for layer in layers])
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


def sparse_archive(path: Path, name: str, size: int, layers: int) -> None:
    """A docker archive whose layers are holes: any size, no space, and digests that nothing ever matches."""
    digests = [hashlib.sha256(f"hole {number}".encode()).hexdigest() for number in range(layers)]
    config = _config(digests)
    image_id = hashlib.sha256(config).hexdigest()
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": f"{image_id}.json", "RepoTags": [name], "Layers": names}]).encode()
    each = size // layers // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    with path.open("wb") as file:
        for entry in names:
            info = tarfile.TarInfo(entry)
            info.size = each
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.seek(each, os.SEEK_CUR)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, f"{image_id}.json", config, len(config))
            _add(tar, "manifest.json", manifest, len(manifest))


class Shelf:
    """The folder of archives and its table of contents, which is written after every step.

    The table has all archives of the folder, of any size: a set with a larger memory check shares the others.
    """

    def __init__(self, folder: Path, megabytes: int, memory_megabytes: int) -> None:
        self.folder = folder
        self.megabytes = megabytes
        self.memory_megabytes = memory_megabytes
        self.file = folder / "archives.json"
        self._all: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("archives-*-*.json"):
            self._recall_old(old)
        if self.file.exists():
            table = json.loads(self.file.read_text())
            if table["version"] == VERSION:
                self._all |= table["archives"]
        self._all = {key: entry for key, entry in self._all.items() if (folder / entry["file"]).is_file()}

    def _recall_old(self, file: Path) -> None:
        """Take over what was made when each pair of sizes had a table of its own: making it again takes minutes."""
        table = json.loads(file.read_text())
        if table.get("version") != 2:
            return
        sizes = [int(number) for number in file.stem.split("-")[1:]]
        for name, entry in table["archives"].items():
            layers = {"one": "one", "gzip-oci": "gzip-oci", "memory": "memory"}.get(name.partition(".")[0], "eight")
            self._all[self.key(name, *sizes)] = {
                "file": Path(entry["path"]).name,
                "size": entry["size"],
                "layers": table["layers"][layers],
                "places": table["gzip_places"] if name == "gzip-oci.tar" else [],
            }

    @staticmethod
    def key(name: str, megabytes: int, memory_megabytes: int) -> str:
        """The name of an archive in the folder, and of a layer for it."""
        return f"{memory_megabytes}-of-{name}" if name.startswith("memory") else f"{megabytes}-{name}"

    def path(self, name: str) -> Path:
        """Where an archive, or a layer for it, is made."""
        return self.folder / self.key(name, self.megabytes, self.memory_megabytes)

    @property
    def known(self) -> dict[str, dict[str, Any]]:
        """The archives of the sizes that are wanted."""
        found = {}
        for name in NAMES:
            if entry := self._all.get(self.key(name, self.megabytes, self.memory_megabytes)):
                found[name] = entry
        return found

    def lacks(self, *names: str, why: str) -> bool:
        """Whether one of these is still to be made."""
        if all(name in self.known for name in names):
            return False
        print(f"making {why}", file=sys.stderr, flush=True)
        return True

    def put(self, layers: int, *names: str, places: list[tuple[int, int]] | None = None) -> None:
        """Note archives that are complete; ``layers`` is how many bytes of layers each has."""
        for name in names:
            path = self.path(name)
            size = path.stat().st_size
            self._all[path.name] = {"file": path.name, "size": size, "layers": layers, "places": places or []}
        temporary = self.file.with_suffix(".part")
        temporary.write_text(json.dumps({"version": VERSION, "archives": self._all}, indent=1))
        temporary.rename(self.file)

    def table(self) -> dict[str, Any]:
        """What there is, with whole paths."""
        return {
            "folder": str(self.folder),
            "megabytes": self.megabytes,
            "memory_megabytes": self.memory_megabytes,
            "archives": {
                name: {**entry, "path": str(self.folder / entry["file"])} for name, entry in self.known.items()
            },
        }


def make_plain_docker(shelf: Shelf, name: str, layers: int, size: int) -> None:
    """A docker archive of ``layers`` plain layers with ``size`` bytes together."""
    files = real_files()
    stem = name.partition(".")[0]
    each = size // layers // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    made = [make_layer(shelf.path(f"{stem}-{number}"), each, files, f"{stem}-{number}") for number in range(layers)]
    docker_archive(shelf.path(name), f"bench/{stem}:1", made)
    for layer in made:
        layer.path.unlink()
    shelf.put(each * layers, name)


def make_one(shelf: Shelf, size: int) -> None:
    """One big layer: plain in a docker archive, in gzip in an OCI archive."""
    if "one.tar" not in shelf.known:
        make_plain_docker(shelf, "one.tar", 1, size)
    layer = make_layer(shelf.path("one-layer"), size, real_files(), "one")
    packed = gzipped(layer, shelf.path("one-layer.gz"))
    places = oci_archive(shelf.path("one-gzip-oci.tar"), "bench/one-gzip-oci:1", [packed])
    for each in (layer, packed):
        each.path.unlink()
    shelf.put(packed.size, "one-gzip-oci.tar", places=places)


def make_eight(shelf: Shelf, size: int) -> None:
    """Eight layers of equal size, in every form."""
    files = real_files()
    each = size // 8 // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    eight = [make_layer(shelf.path(f"layer-{number}"), each, files, str(number)) for number in range(8)]
    docker_archive(shelf.path("eight.tar"), "bench/eight:1", eight)
    oci_archive(shelf.path("eight-oci.tar"), "bench/eight-oci:1", eight)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        packed = list(pool.map(lambda layer: gzipped(layer, layer.path.with_suffix(".gz")), eight))
    places = oci_archive(shelf.path("gzip-oci.tar"), "bench/gzip-oci:1", packed)
    for layer in (*eight, *packed):
        layer.path.unlink()
    compress_file(shelf.path("eight.tar"), shelf.path("eight.tar.gz"), 6)
    compress_zstd(shelf.path("eight.tar"), shelf.path("eight.tar.zst"))
    shelf.put(8 * each, "eight.tar", "eight-oci.tar", "eight.tar.gz", "eight.tar.zst")
    shelf.put(sum(layer.size for layer in packed), "gzip-oci.tar", places=places)


def make(folder: Path, megabytes: int, memory_megabytes: int) -> dict[str, Any]:
    """Make what is not there yet; return the table of contents."""
    shelf = Shelf(folder, megabytes, memory_megabytes)
    size = megabytes * 1_000_000 // 512 * 512
    if shelf.lacks(*ONE, why=f"one layer of {megabytes} MB, plain and gzip"):
        make_one(shelf, size)
    if shelf.lacks(*EIGHT, why="eight layers, plain and gzip, and compressed as a whole with gzip and zstd"):
        make_eight(shelf, size)
    # gzip at the level that everybody uses is slow: a smaller image says as much about it.
    if shelf.lacks("small.tar", why="eight smaller layers, for what is compressed"):
        make_plain_docker(shelf, "small.tar", 8, size * 2 // 7)
    if shelf.lacks("sparse.tar", "tiny.tar", why="holes of 10 GB, and next to nothing"):
        sparse_archive(shelf.path("sparse.tar"), "bench/sparse:1", 10_000_000_000, 8)
        shelf.put(10_000_000_000 // 8 // 512 * 512 * 8, "sparse.tar")
        make_plain_docker(shelf, "tiny.tar", MEMORY_LAYERS, MEMORY_LAYERS * 64 * 1024)
    if shelf.lacks(*MEMORY, why=f"layers of {memory_megabytes} MB together, for the memory check"):
        make_plain_docker(shelf, "memory.tar", MEMORY_LAYERS, memory_megabytes * 1_000_000)
        compress_file(shelf.path("memory.tar"), shelf.path("memory.tar.gz"), 1)
        compress_zstd(shelf.path("memory.tar"), shelf.path("memory.tar.zst"))
        shelf.put(shelf.known["memory.tar"]["layers"], "memory.tar.gz", "memory.tar.zst")
    return shelf.table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=700)
    parser.add_argument("--memory-megabytes", type=int, default=1024)
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), default=default_folder())
    options = parser.parse_args()
    print(json.dumps(make(options.folder, options.megabytes, options.memory_megabytes)))


if __name__ == "__main__":
    main()
