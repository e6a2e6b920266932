"""Changes to whole archives with an eye for their structure: members, headers, documents, layers, compression.

Driven by a source of choices (``random.Random``), so that hypothesis and plain loops can both use it.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import lzma
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import zstandard

from tests.builders import rawtar
from tests.builders.images import (
    Files,
    Member,
    attestation,
    docker_files,
    dumps,
    hybrid_files,
    layer_tar,
    legacy_files,
    make_image,
    make_index,
    make_layer,
    oci_files,
    sha256,
)
from tests.campaigns.independent import plain

__all__ = ["BASES", "is_document", "mutant", "put"]

_LAYERS = [
    make_layer(layer_tar({f"etc/{n}": b"%d\n" % n}), kind) for n, kind in enumerate((None, "gzip", "zstd", None))
]
ONE = make_image("demo:1", _LAYERS[:2])
TWO = make_image(["demo:2", "demo:two"], _LAYERS[2:3], base=ONE)
SIMPLE = make_image("demo:1", [_LAYERS[0], _LAYERS[3]])
SIMPLE_TWO = make_image("demo:2", [make_layer(layer_tar({"etc/x": b"x"}))], base=SIMPLE)
ARM = make_image((), [_LAYERS[1]], platform="linux/arm64/v8")
BASES: dict[str, Callable[[], Files]] = {
    "docker": lambda: docker_files([SIMPLE, SIMPLE_TWO], repositories=True),
    "v1": lambda: docker_files([SIMPLE, SIMPLE_TWO], "v1"),
    "crane": lambda: docker_files([make_image("demo:1", [_LAYERS[1]])], "crane"),
    "oci": lambda: oci_files([ONE, TWO]),
    "index": lambda: oci_files([(make_index(ONE, ARM, attestation(ONE)), ("both:1",)), TWO]),
    "hybrid": lambda: hybrid_files([ONE, TWO]),
    "legacy": lambda: legacy_files([SIMPLE, SIMPLE_TWO]),
}
OTHERS: list[bytes] = [layer.blob for layer in _LAYERS] + [
    b"",
    b"{}",
    bytes(1024),
    ONE.config,
    ONE.manifest,
    TWO.config,
]

Rows = list[Member]


def is_document(member: Member) -> bool:
    """Whether a member looks like JSON."""
    return member.data[:1] in (b"{", b"[") and member.kind == b"0"


def _swap(rows: Rows, chance: random.Random) -> None:
    one, other = chance.randrange(len(rows)), chance.randrange(len(rows))
    rows[one], rows[other] = rows[other], rows[one]


def _drop(rows: Rows, chance: random.Random) -> None:
    del rows[chance.randrange(len(rows))]


def _double(rows: Rows, chance: random.Random) -> None:
    one = chance.choice(rows)
    if chance.random() < 0.5:
        one = replace(one, name="./" + one.name)
    rows.insert(chance.randrange(len(rows) + 1), one)


def _rename(rows: Rows, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    name = rows[place].name
    new = chance.choice(
        [
            chance.choice(rows).name,
            "./" + name,
            name + "/",
            "/" + name,
            "../" + name,
            name.upper(),
            "a/" + name,
            "",
            name + "x",
        ]
    )
    rows[place] = replace(rows[place], name=new)


def _link(rows: Rows, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    target = chance.choice([one.name for one in rows] + ["/etc/passwd", "../store", "nowhere", ""])
    if chance.random() < 0.5:
        target = "../" * chance.randrange(3) + target
    rows[place] = Member(rows[place].name, b"", chance.choice([b"1", b"2"]), target)


def _kind(rows: Rows, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    rows[place] = replace(
        rows[place], kind=chance.choice([b"0", b"\0", b"5", b"7", b"3", b"6", b"S", b"g", b"x", b"L"])
    )


def _content(rows: Rows, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    data = bytearray(rows[place].data)
    how = chance.randrange(4)
    if how == 0 and data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how == 1:
        del data[chance.randrange(len(data) + 1) :]
    elif how == 2:
        data += chance.randbytes(chance.randrange(1, 600))
    else:
        data = bytearray(chance.choice([*OTHERS, chance.choice(rows).data]))
    rows[place] = replace(rows[place], data=bytes(data))


def _compress(rows: Rows, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    rows[place] = replace(rows[place], data=packed(rows[place].data, chance))


def packed(data: bytes, chance: random.Random) -> bytes:
    """``data`` in one of the compressions, or in two layers of them."""
    how = chance.randrange(6)
    if how == 0:
        return bz2.compress(data)
    if how == 1:
        return lzma.compress(data)
    if how == 2:
        return zstandard.ZstdCompressor(level=1, write_checksum=chance.random() < 0.5).compress(data)
    if how == 3:
        return gzip.compress(data[: len(data) // 2], mtime=0) + gzip.compress(data[len(data) // 2 :], mtime=0)
    if how == 4:
        return gzip.compress(gzip.compress(data, mtime=0), mtime=0)
    return gzip.compress(data, mtime=0)


def _move_layer(rows: Rows, chance: random.Random) -> None:
    """Exchange the contents of two blobs."""
    blobs = [n for n, row in enumerate(rows) if not is_document(row)] or list(range(len(rows)))
    one, other = chance.choice(blobs), chance.choice(blobs)
    rows[one], rows[other] = replace(rows[one], data=rows[other].data), replace(rows[other], data=rows[one].data)


def _document(rows: Rows, chance: random.Random) -> None:
    """Change a value of a document; most times everything that refers to it is told the new digest."""
    places = [n for n, row in enumerate(rows) if is_document(row)]
    if not places:
        return
    place = chance.choice(places)
    try:
        value = json.loads(rows[place].data)
    except ValueError:
        return
    old = rows[place].data
    for _ in range(chance.choice((1, 1, 2))):
        value = _edited(value, chance)
    rows[place] = replace(rows[place], data=dumps(value))
    if chance.random() < 0.75:
        _refer(rows, {sha256(old): rows[place].data})


def _layer(rows: Rows, chance: random.Random) -> None:
    """Put another layer in place of one, and tell everybody its digest, but perhaps not the diff ID."""
    places = [n for n, row in enumerate(rows) if row.data and not is_document(row)]
    if not places:
        return
    place = chance.choice(places)
    new = layer_tar({"etc/new": chance.randbytes(20)})
    old = rows[place].data
    rows[place] = replace(rows[place], data=packed(new, chance) if chance.random() < 0.6 else new)
    _refer(rows, {sha256(old): rows[place].data})
    if chance.random() < 0.5:
        with contextlib.suppress(Exception):  # It may have been damaged before.
            _refer(rows, {sha256(plain(old)): new})


def _refer(rows: Rows, moved: dict[str, bytes]) -> None:
    """Write new digests and sizes in place of old ones, in names and documents, up to the root."""
    for _ in range(8):
        if not moved:
            return
        ((old, data), *rest) = moved.items()
        moved = dict(rest)
        new = sha256(data)
        for n, row in enumerate(rows):
            name = row.name.replace(old[7:], new[7:])
            content = row.data
            if is_document(row) and old[7:].encode() in content:
                content = _resized(content.replace(old[7:].encode(), new[7:].encode()), new, len(data))
                moved[sha256(row.data)] = content
            rows[n] = replace(row, name=name, data=content)


def put(rows: Rows, place: int, data: bytes, *, told: bool) -> None:
    """Change the content of a member; ``told`` says whether everything that refers to it gets the new digest."""
    old = rows[place].data
    rows[place] = replace(rows[place], data=data)
    if told:
        _refer(rows, {sha256(old): data})


def _resized(raw: bytes, digest: str, size: int) -> bytes:
    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("digest") == digest and "size" in value:
                value["size"] = size
            for item in value.values():
                visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    visit(value)
    return dumps(value)


_VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    2**63,
    1.5,
    "",
    "a",
    "demo:9",
    "sha256:" + "0" * 64,
    [],
    {},
    "linux",
    "layers",
]


def _edited(value: Any, chance: random.Random) -> Any:
    places = list(_places(value, ()))
    if not places:
        return chance.choice(_VALUES)
    *path, key = chance.choice(places)
    above = value
    for step in path:
        above = above[step]
    how = chance.randrange(5)
    if how == 0:
        above[key] = chance.choice(_VALUES)
    elif how == 1:
        del above[key]
    elif how == 2:
        *source, last = chance.choice(places)
        other = value
        for step in source:
            other = other[step]
        above[key] = json.loads(json.dumps(other[last]))
    elif isinstance(above, list):
        if how == 3:
            above.insert(chance.randrange(len(above) + 1), json.loads(json.dumps(above[key])))
        else:
            chance.shuffle(above)
    elif how == 3:
        above[key.swapcase()] = above[key]
    else:
        above[chance.choice(["Parent", "data", "urls", "subject", "annotations", "artifactType", "platform"])] = above[
            key
        ]
    return value


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


_CHANGES: list[Callable[[Rows, random.Random], None]] = [
    *(_swap, _drop, _double, _rename, _link, _kind, _content, _compress, _move_layer),
    *(_document, _document, _document, _layer, _layer),
]


def _written(rows: Rows, chance: random.Random) -> bytes:
    """The tar; now and then with an odd header."""
    blocks = [row.block() for row in rows]
    odd = chance.randrange(12)
    if odd < 4 and blocks:
        place = chance.randrange(len(blocks))
        row = rows[place]
        size, name = b"%d" % len(row.data), row.name.encode()
        blocks[place] = [
            rawtar.pax((b"path", name), (b"size", size)) + row.block(),
            rawtar.pax((b"path", chance.choice(rows).name.encode())) + row.block(),
            rawtar.pax((b"size", b"%d" % chance.choice([0, 1, len(row.data) + 512, 1 << 40]))) + row.block(),
            rawtar.pax((b"comment", b"x"), kind=b"g") + rawtar.gnu_long(name or b"x") + row.block(),
            rawtar.entry(name[:100], row.data, size=chance.choice([0, 1, len(row.data) + 1, len(row.data) + 600])),
            rawtar.entry(name[:100], row.data, size=rawtar.base256(len(row.data), 12), magic=b"ustar  \0"),
        ][chance.randrange(6)]
    end = rawtar.END if chance.random() < 0.95 else chance.choice([b"", bytes(512), bytes(9000), bytes(1024) + b"x"])
    return b"".join(blocks) + end


def mutant(chance: random.Random, families: list[str] | None = None, most: int = 3) -> tuple[str, bytes, str]:
    """A changed archive: its family, its bytes, and what was done to it. One in twenty is not changed at all."""
    family = chance.choice(families or list(BASES))
    rows = list(BASES[family]().members)
    done = []
    for _ in range(0 if chance.random() < 0.05 else chance.randint(1, most)):
        change = chance.choice(_CHANGES)
        done.append(change.__name__.strip("_"))
        if rows:
            change(rows, chance)
    data = _written(rows, chance)
    if chance.random() < 0.15:
        data = packed(data, chance)
        done.append("packed")
    return family, data, "+".join(done) or "unchanged"
