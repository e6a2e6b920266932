"""Text from strangers, made safe to look at.

Archives can put anything into names, labels and tags: escape sequences, line breaks, marks that reverse the writing
direction. Whatever of that reaches a person goes through :func:`printable` or :func:`shown` first (CWE-150).
"""

from __future__ import annotations

import unicodedata

__all__ = ["human_size", "plural", "printable", "shown"]

_LONGEST = 300


def printable(text: str, *, keep_newlines: bool = False, limit: int | None = _LONGEST) -> str:
    """Return ``text`` with control, format, surrogate and unassigned characters written as escapes.

    ``limit`` is in characters; a longer text is cut and ends in ``…``. ``None`` keeps it whole.
    """
    if limit is not None and len(text) > limit:
        text = text[:limit] + "…"
    if text.isascii() and text.isprintable():
        return text
    out = []
    for char in text:
        if (char == "\n" and keep_newlines) or char == " ":
            out.append(char)
        elif unicodedata.category(char)[0] in "CZ":
            out.append(char.encode("unicode_escape", "surrogatepass").decode("ascii"))
        else:
            out.append(char)
    return "".join(out)


def shown(text: str) -> str:
    """Return ``text`` as it may stand inside a message: quoted and :func:`printable`."""
    return '"' + printable(text).replace('"', '\\"') + '"'


def plural(count: int, noun: str, several: str = "") -> str:
    """``1 file``, ``2 files``; ``several`` is the plural where an s is not enough."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def human_size(size: int) -> str:
    """Return a byte count as people read it (``21.4 MB``), in powers of 1000 as Docker does."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")
