"""Hostile inventory files: whoever says what a receiver holds decides what travels, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtar.errors import Refused, UsageError
from imgtar.graph.listing import ListedBlob, Listing, parse_listing
from imgtar.model.digest import Digest
from tests.builders.images import dumps, make_image, oci_archive, oci_files, random_layer, sha256
from tests.hostile.conftest import KEPT, World
from tests.hostile.mutation import EDITS, spoiled_bytes
from tests.hostile.sandbox import Run

Lines = list[dict[str, Any]]

DIGESTS = sorted([KEPT.digest, KEPT.image_id, *(layer.digest for layer in KEPT.layers)])
CONTENT = KEPT.document.blobs()


def blob_lines() -> Lines:
    """The blob lines of an honest inventory of :data:`KEPT`."""
    kinds = {KEPT.digest: "manifest", KEPT.image_id: "config"}
    lines: Lines = []
    for digest in DIGESTS:
        line: dict[str, Any] = {"digest": digest, "size": len(CONTENT[digest]), "kind": kinds.get(digest, "layer")}
        if digest not in kinds:
            line.update(diff_id=digest, media_type=KEPT.layers[0].media_type)
        lines.append(line)
    return lines


def image_lines() -> Lines:
    """Its one image line."""
    line = {"name": "keep:1", "digest": KEPT.digest, "image_id": KEPT.image_id, "complete": True}
    return [{**line, "platform": KEPT.platform, "blobs": [0, 1, 2, 3]}]


def root_of(blobs: Sequence[Any]) -> str:
    """The root, as far as the lines can be understood."""
    try:
        rows = sorted((b["digest"], b["size"], b.get("diff_id") or "-") for b in blobs)
        return sha256("".join(f"{digest} {size} {diff_id}\n" for digest, size, diff_id in rows).encode())
    except (KeyError, TypeError, AttributeError):
        return sha256(b"")


def inventory(blobs: Sequence[Any] | None = None, images: Sequence[Any] | None = None, **head: Any) -> bytes:
    """An inventory with these lines, its root and check right; ``head`` changes the first line."""
    blobs = blob_lines() if blobs is None else blobs
    images = image_lines() if images is None else images
    body = b"".join(line_of(line) for line in (*blobs, *images))
    return whole(body, {"root": root_of(blobs), "blobs": len(blobs), "images": len(images), **head})


def whole(body: bytes, head: dict[str, Any]) -> bytes:
    """``body`` behind a first line whose check is right, unless ``head`` has another."""
    first = {
        "schema": "imgtar.inventory/1",
        "where": "store",
        "created": None,
        "root": sha256(b""),
        "blobs": 0,
        "images": 0,
    }
    first.update(head)
    if "check" not in head:
        first["check"] = check_of(first, body)
    return line_of(first) + body


def check_of(first: dict[str, Any], body: bytes) -> str:
    """The check digest: of the first line without it, and all other lines."""
    return sha256(line_of({key: value for key, value in first.items() if key != "check"}) + body)


def line_of(value: Any) -> bytes:
    """One line as imgtar writes it."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


GOOD = inventory()


def given_to(world: World, raw: bytes | Path, *, packed: bool = False) -> list[Run]:
    """Give an inventory to everything that reads one; what must hold of any input is asserted, and that nothing changes."""
    if isinstance(raw, Path):
        path = raw
    else:
        path = world.incoming / ("given.inv.zst" if packed else "given.inv")
        path.write_bytes(zstandard.ZstdCompressor().compress(raw) if packed else raw)
    archive = world.incoming / "keep.tar"
    if not archive.exists():
        archive.write_bytes(oci_archive([KEPT]))
    before = world.snapshot()
    runs = [
        world.command("save", "--base", str(path), "--dry-run", "--json", "keep:1"),
        world.command("save", "--for", str(path), "--explain", KEPT.layers[0].digest, "keep:1"),
        world.command("verify", "--against", str(path), "--json", str(archive)),
        world.command("inventory", "--of", str(path)),
        world.command("inventory", "diff", str(path), "store"),
    ]
    assert world.snapshot() == before
    return runs


def refused(
    world: World, raw: bytes | Path, code: str | tuple[str, ...], exit: int = 5, *, packed: bool = False
) -> None:
    """Assert that everybody refuses it with one of the codes."""
    for done in given_to(world, raw, packed=packed):
        assert done.status == exit, done
        assert any(f"[{one}]" in done.errors for one in ((code,) if isinstance(code, str) else code)), done


def accepted(world: World, raw: bytes | Path) -> None:
    """Assert that everybody takes it."""
    for done in given_to(world, raw):
        assert done.status == 0, done


def test_an_honest_inventory_is_taken_plain_and_compressed(world: World) -> None:
    accepted(world, GOOD)
    assert [done.status for done in given_to(world, GOOD, packed=True)] == [0] * 5
    made = world.incoming / "made.inv"
    assert world.command("inventory", "-o", str(made)).status == 0
    assert made.read_bytes() == GOOD


def test_unknown_keys_are_accepted_everywhere(world: World) -> None:
    blobs = [{"later": [1, {"a": None}], **line} for line in blob_lines()]
    images = [{**line, "later": "\u202e"} for line in image_lines()]
    accepted(world, inventory(blobs, images, later={"x": 1}))


# --- damage


def test_an_inventory_cut_at_any_byte_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(Refused):
            parse_listing(GOOD[:end], "x")
    with pytest.raises(Refused):
        parse_listing(inventory([], [])[:-1], "x")


@pytest.mark.parametrize("lines", range(len(GOOD.splitlines())))
def test_an_inventory_without_its_last_lines_is_refused(world: World, lines: int) -> None:
    cut = b"".join(GOOD.splitlines(keepends=True)[:lines])
    # Without its first line it is not even known to be an inventory.
    refused(world, cut, "E_TRUNC" if lines else ("E_TRUNC", "E_TYPE"))
    if lines:
        refused(world, cut + GOOD.splitlines()[lines][:20], "E_TRUNC")


def test_a_flipped_bit_anywhere_is_refused() -> None:
    for raw in (GOOD, inventory(images=[{**image_lines()[0], "name": None}], redacted=True)):
        for place in range(len(raw)):
            for bit in range(8):
                spoiled = bytearray(raw)
                spoiled[place] ^= 1 << bit
                try:
                    parse_listing(bytes(spoiled), "x")
                except Refused:
                    continue
                pytest.fail(
                    f"bit {bit} of byte {place} may be anything: {bytes(spoiled[max(place - 30, 0) : place + 10])!r}"
                )


@pytest.mark.parametrize("more", [b"x", b"\n", b"{}\n", b"\0" * 512, GOOD])
def test_anything_behind_the_end_is_refused(world: World, more: bytes) -> None:
    refused(world, GOOD + more, "E_TRUNC")
    refused(world, whole(more, {}), "E_TRUNC")


@pytest.mark.parametrize("key", ["blobs", "images"])
@pytest.mark.parametrize("count", [0, 1, 5, 10**6, 2**63 - 1, 2**63, -1, 1.0, "4", None, True], ids=repr)
def test_a_count_that_lies_is_refused(world: World, key: str, count: Any) -> None:
    if (key, count) != ("images", 1) or count is True:  # That one would be no lie.
        head = {"root": root_of(blob_lines()), "blobs": 4, "images": 1, key: count}
        refused(world, whole(GOOD.partition(b"\n")[2], head), ("E_TRUNC", "E_JSON", "E_LIMIT"))


def test_counts_that_lie_in_opposite_ways_are_refused(world: World) -> None:
    raw = whole(GOOD.partition(b"\n")[2], {"root": root_of(blob_lines()), "blobs": 3, "images": 2})
    refused(world, raw, "E_JSON")


@pytest.mark.parametrize("key", ["root", "check"])
@pytest.mark.parametrize("digest", [sha256(b"other"), f"sha512:{'0' * 128}", "md5:00", "x", "", None, "\x1b[2J"])
def test_a_wrong_root_or_check_is_refused(world: World, key: str, digest: Any) -> None:
    refused(world, inventory(**{key: digest}), ("E_DIGEST", "E_JSON"))


@pytest.mark.parametrize("schema", ["imgtar.inventory/2", "imgtar.inventory/99", "imgtar.inventory/\x1b[2J"])
def test_a_newer_inventory_is_refused_as_such(world: World, schema: str) -> None:
    refused(world, inventory(schema=schema), "E_TYPE")


# --- lines


def test_lines_that_are_no_strict_json_are_refused(world: World) -> None:
    for line in (
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"digest":1,"digest":1}',
        b'{"x":"\xff"}',
        b'{"x":"\\ud800"}',
        b"[" * 9999,
    ):
        raw = whole(line + b"\n", {"blobs": 1})
        refused(world, raw, "E_JSON")


BAD_BLOBS: list[dict[str, Any]] = [
    {"digest": "sha256:../../../outside"},
    {"digest": KEPT.layers[0].digest.upper()},
    {"digest": f"sha256:{KEPT.layers[0].digest[7:].upper()}"},
    {"digest": None},
    {"size": -1},
    {"size": 2**63},
    {"size": 1.0},
    {"size": "1"},
    {"size": True},
    {"kind": "tarball"},
    {"kind": None},
    {"diff_id": ""},
    {"diff_id": 1},
    {"media_type": None},
]


@pytest.mark.parametrize("change", BAD_BLOBS, ids=str)
def test_a_blob_line_that_makes_no_sense_is_refused(world: World, change: dict[str, Any]) -> None:
    blobs = blob_lines()
    blobs[0].update(change)
    refused(world, inventory(blobs), ("E_JSON", "E_DIGEST"))


BAD_IMAGES: list[dict[str, Any]] = [
    {"blobs": [4]},
    {"blobs": [2**62]},
    {"blobs": [-1]},
    {"blobs": ["0"]},
    {"blobs": None},
    {"blobs": [0, 0]},
    {"blobs": [1, 0]},
    {"name": "a\x1b[2Jb"},
    {"name": "UPPER"},
    {"name": "../x"},
    {"name": ""},
    {"name": 1},
    {"digest": "x"},
    {"image_id": "sha256:.."},
    {"complete": None},
    {"complete": 1},
    {"platform": 1},
]


@pytest.mark.parametrize("change", BAD_IMAGES, ids=str)
def test_an_image_line_that_makes_no_sense_is_refused_with_its_number(world: World, change: dict[str, Any]) -> None:
    raw = inventory(images=[{**image_lines()[0], **change}])
    refused(world, raw, ("E_JSON", "E_DIGEST", "E_NAME"))
    assert "line 6" in world.command("inventory", "--of", str(world.incoming / "given.inv")).errors


def test_a_blob_that_is_listed_twice_is_refused(world: World) -> None:
    blobs = blob_lines()
    refused(world, inventory([*blobs, blobs[0]]), "E_DUP")


@pytest.mark.parametrize("text", ["\x1b[2J\u202e", "x\r\ny", "/\x07", "a/b/c/d/e", "x" * 100_000])
@pytest.mark.parametrize("key", ["where", "platform", "media_type"])
def test_strange_text_is_never_shown_as_it_is(world: World, key: str, text: str) -> None:
    blobs, images = blob_lines(), image_lines()
    if key == "platform":
        images[0][key] = text
    elif key == "media_type":
        blobs[0][key] = text
    raw = inventory(blobs, images, **({"where": text} if key == "where" else {}))
    for done in given_to(world, raw):
        assert done.status in (0, 5), done
    path = str(world.incoming / "given.inv")
    world.command("inventory", "--of", path, "--json")
    world.command("inventory", "diff", path, path)


# --- size


def packed_lines(world: World, body: bytes, head: dict[str, Any]) -> Path:
    path = world.incoming / "bomb.inv.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=3).compress(whole(body, head)))
    assert path.stat().st_size < 1 << 20
    return path


def test_a_bomb_in_zstd_is_refused(world: World) -> None:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    path = world.incoming / "bomb.inv.zst"
    with path.open("wb") as file:
        file.write(compressor.compress(GOOD))
        for _ in range(3 << 10):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.flush())
    refused(world, path, ("E_LIMIT", "E_COMPRESS"))


def test_a_frame_that_asks_for_the_largest_window_is_read_in_bounds(world: World) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    path = world.incoming / "wide.inv.zst"
    path.write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(GOOD + b"\n" * (200 << 20)))
    refused(world, path, ("E_LIMIT", "E_COMPRESS"))


def test_more_lines_than_the_limit_are_refused(world: World) -> None:
    line = b'{"digest":"sha256:%064x","size":1,"kind":"blob"}\n'
    body = b"".join(line % n for n in range(100_001))
    refused(world, packed_lines(world, body, {"blobs": 100_001}), "E_LIMIT")


def test_no_inventory_is_written_that_nobody_could_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgtar.graph.listing._MOST_LINES", 10)
    blobs = [ListedBlob(Digest.of(b"%d" % n), 1, "blob") for n in range(11)]
    with pytest.raises(UsageError):
        Listing("store", blobs, []).encode()
    assert len(parse_listing(Listing("store", blobs[1:], []).encode(), "x").blobs) == 10


@pytest.mark.parametrize("what", ["blobs", "layers", "images"])
def test_very_many_lines_are_read_in_bounds(world: World, what: str) -> None:
    """A file of less than 1 MB may unpack to that: digests that follow on each other compress well.

    Half as many as are allowed, for a busy machine must not fail a test.
    """
    line = {
        "blobs": b'{"digest":"sha256:%064x","size":1,"kind":"blob"}\n',
        "layers": b'{"digest":"sha256:%064x","size":1,"kind":"layer","diff_id":"sha256:%064x"}\n',
        "images": b'{"name":"a:%d","digest":null,"image_id":null,"complete":true}\n',
    }[what]
    rows = range(50_000)
    body = b"".join(line % ((n, n) if what == "layers" else n) for n in rows)
    root = sha256(
        b"".join(b"sha256:%064x 1 %s\n" % (n, b"sha256:%064x" % n if what == "layers" else b"-") for n in rows)
    )
    path = packed_lines(world, body, {"images": 50_000} if what == "images" else {"blobs": 50_000, "root": root})
    done = world.command("save", "--base", str(path), "--dry-run", "keep:1")
    assert done.status == 0, done


def test_images_of_very_many_blobs_are_read_in_bounds_or_refused(world: World) -> None:
    blobs = [{"digest": sha256(b"%d" % n), "size": 1, "kind": "blob"} for n in range(3000)]
    rows = [dumps({**image_lines()[0], "name": f"a:{n}", "blobs": list(range(3000))}) for n in range(3000)]
    body = b"".join(dumps(line) + b"\n" for line in blobs) + b"\n".join(rows) + b"\n"
    path = packed_lines(world, body, {"root": root_of(blobs), "blobs": 3000, "images": 3000})
    done = world.command("save", "--base", str(path), "--dry-run", "keep:1")
    assert done.status == 5, done
    assert "[E_LIMIT]" in done.errors, done


def test_one_very_long_line_is_refused(world: World) -> None:
    refused(world, GOOD.replace(b"{", b"{" + b" " * (5 << 20), 1), ("E_LIMIT", "E_TYPE", "E_JSON"))
    blob = {"digest": sha256(b""), "size": 0, "kind": "blob", "x": "y" * (5 << 20)}
    refused(world, packed_lines(world, dumps(blob) + b"\n", {"root": root_of([blob]), "blobs": 1}), "E_LIMIT")


# --- what WHERE may be


def test_an_archive_is_no_inventory_and_an_inventory_no_archive(world: World) -> None:
    path = world.incoming / "given.inv"
    path.write_bytes(GOOD)
    for arguments in (["load", "-i", str(path)], ["verify", str(path)], ["inspect", str(path)], ["deps", str(path)]):
        done = world.command(*arguments)
        assert done.status == 5, done
        assert "inventory" in done.errors, done
    world.refused(GOOD, "E_TYPE")
    # An archive tells what it holds, even when it is called like an inventory; what is neither is refused.
    tar = world.incoming / "archive.inv"
    tar.write_bytes(oci_archive([KEPT]))
    accepted(world, tar)
    for junk in (
        b"",
        b"{}",
        b'{"schema":"other"}',
        bytes(2048),
        b"\x28\xb5\x2f\xfd",
        b'{"schema":"imgtar.inventory/1"',
    ):
        for done in given_to(world, junk):
            assert done.status == 5, done


def test_a_fifo_in_the_place_of_an_inventory_does_not_hang_when_somebody_writes(world: World) -> None:
    """A pipe is read once, from its first byte on: looking at it first would eat its head."""
    path = world.incoming / "fifo"
    os.mkfifo(path)
    tar = oci_archive([KEPT])
    for raw, status in ((tar, 0), (b"rubbish" * 1000, 5)):
        pid = os.fork()
        if not pid:
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, raw)
            os._exit(0)
        done = world.command("save", "--base", str(path), "--dry-run", "keep:1")
        os.waitpid(pid, 0)
        assert done.status == status, done


def test_a_medium_with_a_fifo_and_devices_in_it_does_not_hang(world: World) -> None:
    medium = world.incoming / "medium"
    medium.mkdir()
    (medium / "a.tar").write_bytes(oci_archive([make_image("app:1", 1, seed=1)]))
    (medium / "b.inv").write_bytes(GOOD)
    os.mkfifo(medium / "c.tar")
    (medium / "d.tar").symlink_to("d.tar")
    (medium / "e.tar").symlink_to("c.tar")
    (medium / "f").symlink_to("/dev/zero")
    assert world.command("load", "-i", str(medium)).status == 0


@pytest.mark.parametrize("what", ["loop", "folder", "absent", "device", "long", "nul-like"])
def test_a_place_that_is_no_file_is_an_error_with_a_name(world: World, what: str) -> None:
    path = world.incoming / "thing"
    if what == "loop":
        path.symlink_to("thing")
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path = Path("/dev/zero")
    elif what == "long":
        path = world.incoming / ("x" * 5000)
    elif what == "nul-like":
        path = world.incoming / "\x1b[2J\u202e"
    for option in (["save", "--base"], ["save", "--for"], ["verify", "--against"], ["inventory", "--of"]):
        rest = {"save": ["--dry-run", "keep:1"], "verify": [str(world.canary)], "inventory": []}[option[0]]
        done = world.command(*option, str(path), *rest)
        assert done.status in (2, 3, 5, 6), done


# --- what it claims


def changed_blobs(place: str, **change: Any) -> bytes:
    blobs = blob_lines()
    for line in blobs:
        if line["digest"] == place:
            line.update(change)
    return inventory(blobs)


LAYER = KEPT.layers[0]


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_a_lying_size_leads_to_a_refusal_and_no_archive(world: World, digest: str, size: int) -> None:
    path, target = world.incoming / "given.inv", world.incoming / "thin.tar"
    path.write_bytes(changed_blobs(digest, size=size))
    done = world.command("save", "--base", str(path), "-o", str(target), "keep:1")
    assert done.status == 5, done
    assert "[E_SIZE]" in done.errors, done
    assert not target.exists()


@pytest.mark.parametrize("diff_id", [sha256(b"other"), f"sha512:{'0' * 128}", None])
def test_a_lying_diff_id_leads_to_a_refusal_or_to_nothing(world: World, diff_id: str | None) -> None:
    path, target = world.incoming / "given.inv", world.incoming / "thin.tar"
    path.write_bytes(changed_blobs(LAYER.digest, diff_id=diff_id))
    done = world.command("save", "--base", str(path), "-o", str(target), "keep:1")
    assert done.status in (0, 5), done
    if done.status == 0:
        assert world.command("load", "-i", str(target)).status == 0


def test_an_inventory_that_claims_everything_costs_only_the_one_who_believes_it(world: World) -> None:
    """What was wrongly left out is a gap at the receiver; nothing is committed there, and a full archive helps."""
    app = make_image("app:1", [random_layer(1, "gzip"), random_layer(2)], seed=5)
    world.run("load", oci_archive([app]))
    blobs = app.document.blobs()
    lines = [{"digest": d, "size": len(raw), "kind": "blob"} for d, raw in sorted(blobs.items())]
    for line in lines:
        for layer in app.layers:
            if layer.digest == line["digest"]:
                line.update(kind="layer", diff_id=layer.diff_id)
    path, target = world.incoming / "given.inv", world.incoming / "thin.tar"
    path.write_bytes(inventory(lines, []))
    assert world.command("save", "--base", str(path), "-o", str(target), "app:1").status == 0
    assert world.command("rmi", "app:1").status == 0
    before = world.snapshot()
    assert world.command("load", "-i", str(target)).status == 4
    assert world.snapshot() == before
    assert world.command("verify", "--against", str(path), str(target)).status == 0
    assert world.command("verify", "--against", "store", str(target)).status == 4


def test_a_compressed_layer_that_is_only_claimed_makes_no_layer(world: World) -> None:
    """The list says that some blob unpacks to a layer: it stays at home, and the receiver finds that it has no such thing."""
    lines = [{"digest": sha256(b"packed"), "size": 9, "kind": "layer", "diff_id": LAYER.digest, "media_type": "\x1b"}]
    path, target = world.incoming / "given.inv", world.incoming / "thin.tar"
    path.write_bytes(inventory(lines, []))
    assert world.command("save", "--base", str(path), "-o", str(target), "keep:1").status == 0
    assert world.command("verify", str(target)).status == 0
    elsewhere = world.incoming / "elsewhere"
    done = world.run("load", target, "file", store=elsewhere)
    assert done.status == 4, done


def test_a_base_whose_bytes_are_not_what_its_archive_says_makes_no_wrong_archive(world: World) -> None:
    """The layers of an archive that is a base are believed; nothing of them gets into what is written."""
    files = oci_files([KEPT])
    spoiled = files.put(f"blobs/{LAYER.digest.replace(':', '/')}", bytes(len(LAYER.blob))).tar()
    path, target = world.incoming / "base.tar", world.incoming / "thin.tar"
    path.write_bytes(spoiled)
    assert world.command("save", "--base", str(path), "-o", str(target), "keep:1").status == 0
    assert world.command("load", "-i", str(target)).status == 0
    assert world.run("load", target, store=world.incoming / "elsewhere").status == 4


# --- at random


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_change_of_an_inventory_makes_the_reader_stumble(data: st.DataObject) -> None:
    """Lines that were changed with an honest check and root, or bytes that were changed anyhow."""
    if data.draw(st.booleans()):
        raw = spoiled_bytes(GOOD, data)
    else:
        raw = _encoded(data.draw(EDITS)([blob_lines(), image_lines()]))
    said = []
    try:
        again = parse_listing(raw, "x.inv").encode()
    except Refused as error:
        said.append(error)
    else:
        assert parse_listing(again, "again").encode() == again
    assert {error.code for error in said} <= {"E_TYPE", "E_JSON", "E_DUP", "E_LIMIT", "E_DIGEST", "E_NAME", "E_TRUNC"}
    assert all(str(error).startswith("x.inv") for error in said)


def _encoded(parts: Any) -> bytes:
    """Blob lines and image lines as a file, whatever they have become."""
    blobs, images = ([*parts, [], []] if isinstance(parts, list) else [[], []])[:2]
    return inventory(blobs if isinstance(blobs, list) else [blobs], images if isinstance(images, list) else [images])


@given(edit=EDITS, which=st.integers(0, 4))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_change_of_an_inventory_does_harm(world: World, edit: Callable[[Any], Any], which: int) -> None:
    path = world.incoming / "given.inv"
    path.write_bytes(_encoded(edit([blob_lines(), image_lines()])))
    target = world.incoming / "thin.tar"
    target.unlink(missing_ok=True)
    done = world.command("save", "--base", str(path), "-o", str(target), "keep:1")
    assert done.status in (0, 5), done
    assert target.exists() == (done.status == 0)
    if target.exists():
        assert world.command("verify", str(target)).status == 0
        assert world.command("load", "-i", str(target)).status == 0
