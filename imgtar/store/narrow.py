"""Which roots of a big store have to be read to tell what some names or IDs mean.

The answer may hold too many, never too few: all that :func:`imgtar.graph.select.select` could take, and all that could
refer to it. So choosing among these gives what choosing among all would.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from imgtar.errors import Refused
from imgtar.graph.select import REFERRERS_TAG
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference
from imgtar.store.entry import Entry
from imgtar.store.roots import RootCache

__all__ = ["entries_for"]

_IDENTITY = re.compile(r"(?:(?:sha256|sha512):)?([0-9a-f]{4,128})", re.ASCII)


def entries_for(roots: RootCache, entries: Sequence[Entry], wanted: Sequence[str]) -> list[Entry] | None:
    """The entries, in their order, of what ``wanted`` may mean; ``None`` when one of them means nothing here."""
    chosen: set[Digest] = set()
    called = _Called(entries)
    for text in wanted:
        found, certain = called.by(text)
        identity = None if certain else _IDENTITY.fullmatch(text)
        if identity is not None:
            found |= {entry.digest for entry in entries if roots.mentions(entry, identity[1])}
        if not found:
            return None
        chosen |= found
    chosen |= {entry.digest for entry in entries if entry.digest not in chosen and _may_refer(roots, entry)}
    roots.keep(entries)
    return [entry for entry in entries if entry.digest in chosen]


class _Called:
    """Entries by their names and labels."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._labels: dict[str, set[Digest]] = {}
        self._names: dict[str, list[tuple[str | None, Digest]]] = {}
        for entry in entries:
            if entry.label:
                self._labels.setdefault(entry.label, set()).add(entry.digest)
            if entry.name is not None:
                self._names.setdefault(entry.name.repository, []).append((entry.name.tag, entry.digest))

    def by(self, text: str) -> tuple[set[Digest], bool]:
        """What has that name or label, and whether it is sure that one of these is meant, so that no ID can be."""
        found = self._labels.get(text, set())
        try:
            asked = Reference.parse(text)
        except Refused:
            return set(found), False
        named = {
            digest for tag, digest in self._names.get(asked.repository, ()) if asked.tag is None or tag == asked.tag
        }
        return found | named, bool(named) and asked.digest is None


def _may_refer(roots: RootCache, entry: Entry) -> bool:
    return (
        roots.may_refer(entry)
        or entry.noted(mediatype.CONTAINERD_SUBJECT) is not None
        or (bool(entry.label) and REFERRERS_TAG.fullmatch(entry.label) is not None)
    )
