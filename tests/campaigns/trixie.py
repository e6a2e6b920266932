"""A root of the next Debian, with a newer engine in it. ``IMGTAR_TRIXIE`` names a folder where it is kept for the next time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.interop.conftest import need, need_root, unavailable

__all__ = ["trixie"]

SUITE = "trixie"
PACKAGES = "base-files,docker.io,containerd,runc,ca-certificates"
SECONDS = 600


@contextlib.contextmanager
def trixie() -> Iterator[Path]:
    """The root: the kept one, or one for this run. Nothing that runs in it writes to it, see ``engines.in_root``."""
    kept = os.environ.get("IMGTAR_TRIXIE")
    need_root("another Debian")
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="imgtar-trixie-") as folder:
            root = Path(folder) / "root"
            try:
                _make(root)
                yield root
            finally:
                remove(root)
        return
    root = Path(kept)
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="imgtar-trixie-", dir=root.parent) as folder:
            made = Path(folder) / "root"
            try:
                _make(made)
                made.rename(root)
            finally:
                if made.exists():
                    remove(made)
    yield root


def _make(root: Path) -> None:
    """Unpack the packages. They are not configured: a daemon that is started by hand needs its files alone."""
    words = [need("mmdebstrap"), "--quiet", "--variant=extract", f"--include={PACKAGES}", SUITE, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        unavailable(f"mmdebstrap makes no {SUITE} here:\n{done.stderr[-2000:]}")


def remove(root: Path) -> None:
    """Remove a root, unless something is mounted below it: that would be emptied, too."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        below = [line.split()[1] for line in file if line.split()[1].startswith(f"{root}")]
    if below:
        raise RuntimeError(f"{root} stays: something is mounted there: {below}")
    subprocess.run(["rm", "-r", "-f", "--one-file-system", str(root)], check=True, timeout=SECONDS)
