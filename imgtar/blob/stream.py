"""The smallest view of bytes in motion that everything here shares."""

from __future__ import annotations

from typing import Protocol

__all__ = ["BUFFER_SIZE", "Readable"]

BUFFER_SIZE = 1 << 20
"""Bytes per read. One mebibyte keeps system calls rare and still fits the second-level cache."""


class Readable(Protocol):
    """A stream that fills a caller's buffer, so that big buffers can be reused instead of copied."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from the front and return the number of bytes; short counts are normal, 0 means the end."""
        ...
