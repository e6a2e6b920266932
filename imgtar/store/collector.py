"""The garbage collector, put off while a big store is read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """No search for loops of objects in this block; a third of the time of reading 10,000 images went into it.

    The values of documents are trees, which go when they are no longer named, as ever. It is the state of the whole
    process, so what was before is put back, and nothing that runs for long, or moves the bytes of layers, belongs here.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
