"""The smallest view of bytes in motion that everything here shares."""

from __future__ import annotations

from typing import Protocol

__all__ = ["BUFFER_SIZE", "Peeked", "Readable"]

BUFFER_SIZE = 1 << 20
"""Bytes per read. One mebibyte keeps system calls rare and still fits the second-level cache."""


class Readable(Protocol):
    """A stream that fills a caller's buffer, so that big buffers can be reused instead of copied."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from the front and return the number of bytes; short counts are normal, 0 means the end."""
        ...


class Peeked:
    """A stream whose first ``size`` bytes were looked at; they are read again like the rest."""

    __slots__ = ("_rest", "_source")

    def __init__(self, source: Readable, size: int) -> None:
        head = memoryview(bytearray(size))
        filled = 0
        while filled < size and (count := source.readinto(head[filled:])):
            filled += count
        self._rest = head[:filled]
        self._source = source

    @property
    def head(self) -> bytes:
        """What was looked at, fewer bytes only when there are no more; ask before the first read."""
        return bytes(self._rest)

    def readinto(self, target: memoryview, /) -> int:
        """Fill ``target``."""
        count = min(len(self._rest), len(target))
        if count:
            target[:count] = self._rest[:count]
            self._rest = self._rest[count:]
        if count < len(target):
            count += self._source.readinto(target[count:])
        return count
