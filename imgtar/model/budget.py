"""What one archive may cost in all: every single thing below its own limit, and a thousand of them too much."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from sys import getsizeof
from typing import Any

from imgtar.errors import Refused
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import human_size

__all__ = ["Budget"]

_MEMBER = 4 << 10
"""What a member of a compressed stream counts for, however little comes out of it: so much is decompressed in that time."""
_INPUT = 32
"""The same for each compressed byte: inside another stream these cost nothing to make."""


class Budget:
    """Counts for one archive what is decompressed, and what of its documents is read and kept in memory.

    ``taken`` says how many bytes of the archive itself have been read, as it lies on the medium.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, taken: Callable[[], int] | None = None) -> None:
        self._limits = limits
        self._taken = taken or (lambda: 0)
        self._mutex = threading.Lock()
        self._made = 0
        self._read = self._values = self._kept = 0
        self._paid = False

    def expanded(self, made: int, taken: int = 0, members: int = 0) -> None:
        """Count ``made`` bytes that were decompressed out of ``taken`` bytes of ``members``, by any thread.

        Raises ``E_LIMIT`` when all streams of the archive together expand more than anything honest: an archive in its
        outer compression, and the blobs in it, no matter whether an image needs them.
        """
        with self._mutex:
            self._made += made + _INPUT * taken + _MEMBER * members
            spent = self._made
        limits = self._limits
        if spent <= limits.expansion_judged_after:
            return
        beyond = max(0, self._taken() - limits.expansion_free)
        if spent > limits.expansion_judged_after + limits.expansion_ratio * beyond:
            size = human_size(limits.expansion_judged_after)
            raise Refused(
                "E_LIMIT",
                f"the compressed streams of this archive hold more than {size} and {limits.expansion_ratio} times its size",
                hint="this expands far beyond any honest image: do not trust where it comes from",
                details={"limit": "expansion_ratio", "value": limits.expansion_ratio, "uncompressed": spent},
            )

    @contextmanager
    def paid(self) -> Iterator[None]:
        """What is read inside has been charged before."""
        self._paid = True
        try:
            yield
        finally:
            self._paid = False

    def document(self, raw: bytes, where: str) -> None:
        """Count one reading of a document, before it is parsed."""
        if self._paid:
            return
        self._read += len(raw)
        self._values += raw.count(b",") + raw.count(b"[") + raw.count(b"{") + 1
        limits = self._limits
        if self._read > limits.documents:
            raise _over("documents", f"more than {human_size(limits.documents)} of documents", limits.documents, where)
        if self._values > limits.documents_values:
            what = f"documents with more than {limits.documents_values} values in all"
            raise _over("documents_values", what, limits.documents_values, where)

    def keep(self, value: Any, where: str) -> None:
        """Count what ``value`` takes in memory as long as the archive is worked on."""
        self._kept += weight(value)
        most = self._limits.documents_kept
        if self._kept > most:
            what = f"documents that would take more than {human_size(most)} of memory"
            raise _over("documents_kept", what, most, where)


def _over(limit: str, what: str, value: int, where: str) -> Refused:
    return Refused(
        "E_LIMIT",
        f"the archive has {what}",
        where=where,
        hint="save its images into several archives",
        details={"limit": limit, "value": value},
    )


def weight(value: Any) -> int:
    """About how many bytes ``value`` takes: text, numbers, lists and maps of these, and our own values."""
    total = 0
    todo = [value]
    while todo:
        one = todo.pop()
        if not one:
            continue  # Nothing is shared by all who have it.
        total += getsizeof(one)
        if isinstance(one, str | bytes | int | float):
            continue
        if isinstance(one, Mapping):
            todo.extend(one.keys())
            todo.extend(one.values())
        elif isinstance(one, list | tuple):
            todo.extend(one)
        else:
            todo.extend(getattr(one, name) for name in one._fields)
    return total
