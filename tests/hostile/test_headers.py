"""Section D: headers, pax records and GNU extensions. The reader's own tests cover these rows bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import rawtar
from tests.builders.images import docker_files, make_image
from tests.builders.rawtar import END, base256, entry, gnu_long, header, pax, pax_record
from tests.hostile.conftest import PLAIN

Assert = Callable[..., None]

DOCKER = docker_files([make_image("demo:1", layers=1)])
GOOD = DOCKER.tar(end=b"")
FIRST = DOCKER.members[0]


def before(*blocks: bytes) -> bytes:
    """The blocks, then a good archive."""
    return b"".join(blocks) + GOOD + END


def after(*blocks: bytes) -> bytes:
    """A good archive, then the blocks."""
    return GOOD + b"".join(blocks) + END


LAST = header(b"extra")

REFUSED = [
    pytest.param("E_HEADER", after(rawtar.resum(header(b"\xc3\xa9" * 9), signed=True)), id="h52-signed-sum"),
    *(
        pytest.param("E_HEADER", after(header(b"x", size=base256(size, 12))), id=f"h53{size}")
        for size in (-1, -512, -(2**63))
    ),
    pytest.param("E_HEADER", before(header(b"x", size=base256(-512, 12))), id="h54"),
    *(
        pytest.param(
            ("E_LIMIT", "E_TRUNC", "E_HEADER"), after(header(b"x", size=base256(2**power, 12))), id=f"h55-{power}"
        )
        for power in (62, 63, 70, 94)
    ),
    *(
        pytest.param("E_HEADER", after(header(b"x", size=field)), id=f"h56-{place}")
        for place, field in enumerate(
            (b" " * 12, b"-0000000777\0", b"0x1F\0\0\0\0\0\0\0\0", b"000 0000777\0", b"zzzzzzzzzzz\0", b"00000000008\0")
        )
    ),
    pytest.param(
        ("E_TRUNC", "E_LIMIT"), after(*[header(b"x%d" % n, size=base256(10 << 30, 12)) for n in range(10)]), id="h57"
    ),
    *(
        pytest.param("E_HEADER", after(pax((b"size", value)), LAST), id=f"h58-{place}")
        for place, value in enumerate((b"-1", b"1e3", b"9" * 5000, b"", b" 1"))
    ),
    pytest.param("E_HEADER", after(pax((b"size", b"0"), (b"size", b"0")), LAST), id="h58-two"),
    pytest.param("E_HEADER", after(pax((b"path", b"../../evil"), (b"path", b"ok")), LAST), id="h59"),
    *(
        pytest.param("E_HEADER", after(pax(record), LAST), id=f"h60-{place}")
        for place, record in enumerate(
            (
                b"99 comment=x\n",
                b"0 comment=x\n",
                b"12 commentx\n",
                b"13 comment=xy",
                b"013 comment=x\n",
                b"7 \xff=x\n",
                b" comment=x\n",
                b"-13 comment=x\n",
                pax_record(b"path", b"\xff\xfe"),
            )
        )
    ),
    pytest.param(
        "E_LIMIT", header(b"PaxHeaders/x", size=base256(2 << 30, 12), kind=b"x") + bytes(1024), id="h61-claim"
    ),
    pytest.param("E_LIMIT", after(pax((b"comment", b"x" * (2 << 20))), LAST), id="h61-real"),
    pytest.param("E_LIMIT", after(pax(b"5 a=\n" * 220_000), LAST), id="h62"),
    *(
        pytest.param("E_HEADER", before(pax((key, value), kind=b"g")), id=f"h63-{key.decode()}")
        for key, value in ((b"path", b"GLOBAL"), (b"size", b"1"), (b"linkpath", b"x"))
    ),
    *(
        pytest.param("E_HEADER", after(pax((key, b"1")), LAST), id=f"h64-{key.decode()}")
        for key in (b"GNU.sparse.major", b"GNU.sparse.size", b"GNU.sparse.map", b"GNU.sparse.name")
    ),
    pytest.param("E_HEADER", after(header(b"x", kind=b"S", magic=b"ustar  \0")), id="h65"),
    pytest.param(
        ("E_LIMIT", "E_HEADER"),
        header(b"././@LongLink", size=base256(2 << 30, 12), kind=b"L", magic=b"ustar  \0") + END,
        id="h66-claim",
    ),
    pytest.param("E_HEADER", after(gnu_long(b"name")), id="h66-alone"),
    pytest.param("E_HEADER", after(gnu_long(b"name"), gnu_long(b"other"), LAST), id="h66-twice"),
    pytest.param("E_HEADER", after(gnu_long(b"name", b"K"), LAST), id="h66-target-of-a-file"),
    pytest.param("E_HEADER", after(gnu_long(b"one"), pax((b"path", b"two")), gnu_long(b"three"), LAST), id="h67"),
    pytest.param("E_LIMIT", after(*[pax((b"comment", b"x"), kind=b"g")] * 9, LAST), id="h68"),
    pytest.param("E_HEADER", after(header(b"x", magic=b"junkjunk")), id="h69"),
    pytest.param("E_HEADER", after(header(b"x", magic=b"ustar  \0", prefix=b"etc")), id="h70"),
    pytest.param("E_HEADER", after(pax((b"mtime", b"nan")), LAST), id="h72-nan"),
    pytest.param("E_HEADER", after(header(b"x", mode=b"zzzzzzz\0")), id="h72-mode"),
    pytest.param("E_HEADER", after(header(b"x", mtime=base256(2**40, 12))), id="h72-mtime"),
    pytest.param("E_HEADER", after(header(b"x", mtime=base256(-(2**40), 12))), id="h72-early"),
    pytest.param("E_HEADER", after(header(b"x", uid=base256(-1, 8))), id="h72-uid"),
    pytest.param("E_TRAILING", GOOD + bytes(512) + entry(b"x", b"y") + END, id="h73"),
]


@pytest.mark.parametrize(("code", "data"), REFUSED)
def test_h52_to_h73_an_abused_header_is_refused(
    assert_refused: Assert, code: str | tuple[str, ...], data: bytes
) -> None:
    assert_refused(data, code, forms=PLAIN)


@pytest.mark.parametrize("bit", range(0, 4096, 509))
@pytest.mark.parametrize("place", [0, 1])
def test_h51_a_bit_flip_in_a_header_is_refused(assert_refused: Assert, place: int, bit: int) -> None:
    data = bytearray(DOCKER.tar())
    start = place and 512 + len(FIRST.data)
    data[start + bit // 8] ^= 1 << bit % 8
    assert_refused(bytes(data), "E_HEADER", forms=["file"])


def test_h71_h72_attributes_and_odd_modes_mean_nothing(assert_accepted: Assert) -> None:
    data = before(
        pax((b"SCHILY.xattr.security.capability", b"\x01\0\0\x02"), (b"LIBARCHIVE.xattr.user.x", b"eA")),
        header(b"extra", mode=b"0006777\0", mtime=base256(2**33, 12)),
        pax((b"SCHILY.xattr.user.big", b"x" * (1 << 19)), (b"mtime", b"-1.5")),
        header(b"extra2", mtime=base256(-1, 12), uid=base256(2**31, 8)),
    )
    assert_accepted(data, names=["demo:1"], forms=PLAIN)


@pytest.mark.parametrize("length", [100, 255, 4096])
def test_h74_names_of_exactly_the_limit_are_accepted(assert_accepted: Assert, length: int) -> None:
    name = (b"d" * 99 + b"/") * (length // 100) + b"n" * (length % 100 or 100)
    name = name[:length] if not name[:length].endswith(b"/") else name[: length - 1] + b"n"
    assert_accepted(after(pax((b"path", name)), LAST), names=["demo:1"], forms=["file"])
    assert_accepted(after(gnu_long(name), header(b"x", magic=b"ustar  \0")), names=["demo:1"], forms=["file"])


def test_h63_a_comment_for_all_is_accepted(assert_accepted: Assert) -> None:
    assert_accepted(before(pax((b"comment", b"0123456789abcdef"), kind=b"g")), names=["demo:1"], forms=PLAIN)
