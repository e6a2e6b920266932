"""Threads let go of what they read before it is closed."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

from imgtar.blob.lanes import ReadAhead
from imgtar.ops.verify import verify
from tests.builders.images import make_image, oci_files


class Waiting:
    """A stream whose reads wait until they are let go."""

    def __init__(self) -> None:
        self.reading, self.go = threading.Event(), threading.Event()
        self.reads = 0

    def readinto(self, buffer: memoryview, /) -> int:
        self.reads += 1
        self.reading.set()
        assert self.go.wait(30)
        buffer[:1] = b"x"
        return 1


def test_a_source_is_not_closed_while_it_is_read() -> None:
    source, closed = Waiting(), threading.Event()
    ahead = ReadAhead(source)
    assert source.reading.wait(30)
    ahead.close(closed.set)
    assert not closed.is_set(), "closed under a reader: the descriptor may be another file's by now"
    source.go.set()
    assert closed.wait(30), "nobody closes it"
    assert source.reads == 1, "it is read on after it was closed"


def test_a_source_that_nobody_reads_is_closed_at_once() -> None:
    source, closed = Waiting(), threading.Event()
    source.go.set()
    ahead = ReadAhead(source)
    while source.reads < 4:
        source.reading.wait(0.01)
    ahead.close(closed.set)
    assert closed.is_set()


def test_an_archive_is_judged_alike_after_a_compressed_one_that_was_refused(tmp_path: Path) -> None:
    """The reader of the first went on with the descriptor when it was the second's: found by the campaign of mutations."""
    bad, good = tmp_path / "bad.tar.gz", tmp_path / "good.tar.gz"
    data = oci_files([make_image("demo:1")]).tar()
    bad.write_bytes(gzip.compress(gzip.compress(data)))
    good.write_bytes(gzip.compress(data))
    for _ in range(20):
        verdict = verify([str(bad), str(good)], jobs=1)
        assert [bool(one.findings) for one in verdict.archives] == [True, False], verdict.findings
