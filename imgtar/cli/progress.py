"""Progress for people and for programs, on standard error. Silent unless somebody can look at it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imgtar.cli.console import tell
from imgtar.events import Event, silent
from imgtar.text import human_size, printable

__all__ = ["listener"]

_INTERVAL = 0.2


@contextmanager
def listener(mode: str, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Yield the callable that shows progress in ``mode`` (auto, bar, plain, json, none)."""
    if mode == "auto":
        mode = "bar" if sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb" else "none"
    if mode == "none" or (quiet and mode != "json"):
        yield silent
    elif mode == "bar":
        bar = _Line()
        try:
            yield bar.follow
        finally:
            bar.clear()
    else:
        yield _Plain(as_json=mode == "json").follow


class _Counter:
    """Adds up bytes from several threads and says when it is time to show them."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.text = ""
        self.done = 0
        self.total: int | None = None
        self.shown_at = 0.0

    def take(self, event: Event) -> bool:
        """Note the event; return whether something should be shown now."""
        if event.kind == "start":
            self.text, self.done, self.total, self.shown_at = event.text, 0, event.total, 0.0
            return True
        if event.kind == "advance":
            self.done += event.count
        elif event.kind == "end":
            return True
        now = time.monotonic()
        if now - self.shown_at < _INTERVAL:
            return False
        self.shown_at = now
        return True


class _Line:
    """One line that is written over and over: a bar on a terminal, without a library that costs start-up time."""

    def __init__(self) -> None:
        self._counter = _Counter()

    def follow(self, event: Event) -> None:
        with self._counter.mutex:
            if event.kind in ("notice", "wait"):
                self._erase()
            elif self._counter.take(event):
                self._draw() if event.kind != "end" else self._erase()

    def _draw(self) -> None:
        counter = self._counter
        width = 30
        if counter.total:
            share = min(1.0, counter.done / counter.total)
            bar = "#" * int(share * width) + "-" * (width - int(share * width))
            text = f"{counter.text} [{bar}] {human_size(counter.done)} of {human_size(counter.total)}"
        else:
            text = f"{counter.text or 'reading'} {human_size(counter.done)}"
        tell(f"\r{printable(text)}\x1b[K")

    @staticmethod
    def _erase() -> None:
        tell("\r\x1b[K")

    def clear(self) -> None:
        with self._counter.mutex:
            self._erase()


class _Plain:
    """A line for each phase and each tenth of it, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._counter = _Counter()
        self._tenth = 0

    def follow(self, event: Event) -> None:
        with self._counter.mutex:
            if event.kind in ("notice", "wait"):
                if self._json:
                    self._write({"event": event.kind, "text": event.text})
                return
            self._counter.take(event)
            counter = self._counter
            tenth = counter.done * 10 // counter.total if counter.total else 0
            if event.kind == "start":
                self._tenth = 0
            elif event.kind == "advance" and tenth <= self._tenth:
                return
            self._tenth = tenth
            if self._json:
                self._write({"event": event.kind, "phase": counter.text, "done": counter.done, "total": counter.total})
            elif event.kind == "start":
                tell(f"{printable(counter.text)}\n")
            elif event.kind == "advance":
                tell(f"{printable(counter.text)}: {tenth * 10} % ({human_size(counter.done)})\n")

    @staticmethod
    def _write(body: dict[str, object]) -> None:
        tell(json.dumps(body) + "\n")
