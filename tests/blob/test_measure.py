"""One pass tells what bytes are, in one hand or in several."""

from __future__ import annotations

import gzip
import hashlib
import random

import pytest
import zstandard

from imgtar.blob.measure import measure
from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.model.limits import DEFAULT_LIMITS

MIB = 1 << 20
PLAIN = random.Random(5).randbytes(9 * MIB) + bytes(MIB) + b"and a rest"


class Source:
    """A stream that gives at most ``most`` bytes at once, and may fail after ``good`` of them."""

    def __init__(self, data: bytes, *, most: int = 700_001, good: int | None = None) -> None:
        self.data, self.most, self.good, self.place = memoryview(data), most, good, 0

    def readinto(self, target: memoryview, /) -> int:
        if self.good is not None and self.place >= self.good:
            raise Refused("E_TRUNC", "the medium is gone", where="here")
        count = min(len(target), self.most, len(self.data) - self.place)
        target[:count] = self.data[self.place : self.place + count]
        self.place += count
        return count


def sha(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


CONTENTS = {
    "plain": PLAIN,
    "nothing": b"",
    "one byte": b"x",
    "one buffer": PLAIN[:MIB],
    "gzip": gzip.compress(PLAIN, 1),
    "zstd": zstandard.ZstdCompressor().compress(PLAIN),
    "gzip of nothing": gzip.compress(b""),
}


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("name", CONTENTS)
def test_everything_is_told_and_written_in_one_pass(name: str, algorithm: str, lanes: bool) -> None:
    data = CONTENTS[name]
    plain = b"" if name == "gzip of nothing" else PLAIN if name in ("gzip", "zstd") else data
    written, passed = bytearray(), []
    found = measure(Source(data), write=written.extend, algorithm=algorithm, progress=passed.append, lanes=lanes)
    assert (str(found.digest), found.size) == (sha(data, algorithm), len(data))
    assert (str(found.diff_id), found.plain_size) == (sha(plain), len(plain))
    assert found.fault is None
    assert bytes(written) == data
    assert sum(passed) == len(data)


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("cut", [20, MIB, 2 * MIB + 77])
def test_a_broken_stream_is_a_fault_of_the_diff_id_and_everything_is_still_read(cut: int, lanes: bool) -> None:
    whole = gzip.compress(PLAIN[::-1] + PLAIN, 1)
    data = whole[:cut] + b"\xff" * 50 + whole[cut + 50 :]
    written = bytearray()
    found = measure(Source(data), write=written.extend, lanes=lanes)
    assert (str(found.digest), found.size, found.diff_id) == (sha(data), len(data), None)
    assert found.fault is not None
    assert found.fault.code == "E_COMPRESS"
    assert bytes(written) == data


@pytest.mark.parametrize("lanes", [False, True])
def test_what_expands_too_far_is_a_fault_and_is_not_expanded_on(lanes: bool) -> None:
    limits = replace(DEFAULT_LIMITS, layer_uncompressed=5 * MIB)
    found = measure(Source(CONTENTS["zstd"]), limits=limits, lanes=lanes)
    assert found.fault is not None
    assert (found.fault.code, found.size) == ("E_LIMIT", len(CONTENTS["zstd"]))


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("name", ["plain", "gzip"])
@pytest.mark.parametrize("good", [0, 1, MIB])
def test_what_the_source_raises_passes_through(good: int, name: str, lanes: bool) -> None:
    with pytest.raises(Refused, match="the medium is gone"):
        measure(Source(CONTENTS[name], most=MIB // 2, good=good), write=lambda _: None, lanes=lanes)


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("name", ["plain", "gzip", "one byte"])
def test_what_the_writer_raises_passes_through(name: str, lanes: bool) -> None:
    def full(_: memoryview) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        measure(Source(CONTENTS[name]), write=full, lanes=lanes)


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("name", ["plain", "gzip"])
def test_whoever_follows_the_progress_can_stop_it(name: str, lanes: bool) -> None:
    class EnoughError(Exception):
        pass

    def enough(_: int) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        measure(Source(CONTENTS[name]), write=lambda _: None, progress=enough, lanes=lanes)
