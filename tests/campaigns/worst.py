"""Archives that cost as much as they can for their size, made from a handful of numbers that a search can turn."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import random
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

import zstandard

from tests.builders import rawtar
from tests.builders.images import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

__all__ = ["LIMIT", "SEEDS", "Recipe", "build", "changed", "drawn"]

LIMIT = 1_000_000
"""Bytes that an input may have."""

Recipe = Mapping[str, int | str]

WORDS: dict[str, tuple[str, ...]] = {
    "form": ("oci", "docker", "hybrid", "legacy"),
    "outer": ("none", "gzip", "zstd", "bzip2", "xz"),
    "letters": ("a", "\\u0041", "\u00e9", "\U0001f600"),
    "bomb": ("zstd", "gzip", "bzip2", "xz", "members", "frames", "skippable", "rle", "stored", "window"),
    "layers_are": ("shared", "own", "here"),
}
NUMBERS: dict[str, int] = {
    # Blobs that expand: how many, to 2^n bytes each, and whether an image claims them.
    "bombs": 300,
    "bomb_size": 30,
    "claimed": 1,
    # Images and their documents.
    "images": 1000,
    "layers": 1000,
    "same_config": 1,
    "labels": 100_000,
    "label_size": 1 << 20,
    "steps": 50_000,
    "step_size": 1 << 20,
    "annotations": 50_000,
    "annotation_size": 1 << 20,
    "names": 1000,
    "name_size": 200,
    "nested": 60_000,
    # Indexes in indexes, and one opaque document listed again and again.
    "depth": 4,
    "fan": 300,
    "opaque": 30_000,
    "opaque_size": 1 << 22,
    # The tar itself.
    "entries": 100_000,
    "folders": 100_000,
    "links": 50_000,
    "pax": 50_000,
    "pax_records": 50_000,
    "pax_size": 1 << 18,
    "global": 1,
    "long_names": 50_000,
    "long_size": 4_096,
    # What a thin archive leaves out, and the old map of names.
    "thin": 50_000,
    "repositories": 50_000,
}
NOTHING: Recipe = {
    **{name: words[0] for name, words in WORDS.items()},
    **dict.fromkeys(NUMBERS, 0),
    "images": 1,
    "layers": 1,
    "names": 1,
    "name_size": 1,
    "bomb_size": 20,
}

SEEDS: dict[str, Recipe] = {
    "blobs that nobody refers to": {"outer": "zstd", "bombs": 20, "bomb_size": 30},
    "blobs that an image claims": {"outer": "gzip", "bombs": 20, "bomb_size": 30, "claimed": 1},
    "an image of slow streams": {"bombs": 8, "bomb_size": 30, "bomb": "bzip2", "claimed": 1},
    "a million empty members": {"outer": "zstd", "bombs": 4, "bomb_size": 25, "bomb": "members"},
    "frames without content": {"outer": "zstd", "bombs": 4, "bomb_size": 25, "bomb": "frames"},
    "skippable frames": {"outer": "zstd", "bombs": 4, "bomb_size": 25, "bomb": "skippable"},
    "blocks without content": {"outer": "zstd", "bombs": 4, "bomb_size": 25, "bomb": "rle"},
    "stored blocks": {"outer": "zstd", "bombs": 4, "bomb_size": 25, "bomb": "stored"},
    "great windows": {"outer": "none", "bombs": 4, "bomb_size": 29, "bomb": "window", "claimed": 1},
    "labels": {"outer": "zstd", "images": 20, "labels": 50_000, "label_size": 30},
    "long labels": {"outer": "zstd", "images": 40, "labels": 1, "label_size": 1 << 20, "letters": "\U0001f600"},
    "annotations": {"outer": "zstd", "images": 100, "annotations": 20_000, "annotation_size": 4},
    "many images": {
        "outer": "zstd",
        "images": 1000,
        "layers": 100,
        "layers_are": "shared",
        "steps": 100,
        "step_size": 80,
    },
    "many layers": {"outer": "zstd", "images": 100, "layers": 1000, "layers_are": "own"},
    "many docker images": {"form": "docker", "outer": "zstd", "images": 1000, "layers": 40, "layers_are": "here"},
    "one config": {
        "form": "docker",
        "outer": "zstd",
        "images": 1000,
        "same_config": 1,
        "labels": 60_000,
        "label_size": 8,
    },
    "both views": {"form": "hybrid", "outer": "zstd", "images": 1000, "layers": 40, "layers_are": "here"},
    "names of what is not here": {"outer": "zstd", "images": 100, "layers": 900, "names": 100},
    "one opaque document": {"outer": "zstd", "opaque": 20_000, "opaque_size": 1 << 21},
    "indexes in indexes": {"outer": "zstd", "images": 50, "depth": 4, "fan": 250, "layers": 100},
    "nested values": {"outer": "zstd", "images": 300, "nested": 60_000},
    "pax records": {"outer": "zstd", "pax": 60, "pax_records": 60_000},
    "headers for everything": {"outer": "zstd", "pax": 50_000, "pax_records": 1, "global": 1},
    "long names": {"outer": "zstd", "long_names": 20_000, "long_size": 4_000, "letters": "\U0001f600"},
    "entries": {"outer": "zstd", "entries": 99_000},
    "folders": {"outer": "zstd", "folders": 24_000},
    "links": {"outer": "zstd", "links": 40_000},
    "old images": {"form": "legacy", "outer": "zstd", "images": 300, "layers": 300, "steps": 1, "step_size": 10_000},
    "thin": {"outer": "zstd", "thin": 20_000, "images": 20},
    "old names": {"form": "docker", "outer": "zstd", "repositories": 50_000},
}


def drawn(random: random.Random) -> Recipe:
    """A recipe by lot: two to five things, each of any order of magnitude."""
    recipe = {**NOTHING, "form": random.choice(WORDS["form"]), "outer": random.choice(WORDS["outer"])}
    for _ in range(random.randint(2, 5)):
        recipe |= _turned(recipe, random.choice([*WORDS, *NUMBERS]), random)
    return recipe


def changed(recipe: Recipe, random: random.Random) -> Recipe:
    """A neighbour of a recipe: one to three of its numbers doubled, halved, or drawn anew."""
    result = {**NOTHING, **recipe}
    alive = [name for name, value in result.items() if value != NOTHING[name]]
    for _ in range(random.randint(1, 3)):
        name = random.choice(alive if alive and random.random() < 0.7 else [*WORDS, *NUMBERS])
        value = result[name]
        if isinstance(value, int) and value and random.random() < 0.7:
            factor = random.choice((0.5, 0.75, 1.5, 2, 4))
            result[name] = max(0, min(NUMBERS[name], round(value * factor)))
        else:
            result |= _turned(result, name, random)
    return result


def _turned(recipe: Recipe, name: str, random: random.Random) -> dict[str, int | str]:
    if name in WORDS:
        return {name: random.choice(WORDS[name])}
    most = NUMBERS[name]
    return {name: round(most ** random.random()) if most > 1 else 1 - int(recipe[name])}


# -- building ------------------------------------------------------------------------------------------------------


def build(recipe: Recipe, most: int) -> bytes | None:
    """The archive of a recipe, ``None`` when it cannot be made below :data:`LIMIT`, or not out of ``most`` bytes."""
    wanted: dict[str, int | str] = {**NOTHING, **recipe}
    pieces: list[bytes] = []
    size = 0
    for piece in _tar(wanted):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    raw = _compressed(str(wanted["outer"]), b"".join(pieces))
    return raw if len(raw) <= LIMIT else None


def _compressed(kind: str, data: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(data, 9, mtime=0)
    if kind == "bzip2":
        return bz2.compress(data)
    if kind == "xz":
        return lzma.compress(data, preset=0)
    if kind == "zstd":
        window = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
        return zstandard.ZstdCompressor(compression_params=window).compress(data)
    return data


@cache
def _bomb(kind: str, size: int) -> bytes:
    """A blob that is or costs 2^size bytes."""
    count = 1 << size
    piece = bytes(min(count, 1 << 24))
    times = count // len(piece)
    if kind == "gzip":
        return gzip.compress(piece, 9, mtime=0) * times
    if kind == "bzip2":
        return bz2.compress(piece) * times
    if kind == "xz":
        return lzma.compress(piece, preset=0) * times
    if kind == "members":
        return gzip.compress(b"", mtime=0) * (count // 20)
    if kind == "frames":
        return zstandard.ZstdCompressor().compress(b"") * (count // 9)
    if kind == "skippable":
        return bytes.fromhex("502a4d1800000000") * (count // 8) + zstandard.ZstdCompressor().compress(b"x")
    header = bytes.fromhex("28b52ffd0058")  # a frame with a window of 2 MiB and no length
    if kind == "rle":
        return header + b"\x0a\0\0\0" * (count // 4) + b"\x01\0\0"
    if kind == "stored":
        return (
            gzip.compress(b"", mtime=0)[:10]
            + bytes.fromhex("000000ffff") * (count // 5)
            + b"\x01\0\0\xff\xff"
            + bytes(8)
        )
    big = zstandard.ZstdCompressionParameters.from_level(1, window_log=27 if kind == "window" else 21)
    compressor = zstandard.ZstdCompressor(compression_params=big).compressobj()
    return b"".join([*(compressor.compress(piece) for _ in range(times)), compressor.flush()])


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _text(wanted: Recipe, size: int) -> str:
    return str(wanted["letters"]) * size if wanted["letters"] != "\\u0041" else "\x01" * size


def _map(wanted: Recipe, what: str) -> dict[str, str]:
    text = _text(wanted, int(wanted[f"{what}_size"]))
    return {f"{place}": text for place in range(int(wanted[f"{what}s"]))}


def _tar(wanted: Recipe) -> Iterator[bytes]:
    def number(name: str) -> int:
        return int(wanted[name])

    written: set[str] = set()

    def blob(raw: bytes) -> Iterator[bytes]:
        name = f"blobs/sha256/{_hash(raw)}"
        if name not in written:
            written.add(name)
            yield rawtar.entry(name.encode(), raw)

    yield from _headers(wanted)
    bombs = []
    for place in range(number("bombs")):
        raw = _bomb(str(wanted["bomb"]), number("bomb_size"))
        raw += bytes.fromhex("502a4d1804000000") + place.to_bytes(4, "big") if raw[:1] == b"(" else bytes(place)
        bombs.append((_hash(raw), len(raw)))
        yield from blob(raw)
    if wanted["form"] == "legacy":
        yield from _legacy(wanted)
        yield rawtar.END
        return
    listed: list[object] = []
    items: list[object] = []
    for place in range(number("images")):
        layers = [*bombs] if number("claimed") else []
        for layer in range(number("layers")):
            own = place * number("layers") + layer if wanted["layers_are"] == "own" else layer
            if wanted["layers_are"] == "here":
                raw = rawtar.entry(b"f%d" % layer, b"") + rawtar.END
                layers.append((_hash(raw), len(raw)))
                yield from blob(raw)
            else:
                layers.append((f"{own + 1:064x}", own % 7))
        config = _config(wanted, place, [digest for digest, _ in layers])
        yield from blob(config)
        names = [f"{'n' * number('name_size')}{place}:{tag}" for tag in range(number("names"))]
        manifest = _dump(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": f"sha256:{_hash(config)}", "size": len(config)},
                "layers": [
                    {"mediaType": OCI_LAYER, "digest": f"sha256:{digest}", "size": size} for digest, size in layers
                ],
                "annotations": {"place": str(place), **_map(wanted, "annotation")},
            }
        )
        if wanted["form"] != "docker":
            yield from blob(manifest)
            for name in names or [""]:
                marks = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
                listed.append(_pointer(manifest, OCI_MANIFEST, **marks))
        items.append(
            {
                "Config": f"blobs/sha256/{_hash(config)}",
                "RepoTags": names,
                "Layers": [f"blobs/sha256/{digest}" for digest, _ in layers],
            }
        )
    if number("opaque"):
        raw = _dump({"x": "y" * number("opaque_size")})
        yield from blob(raw)
        listed += [_pointer(raw, "application/octet-stream")] * number("opaque")
    for level in range(number("depth")):
        index = _dump(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed * max(1, number("fan") // len(listed))}
        )
        yield from blob(index)
        mark = {"org.opencontainers.image.ref.name": f"level:{level}"}
        listed = [_pointer(index, OCI_INDEX, annotations=mark)]
    if wanted["form"] != "docker":
        yield rawtar.entry(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        yield rawtar.entry(b"index.json", _dump({"schemaVersion": 2, "manifests": listed}))
    if wanted["form"] != "oci":
        yield rawtar.entry(b"manifest.json", _dump(items))
    if number("repositories"):
        tags = {f"t{place}": "0" * 64 for place in range(number("repositories"))}
        yield rawtar.entry(b"repositories", _dump({"many": tags}))
    if number("thin"):
        yield rawtar.entry(b"imgtar.json", _thin(wanted))
    yield rawtar.END


def _pointer(raw: bytes, kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{_hash(raw)}", "size": len(raw), **more}


def _config(wanted: Recipe, place: int, digests: list[str]) -> bytes:
    fixed = _fixed(tuple(sorted(wanted.items())))
    body = {
        "author": "" if wanted["same_config"] else str(place),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    return fixed[:-1] + b"," + _dump(body)[1:]


@lru_cache(maxsize=1)
def _fixed(recipe: tuple[tuple[str, int | str], ...]) -> bytes:
    """What all configs of an archive have in common."""
    wanted = dict(recipe)
    step = {"created_by": _text(wanted, int(wanted["step_size"]))}
    body: dict[str, object] = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Labels": _map(wanted, "label")},
        "history": [step] * int(wanted["steps"]),
    }
    if wanted["nested"]:
        body["nested"] = [{}] * int(wanted["nested"])
    return _dump(body)


def _headers(wanted: Recipe) -> Iterator[bytes]:
    """Entries that mean nothing."""
    letters = str(wanted["letters"]).encode()
    kind = b"g" if wanted["global"] else b"x"
    value = b"v" * int(wanted["pax_size"])
    records = ((b"k%d" % record, value) for record in range(int(wanted["pax_records"])))
    head = rawtar.pax(*records, kind=kind) if wanted["pax"] else b""
    for place in range(int(wanted["pax"])):
        yield head + rawtar.entry(b"p%d" % place, b"")
    for place in range(int(wanted["entries"])):
        yield rawtar.entry(b"e%d" % place, b"")
    for place in range(int(wanted["folders"])):
        yield rawtar.entry(b"d%d/f/g/h/" % place, b"", kind=b"5")
    for place in range(int(wanted["links"])):
        yield rawtar.entry(b"l%d" % place, b"", kind=b"2", link=b"index.json")
    for place in range(int(wanted["long_names"])):
        parts = (letters * 200)[:200] + b"/"
        name = (b"%d/" % place + parts * 20)[: int(wanted["long_size"])]
        name = name.decode("utf-8", "ignore").rstrip("/").encode() + b"z"
        yield rawtar.pax((b"path", name)) + rawtar.entry(b"long", b"")


def _legacy(wanted: Recipe) -> Iterator[bytes]:
    tags = {}
    text = _text(wanted, int(wanted["step_size"]))
    depth = max(1, int(wanted["layers"]))
    for place in range(depth):
        yield from _old(f"{place:064x}", f"{place - 1:064x}" if place else "", text)
    for place in range(int(wanted["images"])):
        identity = f"{place + 10**6:064x}"
        yield from _old(identity, f"{depth - 1:064x}", text)
        tags[f"t{place}"] = identity
    yield rawtar.entry(b"repositories", _dump({"many": tags}))


def _old(identity: str, parent: str, text: str) -> Iterator[bytes]:
    value: dict[str, object] = {"id": identity, "created": "2024-01-02T03:04:05Z", "container_config": {"Cmd": [text]}}
    if parent:
        value["parent"] = parent
    yield rawtar.entry(f"{identity}/json".encode(), _dump(value))
    yield rawtar.entry(f"{identity}/layer.tar".encode(), rawtar.END)


def _thin(wanted: Recipe) -> bytes:
    count = int(wanted["thin"])
    requires = [
        {"kind": "layer", "mediaType": OCI_LAYER, "digest": f"sha256:{place + 1:064x}", "size": place % 7, "base": 0}
        for place in range(count)
    ]
    images = [
        {
            "names": [f"n{place}:0"],
            "digest": f"sha256:{place:064x}",
            "image_id": None,
            "platform": None,
            "requires": list(range(count // max(1, int(wanted["images"])))),
        }
        for place in range(int(wanted["images"]))
    ]
    base = {"names": ["base:1"], "image_id": None, "digest": f"sha256:{7:064x}", "inventory": f"sha256:{8:064x}"}
    return _dump({"schema": "imgtar.thin/1", "bases": [base], "images": images, "requires": requires})
