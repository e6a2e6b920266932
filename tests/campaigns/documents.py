"""Image archives as trees of documents that can be spoiled, with every digest and size put right when they are written.

A document is made of plain values and :class:`Object`, which keeps its keys in order and may hold one twice, in any spelling. A
descriptor does not hold a digest but a :class:`Of` the thing it describes, so that whatever is changed below is told above.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.builders.images import (
    CONTAINERD_NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Files,
    compress,
    layer_tar,
    sha256,
)

__all__ = ["KINDS", "Case", "case"]


class Object:
    """A JSON object as a list of keys and values."""

    def __init__(self, **pairs: Any) -> None:
        self.pairs: list[list[Any]] = [[key, value] for key, value in pairs.items()]

    def __getitem__(self, key: str) -> Any:
        return next(value for one, value in self.pairs if one == key)

    def __setitem__(self, key: str, value: Any) -> None:
        for pair in self.pairs:
            if pair[0] == key:
                pair[1] = value
                return
        self.pairs.append([key, value])

    def __contains__(self, key: str) -> bool:
        return any(one == key for one, _ in self.pairs)

    def drop(self, key: str) -> None:
        self.pairs = [pair for pair in self.pairs if pair[0] != key]


@dataclass(eq=False)
class Thing:
    """A blob (bytes) or a document (values), which may have bytes around it."""

    value: Any
    around: tuple[bytes, bytes] = (b"", b"")


@dataclass(frozen=True, eq=False)
class Of:
    """The ``digest``, the ``size``, the ``hex`` or the ``path`` of a thing, or the ``diff`` ID of a layer, written when the thing is."""

    what: str
    thing: Any
    before: str = ""


class Escaped(str):
    """A key whose every character but the first is written as an escape."""


@dataclass(frozen=True)
class Raw:
    """Text that is written as it is; ``{}`` in it is the value, ``{text}`` what it is without its quotes."""

    form: str
    value: Any = None


def write(value: Any) -> bytes:
    """A document as bytes."""
    return _text(value).encode("utf-8", "surrogateescape")


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        text = _text(value.value)
        return value.form.replace("{text}", text.strip('"')).replace("{}", text)
    if isinstance(value, Object):
        return "{" + ",".join(f"{_key(key)}:{_text(one)}" for key, one in value.pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, Of):
        data = content(value.thing)
        digest = sha256(data)
        hexed = digest.partition(":")[2]
        answers = {"digest": digest, "size": len(data), "hex": hexed, "path": f"{value.before}{hexed}"}
        return json.dumps(answers[value.what])
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    if isinstance(key, Escaped):
        return '"' + key[:1] + "".join(f"\\u{ord(one):04x}" for one in key[1:]) + '"'
    return json.dumps(key, ensure_ascii=False)


def content(thing: Thing) -> bytes:
    """The bytes of a thing."""
    if isinstance(thing.value, bytes):
        return thing.value
    return thing.around[0] + write(thing.value) + thing.around[1]


@dataclass(eq=False)
class Picture:
    """An image: its config, its manifest and its layers."""

    who: str
    layers: list[Thing]
    config: Thing
    manifest: Thing
    platform: str

    def blobs(self) -> list[Thing]:
        return [self.manifest, self.config, *self.layers]


def descriptor(thing: Thing, media_type: str, **more: Any) -> Object:
    return Object(mediaType=media_type, digest=Of("digest", thing), size=Of("size", thing), **more)


def platform(text: str) -> Object:
    return Object(**dict(zip(("architecture", "os", "variant"), _swap(text.split("/")), strict=False)))


def _swap(parts: list[str]) -> list[str]:
    return [parts[1], parts[0], *parts[2:]]


def picture(who: str, number: int, layers: int = 2, text: str = "linux/amd64", packing: str | None = None) -> Picture:
    """An image that differs from every other one in its files, its config and so in all its digests."""
    tars = [layer_tar({f"marker-{who}-{place}": f"{who} {number} {place}\n".encode()}) for place in range(layers)]
    blobs = [Thing(compress(tar, packing)) for tar in tars]
    system, architecture, *variant = text.split("/")
    config = Thing(
        Object(
            architecture=architecture,
            os=system,
            **({"variant": variant[0]} if variant else {}),
            created="2024-01-02T03:04:05Z",
            config=Object(Env=["PATH=/bin", f"WHO={who}"], Cmd=["/bin/demo"], Labels=Object(who=f"{who} {number}")),
            rootfs=Object(type="layers", diff_ids=[sha256(tar) for tar in tars]),
            history=[Object(created="2024-01-02T03:04:05Z", created_by=f"COPY {n}") for n in range(layers)],
        )
    )
    kind = OCI_LAYER + (f"+{packing}" if packing else "")
    manifest = Thing(
        Object(
            schemaVersion=2,
            mediaType=OCI_MANIFEST,
            config=descriptor(config, OCI_CONFIG),
            layers=[descriptor(blob, kind) for blob in blobs],
        )
    )
    return Picture(who, blobs, config, manifest, text)


@dataclass
class World:
    """An archive that is being made: named documents, and things that lie in ``blobs/``."""

    form: str
    number: int
    good: Picture
    evil: Picture
    arm: Picture
    documents: dict[str, Thing] = field(default_factory=dict)
    blobs: list[Thing] = field(default_factory=list)
    renamed: list[tuple[Of | str, Thing]] = field(default_factory=list)
    """What lies elsewhere, at the path that an :class:`Of` makes."""

    def all_documents(self) -> dict[str, Thing]:
        """Everything that is JSON, by what it is."""
        found = dict(self.documents)
        for one in self.blobs:
            if isinstance(one.value, Object):
                found[f"blob {len(found)}"] = one
        for _, one in self.renamed:
            if isinstance(one.value, Object):
                found[f"file {len(found)}"] = one
        return found

    def tar(self) -> bytes:
        rows: dict[str, bytes] = {}
        for name, thing in self.documents.items():
            rows[name] = content(thing)
        for thing in self.blobs:
            data = content(thing)
            rows.setdefault("blobs/" + sha256(data).replace(":", "/"), data)
        for where, thing in self.renamed:
            rows.setdefault(where if isinstance(where, str) else json.loads(_text(where)), content(thing))
        return Files.of(rows).tar()


def full(name: str) -> str:
    """A short name with the domain and the path that Docker reads into it."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return (
        name if "." in first or ":" in first or first == "localhost" or first.lower() != first else f"docker.io/{name}"
    )


def names(name: str) -> Object:
    """Both annotations that name an image in index.json."""
    return Object(**{CONTAINERD_NAME: full(name), REF_NAME: name.rpartition(":")[2]})


FORMS = ("oci", "index", "nested", "two", "docker", "v1", "legacy", "hybrid", "hybrid-index", "hybrid-two")


def world(
    form: str, number: int, good: str = "GOOD", evil: str = "EVIL", packing: str | None = None, layers: int = 2
) -> World:
    """An honest archive that holds GOOD under ``demo:1``; what makes EVIL lies in it as blobs that nobody refers to."""
    one = picture(good, number, layers, packing=packing)
    other = picture(evil, number, layers, packing=packing)
    arm = picture("ARM", number, 1, "linux/arm64", packing)
    w = World(form, number, one, other, arm)
    name, second = "demo:1", "other:2"
    if form == "legacy":
        tags = {}
        for each, tag in ((one, name), (other, second)):
            parent = None
            for place, layer in enumerate(each.layers):
                own = sha256(f"{each.who} {number} {place}".encode()).partition(":")[2]
                about = Object(id=own, created="2024-01-02T03:04:05Z")
                if parent is not None:
                    about["parent"] = parent
                about.pairs += [[key, each.config.value[key]] for key in ("architecture", "os", "config")]
                w.documents[f"{own}/json"] = Thing(about)
                w.renamed += [(f"{own}/VERSION", Thing(b"1.0")), (f"{own}/layer.tar", layer)]
                parent = own
            tags[tag.partition(":")[0]] = Object(**{tag.partition(":")[2]: parent})
        w.documents["repositories"] = Thing(Object(**tags))
        return w
    if form in ("docker", "v1"):
        items = []
        for each, tag in ((one, name),) if form == "docker" else ((one, name), (other, second)):
            base = "" if form == "docker" else f"{each.who.lower()}/"
            where = [Of("path", layer, base) for layer in each.layers]
            w.renamed += [(each_where, layer) for each_where, layer in zip(where, each.layers, strict=True)]
            place = Of("path", each.config, base)
            w.renamed.append((place, each.config))
            items.append(Object(Config=place, RepoTags=[tag], Layers=where))
        if form == "docker":
            w.renamed += [(Of("path", layer), layer) for layer in other.layers]
            w.renamed.append((Of("path", other.config), other.config))
        w.documents["manifest.json"] = Thing(items)
        if form == "v1":
            w.documents["repositories"] = Thing(
                Object(
                    demo=Object(**{"1": Of("hex", one.layers[-1])}), other=Object(**{"2": Of("hex", other.layers[-1])})
                )
            )
        return w
    w.blobs = [*one.blobs(), *other.blobs()]
    if form in ("oci", "hybrid"):
        entries = [descriptor(one.manifest, OCI_MANIFEST, platform=platform(one.platform), annotations=names(name))]
    elif form in ("two", "hybrid-two"):
        entries = [
            descriptor(one.manifest, OCI_MANIFEST, platform=platform(one.platform), annotations=names(name)),
            descriptor(other.manifest, OCI_MANIFEST, platform=platform(other.platform), annotations=names(second)),
        ]
    else:
        w.blobs += arm.blobs()
        index = Thing(
            Object(
                schemaVersion=2,
                mediaType=OCI_INDEX,
                manifests=[
                    descriptor(arm.manifest, OCI_MANIFEST, platform=platform(arm.platform)),
                    descriptor(one.manifest, OCI_MANIFEST, platform=platform(one.platform)),
                ],
            )
        )
        w.blobs.append(index)
        if form == "nested":
            index = Thing(Object(schemaVersion=2, mediaType=OCI_INDEX, manifests=[descriptor(index, OCI_INDEX)]))
            w.blobs.append(index)
        entries = [descriptor(index, OCI_INDEX, annotations=names(name))]
    w.documents["oci-layout"] = Thing(Object(imageLayoutVersion="1.0.0"))
    w.documents["index.json"] = Thing(Object(schemaVersion=2, mediaType=OCI_INDEX, manifests=entries))
    if form.startswith("hybrid"):
        w.documents["manifest.json"] = Thing(
            [
                docker_item(each, tag)
                for each, tag in (((one, name), (other, second)) if form == "hybrid-two" else ((one, name),))
            ]
        )
    return w


def docker_item(one: Picture, *tags: str) -> Object:
    """An entry of manifest.json that names blobs."""
    return Object(
        Config=Of("path", one.config, "blobs/sha256/"),
        RepoTags=list(tags),
        Layers=[Of("path", layer, "blobs/sha256/") for layer in one.layers],
    )


# -- changes -----------------------------------------------------------------------------------------------------------

Change = Callable[[World, World, random.Random], None]
KINDS: dict[str, Change] = {}
"""Each kind of change by its name. It changes the first world; the second is the same with GOOD and EVIL exchanged."""


def kind(change: Change) -> Change:
    KINDS[change.__name__.strip("_").replace("_", " ")] = change
    return change


class NotHere(Exception):
    """A change that means nothing for this form."""


def pairs(value: Any, other: Any = None) -> Iterator[tuple[Object, Any]]:
    """Every object in a document, with what stands in its place in the other world."""
    if isinstance(value, Object):
        yield value, other if isinstance(other, Object) else None
        for key, one in value.pairs:
            yield from pairs(one, other[key] if isinstance(other, Object) and key in other else None)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from pairs(one, other[place] if isinstance(other, list) and place < len(other) else None)


def spelled(key: str, chance: random.Random) -> str:
    """The same key for Go, in another spelling; or, for a key without such letters, the same one with escapes."""
    ways = [key.upper(), key.lower(), key.swapcase(), key[:1].swapcase() + key[1:]]
    long = key.replace("s", "\u017f").replace("S", "\u017f")
    kelvin = key.replace("k", "\u212a").replace("K", "\u212a")
    ways += [long, long, kelvin, Escaped(long), Escaped(key), long.upper().replace("S", "\u017f")]
    ways = [one for one in ways if one != key or isinstance(one, Escaped)]
    return chance.choice(ways)


def some_document(w: World, mirror: World, chance: random.Random) -> tuple[Thing, Thing | None]:
    """A document that leads to GOOD, and its like in the other world."""
    ours, theirs = w.all_documents(), mirror.all_documents()
    skip = {id(one) for one in (w.evil.config, w.evil.manifest)}
    name = chance.choice([key for key, one in ours.items() if id(one) not in skip])
    return ours[name], theirs.get(name)


def some_object(w: World, mirror: World, chance: random.Random) -> tuple[Object, Object | None]:
    document, like = some_document(w, mirror, chance)
    found = [one for one in pairs(document.value, like.value if like else None) if one[0].pairs]
    # What is at the top of a document matters most.
    return found[0] if chance.random() < 0.4 else chance.choice(found)


def evil_value(key: str, value: Any, like: Object | None, w: World, chance: random.Random) -> Any:
    """What the key would lead to EVIL with."""
    told = {
        "os": ["windows", ""],
        "architecture": ["arm64", ""],
        "size": [0, 1, 10**9],
        "schemaVersion": [1, 3],
        "imageLayoutVersion": ["1.0.1"],
        "mediaType": [OCI_INDEX, OCI_LAYER, "application/vnd.in-toto+json"],
        "type": ["other"],
    }
    if key in told:
        return chance.choice(told[key])
    if key == "annotations":
        return names("evil:1")
    if key == "RepoTags":
        return chance.choice([["evil:1"], ["demo:1", "evil:1"], []])
    if like is not None and key in like:
        return like[key]
    return chance.choice([None, [], Object(), "evil"])


@kind
def key_in_another_spelling(w: World, mirror: World, chance: random.Random) -> None:
    one, _ = some_object(w, mirror, chance)
    for pair in one.pairs if chance.random() < 0.2 else [chance.choice(one.pairs)]:
        pair[0] = spelled(pair[0], chance)


def _shadow(w: World, mirror: World, chance: random.Random, spell: Callable[[str], str]) -> None:
    one, like = some_object(w, mirror, chance)
    chosen = list(one.pairs) if chance.random() < 0.4 else [chance.choice(one.pairs)]
    honest = one.pairs
    added = [[spell(key), evil_value(key, value, like, w, chance)] for key, value in chosen]
    one.pairs = [*added, *honest] if chance.random() < 0.3 else [*honest, *added]


@kind
def second_key_that_folds(w: World, mirror: World, chance: random.Random) -> None:
    _shadow(w, mirror, chance, lambda key: spelled(key, chance))


@kind
def second_key_the_same(w: World, mirror: World, chance: random.Random) -> None:
    _shadow(w, mirror, chance, lambda key: key if chance.random() < 0.7 else Escaped(key))


@kind
def evil_config_and_layers_behind_folded_keys(w: World, mirror: World, chance: random.Random) -> None:
    # All that it takes for EVIL to be whole.
    manifest, like = w.good.manifest.value, w.evil.manifest.value
    style = chance.choice(
        ["Config Layers", "con\ufb01g layer\u017f", "CONFIG LAYERS", "config layer\u017f", "Config layer\u017f"]
    )
    config, layers = style.split()
    manifest.pairs += [[config, like["config"]], [layers, like["layers"]]]
    if "manifest.json" in w.documents and chance.random() < 0.5:
        item = w.documents["manifest.json"].value[0]
        other = docker_item(w.evil) if w.form.startswith("hybrid") else None
        if other is not None:
            item.pairs += [["config", other["Config"]], [chance.choice(["layers", "Layer\u017f"]), other["Layers"]]]


@kind
def evil_digest_behind_a_folded_key(w: World, mirror: World, chance: random.Random) -> None:
    if "index.json" not in w.documents:
        if "manifest.json" not in w.documents:
            raise NotHere
        item = w.documents["manifest.json"].value[0]
        like = mirror.documents["manifest.json"].value[0]
        item.pairs += [["config", like["Config"]], ["Layer\u017f", like["Layers"]]]
        return
    holder = chance.choice(
        [
            one
            for one in [*w.blobs, w.documents["index.json"]]
            if isinstance(one.value, Object) and "manifests" in one.value
        ]
    )
    entry = chance.choice(holder.value["manifests"])
    entry.pairs += [
        [chance.choice(["dige\u017ft", "Digest"]), Of("digest", w.evil.manifest)],
        [chance.choice(["\u017fize", "Size"]), Of("size", w.evil.manifest)],
    ]
    if chance.random() < 0.5:
        entry["mediaType"] = OCI_MANIFEST
    if "platform" in entry and chance.random() < 0.3:
        entry["platform"].pairs.reverse()


@kind
def evil_entries_behind_a_folded_key(w: World, mirror: World, chance: random.Random) -> None:
    index = _index(w)
    wrong = list(index["manifests"])
    entry = descriptor(w.evil.manifest, OCI_MANIFEST, platform=platform("linux/amd64"), annotations=names("demo:1"))
    where = chance.choice(["Manifests", "manifest\u017f", "MANIFESTS", "manifests"])
    pair = [where, [entry] if chance.random() < 0.6 else [entry, *wrong]]
    index.pairs.insert(chance.choice([0, len(index.pairs)]), pair)


@kind
def evil_rootfs_behind_a_folded_key(w: World, mirror: World, chance: random.Random) -> None:
    config, like = w.good.config.value, w.evil.config.value
    if chance.random() < 0.5:
        config.pairs.append([chance.choice(["rootf\u017f", "RootFS", "rootfs"]), like["rootfs"]])
    else:
        config["rootfs"].pairs.append(
            [chance.choice(["diff_id\u017f", "Diff_Ids", "diff_ids"]), like["rootfs"]["diff_ids"]]
        )
    manifest = w.good.manifest.value
    if chance.random() < 0.7:
        manifest.pairs.append([chance.choice(["layer\u017f", "Layers"]), w.evil.manifest.value["layers"]])


@kind
def keys_in_another_order(w: World, mirror: World, chance: random.Random) -> None:
    for one, _ in list(pairs(some_document(w, mirror, chance)[0].value)):
        chance.shuffle(one.pairs)


def _index(w: World, chance: random.Random | None = None) -> Object:
    if "index.json" not in w.documents:
        raise NotHere
    found = [one.value for one in w.blobs if isinstance(one.value, Object) and "manifests" in one.value]
    found.append(w.documents["index.json"].value)
    return found[0] if chance is None else chance.choice(found)


PLATFORMS: list[Callable[[], Object | None]] = [
    lambda: None,
    *[
        (lambda text=text: platform(text))
        for text in """linux/amd64 linux/x86_64 linux/amd64/v1 linux/amd64/v2 linux/amd64/v3 Linux/AMD64 linux/x86-64 linux/386 linux/i386
        linux/arm64 linux/arm64/v8 linux/aarch64 linux/arm64/8 linux/arm linux/arm/v7 unknown/unknown linux/unknown windows/amd64 macos/amd64 /amd64 linux/ /""".split()
    ],
    lambda: Object(),
    lambda: Object(os="linux"),
    lambda: Object(architecture="amd64"),
    lambda: Object(os="linux", architecture="amd64", variant=""),
    lambda: Object(**{"os": "linux", "architecture": "amd64", "os.version": "9"}),
    lambda: Object(**{"os": "linux", "architecture": "amd64", "os.features": ["x"]}),
    lambda: Object(**{"os": "linux", "architecture": "amd64", "os.features": []}),
    lambda: Object(os="linux", architecture="amd64", features=["x"]),
    lambda: Object(OS="linux", Architecture="amd64"),
    lambda: Object(oſ="linux", architecture="amd64"),
]


def _with_platform(entry: Object, which: Object | None) -> None:
    entry.drop("platform")
    if which is not None:
        entry["platform"] = which


def _config_platform(one: Picture, text: str) -> None:
    system, architecture, *variant = text.split("/")
    one.config.value["os"], one.config.value["architecture"] = system, architecture
    if variant:
        one.config.value["variant"] = variant[0]


CONFIGS = "linux/amd64 linux/arm64 linux/arm64/v8 linux/amd64/v1 linux/amd64/v2 linux/386 linux/x86_64 linux/arm/v7 / unknown/unknown windows/amd64 Linux/AMD64".split()


@kind
def two_of_one_platform(w: World, mirror: World, chance: random.Random) -> None:
    index = _index(w)
    entry = descriptor(w.evil.manifest, OCI_MANIFEST)
    if index is w.documents["index.json"].value:
        entry["annotations"] = names("demo:1")
    for one in (entry, index["manifests"][-1]):
        if chance.random() < 0.8:
            _with_platform(one, chance.choice(PLATFORMS)())
    for one in (w.good, w.evil):
        if chance.random() < 0.4:
            _config_platform(one, chance.choice(CONFIGS))
    if chance.random() < 0.3 and len(index["manifests"]) > 1:
        del index["manifests"][0]
    index["manifests"].insert(chance.choice([0, 1, len(index["manifests"])]), entry)


@kind
def another_platform(w: World, mirror: World, chance: random.Random) -> None:
    index = _index(w, chance)
    for one in index["manifests"]:
        if chance.random() < 0.6:
            _with_platform(one, chance.choice(PLATFORMS)())
    if chance.random() < 0.5:
        _config_platform(chance.choice([w.good, w.arm]), chance.choice(CONFIGS))


@kind
def an_index_in_an_index(w: World, mirror: World, chance: random.Random) -> None:
    index = _index(w)
    inner = Thing(
        Object(
            schemaVersion=2,
            mediaType=OCI_INDEX,
            manifests=[descriptor(w.evil.manifest, OCI_MANIFEST, platform=platform("linux/amd64"))],
        )
    )
    w.blobs.append(inner)
    entry = descriptor(inner, OCI_INDEX)
    _with_platform(entry, chance.choice(PLATFORMS)())
    if index is w.documents["index.json"].value:
        entry["annotations"] = names(chance.choice(["demo:1", "evil:1"]))
    index["manifests"].insert(chance.choice([0, len(index["manifests"])]), entry)


ATTESTATION = "application/vnd.docker.attestation.manifest.v1+json"
STRANGE = [
    "application/octet-stream",
    "application/vnd.in-toto+json",
    "application/vnd.acme.thing",
    "text/plain",
    "application/json",
    "application/x-tar",
    "",
    "application/vnd.oci.empty.v1+json",
]


@kind
def a_runnable_image_with_a_mark(w: World, mirror: World, chance: random.Random) -> None:
    index = _index(w, chance)
    entry = index["manifests"][-1]
    which = w.good
    if chance.random() < 0.4:
        which = w.evil
        entry = descriptor(w.evil.manifest, OCI_MANIFEST)
        if index is w.documents["index.json"].value:
            entry["annotations"] = names(chance.choice(["demo:1", "evil:1"]))
        if chance.random() < 0.5:
            _with_platform(entry, chance.choice(PLATFORMS)())
        index["manifests"].insert(chance.choice([0, len(index["manifests"])]), entry)
    for _ in range(chance.choice([1, 1, 2])):
        _mark(w, which, entry, chance)


def _mark(w: World, which: Picture, entry: Object, chance: random.Random) -> None:
    manifest = which.manifest.value
    how = chance.randrange(9)
    if how == 0:
        marks = entry["annotations"] if "annotations" in entry else Object()
        marks["vnd.docker.reference.type"] = chance.choice(
            ["attestation-manifest", "attestation-manifest", "other", ""]
        )
        if chance.random() < 0.7:
            marks["vnd.docker.reference.digest"] = Of("digest", (w.arm if which is not w.arm else w.good).manifest)
        entry["annotations"] = marks
    elif how == 1:
        entry["platform"] = platform("unknown/unknown")
        if chance.random() < 0.5:
            _config_platform(which, "unknown/unknown")
    elif how == 2:
        entry["artifactType"] = chance.choice([ATTESTATION, "application/vnd.acme.thing"])
    elif how == 3:
        manifest["artifactType"] = chance.choice([ATTESTATION, "application/vnd.acme.thing"])
    elif how == 4:
        manifest["config"]["mediaType"] = chance.choice(STRANGE)
        if chance.random() < 0.3:
            manifest["artifactType"] = "application/vnd.acme.thing"
    elif how == 5:
        for one in manifest["layers"] if chance.random() < 0.7 else manifest["layers"][:1]:
            one["mediaType"] = chance.choice(STRANGE)
    elif how == 6:
        manifest["subject"] = descriptor(w.arm.manifest, OCI_MANIFEST)
    elif how == 7:
        marks = entry["annotations"] if "annotations" in entry else Object()
        marks["io.containerd.manifest.subject"] = Of("digest", w.arm.manifest)
        entry["annotations"] = marks
    else:
        manifest["annotations"] = Object(**{"vnd.docker.reference.type": "attestation-manifest"})


DOCKER = "application/vnd.docker."
TYPES = [
    OCI_INDEX,
    OCI_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER + "+gzip",
    OCI_LAYER + "+zstd",
    OCI_LAYER + "+bzip2",
    OCI_LAYER + "+encrypted",
    DOCKER + "distribution.manifest.list.v2+json",
    DOCKER + "distribution.manifest.v2+json",
    DOCKER + "distribution.manifest.v1+json",
    DOCKER + "container.image.v1+json",
    DOCKER + "image.rootfs.diff.tar",
    DOCKER + "image.rootfs.diff.tar.gzip",
    DOCKER + "image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    *STRANGE,
]


@kind
def media_type_swapped(w: World, mirror: World, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 2, 3])):
        document, _ = some_document(w, mirror, chance)
        found = [one for one, _ in pairs(document.value) if "mediaType" in one]
        if not found:
            continue
        one = chance.choice(found)
        how = chance.randrange(5)
        if how == 0:
            one.drop("mediaType")
        elif how == 1:
            one["mediaType"] = one["mediaType"].upper() if chance.random() < 0.5 else one["mediaType"].title()
        elif how == 2:
            one["mediaType"] = one["mediaType"] + chance.choice([" ", "; charset=utf-8", "+gzip"])
        else:
            one["mediaType"] = chance.choice(TYPES)


@kind
def docker_media_types(w: World, mirror: World, chance: random.Random) -> None:
    table = {
        OCI_INDEX: DOCKER + "distribution.manifest.list.v2+json",
        OCI_MANIFEST: DOCKER + "distribution.manifest.v2+json",
        OCI_CONFIG: DOCKER + "container.image.v1+json",
        OCI_LAYER: DOCKER + "image.rootfs.diff.tar",
        OCI_LAYER + "+gzip": DOCKER + "image.rootfs.diff.tar.gzip",
    }
    share = chance.choice([1.0, 0.5])
    for document in w.all_documents().values():
        for one, _ in list(pairs(document.value)):
            if "mediaType" in one and chance.random() < share:
                one["mediaType"] = table.get(one["mediaType"], one["mediaType"])


@kind
def texts_and_numbers_in_another_form(w: World, mirror: World, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 2])):
        one, _ = some_object(w, mirror, chance)
        pair = chance.choice(one.pairs)
        value = pair[1]
        if isinstance(value, int) or (isinstance(value, Of) and value.what == "size"):
            pair[1] = Raw(
                chance.choice(["{}.0", "{}e0", "{}.00e0", '"{}"', "-{}", "+{}", "0{}", "{}0e-1", "{}.5", "true"]), value
            )
        elif isinstance(value, str | Of):
            forms = [
                '"{text}\\u0000"',
                '"\\ud800{text}"',
                '"{text} "',
                '" {text}"',
                '"{text}\udcff"',
                '"\ufeff{text}"',
                "[{}]",
                "null",
            ]
            pair[1] = Raw(chance.choice(forms), value)
        elif isinstance(value, list):
            pair[1] = chance.choice([[*value, None], [None, *value], [*value, Object()], Object(), Raw("[{}]", value)])
        else:
            pair[1] = chance.choice([[value], "", 0, None])


@kind
def digests_in_another_form(w: World, mirror: World, chance: random.Random) -> None:
    document, _ = some_document(w, mirror, chance)
    found = [
        pair
        for one, _ in pairs(document.value)
        for pair in one.pairs
        if isinstance(pair[1], Of) and pair[1].what == "digest"
    ]
    if not found:
        raise NotHere
    pair = chance.choice(found)
    hexed = sha256(content(pair[1].thing)).partition(":")[2]
    pair[1] = chance.choice(
        [
            f"sha256:{hexed.upper()}",
            f"SHA256:{hexed}",
            f"sha256:{hexed} ",
            hexed,
            f"sha256:{hexed}@x",
            f"sha512:{hexed}{hexed}",
            Raw('"sha256:\\u00' + f"{ord(hexed[0]):02x}" + f'{hexed[1:]}"'),
        ]
    )


@kind
def something_around_a_document(w: World, mirror: World, chance: random.Random) -> None:
    """Behind, before, or in place of a document: some readers stop at the end of the first value."""
    document, like = some_document(w, mirror, chance)
    other = content(like) if like is not None else b"{}"
    document.around = chance.choice(
        [
            (b"", b"\n"),
            (b" \n", b""),
            (b"", other),
            (b"", b"\n" + other),
            (other, b""),
            (b"\xef\xbb\xbf", b""),
            (b"", b"\0"),
            (b"", b"x"),
            (b"", b" // x"),
        ]
    )


@kind
def layout_file_missing_or_strange(w: World, mirror: World, chance: random.Random) -> None:
    """containerd reads index.json only beside ``oci-layout``; podman always does."""
    if "oci-layout" not in w.documents:
        raise NotHere
    how = chance.randrange(4)
    if how < 2:
        del w.documents["oci-layout"]
    else:
        w.documents["oci-layout"] = Thing(
            chance.choice(
                [
                    Object(),
                    Object(imageLayoutVersion="1.1.0"),
                    Object(imageLayoutVersion=""),
                    Object(imageLayoutVersion=1),
                    [],
                    None,
                ]
            )
        )
    if w.form.startswith("hybrid") and chance.random() < 0.7:
        views_that_differ(w, mirror, chance)


@kind
def old_manifests(w: World, mirror: World, chance: random.Random) -> None:
    """Parts of a manifest of schema 1 in one of schema 2."""
    manifest = w.good.manifest.value
    manifest.pairs.append(["fsLayers", [Object(blobSum=Of("digest", layer)) for layer in w.evil.layers]])
    if chance.random() < 0.5:
        manifest["schemaVersion"] = chance.choice([1, 3, 0, None])
    if chance.random() < 0.3:
        manifest.pairs.append(["history", [Object(v1Compatibility="{}")]])


@kind
def roles_exchanged(w: World, mirror: World, chance: random.Random) -> None:
    manifest = w.good.manifest.value
    how = chance.randrange(7)
    if how == 0:
        manifest["layers"].append(descriptor(w.evil.manifest, chance.choice([OCI_LAYER, OCI_MANIFEST])))
    elif how == 1:
        manifest["layers"].append(descriptor(w.good.config, chance.choice([OCI_LAYER, OCI_CONFIG])))
    elif how == 2:
        manifest["config"] = descriptor(w.good.layers[0], OCI_CONFIG)
    elif how == 3:
        manifest["config"] = descriptor(w.evil.config, OCI_CONFIG)
    elif how == 4:
        manifest["layers"] = w.evil.manifest.value["layers"]
    elif how == 5:
        manifest.pairs.append(
            ["manifests", [descriptor(w.evil.manifest, OCI_MANIFEST, platform=platform("linux/amd64"))]]
        )
    else:
        index = _index(w, chance)
        index.pairs += [["config", w.evil.manifest.value["config"]], ["layers", w.evil.manifest.value["layers"]]]


@kind
def sizes_that_disagree(w: World, mirror: World, chance: random.Random) -> None:
    document, _ = some_document(w, mirror, chance)
    found = [one for one, _ in pairs(document.value) if "size" in one]
    if not found:
        raise NotHere
    one = chance.choice(found)
    if chance.random() < 0.5 and isinstance(document.value, Object):
        for key in ("manifests", "layers"):
            if key in document.value and document.value[key]:  # noqa: RUF019 (it is no dict)
                again = _again(document.value[key][-1])
                again["size"] = chance.choice([0, 1, 7, 10**6, -1, "12", 12.0, None])
                document.value[key].append(again)
                return
    one["size"] = chance.choice([0, 1, 7, 10**6, -1, "12", None])


def _again(one: Object) -> Object:
    other = Object()
    other.pairs = [list(pair) for pair in one.pairs]
    if "annotations" in other:
        marks = Object()
        marks.pairs = [list(pair) for pair in other["annotations"].pairs]
        other["annotations"] = marks
    return other


@kind
def data_urls_and_subjects(w: World, mirror: World, chance: random.Random) -> None:
    document, _ = some_document(w, mirror, chance)
    found = [one for one, _ in pairs(document.value) if "digest" in one and isinstance(one["digest"], Of)]
    if not found:
        raise NotHere
    one = chance.choice(found)
    how = chance.randrange(4)
    if how == 0:
        lie = chance.choice([w.evil.manifest, w.evil.config, w.evil.layers[0], one["digest"].thing])
        one["data"] = base64.b64encode(content(lie)).decode()
        if chance.random() < 0.3 and one["digest"].thing in w.blobs:
            w.blobs.remove(one["digest"].thing)
    elif how == 1:
        one["urls"] = chance.choice([["http://127.0.0.1:9/x"], [], None, ["ftp://127.0.0.1/x"]])
    elif how == 2 and isinstance(document.value, Object):
        document.value["subject"] = descriptor(chance.choice([w.evil, w.good]).manifest, OCI_MANIFEST)
    else:
        one["digest"] = Of(
            "digest", chance.choice([w.evil.manifest, w.evil.config, w.evil.layers[-1], w.good.layers[-1]])
        )


NAMES = """demo:1 evil:1 docker.io/library/demo:1 index.docker.io/library/demo:1 index.docker.io/demo:1 docker.io/demo:1 localhost/demo:1 library/demo:1 Demo:1
 DEMO/demo:1 Example.com/demo:1 example.com/demo:1 EXAMPLE.COM/demo:1 demo demo:latest demo:1@sha256:{0} demo@sha256:{0} {0} sha256:{0} 1 latest x/demo:1 docker.io/x/demo:1
 a.b:5000/demo:1 a.b:5000/demo localhost:5000/demo:1 demo/demo/demo:1 demo__x:1 demo---x:1 demo..x:1 demo:-1 demo:1.0 docker.io/library/library/demo:1 /demo:1 demo/:1 :1 demo:
 [::1]:5000/demo:1 http://demo:1 demo:1:2 xn--demo.example/demo:1 demo:ONE demo:one import-2026-01-01:1 moby-dangling@sha256:{0} sha256:1 ubuntu ubuntu:24.04""".split()


def _name(chance: random.Random) -> str:
    if chance.random() < 0.15:
        return (
            chance.choice(["", "x/", "docker.io/library/", "localhost/"])
            + "a" * chance.choice([100, 127, 128, 200, 237, 238, 245, 246, 247, 248, 255, 256])
            + ":1"
        )
    if chance.random() < 0.05:
        return "demo:" + "t" * chance.choice([127, 128, 129])
    return chance.choice(NAMES).format("ab" * 32)


@kind
def strange_names(w: World, mirror: World, chance: random.Random) -> None:
    if "index.json" in w.documents:
        index = w.documents["index.json"].value
        for entry in index["manifests"]:
            name = _name(chance)
            how = chance.randrange(6)
            marks = names(name) if how < 3 else Object()
            if how == 3:
                marks[REF_NAME] = name
            elif how == 4:
                marks[CONTAINERD_NAME], marks[REF_NAME] = chance.choice([name, full(name)]), _name(chance)
            elif how == 5:
                marks[CONTAINERD_NAME] = chance.choice([name, full(name)])
            entry["annotations"] = marks
            if "manifest.json" in w.documents and chance.random() < 0.6:
                item = w.documents["manifest.json"].value[0]
                item["RepoTags"] = [chance.choice([name, full(name)])]
                if index["manifests"].index(entry) < len(w.documents["manifest.json"].value):
                    w.documents["manifest.json"].value[index["manifests"].index(entry)]["RepoTags"] = [name]
    if "manifest.json" in w.documents and (w.form in ("docker", "v1") or chance.random() < 0.3):
        for item in w.documents["manifest.json"].value:
            if chance.random() < 0.7:
                item["RepoTags"] = chance.choice(
                    [
                        [_name(chance)],
                        [_name(chance), _name(chance)],
                        [],
                        None,
                        ["demo:1", "demo:1"],
                        ["demo:1", "DEMO:1"],
                    ]
                )


@kind
def one_name_for_two(w: World, mirror: World, chance: random.Random) -> None:
    """GOOD and EVIL below names that are the same one for some readers."""
    one, other = chance.choice(
        [
            ("demo:1", "demo:1"),
            ("demo:1", "docker.io/library/demo:1"),
            ("demo:1", "index.docker.io/library/demo:1"),
            ("demo:1", "localhost/demo:1"),
            ("demo:1", "library/demo:1"),
            ("demo:latest", "demo"),
            ("example.com/demo:1", "EXAMPLE.com/demo:1"),
            ("Example.com/demo:1", "example.com/demo:1"),
            ("demo:a", "demo:A"),
            ("demo:1", "other.example/demo:1"),
            ("docker.io/demo:1", "demo:1"),
            ("demo:1", "1"),
            ("demo:1", "demo:1@sha256:" + "ab" * 32),
        ]
    )
    if chance.random() < 0.5:
        one, other = other, one
    if "index.json" in w.documents:
        entries = w.documents["index.json"].value["manifests"]
        second = descriptor(
            w.evil.manifest,
            OCI_MANIFEST,
            platform=platform(chance.choice(["linux/amd64", "linux/amd64", "linux/arm64"])),
        )
        if len(entries) > 1:
            second = entries.pop()
        style = chance.randrange(3)
        for entry, name in ((entries[0], one), (second, other)):
            entry["annotations"] = (names(name), Object(**{REF_NAME: name}), Object(**{CONTAINERD_NAME: name}))[style]
        entries.insert(chance.choice([0, 1]), second)
        if chance.random() < 0.2:
            for entry in entries:
                entry.drop("platform")
    if "manifest.json" in w.documents:
        items = w.documents["manifest.json"].value
        if len(items) == 1 and w.form.startswith("hybrid"):
            items.append(docker_item(w.evil))
        elif len(items) == 1:
            items.append(
                Object(
                    Config=Of("path", w.evil.config), RepoTags=[], Layers=[Of("path", layer) for layer in w.evil.layers]
                )
            )
        items[0]["RepoTags"], items[1]["RepoTags"] = [one], [other]
        if chance.random() < 0.3:
            items.reverse()


@kind
def views_that_differ(w: World, mirror: World, chance: random.Random) -> None:
    if not w.form.startswith("hybrid"):
        raise NotHere
    items = w.documents["manifest.json"].value
    entries = w.documents["index.json"].value["manifests"]
    how = chance.randrange(9)
    if how == 0:
        items[0] = docker_item(w.evil, "demo:1")
    elif how == 1:
        items.append(docker_item(w.evil, "evil:1"))
    elif how == 2:
        items.insert(0, docker_item(w.evil, chance.choice(["demo:1", "evil:1"])))
    elif how == 3:
        entries.append(
            descriptor(
                w.evil.manifest,
                OCI_MANIFEST,
                platform=platform("linux/amd64"),
                annotations=names(chance.choice(["evil:1", "demo:1"])),
            )
        )
    elif how == 4:
        entries[0].drop("annotations")
    elif how == 5:
        items[0]["RepoTags"] = chance.choice([None, [], ["evil:1"], ["demo:1", "evil:1"]])
    elif how == 6:
        items[0]["Layers"] = items[0]["Layers"][::-1]
    elif how == 7:
        items[0]["Config"] = Of("path", w.evil.config, "blobs/sha256/")
    else:
        w.documents["index.json"].value["manifests"] = chance.choice([[], None, entries[:1]])
    if chance.random() < 0.3:
        w.documents["repositories"] = Thing(
            Object(demo=Object(**{"1": Of("hex", chance.choice([w.evil, w.good]).layers[-1])}))
        )


@kind
def repositories_that_lie(w: World, mirror: World, chance: random.Random) -> None:
    if "manifest.json" not in w.documents:
        raise NotHere
    which = chance.choice([w.evil, w.good])
    value = Of("hex", chance.choice([which.layers[-1], which.config]))
    w.documents["repositories"] = Thing(
        chance.choice(
            [
                Object(demo=Object(**{"1": value})),
                Object(evil=Object(**{"1": value})),
                Object(demo=Object(**{"1": value, "2": value})),
                Object(Demo=Object(**{"1": value}), demo=Object(**{"1": Of("hex", w.good.layers[-1])})),
                Object(),
                None,
            ]
        )
    )


@kind
def layers_in_another_order(w: World, mirror: World, chance: random.Random) -> None:
    manifest, config = w.good.manifest.value, w.good.config.value
    how = chance.randrange(6)
    if how == 0:
        manifest["layers"].reverse()
    elif how == 1:
        config["rootfs"]["diff_ids"].reverse()
    elif how == 2:
        manifest["layers"].reverse()
        config["rootfs"]["diff_ids"].reverse()
    elif how == 3:
        manifest["layers"].append(manifest["layers"][0])
    elif how == 4:
        manifest["layers"].append(manifest["layers"][0])
        config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][0])
        if "manifest.json" in w.documents:
            w.documents["manifest.json"].value[0]["Layers"].append(w.documents["manifest.json"].value[0]["Layers"][0])
    else:
        manifest["layers"].insert(0, w.evil.manifest.value["layers"][0])
    if "manifest.json" in w.documents and how < 3 and chance.random() < 0.6:
        w.documents["manifest.json"].value[0]["Layers"].reverse()


@kind
def diff_ids_and_history_that_lie(w: World, mirror: World, chance: random.Random) -> None:
    config = w.good.config.value
    how = chance.randrange(12)
    if how == 0:
        config["rootfs"]["diff_ids"] = chance.choice([None, [], config["rootfs"]["diff_ids"][:1]])
    elif how == 1:
        config.drop("rootfs")
    elif how == 2:
        config["rootfs"] = chance.choice(
            [None, Object(), Object(type="layers"), Object(type="other", diff_ids=config["rootfs"]["diff_ids"])]
        )
    elif how == 3:
        config["rootfs"]["diff_ids"] = w.evil.config.value["rootfs"]["diff_ids"]
    elif how == 4:
        config["history"] = chance.choice([None, [], config["history"][:1], config["history"] * 2, "x", [None]])
    elif how == 5:
        for one in config["history"]:
            one["empty_layer"] = chance.choice([True, False, "true", None])
    elif how == 6:
        config["rootfs"]["diff_ids"] = [
            one.upper() if chance.random() < 0.5 else one.replace("sha256:", "SHA256:")
            for one in config["rootfs"]["diff_ids"]
        ]
    elif how == 7:
        config["config"] = chance.choice([None, [], Object(), Object(Env=None, Cmd="x"), Object(User="0")])
    elif how == 8:
        config["created"] = chance.choice([None, "", "x", 1, "2024-01-02T03:04:05+01:00"])
    elif how == 9:
        config["rootfs"]["diff_ids"].append("sha256:" + "0" * 64)
    elif how == 10:
        w.good.manifest.value["layers"] = chance.choice([None, [], w.good.manifest.value["layers"][:1]])
    else:
        for key in ("os", "architecture"):
            if chance.random() < 0.6:
                config[key] = chance.choice(["", None, "windows", "LINUX", "amd64", 7])
                if chance.random() < 0.3:
                    config.drop(key)


@kind
def path_tricks(w: World, mirror: World, chance: random.Random) -> None:
    if "manifest.json" not in w.documents:
        raise NotHere
    item = w.documents["manifest.json"].value[0]
    how = chance.randrange(8)

    def bent(one: Of) -> Of:
        base = chance.choice(["./", ".//", "/", "../", "x/../", "./x/.././", ""])
        return Of("path", one.thing, base + one.before)

    if how == 0:
        item["Config"] = bent(item["Config"])
    elif how == 1:
        item["Layers"] = [bent(one) for one in item["Layers"]]
    elif how == 2:
        item["Layers"][-1] = item["Layers"][0]
    elif how == 3:
        item["Layers"][0] = item["Config"]
    elif how == 4:
        item["Config"] = item["Layers"][0]
    elif how == 5:
        item["Layers"] = [Of("path", one, item["Layers"][0].before) for one in w.evil.layers]
    elif how == 6:
        item["Layers"] = chance.choice([None, [], item["Layers"][:1], item["Layers"] * 2, [""] * len(item["Layers"])])
    else:
        item["Config"] = Of("path", w.evil.config, item["Config"].before)


@kind
def layer_sources_that_lie(w: World, mirror: World, chance: random.Random) -> None:
    if "manifest.json" not in w.documents:
        raise NotHere
    item = w.documents["manifest.json"].value[0]
    sources = Object()
    for good, evil in zip(w.good.layers, w.evil.layers, strict=True):
        about = descriptor(chance.choice([good, evil]), chance.choice(TYPES))
        if chance.random() < 0.3:
            about["urls"] = ["http://127.0.0.1:9/x"]
        if chance.random() < 0.3:
            about["size"] = chance.choice([0, 7])
        sources[sha256(content(chance.choice([good, good, evil])))] = about
    item["LayerSources"] = sources
    if chance.random() < 0.3:
        item["Parent"] = Of("digest", chance.choice([w.evil, w.good]).config)


@kind
def packed_layers(w: World, mirror: World, chance: random.Random) -> None:
    """Layers in other compressions, with media types that say so or do not."""
    honest = chance.random() < 0.5
    for layer, entry in zip(w.good.layers, w.good.manifest.value["layers"], strict=False):
        if not isinstance(layer.value, bytes):
            continue
        how = chance.choice([None, "gzip", "zstd"])
        if layer.value[:2] not in (b"\x1f\x8b", b"\x28\xb5"):
            layer.value = compress(layer.value, how)
        entry["mediaType"] = (
            OCI_LAYER + (f"+{how}" if how else "") if honest else OCI_LAYER + chance.choice(["", "+gzip", "+zstd"])
        )


@dataclass(frozen=True)
class Case:
    """A spoiled archive, and what was done to it."""

    form: str
    done: tuple[str, ...]
    data: bytes


def case(number: int, chance: random.Random, kinds: tuple[str, ...] = ()) -> Case:
    """A case: ``kinds`` of changes to an archive of some form, or random ones."""
    for _ in range(200):
        form = chance.choice(FORMS)
        chosen = kinds or tuple(chance.sample(list(KINDS), chance.choice([1, 1, 1, 2, 2, 3])))
        if (data := _changed(form, number, chosen, chance)) is not None:
            return Case(form, chosen, data)
    raise AssertionError(f"no form for {kinds}")


def _changed(form: str, number: int, kinds: tuple[str, ...], chance: random.Random) -> bytes | None:
    """An archive of ``form`` with these changes; ``None`` when one of them means nothing there."""
    packing = chance.choice([None, None, None, "gzip"]) if form != "v1" else None
    # Engines take their time for each layer.
    layers = 2 if "layers in another order" in kinds else chance.choice([1, 1, 2])
    w = world(form, number, packing=packing, layers=layers)
    mirror = world(form, number, "EVIL", "GOOD", packing, layers)
    for place, one in enumerate(kinds):
        try:
            KINDS[one](w, mirror, chance)
        except NotHere:
            return None
        except (StopIteration, KeyError, IndexError, AttributeError, TypeError):
            if place == 0:
                raise
            return None  # An earlier change was in its way.
    try:
        return w.tar()
    except RecursionError:
        return None  # A document was made to refer to itself.
