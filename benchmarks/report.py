"""What is printed: where it was measured, and tables in Markdown."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAMS = (
    ("skopeo", "--version"),
    ("containerd", "--version"),
    ("dockerd", "--version"),
    ("gzip", "--version"),
    ("pigz", "--version"),
    ("zstd", "--version"),
)


# The goals of the second table.
KINDS = (("peak", "memory"), ("disk", "disk"))


def first_line(*command: str) -> str | None:
    """What a program says first: most say their version."""
    found = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        return None
    done = subprocess.run([found, *command[1:]], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0].strip("* ")


def machine(imgtar: str) -> dict[str, Any]:
    """Where this was measured."""
    about = Path("/proc/cpuinfo")
    cpu = re.search(r"model name\s*: (.*)", about.read_text()) if about.exists() else None
    here = str(Path(__file__).resolve().parent)
    commit = first_line("git", "-C", here, "describe", "--always", "--dirty", "--exclude=*") or "no commit"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu.group(1) if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "imgtar": f"{first_line(imgtar, '--version')} ({commit})",
        "load_average": os.getloadavg(),
        "peers": [text for program in PROGRAMS if (text := first_line(*program))],
    }


def seconds(value: float) -> str:
    """Seconds for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def factor(value: float) -> str:
    """A ratio, with as many digits as say something."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def escaped(text: str) -> str:
    """A pipe would end the cell."""
    return text.replace("|", r"\|")


def print_machine(about: dict[str, Any], contents: dict[str, Any]) -> None:
    """The head."""
    print(
        f"{about['date']}, {about['cores']} cores of {about['cpu']}, {about['memory'] / 1e9:.0f} GB, {about['kernel']}"
    )
    print(f"{about['imgtar']}, Python {about['python']}, {', '.join(about['peers'])}")
    print(f"load average {about['load_average'][0]:.1f}; archives of {contents['megabytes']} MB\n")


def print_timings(rows: list[dict[str, Any]]) -> None:
    """The first table."""
    print("| what | median | min | max | reference | its median | ratio | spread | goal | met | peak RSS |")
    print("|---|--:|--:|--:|---|--:|--:|--:|---|---|--:|")
    for row in rows:
        goals = "; ".join(f"<= {goal['text']}" for goal in row["goals"])
        met = "; ".join(goal["shown"] for goal in row["goals"])
        print(
            f"| {escaped(row['name'])} | {seconds(row['median'])} | {seconds(row['min'])} | {seconds(row['max'])} | "
            f"{escaped(row['reference'])} | {seconds(row['reference_median'])} | {factor(row['ratio'])} | "
            f"{factor(row['ratio_min'])} to {factor(row['ratio_max'])} | {goals} | {met} | {row['peak'] / 1e6:.0f} MB |"
        )


def print_sizes(rows: list[dict[str, Any]]) -> None:
    """How large the outputs are that have another size than the input."""
    sized = [row for row in rows if all(row["sizes"])]
    if sized:
        print("\n| what | size | reference | its size |\n|---|--:|---|--:|")
    for row in sized:
        ours, theirs = (f"{size / 1e6:.2f} MB" for size in row["sizes"])
        print(f"| {escaped(row['name'])} | {ours} | {escaped(row['reference'])} | {theirs} |")


def print_frugality(rows: list[dict[str, Any]], most_memory: int, spare_disk: int, whole: int) -> None:
    """The second table."""
    print(f"\nThe archive has {whole / 1e6:.0f} MB. Goals: peak RSS <= {most_memory / 1e6:.0f} MB; ", end="")
    print(f"peak extra disk <= least possible + {spare_disk / 1e6:.0f} MB\n")
    print("| what | peak RSS | met | written | peak extra disk | least possible | met |")
    print("|---|--:|---|--:|--:|--:|---|")
    for row in rows:
        peak, disk = ("yes" if row[name] else "no" for name in ("peak_met", "disk_met"))
        print(
            f"| `{escaped(row['name'])}` | {row['peak'] / 1e6:.0f} MB | {peak} | {row['written'] / 1e6:.1f} MB | "
            f"{row['disk'] / 1e6:.1f} MB | {row['least'] / 1e6:.1f} MB | {disk} |"
        )


def print_summary(timings: list[dict[str, Any]], frugality: list[dict[str, Any]], most_memory: int) -> None:
    """How many goals are met, and which are not."""
    judged = [
        (f"{row['name']} / {row['reference']}: <= {goal['text']}", goal["met"])
        for row in timings
        for goal in row["goals"]
    ]
    judged += [(f"{row['name']}: {what}", row[f"{key}_met"]) for row in frugality for key, what in KINDS]
    if timings:
        hungry = max(timings, key=lambda row: row["peak"])
        text = f"memory of every row of the first table: {hungry['peak'] / 1e6:.0f} MB in {hungry['name']}"
        judged.append((text, hungry["peak"] <= most_memory))
    if judged:
        missed = [text for text, met in judged if not met]
        print(f"\n{len(judged) - len(missed)} of {len(judged)} goals met{'; not these:' if missed else '.'}")
        for text in missed:
            print(f"- {text}")
