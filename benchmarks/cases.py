"""The rows of the first table: what imgtar does, what it is compared with, and the goal."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import PYTHON, Bench, Measured
from processes import Run

Pair = tuple[Run, Run]


def ratio(pairs: Sequence[Pair]) -> float:
    """imgtar's time in times of the reference's: the median of what the pairs say, for both of a pair were disturbed
    by the same."""
    return statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)


@dataclass(frozen=True)
class Goal:
    """What a row has to reach: no more than ``limit``."""

    text: str
    limit: float
    measure: Callable[[Sequence[Pair]], float]
    show: Callable[[float], str] | None = None  # For what no other column has.

    def judge(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """For the table."""
        value = self.measure(pairs)
        met = value <= self.limit
        shown = ("yes" if met else "no") + (f" ({self.show(value)})" if self.show else "")
        return {"text": self.text, "limit": self.limit, "value": value, "met": met, "shown": shown}


def times(limit: float) -> Goal:
    """At most so many times the reference."""
    return Goal(f"{limit:g} x", limit, ratio)


def milliseconds(limit: float) -> Goal:
    """At most so long, at the median."""
    return Goal(f"{limit:g} ms", limit / 1000, lambda pairs: statistics.median(ours.seconds for ours, _ in pairs))


def megabytes_read(limit: float) -> Goal:
    """Read at most so much more than the reference, in every run."""
    return Goal(
        f"{limit:g} MB read",
        limit * 1e6,
        lambda pairs: max(ours.read - theirs.read for ours, theirs in pairs),
        lambda value: f"{round(value / 1000)} kB",
    )


@dataclass
class Case:
    """One row. ``prepare`` makes the reference possible again; like everything that clears away, it is not timed."""

    name: str
    reference: str
    ours: Measured
    theirs: Measured
    goals: tuple[Goal, ...] = ()
    archives: tuple[str, ...] = ()  # These lie in the page cache,
    stored: tuple[str, ...] = ()  # and the images of these in the full store.
    writes: bool = False
    rounds: int = 3
    prepare: Callable[[], None] | None = None
    pairs: list[Pair] = field(default_factory=list)

    def measure(self, bench: Bench, rounds: int) -> None:
        """Run all pairs."""
        before = bench.ready if self.writes else bench.clear
        bench.fill(self.stored)
        bench.warm(self.archives)
        for _ in range(rounds):
            before()
            ours = self.ours()
            if self.prepare:
                self.prepare()
            before()
            self.pairs.append((ours, self.theirs()))

    def row(self) -> dict[str, Any]:
        """The numbers of the table."""
        ours = [pair[0].seconds for pair in self.pairs]
        theirs = [pair[1].seconds for pair in self.pairs]
        ratios = [mine / its for mine, its in zip(ours, theirs, strict=True)]
        return {
            "name": self.name,
            "reference": self.reference,
            "median": statistics.median(ours),
            "min": min(ours),
            "max": max(ours),
            "reference_median": statistics.median(theirs),
            "ratio": ratio(self.pairs),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "goals": [goal.judge(self.pairs) for goal in self.goals],
            "peak": max(pair[0].peak for pair in self.pairs),
            "sizes": [statistics.median(pair[side].size for pair in self.pairs) for side in (0, 1)],
            "pairs": len(self.pairs),
        }


# How many pairs a row has: those that take no time, where only many runs say anything; those on which most depends; all
# others; those that are slow, or have no goal.
MANY, SEVERAL, SOME, FEW = 7, 5, 3, 2


def cases(bench: Bench) -> list[Case]:
    """Everything that needs no other container tool."""
    groups = (load_cases, pipe_cases, again_cases, verify_cases, save_cases, compress_cases, short_cases)
    return [case for group in groups for case in group(bench)]


def load_cases(bench: Bench) -> list[Case]:
    """Archives that are files, into an empty store."""
    rows: list[tuple[str, str, str, Measured, tuple[Goal, ...], int]] = [
        ("docker archive, one plain layer", "one.tar", "loop", bench.loop("one.tar"), (times(1.3),), SEVERAL),
        ("docker archive, eight plain layers", "eight.tar", "loop", bench.loop("eight.tar"), (times(0.7),), SEVERAL),
        ("OCI archive, eight plain layers", "eight-oci.tar", "loop", bench.loop("eight-oci.tar"), (times(0.7),), SOME),
        (
            "OCI archive, eight gzip layers",
            "gzip-oci.tar",
            "igzip and hash, two threads",
            bench.inflating("gzip-oci.tar"),
            (times(1.2),),
            SOME,
        ),
        (
            "OCI archive, one gzip layer",
            "one-gzip-oci.tar",
            "slower of igzip and hash",
            bench.inflating("one-gzip-oci.tar"),
            (times(1.2),),
            SOME,
        ),
    ]
    return [
        Case(f"load, {what}", against, bench.load(name), theirs, goals, (name,), writes=True, rounds=rounds)
        for what, name, against, theirs, goals, rounds in rows
    ]


def pipe_cases(bench: Bench) -> list[Case]:
    """Archives that come through a pipe, and archives that are compressed as a whole."""
    found = [
        Case(
            f"cat | load, {what}",
            "slower of loop and cat",
            bench.load(None, feed=["cat", bench.archive(name)]),
            bench.slower_of(bench.loop(name), bench.command("cat", bench.archive(name))),
            (times(1.25),),
            (name,),
            writes=True,
        )
        for what, name in (("one plain layer", "one.tar"), ("eight plain layers", "eight.tar"))
    ]
    for program, name in (("gzip", "eight.tar.gz"), ("zstd", "eight.tar.zst")):
        if shutil.which(program):
            # -f: zstd takes no symbolic links without it, and a folder of archives may have them.
            unpack = bench.command(program, "-dcqf", bench.archive(name))
            theirs = bench.slower_of(bench.loop("eight.tar"), unpack)
            against = f"slower of {program} -dc and loop"
            piped = bench.load(None, feed=["cat", bench.archive(name)])
            both = (name, "eight.tar")
            found += [
                Case(
                    f"cat | load, whole archive in {program}", against, piped, theirs, (times(1.25),), both, writes=True
                ),
                Case(
                    f"load, whole archive in {program}",
                    against,
                    bench.load(name),
                    theirs,
                    archives=both,
                    writes=True,
                    rounds=FEW,
                ),
            ]
    return found


def again_cases(bench: Bench) -> list[Case]:
    """Loads of what is there already."""

    def again(name: str) -> Measured:
        return bench.of_full("load", "-i", bench.archive(name))

    whole = bench.layers("memory.tar") / 1e6
    return [
        *[
            Case(f"load again, {what}", "bare Python", again(name), bare(bench), (milliseconds(300),), (name,), (name,))
            for what, name in (("one plain layer", "one.tar"), ("OCI, eight gzip layers", "gzip-oci.tar"))
        ],
        Case(
            f"load again, {whole:.0f} MB in plain layers",
            "the same of 256 kB",
            again("memory.tar"),
            again("tiny.tar"),
            (milliseconds(300), megabytes_read(1)),
            ("memory.tar",),
            ("memory.tar", "tiny.tar"),
        ),
        Case(
            "cat | load again, eight plain layers",
            "loop, no write",
            bench.tool("load", "-q", "--store", str(bench.full), feed=["cat", bench.archive("eight.tar")]),
            bench.loop("eight.tar", write=False),
            archives=("eight.tar",),
            stored=("eight.tar",),
            rounds=FEW,
        ),
    ]


def verify_cases(bench: Bench) -> list[Case]:
    """Proofs of archives that are files."""

    def verify(name: str) -> Measured:
        return bench.tool("verify", "-q", bench.archive(name))

    return [
        *[
            Case(
                f"verify, {what}",
                "hash twice, two threads",
                verify(name),
                bench.twice(name),
                (times(1.2),),
                (name,),
                rounds=rounds,
            )
            for what, name, rounds in (
                ("one plain layer", "one.tar", SEVERAL),
                ("eight plain layers", "eight.tar", SOME),
            )
        ],
        Case(
            "verify, eight gzip layers",
            "igzip and hash, two threads",
            verify("gzip-oci.tar"),
            bench.inflating("gzip-oci.tar", write=False),
            archives=("gzip-oci.tar",),
            rounds=FEW,
        ),
    ]


def save_cases(bench: Bench) -> list[Case]:
    """Archives as they are written without compression."""
    return [
        Case(
            f"save, {what}",
            "loop",
            bench.of_full("save", "-o", str(bench.target), image),
            bench.loop(name),
            (times(1.25),),
            (name,),
            (name,),
            writes=True,
            rounds=rounds,
        )
        for what, name, image, rounds in (
            ("one plain layer", "one.tar", "bench/one:1", SEVERAL),
            ("eight plain layers", "eight.tar", "bench/eight:1", SOME),
        )
    ]


def compress_cases(bench: Bench) -> list[Case]:
    """Archives that are compressed as a whole, against the usual programs on all cores at the same level."""
    found = []
    for kind, program in (("gzip", ["pigz", "-6", "-c"]), ("zstd", ["zstd", "-q", "-T0", "-3", "-c"])):
        if shutil.which(program[0]):
            save = ["save", "-q", "--store", str(bench.full), "bench/small:1"]
            found.append(
                Case(
                    f"save --compress {kind}, {bench.layers('small.tar') / 1e6:.0f} MB",
                    f"save | {' '.join(program[:-1])}",
                    bench.tool(*save, "--compress", kind, out=bench.target),
                    bench.command(*program, feed=[bench.imgtar, *save], out=bench.target),
                    (times(1),),
                    stored=("small.tar",),
                    writes=True,
                    rounds=FEW,
                )
            )
    return found


def short_cases(bench: Bench) -> list[Case]:
    """What takes no time, or should not."""
    stored, full = ("eight.tar",), ("--store", str(bench.full))
    holes, eight = bench.archive("sparse.tar"), bench.archive("eight.tar")
    rows: list[tuple[str, Measured, tuple[Goal, ...]]] = [
        ("--version", bench.tool("--version"), (milliseconds(80),)),
        (
            f"inspect an archive of {bench.size('sparse.tar') / 1e9:.0f} GB",
            bench.tool("inspect", holes),
            (milliseconds(180),),
        ),
        ("inspect an archive, eight layers", bench.tool("inspect", eight), ()),
        ("inspect an image of the store", bench.tool("inspect", *full, "bench/eight:1"), ()),
        ("plan of a load, all there", bench.of_full("load", "--dry-run", "-i", eight), ()),
        ("images", bench.tool("images", *full), ()),
        ("load --help", bench.tool("load", "--help"), ()),
    ]
    return [
        Case(name, "bare Python", ours, bare(bench), goals, stored=stored, rounds=MANY if goals else SOME)
        for name, ours, goals in rows
    ]


def bare(bench: Bench) -> Measured:
    """What Python alone takes: no command can be faster."""
    return bench.command(PYTHON, "-I", "-c", "pass")
