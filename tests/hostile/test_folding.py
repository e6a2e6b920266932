"""Keys that Go folds: a property has one spelling for us and many for Go programs, which take the last of them.

Every property of every document gets a twin with another value, in every spelling that Go takes for the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imgtar.errors import Refused
from imgtar.graph.v1 import parse_v1
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import (
    parse_config,
    parse_docker_manifest,
    parse_index,
    parse_layout,
    parse_manifest,
    parse_repositories,
)
from imgtar.model.mediatype import IMAGE_MANIFEST
from imgtar.model.strictjson import fold, parse_json
from tests.builders.images import (
    Files,
    docker_files,
    dumps,
    hybrid_files,
    legacy_files,
    make_image,
    make_index,
    oci_files,
    oci_layout,
    sha256,
)
from tests.hostile.conftest import FEW

Assert = Callable[..., None]

GOOD = make_image("demo:1", layers=2)
EVIL = make_image("demo:1", layers=1, seed=666)
LONG_S, KELVIN = "\u017f", "\u212a"
DIGEST = "sha256:" + "0" * 64
DESCRIPTOR = {
    "mediaType": "x/y",
    "digest": DIGEST,
    "size": 1,
    "urls": ["u"],
    "annotations": {"a": "b"},
    "artifactType": "a/b",
    "platform": {
        "architecture": "amd64",
        "os": "linux",
        "variant": "v1",
        "os.version": "1",
        "os.features": ["f"],
    },
}
DOCUMENTS: dict[str, Any] = {
    "manifest": {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": "a/b",
        "config": DESCRIPTOR,
        "layers": [DESCRIPTOR],
        "subject": DESCRIPTOR,
        "annotations": {"a": "b"},
    },
    "index": {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "artifactType": "a/b",
        "manifests": [DESCRIPTOR],
        "subject": DESCRIPTOR,
        "annotations": {"a": "b"},
    },
    "config": {
        "architecture": "amd64",
        "os": "linux",
        "variant": "v1",
        "os.version": "1",
        "os.features": ["f"],
        "created": "2024-01-02T03:04:05Z",
        "author": "a",
        "parent": DIGEST,
        "config": {"Env": ["A=b"], "Labels": {"a": "b"}, "Healthcheck": {"Test": ["NONE"]}, "StopSignal": "9"},
        "container_config": {"Cmd": ["a"]},
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "history": [{"created": "c", "created_by": "b", "author": "a", "comment": "d", "empty_layer": True}],
    },
    "docker": [
        {
            "Config": "c.json",
            "RepoTags": ["demo:1"],
            "Layers": ["l.tar"],
            "Parent": DIGEST,
            "LayerSources": {DIGEST: DESCRIPTOR},
        }
    ],
    "layout": {"imageLayoutVersion": "1.0.0"},
    "v1": {
        "id": "1",
        "parent": "2",
        "created": "2024-01-02T03:04:05Z",
        "container_config": {"Cmd": ["a"], "Healthcheck": {"Test": ["NONE"], "Interval": 1}},
        "config": {"Env": ["A=b"], "Labels": {"a": "b"}},
        "docker_version": "1.9.1",
        "rootfs": {},
        "history": [],
        "os": "linux",
        "Size": 1,
    },
}
READ: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda raw: parse_manifest(raw, Descriptor(IMAGE_MANIFEST, Digest.of(raw), len(raw)), "x"),
    "index": lambda raw: parse_index(raw, "", "x"),
    "config": lambda raw: parse_config(raw, "x"),
    "docker": lambda raw: parse_docker_manifest(raw, "x"),
    "layout": lambda raw: parse_layout(raw, "x"),
    "v1": lambda raw: parse_v1("1", "x", raw),
}
MAPS = ("annotations", "Labels", "LayerSources")


def spellings(key: str) -> Iterator[str]:
    """Other spellings of a key that Go takes for the same."""
    yield from {key.upper(), key.capitalize(), key.swapcase(), key[:-1] + key[-1].swapcase()} - {key}
    for letter, other in (("s", LONG_S), ("k", KELVIN)):
        if letter in key.lower():
            at = key.lower().index(letter)
            yield key[:at] + other + key[at + 1 :]
            yield key[:at].upper() + other + key[at + 1 :].upper()


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every object of a document that is no map."""
    if isinstance(value, dict):
        if not path or path[-1] not in MAPS:
            yield path
        for key, inner in value.items():
            yield from objects(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from objects(inner, (*path, place))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


KEYS = [
    pytest.param(kind, path, key, id=f"{kind}-{'.'.join(map(str, (*path, key)))}")
    for kind, document in DOCUMENTS.items()
    for path in objects(document)
    for key in at(document, path)
]


def test_folding_is_that_of_go() -> None:
    assert fold(f"{KELVIN}ey{LONG_S}") == fold("KEYS") == fold("keys")
    # Full folding would make these equal; Go's simple folding does not.
    assert fold("manife\ufb06s") != fold("manifests")
    assert fold("\u0131") != fold("i")
    assert fold("\u0130") != fold("i")
    assert len({fold(key) for key in spellings("diskspace")}) == 1


@pytest.mark.parametrize(("kind", "path", "key"), KEYS)
def test_h264_a_second_key_that_go_folds_to_the_first_is_refused(kind: str, path: tuple[Any, ...], key: str) -> None:
    READ[kind](dumps(DOCUMENTS[kind]))
    tried = 0
    for twin in dict.fromkeys(spellings(key)):
        for before in (True, False):
            document = json.loads(dumps(DOCUMENTS[kind]))
            inner = at(document, path)
            own = dict(inner)
            inner.clear()
            inner.update({twin: own[key], **own} if before else {**own, twin: own[key]})
            with pytest.raises(Refused) as caught:
                READ[kind](dumps(document))
            assert caught.value.code == "E_JSON"
            tried += 1
    assert tried


def test_h264_an_unknown_key_twice_is_refused_too() -> None:
    for raw in (b'{"x":{"New":1,"new":2}}', b'[[{"A":[],"a":0}]]', b'{"labels":[{"A":1,"a":2}]}'):
        with pytest.raises(Refused, match="Go programs take for the same"):
            parse_json(raw, "x")


def test_h264_keys_of_maps_are_free_text() -> None:
    for key in ("annotations", "Labels", "ExposedPorts", "Volumes", f"annotation{LONG_S}"):
        assert parse_json(dumps({key: {"Version": "1", "version": "2"}}), "x")[key]["version"] == "2"
        with pytest.raises(Refused):
            parse_json(dumps({key: {"x": {"A": 1, "a": 2}}}), "x")
    tags = {"demo": {"V1": "0" * 64, "v1": "1" * 64}}
    assert parse_repositories(dumps(tags), "x") == tags
    config = parse_config(dumps({"rootfs": {}, "config": {"Labels": {"Version": "1", "version": "2"}}}), "x")
    assert config.labels == {"Version": "1", "version": "2"}


def respelled(value: Any, spell: Callable[[str], str]) -> Any:
    """The document with every key but those of maps in another spelling."""
    if isinstance(value, list):
        return [respelled(item, spell) for item in value]
    if not isinstance(value, dict):
        return value
    return {spell(key): item if key in MAPS[:2] else respelled(item, spell) for key, item in value.items()}


SPELLINGS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "capital": str.capitalize,
    "folded": lambda key: key.replace("s", LONG_S).replace("k", KELVIN),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", [kind for kind in DOCUMENTS if kind != "v1"])
def test_h264_single_keys_in_another_spelling_are_read_as_go_reads_them(kind: str, spelling: str) -> None:
    # Below LayerSources keys are digests.
    document = json.loads(dumps(DOCUMENTS[kind]))
    if kind == "docker":
        del document[0]["LayerSources"]
    raw = dumps(respelled(document, SPELLINGS[spelling]))
    assert READ[kind](raw) == READ[kind](dumps(document))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_h264_a_document_in_two_roles_is_found_in_every_spelling(spelling: str) -> None:
    spell = SPELLINGS[spelling]
    manifest, index = DOCUMENTS["manifest"], DOCUMENTS["index"]
    for kind, body in (
        ("manifest", {**manifest, spell("manifests"): []}),
        ("index", {**index, spell("layers"): []}),
        ("index", {**index, spell("config"): {}}),
        ("manifest", {**manifest, spell("fsLayers"): []}),
    ):
        with pytest.raises(Refused) as caught:
            READ[kind](dumps(body))
        assert caught.value.code == "E_TYPE"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_h264_old_json_is_never_converted_from_another_spelling(spelling: str) -> None:
    # The image ID would depend on who converts.
    with pytest.raises(Refused):
        READ["v1"](dumps(respelled(DOCUMENTS["v1"], SPELLINGS[spelling])))
    with pytest.raises(Refused):
        READ["v1"](dumps({"id": "1", f"rootf{LONG_S}": {"diff_ids": [DIGEST]}}))


# -- whole archives ----------------------------------------------------------------------------------------------------


def evil_layers(value: Any) -> Any:
    return [layer.descriptor() for layer in EVIL.layers]


def two_images(files: Files) -> Files:
    """The archive with the blobs of EVIL beside."""
    for digest, content in EVIL.document.blobs().items():
        files = files.put(f"blobs/sha256/{digest[7:]}", content)
    return files


def archives() -> dict[str, bytes]:
    """Whole archives, sound in every digest, in which a Go program reads another image than Python does."""
    layers = GOOD.with_manifest(lambda m: m.update({f"layer{LONG_S}": evil_layers(m)}))
    config = GOOD.with_manifest(lambda m: m.update({"Config": json.loads(EVIL.manifest)["config"]}))
    digest = GOOD.with_manifest(lambda m: m["config"].update({f"dige{LONG_S}t": EVIL.image_id}))
    diff_ids = GOOD.with_config(
        lambda c: c["rootfs"].update({f"diff_id{LONG_S}": json.loads(EVIL.config)["rootfs"]["diff_ids"]})
    )
    rootfs = GOOD.with_config(lambda c: c.update({"RootFS": json.loads(EVIL.config)["rootfs"]}))
    system = GOOD.with_config(lambda c: c.update({f"o{LONG_S}": "windows"}))
    index = oci_files([GOOD])
    manifests = two_images(index).edited(
        "index.json",
        lambda v: v.update({f"manife{LONG_S}ts": [EVIL.document.descriptor(v["manifests"][0]["annotations"])]}),
    )
    size = index.edited("index.json", lambda v: v["manifests"][0].update({"Size": 1}))
    notes = index.edited(
        "index.json",
        lambda v: v["manifests"][0].update({f"annotation{LONG_S}": {"io.containerd.image.name": "evil:1"}}),
    )
    nested = make_index(GOOD, extra={f"Manife{LONG_S}ts": []})
    tags = docker_files([GOOD]).edited("manifest.json", lambda v: v[0].update({f"RepoTag{LONG_S}": ["evil:1"]}))
    version = index.put("oci-layout", b'{"imageLayoutVersion":"1.0.0","imagelayoutver\xc5\xbfion":"9"}')
    return {
        "layers": two_images(oci_files([layers])).tar(),
        "layers-hybrid": two_images(hybrid_files([layers])).tar(),
        "config": two_images(oci_files([config])).tar(),
        "config-digest": two_images(oci_files([digest])).tar(),
        "diff-ids": oci_files([diff_ids]).tar(),
        "diff-ids-docker": docker_files([diff_ids]).tar(),
        "rootfs": docker_files([rootfs]).tar(),
        "os": oci_files([system]).tar(),
        "manifests": manifests.tar(),
        "size": size.tar(),
        "annotations": notes.tar(),
        "nested-manifests": oci_layout([(nested, ["demo:1"])]).tar(),
        "tags": tags.tar(),
        "layout": version.tar(),
    }


ARCHIVES = archives()


@pytest.mark.parametrize("name", ARCHIVES)
def test_h264_an_archive_that_go_reads_otherwise_is_refused(assert_refused: Assert, name: str) -> None:
    assert_refused(ARCHIVES[name], "E_JSON", runs=FEW)


def test_h264_old_archives_are_refused_as_well(assert_refused: Assert) -> None:
    files = legacy_files([GOOD])
    name = next(name for name in files.names if name.endswith("/json"))
    assert_refused(files.edited(name, lambda v: v.update({f"rootf{LONG_S}": {}})).tar(), "E_JSON", runs=FEW)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_h264_an_image_in_another_spelling_loads_as_what_go_makes_of_it(assert_accepted: Assert, spelling: str) -> None:
    spell = SPELLINGS[spelling]
    image = GOOD.with_config(lambda c: respelled(c, spell)).with_manifest(lambda m: respelled(m, spell))
    assert sha256(image.config) == image.image_id
    files = oci_files([image]).edited("index.json", lambda v: respelled(v, spell))
    assert_accepted(files.tar(), names=["demo:1"], ids=[image.image_id], runs=FEW)
