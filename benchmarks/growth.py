"""How the cost of load, verify and save grows with bytes, with layers, and with images in one archive.

    python benchmarks/growth.py [--rounds 3] [--folder DIR] [--imgtar PROGRAM]

Every figure is the fastest of some runs of a whole process, start included, into a new store, in milliseconds. Prints a
table in Markdown. Takes about two minutes. How a store grows is measured by store_growth.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from archives import default_folder

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Archive:
    """An OCI archive that is written member by member; equal blobs once."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by finish
        self._there: set[str] = set()
        self._roots: list[dict[str, object]] = []

    def _blob(self, data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._there:
            self._there.add(digest)
            self._member(f"blobs/sha256/{digest}", data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def _member(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def image(self, name: str, layers: list[bytes]) -> None:
        """Add an image with these plain layers."""
        described = [self._blob(layer, LAYER) for layer in layers]
        rootfs = {"type": "layers", "diff_ids": [one["digest"] for one in described]}
        config = {"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(json.dumps(config).encode(), CONFIG),
            "layers": described,
        }
        root = self._blob(json.dumps(manifest).encode(), MANIFEST)
        self._roots.append({**root, "annotations": {"org.opencontainers.image.ref.name": name}})

    def finish(self) -> None:
        """Write the index and close the file."""
        self._member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._member("index.json", json.dumps({"schemaVersion": 2, "manifests": self._roots}).encode())
        self._tar.close()


def noise(size: int, seed: int) -> bytes:
    """Bytes that nothing compresses."""
    source = random.Random(seed)
    return b"".join(source.randbytes(min(size - start, 1 << 20)) for start in range(0, size, 1 << 20))


def cases(folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """What is measured: its title, the archive, the names of its images. One archive is there at a time."""
    path = folder / "growth.tar"

    def written(fill: Callable[[Archive], list[str]]) -> list[str]:
        archive = Archive(path)
        names = fill(archive)
        archive.finish()
        return names

    def one(layers: list[bytes]) -> Callable[[Archive], list[str]]:
        def fill(archive: Archive) -> list[str]:
            archive.image("growth/one:1", layers)
            return ["growth/one:1"]

        return fill

    def many(count: int) -> Callable[[Archive], list[str]]:
        base = [noise(20_480, 1), noise(20_480, 2)]

        def fill(archive: Archive) -> list[str]:
            names = [f"growth/app-{number}:1" for number in range(count)]
            for number, name in enumerate(names):
                archive.image(name, [*base, noise(10_240, 10 + number)])
            return names

        return fill

    for megabytes in (1, 100, 400, 1600):
        yield f"one layer of {megabytes} MB", path, written(one([noise(megabytes * 1_000_000, megabytes)]))
    for count in (1, 10, 100, 400):
        layers = [noise(100_000_000 // count, 1000 + number) for number in range(count)]
        yield f"100 MB in {count} layer{'s' if count > 1 else ''}", path, written(one(layers))
    for count in (1, 10, 100, 1000):
        yield f"{count} small image{'s' if count > 1 else ''}", path, written(many(count))


def fastest(rounds: int, command: list[str], before: Callable[[], None]) -> float:
    """Milliseconds of the fastest run."""
    best = float("inf")
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    return best * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), default=default_folder())
    parser.add_argument("--imgtar", default=str(Path(sys.executable).parent / "imgtar"))
    options = parser.parse_args()
    folder = options.folder / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    store, target = folder / "store", folder / "out.tar"
    tool = [options.imgtar]

    def clear() -> None:
        shutil.rmtree(store, ignore_errors=True)

    def clear_target() -> None:
        target.unlink(missing_ok=True)

    def nothing() -> None:
        pass

    print("| what | load | load again | verify | save |")
    print("|---|--:|--:|--:|--:|")
    try:
        for title, path, names in cases(folder):
            os.sync()
            load = [*tool, "load", "-q", "--store", str(store), "-i", str(path)]
            figures = (
                fastest(options.rounds, load, clear),
                fastest(options.rounds, load, nothing),
                fastest(options.rounds, [*tool, "verify", "-q", str(path)], nothing),
                fastest(
                    options.rounds,
                    [*tool, "save", "-q", "--store", str(store), "-o", str(target), *names],
                    clear_target,
                ),
            )
            print(f"| {title} | {' | '.join(f'{figure:.0f}' for figure in figures)} |", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
