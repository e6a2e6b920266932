"""Time imgtar against the plain loop and against peers, always in pairs, and check its memory and its writes.

    python benchmarks/run.py            # 700 MB archives, under ten minutes
    python benchmarks/run.py --quick    # 100 MB archives, under one minute

Run it with the Python of the environment that imgtar is installed in. Each row runs imgtar and its reference in turn
(A B A B ...) as whole processes, so that a busy machine slows both; the ratio is the median of the ratios of the pairs.
The archives lie in the page cache; what is written is synced, by imgtar and by the loop. Not every peer syncs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
BUFFER = 1 << 20
LOOP = [PYTHON, "-I", str(HERE / "plain_loop.py")]


@dataclass(frozen=True)
class Run:
    """One finished process: seconds from start to end, peak resident bytes, bytes handed to the disk."""

    seconds: float
    peak: int
    written: int


def run(command: Sequence[str], *, feed: Sequence[str] | None = None, out: Path | None = None) -> Run:
    """Run ``command`` to its end, with its standard input from the process ``feed``. Only ``command`` is measured.

    This process must stay small: Linux counts the memory of the parent at the time of the fork in the child's peak.
    """
    with open(out or os.devnull, "wb") as sink, open(os.devnull, "rb") as nothing:
        start = time.perf_counter()
        feeder = subprocess.Popen(feed, stdout=subprocess.PIPE) if feed else None
        child = subprocess.Popen(
            command, stdin=feeder.stdout if feeder else nothing, stdout=sink, stderr=subprocess.PIPE
        )
        if feeder and feeder.stdout:
            feeder.stdout.close()
        assert child.stderr is not None
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stderr.close()
        if feeder:
            feeder.wait()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with {child.returncode}: {errors.decode(errors='replace')}")
    return Run(seconds, usage.ru_maxrss * 1024, usage.ru_oublock * 512)


@dataclass
class Case:
    """One row: ``ours`` against ``theirs``. ``before`` clears away what the last run left; it is not timed."""

    name: str
    reference: str
    ours: Callable[[], Run]
    theirs: Callable[[], Run]
    before: Callable[[], None] = lambda: None
    rounds: int = 5
    pairs: list[tuple[Run, Run]] = field(default_factory=list)

    def measure(self) -> None:
        """Run all pairs."""
        for _ in range(self.rounds):
            self.before()
            ours = self.ours()
            self.before()
            self.pairs.append((ours, self.theirs()))

    def row(self) -> dict[str, Any]:
        """The numbers of the table."""
        ours = [pair[0].seconds for pair in self.pairs]
        theirs = [pair[1].seconds for pair in self.pairs]
        return {
            "name": self.name,
            "reference": self.reference,
            "median": statistics.median(ours),
            "min": min(ours),
            "max": max(ours),
            "reference_median": statistics.median(theirs),
            "ratio": statistics.median(pair[0].seconds / pair[1].seconds for pair in self.pairs),
            "peak": max(pair[0].peak for pair in self.pairs),
            "pairs": len(self.pairs),
        }


class Bench:
    """The archives, a scratch folder, and the commands."""

    def __init__(self, folder: Path, contents: dict[str, Any], imgtar: str, rounds: int, peers: bool) -> None:
        self.contents = contents
        self.imgtar = imgtar
        self.rounds = rounds
        self.peers = peers
        self.scratch = folder / "scratch"
        self.store = self.scratch / "store"
        self.full = self.scratch / "full"
        self.target = self.scratch / "target"
        self.clear()

    def ready(self) -> None:
        """An empty scratch folder, and memory that this machine really has.

        A virtual machine gives free memory back to its host, and the next process to fill the page cache pays for
        getting it again, up to a second for 700 MB. So a file as large is written and deleted first, unsynced.
        """
        self.clear()
        piece = bytes(BUFFER)
        with open(self.target, "wb", buffering=0) as file:
            for _ in range(self.contents["layers"]["one"] // BUFFER):
                file.write(piece)
        self.target.unlink()

    def warm(self) -> None:
        """Read every archive once, so that all lie in the page cache."""
        view = memoryview(bytearray(BUFFER))
        for archive in self.contents["archives"].values():
            with open(archive["path"], "rb", buffering=0) as file:
                while file.readinto(view):
                    pass

    def archive(self, name: str) -> str:
        """Path of one archive."""
        return str(self.contents["archives"][name]["path"])

    def clear(self) -> None:
        """An empty scratch folder, but for the full store."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        for path in (self.store, self.target):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def load(self, name: str | None, *, feed: Sequence[str] | None = None) -> Callable[[], Run]:
        """``imgtar load`` of an archive, or of what ``feed`` writes."""
        source = ["-i", self.archive(name)] if name else []
        return lambda: run([self.imgtar, "load", "-q", "--store", str(self.store), *source], feed=feed)

    def loop(self, name: str, *more: str, feed: Sequence[str] | None = None, write: bool = True) -> Callable[[], Run]:
        """The plain loop over an archive."""
        source = "-" if feed else self.archive(name)
        return lambda: run([*LOOP, source, *([str(self.target)] if write else []), *more], feed=feed)

    def command(self, *command: str) -> Callable[[], Run]:
        """Any command."""
        return lambda: run(command)

    def cases(self) -> list[Case]:
        """All rows."""
        tool, full, rounds = self.imgtar, ["--store", str(self.full)], self.rounds
        few = max(2, rounds // 2)
        one, eight, gzip = self.archive("one.tar"), self.archive("eight.tar"), self.archive("gzip-oci.tar")
        inflate = ["--inflate", *(f"{offset}:{size}" for offset, size in self.contents["gzip_places"])]
        bare = self.command(PYTHON, "-I", "-c", "pass")
        cases = [
            Case("load, docker archive, one plain layer", "loop", self.load("one.tar"), self.loop("one.tar")),
            Case("load, docker archive, eight plain layers", "loop", self.load("eight.tar"), self.loop("eight.tar")),
            Case(
                "load, OCI archive, eight plain layers", "loop", self.load("eight-oci.tar"), self.loop("eight-oci.tar")
            ),
            Case(
                "load, OCI archive, eight gzip layers",
                "loop that inflates too",
                self.load("gzip-oci.tar"),
                self.loop("gzip-oci.tar", *inflate),
            ),
            Case(
                "cat | load, one plain layer",
                "cat | loop",
                self.load(None, feed=["cat", one]),
                self.loop("one.tar", feed=["cat", one]),
            ),
            Case(
                "cat | load, eight plain layers",
                "cat | loop",
                self.load(None, feed=["cat", eight]),
                self.loop("eight.tar", feed=["cat", eight]),
            ),
        ]
        for kind, program in (("gzip", "gzip"), ("zstd", "zstd")):
            if shutil.which(program):
                packed = self.archive({"gzip": "eight.tar.gz", "zstd": "eight.tar.zst"}[kind])
                name = Path(packed).name.partition("-")[2]
                feed = [program, "-dcq", packed]
                theirs = self.loop(name, feed=feed)
                label = f"{program} -dc | loop"
                cases.append(
                    Case(f"load, eight layers, whole archive in {kind}", label, self.load(name), theirs, rounds=few)
                )
                cases.append(
                    Case(
                        f"cat | load, whole archive in {kind}",
                        label,
                        self.load(None, feed=["cat", packed]),
                        theirs,
                        rounds=few,
                    )
                )
        again = lambda name: self.command(tool, "load", "-q", *full, "-i", self.archive(name))  # noqa: E731
        save = lambda *more: self.command(tool, "save", "-q", *full, "-o", str(self.target), *more)  # noqa: E731
        cases += [
            Case("load again, one plain layer", "bare Python", again("one.tar"), bare),
            Case("load again, OCI, gzip layers", "bare Python", again("gzip-oci.tar"), bare),
            Case(
                "cat | load again, eight plain layers",
                "cat | loop, no write",
                lambda: run([tool, "load", "-q", *full], feed=["cat", eight]),
                self.loop("eight.tar", feed=["cat", eight], write=False),
            ),
            Case(
                "verify, one plain layer",
                "loop, no write",
                self.command(tool, "verify", "-q", one),
                self.loop("one.tar", write=False),
            ),
            Case(
                "verify, eight plain layers",
                "loop, no write",
                self.command(tool, "verify", "-q", eight),
                self.loop("eight.tar", write=False),
            ),
            Case(
                "verify, eight gzip layers",
                "loop that inflates, no write",
                self.command(tool, "verify", "-q", gzip),
                self.loop("gzip-oci.tar", *inflate, write=False),
            ),
            Case("save, one plain layer", "loop", save("bench/one:1"), self.loop("one.tar")),
            Case("save, eight plain layers", "loop", save("bench/eight:1"), self.loop("eight.tar")),
            Case(
                "save --compress zstd, eight layers",
                "loop",
                save("--compress", "zstd", "bench/eight:1"),
                self.loop("eight.tar"),
                rounds=few,
            ),
            Case("inspect an archive, eight layers", "bare Python", self.command(tool, "inspect", eight), bare),
            Case(
                "inspect an image of the store",
                "bare Python",
                self.command(tool, "inspect", *full, "bench/eight:1"),
                bare,
            ),
            Case("images", "bare Python", self.command(tool, "images", *full), bare),
            Case("--version", "bare Python", self.command(tool, "--version"), bare),
            Case("load --help", "bare Python", self.command(tool, "load", "--help"), bare),
        ]
        for case in cases:
            if case.reference == "bare Python":
                case.rounds = rounds + 2
            elif case.rounds > few:
                # The first row is the one with a goal.
                case.rounds = rounds if case is cases[0] else max(2, rounds - 2)
        return cases + (self.peer_cases() if self.peers else [])

    def peer_cases(self) -> list[Case]:
        """The same work by other programs, as far as they are installed."""
        rounds = max(2, self.rounds - 2)
        cases = []
        if shutil.which("skopeo"):
            copy = ["skopeo", "copy", "-q", "--insecure-policy"]
            directory = f"dir:{self.target}"
            layout = f"oci:{self.target}:bench:1"
            one, gzip = self.archive("one.tar"), self.archive("gzip-oci.tar")
            eight = self.archive("eight.tar")
            full = ["--store", str(self.full)]
            cases += [
                Case(
                    "load, docker archive, one plain layer",
                    "skopeo docker-archive: to dir:",
                    self.load("one.tar"),
                    self.command(*copy, f"docker-archive:{one}", directory),
                ),
                Case(
                    "load, docker archive, eight plain layers",
                    "skopeo docker-archive: to dir:",
                    self.load("eight.tar"),
                    self.command(*copy, f"docker-archive:{eight}", directory),
                ),
                Case(
                    "load, OCI archive, eight gzip layers",
                    "skopeo oci-archive: to oci:",
                    self.load("gzip-oci.tar"),
                    self.command(*copy, f"oci-archive:{gzip}", layout),
                ),
                Case(
                    "save, eight plain layers",
                    "skopeo oci: to docker-archive:",
                    lambda: run([self.imgtar, "save", "-q", *full, "-o", str(self.target), "bench/eight:1"]),
                    lambda: run([*copy, f"oci:{self.full}:bench/eight:1", f"docker-archive:{self.target}"]),
                ),
                Case(
                    "inspect an archive, eight layers",
                    "skopeo inspect",
                    self.command(self.imgtar, "inspect", eight),
                    self.command("skopeo", "inspect", f"docker-archive:{eight}"),
                ),
            ]
        for case in cases:
            case.rounds = rounds
        return cases

    def fill(self) -> None:
        """The store that save, inspect and the second load need."""
        if self.full.exists():
            shutil.rmtree(self.full)
        for name in ("one.tar", "eight.tar", "gzip-oci.tar"):
            run([self.imgtar, "load", "-q", "--store", str(self.full), "-i", self.archive(name)])

    def frugality(self) -> list[dict[str, Any]]:
        """Peak memory and bytes written, with the memory archive."""
        plain, gzip, zstd = (self.archive(f"memory.tar{suffix}") for suffix in ("", ".gz", ".zst"))
        blobs = self.contents["layers"]["memory"]
        size = self.contents["archives"]["memory.tar"]["size"]
        store = ["--store", str(self.store)]
        load, verify = [self.imgtar, "load", "-q", *store], [self.imgtar, "verify", "-q"]
        save = [self.imgtar, "save", "-q", *store, "bench/memory:1"]
        rows = []

        def note(name: str, done: Run, least: int | None) -> None:
            rows.append({"name": name, "peak": done.peak, "written": done.written, "least": least})

        for name, command, feed in (
            ("load FILE", [*load, "-i", plain], None),
            ("load FILE -j 8", [*load, "-j", "8", "-i", plain], None),
            ("load FILE.gz", [*load, "-i", gzip], None),
            ("load FILE.zst", [*load, "-i", zstd], None),
            ("cat FILE | load", load, ["cat", plain]),
            ("cat FILE.gz | load", load, ["cat", gzip]),
            ("cat FILE.zst | load", load, ["cat", zstd]),
        ):
            self.clear()
            note(name, run(command, feed=feed), blobs)
        for name, command, out, least in (
            ("save -o FILE", [*save, "-o", str(self.target)], None, size),
            ("save > FILE", save, self.target, size),
            ("save --compress zstd -o FILE", [*save, "--compress", "zstd", "-o", str(self.target)], None, None),
        ):
            note(name, run(command, out=out), least)
        for name, command, feed in (
            ("verify FILE", [*verify, plain], None),
            ("verify FILE.gz", [*verify, gzip], None),
            ("verify FILE.zst", [*verify, zstd], None),
            ("cat FILE | verify -", [*verify, "-"], ["cat", plain]),
            ("cat FILE.gz | verify -", [*verify, "-"], ["cat", gzip]),
            ("verify the store", [*verify, *store], None),
        ):
            note(name, run(command, feed=feed), 0)
        self.clear()
        return rows


def first_line(*command: str) -> str | None:
    """What a program says its version is."""
    if not shutil.which(command[0]):
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def machine(imgtar: str) -> dict[str, Any]:
    """Where this was measured."""
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        if os.path.exists("/proc/cpuinfo")
        else None
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "imgtar": f"{first_line(imgtar, '--version')} ({commit})",
        "load_average": os.getloadavg(),
        "peers": [
            text
            for text in (
                first_line("skopeo", "--version"),
                first_line("gzip", "--version"),
                first_line("zstd", "--version"),
            )
            if text
        ],
    }


def seconds(value: float) -> str:
    """Seconds for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def print_timings(rows: list[dict[str, Any]]) -> None:
    """The first table, in Markdown."""
    print("| what | median | min | max | reference | its median | ratio | peak RSS |")
    print("|---|--:|--:|--:|---|--:|--:|--:|")
    for row in rows:
        print(
            f"| {row['name']} | {seconds(row['median'])} | {seconds(row['min'])} | {seconds(row['max'])} | "
            f"{row['reference'].replace('|', chr(92) + '|')} | {seconds(row['reference_median'])} | "
            f"{row['ratio']:.2f} | {row['peak'] / 1e6:.0f} MB |".replace("cat | load", r"cat \| load")
        )


def print_frugality(rows: list[dict[str, Any]]) -> None:
    """The second table, in Markdown."""
    print("| what | peak RSS | written | least possible |")
    print("|---|--:|--:|--:|")
    for row in rows:
        least = "" if row["least"] is None else f"{row['least'] / 1e6:.1f} MB"
        name = row["name"].replace("|", r"\|")
        print(f"| `{name}` | {row['peak'] / 1e6:.0f} MB | {row['written'] / 1e6:.1f} MB | {least} |")


def prepared(folder: Path | None, megabytes: int, memory_megabytes: int) -> dict[str, Any]:
    """Let another process make the archives: this one must stay small."""
    command = [PYTHON, str(HERE / "archives.py"), "--megabytes", str(megabytes)]
    command += ["--memory-megabytes", str(memory_megabytes), *(["--folder", str(folder)] if folder else [])]
    contents: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return contents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small archives, few rounds, no peers")
    parser.add_argument("--rounds", type=int, help="pairs of the first row (5; quick: 3); slow rows have fewer")
    parser.add_argument("--only", metavar="REGEX", help="only rows whose name matches")
    parser.add_argument("--no-peers", action="store_true", help="do not compare with other programs")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory check")
    parser.add_argument("--imgtar", default=str(Path(PYTHON).parent / "imgtar"), help="the program to measure")
    parser.add_argument(
        "--folder", type=lambda text: Path(text).resolve(), help="default: $IMGTAR_BENCH_DIR or benchmarks/work"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    contents = prepared(options.folder, *((100, 100) if options.quick else (700, 1024)))
    folder = Path(contents["archives"]["one.tar"]["path"]).parent
    rounds = options.rounds or (3 if options.quick else 5)
    bench = Bench(folder, contents, options.imgtar, rounds, not (options.quick or options.no_peers))
    about = machine(options.imgtar)
    print(
        f"{about['date']}, {about['cores']} cores of {about['cpu']}, {about['memory'] / 1e9:.0f} GB, {about['kernel']}"
    )
    print(
        f"{about['imgtar']}, Python {about['python']}, {', '.join(about['peers'])}; load average {about['load_average'][0]:.1f}\n"
    )
    result: dict[str, Any] = {"machine": about, "contents": contents, "timings": [], "frugality": []}

    def keep() -> None:
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1))

    try:
        bench.fill()
        bench.warm()
        for case in bench.cases():
            if options.only and not re.search(options.only, f"{case.name} / {case.reference}"):
                continue
            case.before = (
                bench.ready
                if re.match("(cat . )?(load|save)", case.name) and "Python" not in case.reference
                else bench.clear
            )
            try:
                case.measure()
            except RuntimeError as error:
                # A peer of another version may not take these arguments; that must not end a long run.
                if not case.reference.startswith("skopeo"):
                    raise
                print(f"left out {case.name} / {case.reference}: {error}", file=sys.stderr)
                continue
            result["timings"].append(case.row())
            keep()
            print(f"{case.name}: {case.row()['ratio']:.2f} times {case.reference}", file=sys.stderr, flush=True)
        if result["timings"]:
            print_timings(result["timings"])
        if not options.no_memory:
            result["frugality"] = bench.frugality()
            print()
            print_frugality(result["frugality"])
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    keep()


if __name__ == "__main__":
    main()
