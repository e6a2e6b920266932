"""Run a command to its end and measure it: time, memory, what it read and wrote, what it took on the disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Run:
    """One finished process; sizes are bytes."""

    seconds: float
    peak: int  # Resident memory.
    read: int  # By system calls, whether from the disk or not.
    written: int  # Handed to the disk.
    size: int = 0  # Of the standard output, if it went to a file.
    disk: int = 0  # The most that ``watch`` and the open files of the process took at once.


def files_below(path: Path) -> Iterator[os.stat_result]:
    """Every regular file there, as it is just now; what disappears meanwhile is skipped."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(path):
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    yield from files_below(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False)
        return
    with suppress(FileNotFoundError):
        yield os.stat(path)


def files_written(pid: int) -> Iterator[os.stat_result]:
    """Regular files that a process has open for writing: temporary files without a name are nowhere else."""
    folder = f"/proc/{pid}/fd"
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                # The permissions of these links say how the file was opened.
                if os.lstat(f"{folder}/{name}").st_mode & stat.S_IWUSR:
                    found = os.stat(f"{folder}/{name}")
                    if stat.S_ISREG(found.st_mode):
                        yield found


class DiskWatch:
    """Looks every few milliseconds at the blocks that are taken, until it is stopped; ``peak`` is without the first."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._pid = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._taken()
        self.peak = 0

    def _taken(self) -> int:
        found = [each for folder in self._folders for each in files_below(folder)]
        if self._pid:
            found += files_written(self._pid)
        return sum({(each.st_dev, each.st_ino): each.st_blocks * 512 for each in found}.values())

    def _look(self) -> None:
        self.peak = max(self.peak, self._taken() - self._before)

    def _watch(self) -> None:
        while not self._end.wait(POLL_SECONDS):
            self._look()

    def start(self, pid: int) -> None:
        """Begin."""
        self._pid = pid
        self._thread.start()

    def stop(self) -> int:
        """End, with a last look; returns the peak."""
        self._end.set()
        self._thread.join()
        self._pid = 0
        self._look()
        return self.peak


def bytes_read(pid: int) -> int:
    """What a process that has ended, but is not yet reaped, has read."""
    with suppress(OSError), open(f"/proc/{pid}/io") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "rchar":
                return int(value)
    return 0


def run(
    command: Sequence[str],
    *,
    feed: Sequence[str] | None = None,
    out: Path | None = None,
    watch: Sequence[Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run ``command`` to its end, with its standard input from the process ``feed``. Only ``command`` is measured.

    This process must stay small: Linux counts the memory of the parent at the time of the fork in the child's peak.
    """
    with open(out or os.devnull, "wb") as sink, open(os.devnull, "rb") as nothing:
        disk = DiskWatch(watch) if watch else None
        start = time.perf_counter()
        feeder = subprocess.Popen(feed, stdout=subprocess.PIPE, env=environment) if feed else None
        source = feeder.stdout if feeder else nothing
        child = subprocess.Popen(command, stdin=source, stdout=sink, stderr=subprocess.PIPE, env=environment)
        if feeder and feeder.stdout:
            feeder.stdout.close()
        if disk:
            disk.start(child.pid)
        assert child.stderr is not None
        errors = child.stderr.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - start
        read = bytes_read(child.pid)
        peak_disk = disk.stop() if disk else 0
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stderr.close()
        fed = feeder.wait() if feeder else 0
        size = os.fstat(sink.fileno()).st_size
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with {child.returncode}: {errors.decode(errors='replace')}")
    if feed and fed not in (0, -signal.SIGPIPE):
        raise RuntimeError(f"{' '.join(feed)}\nended with {fed}")
    return Run(seconds, usage.ru_maxrss * 1024, read, usage.ru_oublock * 512, size, peak_disk)


def slower(*runs: Run) -> Run:
    """The slower one, for references that are the slower of several things: what two cores take, at the least."""
    return max(runs, key=lambda each: each.seconds)
