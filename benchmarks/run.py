"""Time imgtar against the plain loop and against peers, always in pairs, and check its memory, its writes, its disk.

    python benchmarks/run.py                            # 700 MB archives, under ten minutes
    python benchmarks/run.py --quick                    # 100 MB archives, under one minute
    python benchmarks/run.py --only '^$' --memory-megabytes 10000   # only the memory check, with 10 GB

Run it with the Python of the environment that imgtar is installed in. Each row runs imgtar and its reference in turn
(A B A B ...) as whole processes, so that a busy machine slows both; the ratio is the median of the ratios of the pairs,
the spread is the smallest and the largest of them. The archives lie in the page cache; what is written is synced, by
imgtar and by the loop. Not every peer syncs.

The goals are meant for archives of 700 MB: in smaller ones the start of the programs counts too much.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import report
from bench import PYTHON, Bench, prepared
from cases import FEW, Case, cases
from memory import MOST_MEMORY, SPARE_DISK, frugality
from peers import PEERS, AbsentError, Peer

QUICK_MEGABYTES = 100


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small archives, few rounds, no peers")
    parser.add_argument(
        "--rounds", type=int, help="pairs of each row (1 to 7; quick: 1, the first 2); slow rows have 2 at most"
    )
    parser.add_argument("--only", metavar="REGEX", help="only rows whose 'name / reference' matches")
    parser.add_argument("--no-peers", action="store_true", help="do not compare with other container tools")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory check")
    parser.add_argument("--megabytes", type=int, metavar="N", help="size of the archives (700; quick: 100)")
    parser.add_argument(
        "--memory-megabytes", type=int, metavar="N", help="size of the archive of the memory check (1024; quick: 100)"
    )
    parser.add_argument("--imgtar", default=str(Path(PYTHON).parent / "imgtar"), help="the program to measure")
    parser.add_argument(
        "--folder", type=lambda text: Path(text).resolve(), help="default: $IMGTAR_BENCH_DIR or benchmarks/work"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    options = parser.parse_args()
    options.megabytes = options.megabytes or (QUICK_MEGABYTES if options.quick else 700)
    options.memory_megabytes = options.memory_megabytes or (QUICK_MEGABYTES if options.quick else 1024)
    return options


class Session:
    """One run: what is chosen, and what came out of it."""

    def __init__(self, options: argparse.Namespace, bench: Bench) -> None:
        self.options = options
        self.bench = bench
        self.result: dict[str, Any] = {"machine": report.machine(options.imgtar), "contents": bench.contents}
        self.result |= {"timings": [], "frugality": []}

    def keep(self) -> None:
        """Write the JSON, if it is asked for: after every row, so that a run that is ended early gives something."""
        if self.options.json:
            Path(self.options.json).write_text(json.dumps(self.result, indent=1))

    def chosen(self, rows: Iterable[Case]) -> list[Case]:
        """Those that ``--only`` names."""
        only = self.options.only
        return [case for case in rows if not only or re.search(only, f"{case.name} / {case.reference}")]

    def rounds(self, case: Case) -> int:
        """How many pairs a row gets."""
        if self.options.rounds:
            return min(case.rounds, self.options.rounds) if case.rounds <= FEW else self.options.rounds
        return max(1, (case.rounds + 1) // 4) if self.options.quick else case.rounds

    def measure(self, case: Case) -> None:
        """One row."""
        case.measure(self.bench, self.rounds(case))
        row = case.row()
        self.result["timings"].append(row)
        self.keep()
        print(f"{case.name}: {report.factor(row['ratio'])} times {case.reference}", file=sys.stderr, flush=True)

    def measure_peer(self, peer: Peer) -> None:
        """The rows of a peer. One that is missing, or takes other arguments, must not end a long run."""
        rows = self.chosen(peer.cases())
        if not rows:
            return
        try:
            with peer:
                for case in rows:
                    try:
                        self.measure(case)
                    except RuntimeError as error:
                        print(f"left out {case.name} / {case.reference}: {error}", file=sys.stderr)
        except AbsentError as error:
            print(f"left out {peer.name}: {error}", file=sys.stderr)

    def everything(self) -> None:
        """All tables."""
        self.bench.wake()
        for case in self.chosen(cases(self.bench)):
            self.measure(case)
        if not (self.options.quick or self.options.no_peers):
            for peer in PEERS:
                self.measure_peer(peer(self.bench))
        if self.result["timings"]:
            report.print_timings(self.result["timings"])
            report.print_sizes(self.result["timings"])
        if not self.options.no_memory:
            self.bench.warm(["memory.tar", "memory.tar.gz", "memory.tar.zst"])
            self.result["frugality"] = frugality(self.bench)
            whole = self.bench.size("memory.tar")
            report.print_frugality(self.result["frugality"], MOST_MEMORY, SPARE_DISK, whole)
        report.print_summary(self.result["timings"], self.result["frugality"], MOST_MEMORY)


def main() -> None:
    options = parsed()
    # Daemons must not outlive this, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(prepared(options.folder, options.megabytes, options.memory_megabytes), options.imgtar)
    session = Session(options, bench)
    report.print_machine(session.result["machine"], bench.contents)
    try:
        session.everything()
    finally:
        shutil.rmtree(bench.scratch, ignore_errors=True)
    session.keep()


if __name__ == "__main__":
    main()
