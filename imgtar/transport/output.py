"""Where the bytes of an archive go out: hashed and written beside each other, or shared with the store's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imgtar.blob.files import FileWindow, FileWriter, widen_pipe
from imgtar.blob.lanes import ReadAhead, WriteBehind
from imgtar.blob.measure import buffer
from imgtar.blob.stream import Readable
from imgtar.blob.workers import worth_lanes
from imgtar.errors import LocalTrouble, StoreTrouble, local_trouble
from imgtar.events import Event, Report
from imgtar.graph.plan import Write
from imgtar.model.digest import Digest, Hasher
from imgtar.ports import Blob

__all__ = ["WORTH_ALIGNING", "Output", "copy_blob"]

WORTH_ALIGNING = 1 << 20
"""Bytes from which on a blob begins at a block of the disk. Up to 4.5 KiB are spent on that."""


_PATIENCE = 1.0
"""Seconds that a write which has begun is waited for after an error."""


class Output:
    """The end of the pipe: counts what goes to a file, writes it on one thread, and with ``hashed`` hashes it on another."""

    def __init__(self, fd: int, *, hashed: bool = True) -> None:
        widen_pipe(fd)
        # Its own descriptor, which the thread that writes closes: after an interruption it may be at a slow medium, or
        # at a pipe that nobody reads, for longer than anybody waits.
        self._fd = os.dup(fd)
        self._file = FileWriter(self._fd)
        self._hasher: Hasher = Digest("sha256", "").hasher()
        steps = [self._hasher.update, self._write] if hashed else [self._write]
        self._behind = WriteBehind(*steps, then=lambda: os.close(self._fd))
        self._shared = 0
        self._cannot_share = False
        self.size = 0

    def _write(self, piece: memoryview) -> None:
        if self._shared:
            there = min(self._shared, len(piece))
            self._shared -= there
            self.size += there
            piece = piece[there:]
        try:
            self._file.write(piece)
        except BrokenPipeError:
            raise LocalTrouble(
                "the reader of the archive went away", hint="look at the program at the other end of the pipe"
            ) from None
        except OSError as error:
            raise local_trouble(error, "writing the archive") from None
        self.size += len(piece)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._behind.write(data)

    def share(self, content: FileWindow) -> tuple[FileWindow, FileWindow] | None:
        """Put ``content`` here by sharing its blocks, where the file system can: btrfs, xfs and others.

        Returns what to read and :meth:`write` in its stead: that which is here now, which is then only hashed, and the
        rest. So what is verified is what is in the archive.
        """
        if self._cannot_share or content.left < WORTH_ALIGNING:
            return None
        self._behind.flush()
        at = self._file.offset
        size = self._file.clone(content)
        if not size:
            self._cannot_share = (
                True  # What large blobs there are all begin at a block: the others could not be either.
            )
            return None
        self._shared = size
        rest = FileWindow(content.fd, content.offset + size, content.left - size, content.where)
        return FileWindow(self._fd, at, size, content.where), rest

    def finish(self) -> str:
        """Wait until everything is written; return the SHA-256 of it all in hex, if it was to be hashed."""
        self._behind.finish()
        return self._hasher.hexdigest()

    def abandon(self) -> None:
        """Stop after an error, or do nothing after the end. Idempotent."""
        self._behind.abandon(_PATIENCE)


def copy_blob(
    write: Write,
    fetch: Callable[[Write], Blob],
    out: Callable[[memoryview], object],
    report: Report,
    output: Output | None,
) -> None:
    """Hand a blob to ``out``, verifying it on its way; with ``output``, where it ends up, share its blocks if possible.

    Raises :class:`StoreTrouble` when it is not what its name says.
    """
    hasher = write.digest.hasher()
    size = 0

    def take(content: Readable) -> None:
        nonlocal size
        with _pieces(content, write.size) as pieces:
            for piece in pieces:
                size += len(piece)
                if size > write.size:
                    return
                hasher.update(piece)
                out(piece)
                report(Event("advance", count=len(piece)))

    if write.kept is not None:
        hasher.update(write.kept)
        size = len(write.kept)
        out(memoryview(write.kept))
    else:
        blob = fetch(write)
        assert blob.open is not None
        with blob.open() as content:
            parts: tuple[Readable, ...] = (content,)
            if output is not None and isinstance(content, FileWindow) and content.left == write.size:
                parts = output.share(content) or parts
            for part in parts:
                take(part)
    if size != write.size or hasher.hexdigest() != write.digest.encoded:
        raise StoreTrouble(
            f"{write.title} is damaged in the store: its content does not match its digest",
            where=str(write.digest),
            hint="load an archive that carries it: that repairs the store; imgtar verify lists all damage",
            details={"digest": str(write.digest)},
        )


@contextmanager
def _pieces(content: Readable, size: int) -> Iterator[Iterator[memoryview]]:
    """The pieces of a blob of ``size`` bytes, each good until the next; a large one is read on a thread of its own."""
    if not worth_lanes(size):
        view = buffer()
        yield (view[:count] for count in iter(lambda: content.readinto(view), 0))
        return
    ahead = ReadAhead(content)

    def taken() -> Iterator[memoryview]:
        while True:
            view, count = ahead.take()
            if not count:
                return
            yield view[:count]
            ahead.release(view)

    try:
        yield taken()
    finally:
        ahead.close()
