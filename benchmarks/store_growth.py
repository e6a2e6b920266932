"""How commands grow with the store they are about: stores of 10 to 10,000 images, whole processes.

    python benchmarks/store_growth.py                  # 10, 100, 1,000, 3,000 and 10,000 images, about five minutes
    python benchmarks/store_growth.py --sizes 10,1000  # the first size is what the others are compared with

The stores are written here, in the layout that the store uses, notes of verified blobs included: chains of base,
runtime and app, plain and gzip layers in turn. Every number is the fastest run of the command on the large store less
the fastest on the smallest one, run in turn, so that start-up and the work for the image itself fall away. In brackets
is the same in processor time, which a busy machine changes less. The column of the smallest store is the whole process;
above the table stands what ``load --help`` takes. ``images`` and what names one image read a cache that the first of
them makes; "caches deleted" is the first. A second table has the dry runs alone: the call of
``imgtar.ops.load.load`` in a process that has imported everything, the fastest of as many.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archives import default_folder

IMGTAR = str(Path(sys.executable).parent / "imgtar")
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Json = dict[str, Any]


def sha256(data: bytes) -> str:
    """The digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dumps(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Layer:
    """A layer: the plain tar, and the blob as it is stored."""

    tar: bytes
    blob: bytes
    diff_id: str
    digest: str

    @property
    def descriptor(self) -> Json:
        """How a manifest points at it."""
        kind = LAYER if self.digest == self.diff_id else f"{LAYER}+gzip"
        return {"mediaType": kind, "digest": self.digest, "size": len(self.blob)}


def layer(mark: str, zipped: bool) -> Layer:
    """A small tar with one file."""
    content = f"{mark}\n".encode() * 40
    info = tarfile.TarInfo(f"opt/{mark}")
    info.size = len(content)
    tar = info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512 + 1024)
    blob = gzip.compress(tar, 1, mtime=0) if zipped else tar
    return Layer(tar, blob, sha256(tar), sha256(blob))


@dataclass(frozen=True)
class Image:
    """An image with its documents."""

    name: str
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def image_id(self) -> str:
        """The digest of its config."""
        return sha256(self.config)

    @property
    def root(self) -> Json:
        """Its entry in ``index.json``, as imgtar writes it."""
        names = {"io.containerd.image.name": f"docker.io/library/{self.name}"}
        return {
            "mediaType": MANIFEST,
            "digest": sha256(self.manifest),
            "size": len(self.manifest),
            "annotations": {**names, "org.opencontainers.image.ref.name": self.name},
            "platform": {"architecture": "amd64", "os": "linux"},
        }

    def blobs(self) -> dict[str, bytes]:
        """Everything that belongs to it."""
        own = {each.digest: each.blob for each in self.layers}
        return {**own, sha256(self.config): self.config, sha256(self.manifest): self.manifest}


def image(name: str, layers: Sequence[Layer]) -> Image:
    """An image of these layers, with a config of usual size."""
    steps = [
        {"created": "2024-01-01T00:00:00Z", "created_by": f"/bin/sh -c #(nop) COPY file:{each.diff_id[7:]} in /opt "}
        for each in layers
    ]
    config = dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Cmd": ["/bin/sh"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Labels": {"org.opencontainers.image.title": name, "org.opencontainers.image.vendor": "bench"},
            },
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
            "history": steps,
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [each.descriptor for each in layers],
    }
    return Image(name, tuple(layers), config, dumps(manifest))


class Images:
    """``count`` images: bases, runtimes on them, and apps on these."""

    def __init__(self, count: int) -> None:
        self.bases = [self._base(n) for n in range(max(1, count // 100))]
        self.runtimes = [self._runtime(n) for n in range(max(2, count // 20))]
        self.count = count

    def _base(self, number: int) -> Image:
        return image(f"base:{number}", [layer(f"base-{number}-{n}", number % 2 == 0) for n in range(3)])

    def _runtime(self, number: int) -> Image:
        base = self.bases[number % len(self.bases)]
        own = [layer(f"runtime-{number}-{n}", number % 3 == 0) for n in range(2)]
        return image(f"runtime:{number}", (*base.layers, *own))

    def app(self, number: int | str, of: int = 0) -> Image:
        """One app; ``of`` chooses its runtime."""
        runtime = self.runtimes[of % len(self.runtimes)]
        own = [layer(f"app-{number}-{n}", of % 2 == 0) for n in range(1 + of % 2)]
        return image(f"app:{number}", (*runtime.layers, *own))

    def __iter__(self) -> Any:
        yield from self.bases
        yield from self.runtimes
        for number in range(self.count - len(self.bases) - len(self.runtimes)):
            yield self.app(number, number)


def build_store(path: Path, images: Images) -> None:
    """Write the store as if imgtar had loaded all of it."""
    corner = path / "imgtar"
    blobs, held, layers = path / "blobs", corner / "held", corner / "layers"
    for folder in (blobs, held, layers):
        (folder / "sha256").mkdir(parents=True)
    (corner / "staging").mkdir()
    (corner / "version").write_text("1\n")
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    done: set[str] = set()
    roots = []
    for each in images:
        diff_ids = {one.digest: one.diff_id for one in each.layers}
        roots.append(each.root)
        for digest, raw in each.blobs().items():
            if digest in done:
                continue
            done.add(digest)
            place, diff_id = digest.replace(":", "/"), diff_ids.get(digest, digest)
            (blobs / place).write_bytes(raw)
            status = os.lstat(blobs / place)
            look = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            mark = zlib.crc32(f"{digest} {look} {diff_id}".encode())
            (held / place).write_text(f"{look}\n{diff_id}\n{mark:08x}")
            if diff_id != digest:
                (layers / diff_id.replace(":", "/")).write_text(f"{digest}\nend")
    roots.sort(key=lambda root: str(root["annotations"]["io.containerd.image.name"]))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": roots}
    (path / "index.json").write_bytes(dumps(index))


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """A tar of these files."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def oci_archive(path: Path, one: Image) -> Path:
    """An OCI archive of one image."""
    files = {f"blobs/{digest.replace(':', '/')}": raw for digest, raw in one.blobs().items()}
    index = dumps({"schemaVersion": 2, "manifests": [one.root]})
    return archive(path, {**files, "index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})


def docker_archive(path: Path, one: Image, *, without: Sequence[Layer] = (), parent: str = "") -> Path:
    """A docker archive of one image, some of whose layer files may be left out."""
    names = {each.diff_id: f"{each.diff_id[7:]}/layer.tar" for each in one.layers}
    left = {each.diff_id for each in without}
    files = {names[each.diff_id]: each.tar for each in one.layers if each.diff_id not in left}
    config = f"{one.image_id[7:]}.json"
    item: Json = {"Config": config, "RepoTags": [one.name], "Layers": [names[each.diff_id] for each in one.layers]}
    if parent:
        item["Parent"] = parent
    return archive(path, {**files, config: one.config, "manifest.json": dumps([item])})


Make = Callable[[Path, Images, int], Path]


@dataclass(frozen=True)
class Case:
    """One command: a load of an archive made for the store, or ``words``, in which ``{turn}`` is the number of the run
    and ``{out}`` a file to write. ``before`` is run untimed first. ``cold`` is cleared away, ``status`` must come out."""

    name: str
    make: Make | None = None
    dry: bool = True
    status: int = 0
    cold: Sequence[str] = ()
    words: str = ""
    before: str = ""


def _new(path: Path, images: Images, turn: int) -> Path:
    return oci_archive(path, images.app(f"new{turn}"))


def _thin(path: Path, images: Images, turn: int) -> Path:
    one = images.app(f"thin{turn}")
    return docker_archive(path, one, without=one.layers[:1])


def _lacking(path: Path, images: Images, turn: int) -> Path:
    one = images.app(f"lacking{turn}")
    return docker_archive(path, one, without=one.layers[-1:])


def _child(path: Path, images: Images, turn: int) -> Path:
    return docker_archive(path, images.app(f"child{turn}"), parent=images.runtimes[0].image_id)


def _orphan(path: Path, images: Images, turn: int) -> Path:
    return docker_archive(path, images.app(f"orphan{turn}"), parent=sha256(b"no such image"))


KNOWN = ("images", "layers")
ROOTS = ("roots",)
CASES = [
    Case("load --dry-run, a new image", _new),
    Case("load, a new image", _new, dry=False),
    Case("load --dry-run, a layer left out", _thin),
    Case("load --dry-run, a layer nobody has", _lacking, status=4),
    Case("load --dry-run, parent held", _child),
    Case("load --dry-run, parent nowhere", _orphan, status=4),
    Case("a layer left out, caches deleted", _thin, cold=KNOWN),
    Case("a layer nobody has, caches deleted", _lacking, status=4, cold=KNOWN),
    Case("parent held, caches deleted", _child, cold=KNOWN),
    Case("images", words="images"),
    Case("images, caches deleted", words="images", cold=ROOTS),
    Case("inspect one", words="inspect app:1"),
    Case("save one", words="save -o {out} app:1"),
    Case("history of one", words="history app:1"),
    Case("tag", words="tag app:1 again:{turn}"),
    Case("rmi, a name beside others", words="rmi again:{turn}", before="tag app:1 again:{turn}"),
    Case("rmi, an image", _new, words="rmi app:new{turn}", before="load -i {archive}"),
    Case("prune", words="prune"),
    Case("inventory", words="inventory -o {out}"),
]


class Bench:
    """The stores, and commands on them."""

    def __init__(self, folder: Path, sizes: Sequence[int], imgtar: str) -> None:
        self.folder = folder
        self.imgtar = imgtar
        self.images = {size: Images(size) for size in sizes}
        for size, images in self.images.items():
            start = time.perf_counter()
            build_store(folder / str(size), images)
            print(f"made a store of {size} images in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        os.sync()

    def once(self, case: Case, size: int, turn: int) -> Run:
        """One process."""
        store = self.folder / str(size)
        path = self.folder / "archive.tar"
        if case.make is not None:
            case.make(path, self.images[size], turn)
        out = self.folder / "out"
        start = [self.imgtar, "--store", str(store)]

        def command(words: str) -> list[str]:
            return [*start, *(word.format(turn=turn, out=out, archive=path) for word in words.split())]

        if case.before:
            run(command(case.before))
        for name in case.cold:
            place = store / "imgtar" / name
            if place.is_dir():
                for note in (place / "sha256").iterdir():
                    note.unlink()
            else:
                place.unlink(missing_ok=True)
        return run(command(case.words or f"load {'--dry-run ' if case.dry else ''}-i {{archive}}"), case.status)

    def measure(self, case: Case, rounds: int) -> list[list[Run]]:
        """The command on every store in turn, ``rounds`` times; the first round, which only warms up, is left out."""
        return [[self.once(case, size, turn) for size in self.images] for turn in range(rounds + 1)][1:]


INSIDE = """
import sys, time
from imgtar.errors import DependencyMissing
from imgtar.graph.select import Policy
from imgtar.ops.load import load
from imgtar.store.store import Store
start = time.perf_counter()
try:
    load([sys.argv[1]], Store(sys.argv[2]), Policy(), dry_run=True)
except DependencyMissing:
    raise SystemExit("a dry run does not raise for gaps")
print(time.perf_counter() - start)
"""


def inside(archive: Path, store: Path) -> float:
    """Seconds that the call of a dry run takes, without start-up."""
    command = [sys.executable, "-c", INSIDE, str(archive), str(store)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@dataclass(frozen=True)
class Run:
    """Seconds of one process: from start to end, and of them on a processor."""

    wall: float
    processor: float


def run(command: Sequence[str], status: int = 0) -> Run:
    """Run ``command`` to its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        errors = child.stderr.read()
        _, code, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(code)
    if child.returncode != status:
        raise RuntimeError(f"{' '.join(command)}\nended with {child.returncode}: {errors.decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime)


def cell(large: Sequence[Run], small: Sequence[Run]) -> str:
    """How much longer the first took."""
    wall = min(one.wall for one in large) - min(one.wall for one in small)
    processor = min(one.processor for one in large) - min(one.processor for one in small)
    return f"{wall * 1000:+.0f} ({processor * 1000:+.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10,100,1000,3000,10000", help="images in the stores, the smallest first")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each cell (5)")
    parser.add_argument("--only", default="", help="only rows with this in their name")
    parser.add_argument("--imgtar", default=IMGTAR, help="the program to measure")
    parser.add_argument("--folder", type=lambda text: Path(text).resolve(), default=default_folder())
    options = parser.parse_args()
    least, *sizes = [int(text) for text in options.sizes.split(",")]
    folder = options.folder / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        bench = Bench(folder, [least, *sizes], options.imgtar)
        start = min(run([options.imgtar, "load", "--help"]).wall for _ in range(options.rounds))
        print(f"\n`load --help`: {start * 1000:.0f} ms; load average {os.getloadavg()[0]:.1f}.")
        print(f"The whole process with {least} images, then how much longer; in brackets processor time. All in ms.\n")
        print(f"| what | {least} images | {' | '.join(f'{size:,}' for size in sizes)} |")
        print("|---|--:|" + "--:|" * len(sizes), flush=True)
        for case in CASES:
            if options.only not in case.name:
                continue
            rounds = bench.measure(case, options.rounds)
            small, *large = zip(*rounds, strict=True)
            floor, processor = min(one.wall for one in small), min(one.processor for one in small)
            cells = [cell(runs, small) for runs in large]
            print(f"| {case.name} | {floor * 1000:.0f} ({processor * 1000:.0f}) | {' | '.join(cells)} |", flush=True)
        print(f"\n| the call alone, ms | {least} images | {' | '.join(f'{size:,}' for size in sizes)} |")
        print("|---|--:|" + "--:|" * len(sizes), flush=True)
        for case in CASES:
            if options.only not in case.name or not case.dry or case.cold or case.words or case.make is None:
                continue
            times = [
                min(
                    inside(case.make(folder / "archive.tar", images, turn), folder / str(size))
                    for turn in range(options.rounds)
                )
                for size, images in bench.images.items()
            ]
            print(f"| {case.name} | {' | '.join(f'{one * 1000:.0f}' for one in times)} |", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
