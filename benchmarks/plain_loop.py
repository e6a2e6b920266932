"""The reference for every timing: one loop that reads, hashes and writes, with nothing in between.

    python benchmarks/plain_loop.py SOURCE [TARGET] [--inflate OFFSET:SIZE ...]

1 MiB ``readinto`` into one reused buffer, SHA-256, ``write``, one ``fsync`` at the end. ``SOURCE`` ``-`` is standard
input; without ``TARGET`` nothing is written. ``--inflate`` names gzip streams inside of SOURCE: each is hashed as it
lies there, written, inflated with zlib, and the result hashed too, which is what a load of gzip layers cannot avoid.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib

BUFFER = 1 << 20


def main() -> None:
    arguments = sys.argv[1:]
    places: list[tuple[int, int]] = []
    if "--inflate" in arguments:
        at = arguments.index("--inflate")
        places = [(int(place.split(":")[0]), int(place.split(":")[1])) for place in arguments[at + 1 :]]
        arguments = arguments[:at]
    source = 0 if arguments[0] == "-" else os.open(arguments[0], os.O_RDONLY)
    target = os.open(arguments[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666) if len(arguments) > 1 else -1
    view = memoryview(bytearray(BUFFER))
    hasher = hashlib.sha256()
    for offset, size in places or [(-1, -1)]:
        inflate = zlib.decompressobj(31) if offset >= 0 else None
        if offset >= 0:
            os.lseek(source, offset, os.SEEK_SET)
        inner = hashlib.sha256()
        left = size
        while count := os.readv(source, [view if left < 0 or left >= BUFFER else view[:left]]):
            if left >= 0:
                left -= count
            hasher.update(view[:count])
            done = 0
            while target >= 0 and done < count:
                done += os.write(target, view[done:count])
            if inflate is not None:
                inner.update(inflate.decompress(view[:count]))
            if not left:
                break
    if target >= 0:
        os.fsync(target)
        os.close(target)


if __name__ == "__main__":
    main()
