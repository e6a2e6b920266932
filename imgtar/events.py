"""Progress as values. The work reports; whoever listens decides what a person sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from imgtar.frozen import frozen

__all__ = ["Event", "Report", "silent"]


@frozen
class Event:
    """Something happened.

    ``start``: a phase begins, ``total`` bytes are known to come (``None`` when not known). ``advance``: ``count`` more
    bytes are done. ``end``: the phase is over. ``notice``: a sentence for people. ``wait``: blocked by somebody else. ``commit``: from here on the change is made, whatever happens.
    """

    kind: Literal["start", "advance", "end", "notice", "wait", "commit"]
    text: str = ""
    count: int = 0
    total: int | None = None


Report = Callable[[Event], None]
"""Called from any thread; must be quick and must not raise."""


def silent(_event: Event) -> None:
    """Listen to nothing."""
