"""Where the bytes of a tar come from: a file that can be skipped through, or a pipe that cannot."""

from __future__ import annotations

import os
from typing import Protocol

from imgtar.blob.stream import BUFFER_SIZE, Readable
from imgtar.errors import local_trouble

__all__ = ["FileStream", "PipeStream", "TarStream"]


class TarStream(Protocol):
    """Bytes in one direction, with cheap skipping where the medium allows it."""

    @property
    def offset(self) -> int:
        """Bytes consumed so far, read and skipped."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from the front and return the number of bytes; short counts are normal, 0 means the end."""
        ...

    def skip(self, count: int, /) -> int:
        """Go forward and return how many bytes were really there, fewer than ``count`` only at the end."""
        ...


class FileStream:
    """A stream over the first ``size`` bytes of an open file that never moves the file's shared position.

    Raises ``LocalTrouble`` when the medium fails. The descriptor stays the caller's.
    """

    __slots__ = ("_fd", "_size", "offset")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self.offset = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """See :meth:`TarStream.readinto`."""
        left = self._size - self.offset
        if len(buffer) > left:
            buffer = buffer[:left]
        try:
            count = os.preadv(self._fd, (buffer,), self.offset)
        except OSError as error:
            raise local_trouble(error, f"reading the archive at byte {self.offset}") from error
        self.offset += count
        return count

    def skip(self, count: int, /) -> int:
        """See :meth:`TarStream.skip`. Costs nothing, whatever the distance."""
        count = min(count, self._size - self.offset)
        self.offset += count
        return count


class PipeStream:
    """A stream over anything that can only be read, such as a pipe or a decompressor.

    Raises what ``source`` raises, with ``OSError`` turned into ``LocalTrouble``.
    """

    __slots__ = ("_scratch", "_source", "offset")

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._scratch: memoryview | None = None
        self.offset = 0

    def readinto(self, buffer: memoryview, /) -> int:
        """See :meth:`TarStream.readinto`."""
        try:
            count = self._source.readinto(buffer)
        except OSError as error:
            raise local_trouble(error, f"reading the archive at byte {self.offset}") from error
        self.offset += count
        return count

    def skip(self, count: int, /) -> int:
        """See :meth:`TarStream.skip`. Reads into one buffer that is used again and again."""
        if self._scratch is None:
            self._scratch = memoryview(bytearray(BUFFER_SIZE))
        left = count
        while left and (got := self.readinto(self._scratch[: min(left, BUFFER_SIZE)])):
            left -= got
        return count - left
