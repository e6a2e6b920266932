"""Section E: truncated, corrupted and over-long archives."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from imgtar.ops.verdict import Verification
from imgtar.ops.verify import verify
from tests.builders.images import (
    Files,
    blob_name,
    docker_files,
    hexed,
    hybrid_files,
    legacy_files,
    make_image,
    oci_files,
    random_layer,
)
from tests.builders.rawtar import END
from tests.hostile.conftest import LOOKS, PLAIN, World

Assert = Callable[..., None]

ONE = make_image("demo:1", layers=2)
TWO = make_image("demo:2", layers=1, base=ONE, compression="gzip", seed=3)
PLAIN_TWO = make_image("demo:2", layers=1, base=ONE, seed=3)
FAMILIES: dict[str, Files] = {
    "docker": docker_files([ONE, PLAIN_TWO]),
    "v1": docker_files([ONE, PLAIN_TWO], "v1"),
    "crane": docker_files([make_image("demo:1", layers=2, compression="gzip")], "crane"),
    "oci": oci_files([ONE, TWO, make_image("demo:3", compression="zstd", layers=1)]),
    "hybrid": hybrid_files([ONE, TWO]),
    "legacy": legacy_files([PLAIN_TWO]),
}
HASHED = [name for name in FAMILIES if name != "legacy"]
"""The families whose documents are tied together by digests. A pre-1.10 archive has none: it cannot be proved."""


@cache
def archive(family: str) -> bytes:
    return FAMILIES[family].tar()


def judged(path: Path, data: bytes) -> Verification:
    """Verify in this process: there are hundreds of these."""
    path.write_bytes(data)
    return verify([str(path)], jobs=1)


def image_ids(verification: Verification) -> list[str]:
    """What the images are. An image ID stands for the config and, by the diff IDs, for every byte of its layers."""
    return sorted({str(image["image_id"]) for each in verification.archives for image in each.images})


def assert_refused_or_harmless(path: Path, family: str, data: bytes, what: str) -> bool:
    """Assert that damage is found, or that all images are still what they were; return whether it was found."""
    verification = judged(path, data)
    if verification.ok:
        assert image_ids(verification) == image_ids(judged(path, archive(family))), f"{what} goes unseen"
    else:
        assert verification.exit_code in (4, 5), what
        assert verification.faults, what
    return not verification.ok


@pytest.fixture
def path(quick: Path) -> Path:
    return quick / "damaged.tar"


@pytest.mark.parametrize("family", FAMILIES)
def test_h75_truncation_at_every_97th_byte_is_refused(path: Path, family: str) -> None:
    data = archive(family)
    assert judged(path, data).ok
    for length in range(0, len(data), 97):
        verification = judged(path, data[:length])
        assert not verification.ok, f"cut after {length} of {len(data)} bytes goes unseen"
        assert verification.exit_code == 5
        assert verification.faults[0].code in ("E_TRUNC", "E_TYPE"), f"cut after {length}: {verification.faults}"


@pytest.mark.parametrize("family", FAMILIES)
def test_h75_a_truncated_archive_leaves_no_trace(assert_refused: Assert, family: str) -> None:
    data = archive(family)
    for part in (0.31, 0.77):
        assert_refused(data[: int(len(data) * part)], "E_TRUNC", says=["byte"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strip", [512, 1024], ids=["h78-one-block", "h77-both-blocks"])
def test_h77_h78_a_missing_end_marker_is_refused(assert_refused: Assert, family: str, strip: int) -> None:
    assert_refused(archive(family)[:-strip], "E_TRUNC", forms=PLAIN)


@pytest.mark.parametrize("count", [1, 511, 512, 1 << 20])
def test_h79_garbage_after_the_end_is_refused(assert_refused: Assert, count: int) -> None:
    assert_refused(archive("oci") + b"\xa5" * count, "E_TRAILING")


@pytest.mark.parametrize("count", [1, 511, 512, 10240, 1 << 20])
def test_h79_zeros_after_the_end_are_accepted(assert_accepted: Assert, count: int) -> None:
    assert_accepted(archive("v1") + bytes(count), names=["demo:1", "demo:2"], forms=PLAIN)


@pytest.mark.parametrize("second", ["oci", "docker"])
def test_h80_two_archives_in_one_are_refused(assert_refused: Assert, second: str) -> None:
    assert_refused(archive("docker") + archive(second), "E_TRAILING")


@pytest.mark.parametrize("family", HASHED)
def test_h81_bit_flips_are_refused_or_harmless(path: Path, family: str) -> None:
    data = archive(family)
    chance = random.Random(f"flips {family}")
    found = 0
    for _ in range(150):
        bit = chance.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found += assert_refused_or_harmless(path, family, bytes(damaged), f"bit {bit % 8} of byte {bit // 8}")
    assert found > 75, "most flips must hit something"


@pytest.mark.parametrize("family", ["docker", "hybrid"])
def test_h81_load_and_verify_agree_on_flipped_bits(world: World, path: Path, family: str) -> None:
    data = archive(family)
    chance = random.Random(f"agree {family}")
    for _ in range(12):
        bit = chance.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        verification = judged(path, bytes(damaged))
        before = world.snapshot()
        for form in PLAIN:
            fresh = world.outside.parent / f"store-{bit}-{form}"
            done = world.run("load", bytes(damaged), form, "--json", store=fresh)
            assert (done.status == 0) == verification.ok, f"bit {bit}: {verification.findings}: {done}"
            assert done.status == verification.exit_code, f"bit {bit}: {verification.findings}: {done}"
        assert world.snapshot() == before


def _swap(blocks: list[bytes], chance: random.Random) -> None:
    one, other = chance.sample(range(len(blocks)), 2)
    blocks[one], blocks[other] = blocks[other], blocks[one]


def _drop(blocks: list[bytes], chance: random.Random) -> None:
    del blocks[chance.randrange(len(blocks))]


def _double(blocks: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(blocks))
    blocks.insert(place, blocks[place])


def _blank(blocks: list[bytes], chance: random.Random) -> None:
    blocks[chance.randrange(len(blocks))] = bytes(512)


@pytest.mark.parametrize("family", HASHED)
@pytest.mark.parametrize("change", [_swap, _drop, _double, _blank])
def test_h82_moved_and_lost_blocks_are_refused_or_harmless(
    path: Path, family: str, change: Callable[[list[bytes], random.Random], None]
) -> None:
    data = archive(family)
    chance = random.Random(f"{change.__name__} {family}")
    for _ in range(25):
        blocks = [data[start : start + 512] for start in range(0, len(data), 512)]
        change(blocks, chance)
        damaged = b"".join(blocks)
        if damaged != data:
            assert_refused_or_harmless(path, family, damaged, change.__name__)


@pytest.mark.parametrize("family", HASHED)
def test_h85_parts_joined_in_another_order_are_refused(assert_refused: Assert, family: str) -> None:
    # imgtar does not split files: whoever did, and put the parts together wrongly, has a damaged archive.
    data = archive(family)
    third = len(data) // 3 + 100
    first, second, last = data[:third], data[third : 2 * third], data[2 * third :]
    codes = ("E_HEADER", "E_TRUNC", "E_TRAILING", "E_TYPE", "E_DIGEST", "E_DIFFID", "E_DUP", "E_LINK")
    assert_refused(first + last + second, codes, forms=["file", "pipe"])


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_h83_a_hole_of_zeros_in_a_layer_is_refused(assert_refused: Assert, compression: str | None) -> None:
    image = make_image("holed:1", layers=[random_layer(1), random_layer(2, compression, size=32 << 10)])
    blob = bytearray(image.layers[1].blob)
    blob[8 << 10 : 16 << 10] = bytes(8 << 10)
    name = blob_name(image.layers[1].digest)
    assert_refused(
        oci_files([image]).put(name, bytes(blob)).tar(), "E_DIGEST", unseen=LOOKS, says=["layer 2 of holed:1"]
    )


def test_h83_a_hole_in_a_plain_layer_of_a_docker_archive_is_refused(assert_refused: Assert) -> None:
    image = make_image("holed:1", layers=[random_layer(2, size=32 << 10)])
    blob = bytearray(image.layers[0].blob)
    blob[8 << 10 : 16 << 10] = bytes(8 << 10)
    name = f"{hexed(image.layers[0].digest)}.tar"
    assert_refused(
        docker_files([image]).put(name, bytes(blob)).tar(), "E_DIFFID", unseen=LOOKS, says=["layer 1 of holed:1"]
    )


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 511, bytes(512), bytes(10240), bytes(range(256)) * 4])
def test_h86_nothing_is_no_archive(assert_refused: Assert, data: bytes) -> None:
    assert_refused(data, "E_TYPE")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"\x7fELF\x02\x01\x01" + bytes(2000), "ELF", id="elf"),
        pytest.param(b"PK\x03\x04\x14\x00" + bytes(2000), "zip", id="zip"),
        pytest.param(b"hsqs" + bytes(2000), "squashfs", id="squashfs"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(2000), "PNG", id="png"),
        pytest.param(b"<!DOCTYPE html><html><body>404</body></html>\n" * 30, "HTML", id="html"),
        pytest.param(b"QFI\xfb\0\0\0\x03" + bytes(2000), "qcow2", id="qcow2"),
        pytest.param(b"070701" + b"0" * 2000, "cpio", id="cpio"),
        pytest.param(b"404 page not found\n", "text", id="text"),
        pytest.param(b'{"errors":[{"code":"UNAUTHORIZED"}]}', "JSON", id="json"),
    ],
)
def test_h87_something_else_is_called_by_its_name(assert_refused: Assert, data: bytes, kind: str) -> None:
    assert_refused(data, "E_TYPE", says=[kind])


def test_h86_an_empty_tar_is_no_image_archive(assert_refused: Assert) -> None:
    assert_refused(Files(()).plus().tar() + bytes(10240 - len(END)), "E_TYPE")
