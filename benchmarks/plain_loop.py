"""The references: the same work with nothing in between, as one small program.

    python benchmarks/plain_loop.py SOURCE [TARGET]              read, hash, write, sync once: the plain loop
    python benchmarks/plain_loop.py --twice SOURCE               two threads, each reads and hashes all of it
    python benchmarks/plain_loop.py --inflate PLACES SOURCE [TARGET]   gzip layers, on two threads

1 MiB reads into one reused buffer a thread, SHA-256, ``write``, one ``fsync`` at the end. ``SOURCE`` ``-`` is standard
input; without ``TARGET`` nothing is written.

``--twice`` is what a proof needs: a SHA-256 of the archive, and one of everything in it.

``PLACES`` is ``OFFSET:SIZE,...``: gzip streams inside of SOURCE. Two threads share them, each reads a stream, hashes it,
inflates it with igzip and hashes the result, which is what a load of gzip layers cannot avoid. A single stream cannot
be inflated by two: there, one thread reads, inflates and writes, the other hashes as many bytes, packed and plain, and
neither waits for the other.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

BUFFER = 1 << 20
Place = tuple[int, int]


def pieces(source: int, offset: int, size: int) -> Iterator[memoryview]:
    """What lies there, one buffer after the other; each is good until the next."""
    view = memoryview(bytearray(BUFFER))
    end = offset + size
    while offset < end:
        count = os.preadv(source, [view[: min(BUFFER, end - offset)]], offset)
        if not count:
            raise EOFError("the source ends early")
        yield view[:count]
        offset += count


def write_all(target: int, data: memoryview, offset: int) -> None:
    """Write to a place of the target."""
    while data:
        count = os.pwrite(target, data, offset)
        data, offset = data[count:], offset + count


def both(*work: Callable[[], None]) -> None:
    """Do all of it at once; an error in one is an error of the program."""
    failures: list[Exception] = []

    def careful(todo: Callable[[], None]) -> None:
        try:
            todo()
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread that can end the program.
            failures.append(error)

    threads = [threading.Thread(target=careful, args=(todo,)) for todo in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def plain(source: int, target: int) -> None:
    """The plain loop. It reads pipes too."""
    view = memoryview(bytearray(BUFFER))
    hasher = hashlib.sha256()
    while count := os.readv(source, [view]):
        hasher.update(view[:count])
        done = 0
        while target >= 0 and done < count:
            done += os.write(target, view[done:count])


def hash_all(source: int) -> None:
    """Read and hash the whole file."""
    hasher = hashlib.sha256()
    for piece in pieces(source, 0, os.fstat(source).st_size):
        hasher.update(piece)


def inflate(source: int, target: int, place: Place, at: int, *, hashes: bool) -> None:
    """One gzip stream: inflate it, write it at ``at`` of the target as it is, and perhaps hash it packed and plain."""
    from isal import igzip_lib  # Only here: the plain loop must not pay for the import.

    decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    packed, unpacked = hashlib.sha256(), hashlib.sha256()
    for piece in pieces(source, *place):
        if hashes:
            packed.update(piece)
        if target >= 0:
            write_all(target, piece, at)
            at += len(piece)
        data = decoder.decompress(piece, BUFFER)
        while True:
            if hashes:
                unpacked.update(data)
            if decoder.eof or decoder.needs_input:
                break
            data = decoder.decompress(b"", BUFFER)
    if not decoder.eof:
        raise EOFError("the stream ends early")


def hash_only(source: int, place: Place) -> None:
    """Hash a stream, and as many bytes as it has inside; which bytes makes no difference to SHA-256."""
    packed, unpacked = hashlib.sha256(), hashlib.sha256()
    for piece in pieces(source, *place):
        packed.update(piece)
    # gzip ends with the size, modulo 4 GiB. One buffer does for all of it.
    left = int.from_bytes(os.pread(source, 4, sum(place) - 4), "little")
    buffer = memoryview(bytearray(BUFFER))
    while left:
        count = min(left, BUFFER)
        unpacked.update(buffer[:count])
        left -= count


def inflate_all(source: int, target: int, places: list[Place]) -> None:
    """All streams on two threads."""
    if len(places) == 1:
        both(
            lambda: inflate(source, target, places[0], 0, hashes=False),
            lambda: hash_only(source, places[0]),
        )
        return
    ends = [sum(size for _, size in places[:number]) for number in range(len(places))]
    todo = iter(list(zip(places, ends, strict=True)))
    lock = threading.Lock()

    def share() -> None:
        while True:
            with lock:
                job = next(todo, None)
            if job is None:
                return
            inflate(source, target, *job, hashes=True)

    both(share, share)


def place_list(text: str) -> list[Place]:
    """``OFFSET:SIZE,...``"""
    return [(int(offset), int(size)) for offset, _, size in (place.partition(":") for place in text.split(","))]


def main() -> None:
    # No argparse, and late imports: what the reference takes to start counts against it.
    arguments = sys.argv[1:]
    twice, places = arguments[:1] == ["--twice"], None
    if twice:
        del arguments[0]
    elif arguments[:1] == ["--inflate"]:
        places = place_list(arguments[1])
        del arguments[:2]
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    source = 0 if arguments[0] == "-" else os.open(arguments[0], os.O_RDONLY)
    target = os.open(arguments[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666) if len(arguments) > 1 else -1
    if twice:
        both(lambda: hash_all(source), lambda: hash_all(source))
    elif places:
        inflate_all(source, target, places)
    else:
        plain(source, target)
    if target >= 0:
        os.fsync(target)
        os.close(target)


if __name__ == "__main__":
    main()
