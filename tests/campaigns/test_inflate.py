"""Campaign: small gzip streams, sound and unsound, for imgtar and for zlib. ``make campaign-inflate``.

Promised: imgtar reads what zlib reads, to the same bytes, and refuses what zlib refuses. Streams are made block by
block with every kind of table (:mod:`tests.builders.deflate`), or are real ones, flipped, cut, joined and with other
headers. At the end GNU gzip unpacks all that was accepted, as one file of many members.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable

import pytest

from imgtar.errors import Refused
from tests.blob.streams import GZIP, NOISE, TEXT, read
from tests.builders.deflate import gzip_of, random_stream
from tests.campaigns.conftest import Campaign

_CONTENTS = (b"", b"a", TEXT[:300], TEXT * 3, bytes(range(256)) * 2, NOISE[:200], bytes(3_000), b"ab" * 400)
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


def by_zlib(data: bytes) -> bytes | None:
    """What zlib makes of members in a row, and NULs behind them; ``None`` when it refuses, or finds no end."""
    out, rest = b"", data
    while rest:
        decoder = zlib.decompressobj(31)
        try:
            out += decoder.decompress(rest)
        except zlib.error:
            return None
        if not decoder.eof:
            return None
        rest = decoder.unused_data
        if not rest.strip(b"\0"):
            break
    return out


def by_us(data: bytes, step: int) -> bytes | None:
    """What imgtar makes of it; ``None`` when it refuses."""
    try:
        return read(data, GZIP, step=step, room=1 << 12)
    except Refused as error:
        assert error.code == "E_COMPRESS"  # noqa: PT017
        return None


def packed(chance: random.Random, data: bytes) -> bytes:
    """``data`` as a deflate stream of zlib, with flushes in between."""
    packer = zlib.compressobj(chance.choice([0, 1, 6, 9]), zlib.DEFLATED, -15, 8, chance.choice(_STRATEGIES))
    place = chance.randrange(len(data) + 1)
    first = packer.compress(data[:place]) + packer.flush(chance.choice([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]))
    return first + packer.compress(data[place:]) + packer.flush()


def member(chance: random.Random) -> bytes:
    """A sound member."""
    data = chance.choice(_CONTENTS)
    return gzip_of(packed(chance, data), data)


def crafted(chance: random.Random) -> bytes:
    _, raw, data = random_stream(chance)
    return gzip_of(raw, data)


def crafted_and_flipped(chance: random.Random) -> bytes:
    _, raw, data = random_stream(chance)
    damaged = bytearray(raw)
    if damaged:
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    # As often as not the damage changes only what comes out. Then the sums are right again.
    decoder = zlib.decompressobj(-15)
    try:
        data = decoder.decompress(bytes(damaged))
    except zlib.error:
        return gzip_of(bytes(damaged), data)
    return gzip_of(bytes(damaged)[: len(damaged) - len(decoder.unused_data)], data)


def flipped(chance: random.Random) -> bytes:
    damaged = bytearray(member(chance))
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def cut(chance: random.Random) -> bytes:
    data = b"".join(member(chance) for _ in range(chance.choice([1, 1, 2])))
    return data[: chance.randrange(1, len(data) + 1)]


def joined(chance: random.Random) -> bytes:
    """Members in a row, and what may stand behind them."""
    makers = [member] * 6 + [crafted]
    tail = chance.choice([b"", b"", bytes(7), bytes(600), b"G", b"\0G", b"\x1f", b"\x1f\x8b\x08"])
    return b"".join(chance.choice(makers)(chance) for _ in range(chance.randrange(1, 5))) + tail


def headed(chance: random.Random) -> bytes:
    """A member with other fields in its header, right ones and wrong ones."""
    flags = chance.choice([chance.randrange(32), chance.randrange(32), chance.randrange(256)])
    head = b"\x1f\x8b" + bytes((8 if chance.random() < 0.95 else chance.randrange(256), flags)) + chance.randbytes(6)
    if flags & 4:
        extra = chance.randbytes(chance.choice([0, 3, 300]))
        head += struct.pack("<H", len(extra) if chance.random() < 0.95 else chance.randrange(1 << 16)) + extra
    for flag in (8, 16):
        if flags & flag:
            head += bytes(chance.randrange(1, 256) for _ in range(chance.choice([0, 5, 50]))) + b"\0"
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF ^ (chance.random() < 0.3))
    return head + member(chance)[10:]


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "crafted": crafted,
    "crafted and flipped": crafted_and_flipped,
    "flipped": flipped,
    "cut": cut,
    "joined": joined,
    "headed": headed,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", range(4))
def test_imgtar_reads_what_zlib_reads_and_nothing_else(campaign: Campaign, kind: str, part: int) -> None:
    chance = campaign.random(f"{kind} {part}")
    members, contents = [], []
    for _ in range(campaign.pick(150, 25_000)):
        data = KINDS[kind](chance)
        theirs = by_zlib(data)
        ours = by_us(data, chance.choice([1 << 30, 1 << 30, 7, 1]))
        assert ours == theirs, f"zlib and imgtar differ about {data.hex()}"
        campaign.count("streams")
        campaign.count("refused by both" if ours is None else "read by both")
        if ours is not None:
            members.append(data)
            contents.append(ours)
    assert members
    assert len(members) < campaign.pick(150, 25_000), "nothing was unsound"
    if shutil.which("gzip") and kind != "joined":  # Nothing may follow padding.
        unpacked = subprocess.run(["gzip", "-dc"], input=b"".join(members), capture_output=True, check=True)
        assert unpacked.stdout == b"".join(contents)
        campaign.count("unpacked by gzip", len(members))


@pytest.mark.parametrize("data", _CONTENTS[:6], ids=range(6))
def test_a_stream_cut_or_flipped_at_any_bit_is_what_zlib_says(campaign: Campaign, data: bytes) -> None:
    chance = campaign.random(str(len(data)))
    whole = gzip_of(packed(chance, data[: campaign.pick(100, 2_000)]), data[: campaign.pick(100, 2_000)])
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        # Cut within a byte: the bits behind it are zeros, and no sums follow.
        short = whole[: bit // 8] + bytes((whole[bit // 8] & (1 << bit % 8) - 1,))
        for one in (bytes(damaged), short, short[: bit // 8]):
            assert by_us(one, 1 << 30) == (by_zlib(one) if one else None), (bit, one.hex())
            campaign.count("cuts and flips")
