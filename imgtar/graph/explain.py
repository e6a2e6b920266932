"""Gaps as sentences with a next step. Whoever reads them has one medium and nobody to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from imgtar.errors import DependencyMissing
from imgtar.graph.plan import Missing
from imgtar.text import human_size, printable

__all__ = ["describe_missing", "explain_missing"]

_MOST = 500
"""Gaps told as text; JSON has all."""

_CLASSES = {
    "absent": "is not in the archive, and the receiver does not hold it",
    "promised-by-base": "was left out because the receiver was said to hold it, but it does not",
    "damaged": "is held by the receiver but damaged, and the archive does not carry it",
    "platform-not-shipped": "belongs to a platform that was left out when the archive was made",
    "foreign": "is a foreign layer: its maker forbids shipping it, and imgtar never fetches",
}


def describe_missing(gap: Missing, *, place: Literal["load", "archive", "store", "there"] = "load") -> str:
    """One line: what is missing, who needs it, where it should have been.

    ``place`` is what was looked at: an ``archive`` alone or the ``store`` know of no receiver.
    """
    what = str(gap.digest) if gap.digest else f"diff ID {gap.diff_id}" if gap.diff_id else ""
    if not what:
        what = gap.through[0][-1] if gap.kind == "parent" and gap.through else "(of unknown digest)"
    size = f" ({human_size(gap.size)})" if gap.size else ""
    needed = _needed(gap)
    expected = f"; expected in {printable(gap.expected_in)}" if gap.expected_in else ""
    lack = _CLASSES[gap.gap_class]
    if place == "store":
        return (
            f"{gap.kind} {what}{size} is {'damaged' if gap.gap_class == 'damaged' else 'missing'}; needed by {needed}"
        )
    if place == "archive" and gap.gap_class == "absent":
        lack = "is not in the archive"
    if gap.kind == "parent":
        lack = "is neither in the archives nor with the receiver"
    return f"{gap.kind} {what}{size} {lack}; needed by {needed}{expected}"


def _needed(gap: Missing) -> str:
    """Who needs it; where it is not the image itself that names it, by which way."""
    ways = {way[0]: way for way in reversed(gap.through)}
    told = []
    for name in gap.needed_by[:5]:
        way = ways.get(printable(name), ())
        # "app:2 > layer 3"; a gap that hangs on the image directly needs no way: its kind says it all.
        told.append(" > ".join(way) if len(way) > 2 or (len(way) == 2 and " " in way[1]) else printable(name))
    if len(gap.needed_by) > 5:
        told.append(f"{len(gap.needed_by) - 5} more")
    return ", ".join(told)


def explain_missing(gaps: Sequence[Missing], what: str = "nothing was loaded") -> DependencyMissing:
    """The error that lists every gap, with the hints of all of them, each once; ``what`` begins it."""
    count = f"{len(gaps)} things are missing" if len(gaps) > 1 else "1 thing is missing"
    lines = [f"{what}: {count}"]
    lines += [f"  {describe_missing(gap)}" for gap in gaps[:_MOST]]
    if len(gaps) > _MOST:
        lines.append(f"  and {len(gaps) - _MOST} more (--json lists all)")
    hints = list(dict.fromkeys(gap.hint for gap in gaps if gap.hint))
    return DependencyMissing(
        "\n".join(lines), hint="; ".join(hints[:3]), details={"missing": [gap.to_json() for gap in gaps]}
    )
