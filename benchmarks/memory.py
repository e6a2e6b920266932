"""The second table: how much memory, and how much of the disk, imgtar takes for an archive of any size."""

from __future__ import annotations

from typing import Any

from bench import Bench
from processes import Run, run

MOST_MEMORY = 80_000_000
SPARE_DISK = 1_000_000  # For documents and notes, beside the new blobs.


def frugality(bench: Bench) -> list[dict[str, Any]]:
    """Peak memory, bytes written and space taken, with the memory archive."""
    plain, gzip, zstd = (bench.archive(f"memory.tar{suffix}") for suffix in ("", ".gz", ".zst"))
    blobs, size = bench.layers("memory.tar"), bench.size("memory.tar")
    store = ["--store", str(bench.store)]
    load, verify = [bench.imgtar, "load", "-q", *store], [bench.imgtar, "verify", "-q"]
    save = [bench.imgtar, "save", "-q", *store, "bench/memory:1"]
    watch = (bench.store, bench.target)
    rows = []

    def note(name: str, done: Run, least: int) -> None:
        """``least`` is what has to be written, and all that may be taken."""
        rows.append(
            {
                "name": name,
                "peak": done.peak,
                "peak_met": done.peak <= MOST_MEMORY,
                "written": done.written,
                "disk": done.disk,
                "disk_met": done.disk <= least + SPARE_DISK,
                "least": least,
            }
        )

    for name, command, feed in (
        ("load FILE", [*load, "-i", plain], None),
        ("load FILE -j 8", [*load, "-j", "8", "-i", plain], None),
        ("load FILE.gz", [*load, "-i", gzip], None),
        ("load FILE.zst", [*load, "-i", zstd], None),
        ("cat FILE | load", load, ["cat", plain]),
        ("cat FILE.gz | load", load, ["cat", gzip]),
        ("cat FILE.zst | load", load, ["cat", zstd]),
    ):
        bench.clear()
        note(name, run(command, feed=feed, watch=watch), blobs)
    for name, command, out, packed in (
        ("save -o FILE", [*save, "-o", str(bench.target)], None, False),
        ("save > FILE", save, bench.target, False),
        ("save --compress zstd -o FILE", [*save, "--compress", "zstd", "-o", str(bench.target)], None, True),
    ):
        bench.target.unlink(missing_ok=True)
        done = run(command, out=out, watch=watch)
        note(name, done, bench.target.stat().st_size if packed else size)
    for name, command, feed in (
        ("verify FILE", [*verify, plain], None),
        ("verify FILE.gz", [*verify, gzip], None),
        ("verify FILE.zst", [*verify, zstd], None),
        ("cat FILE | verify -", [*verify, "-"], ["cat", plain]),
        ("cat FILE.gz | verify -", [*verify, "-"], ["cat", gzip]),
        ("verify the store", [*verify, *store], None),
    ):
        note(name, run(command, feed=feed, watch=watch), 0)
    bench.clear()
    return rows
