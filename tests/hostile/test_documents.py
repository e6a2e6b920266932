"""Section G: JSON documents. Every document is spoiled in the same ways, wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.builders.images import (
    Files,
    Member,
    docker_files,
    dumps,
    legacy_files,
    make_image,
    oci_files,
    sha256,
)
from tests.builders.rawtar import END, base256, header
from tests.hostile.conftest import PLAIN, World

Assert = Callable[..., None]
Edit = Callable[[bytes], bytes]

IMAGE = make_image("demo:1", layers=2)
DOCKER = docker_files([IMAGE])
OCI = oci_files([IMAGE])
WHERE = ["docker", "index", "layout", "manifest", "config", "oci-config"]


def spoiled(where: str, edit: Edit) -> Files:
    """A good archive with one document changed; digests and sizes agree with the change."""
    if where == "docker":
        return DOCKER.put("manifest.json", edit(DOCKER["manifest.json"]))
    if where == "index":
        return OCI.put("index.json", edit(OCI["index.json"]))
    if where == "layout":
        return OCI.put("oci-layout", edit(OCI["oci-layout"]))
    if where == "manifest":
        return oci_files([IMAGE.with_manifest(edit(IMAGE.manifest))])
    image = IMAGE.with_config(edit(IMAGE.config))
    return docker_files([image]) if where == "config" else oci_files([image])


def changed(where: str, edit: Callable[[Any], Any]) -> bytes:
    """The archive with one document changed as JSON."""

    def apply(raw: bytes) -> bytes:
        value = json.loads(raw)
        result = edit(value)
        return dumps(value if result is None else result)

    return spoiled(where, apply).tar()


def inside(raw: bytes, text: bytes) -> bytes:
    """Put one more property into the first object of a document."""
    place = raw.index(b"{") + 1
    return raw[:place] + text + b"," + raw[place:]


BAD_BYTES: dict[str, Edit] = {
    "h116-bom": lambda raw: b"\xef\xbb\xbf" + raw,
    "h116-utf16": lambda raw: raw.decode().encode("utf-16"),
    "h116-utf32": lambda raw: raw.decode().encode("utf-32-be"),
    "h116-latin": lambda raw: inside(raw, b'"x":"\xe9"'),
    "h116-overlong": lambda raw: inside(raw, b'"x":"\xc0\xaf"'),
    "h117-surrogate": lambda raw: inside(raw, b'"x":"\\ud800"'),
    "h118-nan": lambda raw: inside(raw, b'"x":NaN'),
    "h118-infinity": lambda raw: inside(raw, b'"x":-Infinity'),
    "h118-huge": lambda raw: inside(raw, b'"x":1e999'),
    "h119-digits": lambda raw: inside(raw, b'"x":' + b"9" * 5000),
    "h119-million": lambda raw: inside(raw, b'"x":' + b"9" * 1_000_000),
    "h122-trailing": lambda raw: raw + b" x",
    "h122-second": lambda raw: raw + b"\n" + raw,
    "h122-comma": lambda raw: inside(raw, b'"x":[1,]'),
    "h122-comment": lambda raw: b"/* x */" + raw,
    "h122-quotes": lambda raw: inside(raw, b"'x':1"),
    "h122-control": lambda raw: inside(raw, b'"x":"a\nb"'),
    "h114-twice": lambda raw: inside(raw, b'"x":1,"x":2'),
    "h114-twice-escaped": lambda raw: inside(raw, b'"x":1,"\\u0078":2'),
    "h114-twice-deep": lambda raw: inside(raw, b'"x":[{"y":{"z":1,"z":1}}]'),
    "h115-case": lambda raw: inside(raw, b'"size":1,"Size":2'),
    "h113-deep": lambda raw: inside(raw, b'"x":' + b"[" * 1000 + b"]" * 1000),
    "h113-open": lambda raw: b"[" * 100_000,
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[:-2],
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", BAD_BYTES)
def test_h113_to_h122_a_document_that_is_no_strict_json_is_refused(
    assert_refused: Assert, where: str, how: str
) -> None:
    data = spoiled(where, BAD_BYTES[how]).tar()
    assert_refused(data, "E_JSON", runs=[("load", "file"), ("verify", "pipe"), ("inspect", "file")])


@pytest.mark.parametrize("how", ["h116-utf16", "h117-surrogate", "h113-deep", "h122-second"])
def test_h113_to_h122_bad_json_is_refused_in_every_form(assert_refused: Assert, how: str) -> None:
    assert_refused(spoiled("docker", BAD_BYTES[how]).tar(), "E_JSON", says=["manifest.json"])
    assert_refused(spoiled("manifest", BAD_BYTES[how]).tar(), "E_JSON")


@pytest.mark.parametrize("where", ["docker", "index"])
def test_h111_a_huge_document_is_refused_before_it_is_read(assert_refused: Assert, where: str) -> None:
    # Only the header is there, so that reading it would be a truncation; a whole one of 5 MiB is refused as well.
    files = DOCKER if where == "docker" else OCI
    name = "manifest.json" if where == "docker" else "index.json"
    assert_refused(files.put(name, b"[" + bytes(5 << 20)).tar(), "E_LIMIT", forms=PLAIN)
    claim = header(name.encode(), size=base256(1 << 40, 12)) + bytes(4096)
    assert_refused(files.without(name).tar(end=b"") + claim, ("E_LIMIT", "E_TRUNC"), forms=["file"])


@pytest.mark.parametrize("where", ["manifest", "config", "oci-config"])
def test_h112_a_huge_blob_that_should_be_a_document_is_refused(assert_refused: Assert, where: str) -> None:
    data = spoiled(where, lambda raw: raw + b" " * (9 << 20)).tar()
    assert_refused(data, "E_LIMIT", runs=[("load", "file"), ("load", "pipe"), ("verify", "file"), ("inspect", "file")])


@pytest.mark.parametrize("where", WHERE)
def test_h123_a_million_values_are_refused(assert_refused: Assert, where: str) -> None:
    many = b'"x":{' + b",".join(b'"%x":{}' % place for place in range(250_000)) + b"}"
    data = spoiled(where, lambda raw: inside(raw, many)).tar()
    assert_refused(data, "E_LIMIT", runs=[("load", "file"), ("verify", "pipe"), ("inspect", "file")])


def _put(*path: Any) -> Callable[[Any], Callable[[Any], None]]:
    def value(new: Any) -> Callable[[Any], None]:
        def edit(document: Any) -> None:
            for key in path[:-1]:
                document = document[key]
            document[path[-1]] = new

        return edit

    return value


@pytest.mark.parametrize("size", ["12", 1.0, True, None, -1, 2**63, [], {}])
@pytest.mark.parametrize(
    ("where", "path"),
    [("index", ("manifests", 0, "size")), ("manifest", ("config", "size")), ("manifest", ("layers", 0, "size"))],
)
def test_h120_a_size_that_is_no_size_is_refused(
    assert_refused: Assert, where: str, path: tuple[Any, ...], size: Any
) -> None:
    assert_refused(changed(where, _put(*path)(size)), "E_JSON", runs=[("load", "file"), ("inspect", "pipe")])


@pytest.mark.parametrize("value", [{}, None, "x", 1, [None], [[]], ["x"], [{}], [{"Config": "c"}]])
def test_h121_a_manifest_json_of_another_shape_is_refused(assert_refused: Assert, value: Any) -> None:
    assert_refused(DOCKER.put("manifest.json", dumps(value)).tar(), ("E_JSON", "E_TYPE"), forms=PLAIN)


@pytest.mark.parametrize("where", ["index", "manifest", "config", "oci-config", "layout"])
@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_h121_a_document_that_is_no_object_is_refused(assert_refused: Assert, where: str, value: Any) -> None:
    code = "E_TYPE" if where == "layout" else "E_JSON"
    assert_refused(
        changed(where, lambda _: value) if value is not None else spoiled(where, lambda _: b"null").tar(),
        code,
        runs=[("load", "file"), ("inspect", "pipe")],
    )


@pytest.mark.parametrize("layers", [None, "", [1], {}, [None]])
def test_h121_layers_of_another_shape_are_refused(assert_refused: Assert, layers: Any) -> None:
    assert_refused(changed("docker", _put(0, "Layers")(layers)), "E_JSON", forms=PLAIN)
    assert_refused(changed("manifest", _put("layers")(layers)), "E_JSON", forms=["file"])


@pytest.mark.parametrize("tags", [None, []])
def test_h121_no_tags_are_an_untagged_image(assert_accepted: Assert, tags: Any) -> None:
    assert_accepted(changed("docker", _put(0, "RepoTags")(tags)), names=[], ids=[IMAGE.image_id], forms=PLAIN)


@pytest.mark.parametrize("tags", ["demo:1", [1], [None], {"demo": 1}])
def test_h121_tags_of_another_shape_are_refused(assert_refused: Assert, tags: Any) -> None:
    assert_refused(changed("docker", _put(0, "RepoTags")(tags)), "E_JSON", forms=["file"])


@pytest.mark.parametrize(
    ("where", "edit"),
    [
        pytest.param("docker", _put(0, "Layers")(["x"] * 100_000), id="docker-layers"),
        pytest.param("docker", _put(0, "RepoTags")([f"demo:{n}" for n in range(100_000)]), id="h179-docker-tags"),
        pytest.param("docker", lambda value: value * 1500, id="docker-images"),
        pytest.param("config", _put("rootfs", "diff_ids")([sha256(b"")] * 20_000), id="diff-ids"),
        pytest.param("oci-config", _put("history")([{}] * 250_000), id="history"),
        pytest.param("manifest", lambda value: value.update(layers=value["layers"] * 600), id="layers"),
    ],
)
def test_h124_h150_h179_too_many_of_anything_are_refused(assert_refused: Assert, where: str, edit: Any) -> None:
    assert_refused(changed(where, edit), "E_LIMIT", forms=["file"])


def test_h125_long_texts_are_accepted_and_cut_when_shown(world: World, assert_accepted: Assert) -> None:
    def lengthen(config: Any) -> None:
        config["config"]["Labels"] = {"long": "x" * (3 << 20), "y" * (1 << 20): "z"}

    data = changed("oci-config", lengthen)
    assert_accepted(data, names=["demo:1"], forms=["file"])
    assert len(world.run("inspect", data).stdout) < 1 << 20


@pytest.mark.parametrize("where", WHERE)
def test_h126_unknown_properties_are_kept_to_the_byte(world: World, assert_accepted: Assert, where: str) -> None:
    files = spoiled(where, lambda raw: inside(raw, b'"x.unknown" : { "y" :  [ 1.50, "\\u00e9" ] }'))
    assert_accepted(files.tar(), names=["demo:1"], forms=["file"])
    if where in ("manifest", "config", "oci-config"):
        assert world.run("load", files.tar()).status == 0
        held = [path.read_bytes() for path in (world.store / "blobs" / "sha256").iterdir()]
        assert any(b'"x.unknown" : { "y" :  [ 1.50' in raw for raw in held)


def test_h127_h169_escapes_in_texts_are_kept_and_never_shown_raw(world: World) -> None:
    evil = "a\x00b\x1b[31mred\x1b]52;c;AAAA\x07\x08\x7f\x9b\u202ex\u200b\u2066\r\nLoaded image: safe:1"

    def spoil(config: Any) -> None:
        config["author"] = config["created"] = evil
        config["config"]["Labels"] = {"label": evil, evil: "x"}
        config["config"]["Env"] = [evil]
        config["history"][0] = {"created_by": evil, "author": evil, "comment": evil, "created": evil}

    image = IMAGE.with_config(spoil)

    def annotate(manifest: Any) -> None:
        manifest["annotations"] = {"org.opencontainers.image.base.name": evil, evil: evil}

    image = image.with_manifest(annotate)
    data = oci_files([image]).tar()
    for command in ("load", "plan", "verify", "inspect"):
        for options in ((), ("--json",)):
            done = world.run(command, data, "file", *options)
            assert done.status == 0, done
            assert "\nLoaded image: safe:1" not in done.stdout.decode()
    shown = world.run("inspect", data, "file", "--json").document
    assert shown["images"][0]["labels"]["label"] == evil
    assert shown["images"][0]["history"][0]["created_by"] == evil
    for arguments in (["images"], ["images", "--json"], ["history", "demo:1"], ["inspect", "demo:1"], ["verify"]):
        world.command(*arguments)


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("../../canary", ("E_PATH",)),
        ("../canary", ("E_PATH",)),
        ("file:///canary", ("E_PATH", "E_MISSING")),
        ("a/../../canary", ("E_PATH",)),
        ("blobs\\x", ("E_PATH",)),
        ("CANARY", ("E_PATH",)),
    ],
)
@pytest.mark.parametrize("key", ["Config", "Layers"])
def test_h128_a_path_out_of_the_archive_is_refused(world: World, key: str, path: str, codes: tuple[str, ...]) -> None:
    path = str(world.canary) if path == "CANARY" else path
    value = path if key == "Config" else [path, DOCKER.names[1]]
    data = changed("docker", _put(0, key)(value))
    if codes == ("E_PATH",):
        world.refused(data, "E_PATH")
    else:
        world.refused(data, "E_MISSING", 4, unseen=["inspect"])


def test_h128_an_empty_config_path_is_refused(assert_refused: Assert) -> None:
    for code, exit in (("E_PATH", 5), ("E_JSON", 5), ("E_MISSING", 4)):
        try:
            return assert_refused(
                changed("docker", _put(0, "Config")("")), code, exit, unseen=["inspect"], forms=["file"]
            )
        except AssertionError as error:
            problem = error
    raise problem


def _parents(files: Files, parents: dict[str, str]) -> bytes:
    for name, parent in parents.items():
        files = files.edited(f"{name}/json", lambda value, parent=parent: {**value, "parent": parent})
    return files.tar()


def test_h129_a_loop_of_parents_is_refused(assert_refused: Assert) -> None:
    files = legacy_files([make_image("old:1", layers=3)])
    ids = [name.partition("/")[0] for name in files.names if name.endswith("/json")]
    assert_refused(_parents(files, {ids[0]: ids[2]}), "E_GRAPH")
    assert_refused(_parents(files, {ids[2]: ids[2]}), "E_GRAPH")
    assert_refused(_parents(files, {ids[0]: ids[1]}), "E_GRAPH", forms=["file"])


def test_h129_a_loop_of_images_without_names_is_refused(assert_refused: Assert) -> None:
    files = legacy_files([make_image("old:1", layers=2)])
    ids = [name.partition("/")[0] for name in files.names if name.endswith("/json")]
    assert_refused(_parents(files.put("repositories", b"{}"), {ids[0]: ids[1]}), "E_GRAPH")


def test_h129_a_chain_that_is_cut_or_endless_is_refused(assert_refused: Assert) -> None:
    files = legacy_files([make_image("old:1", layers=2)])
    ids = [name.partition("/")[0] for name in files.names if name.endswith("/json")]
    data = _parents(files, {ids[0]: "f" * 64})
    for code, exit in (("E_MISSING", 4), ("E_MISSING", 5), ("E_GRAPH", 5)):
        try:
            assert_refused(data, code, exit, unseen=["inspect"])
            break
        except AssertionError as error:
            problem = error
    else:
        raise problem
    chain = [
        Member(f"{place:064x}/json", dumps({"id": f"{place:064x}", "parent": f"{place + 1:064x}"}))
        for place in range(1100)
    ]
    layers = [Member(f"{place:064x}/layer.tar", END) for place in range(2)]
    assert_refused(
        Files((*chain, *layers)).put("repositories", dumps({"x": {"1": "0" * 64}})).tar(), "E_LIMIT", forms=["file"]
    )


def test_h129_v1_files_beside_manifest_json_are_ignored(assert_accepted: Assert) -> None:
    files = docker_files([IMAGE], "v1")
    ids = [name.partition("/")[0] for name in files.names if name.endswith("/json")]
    data = _parents(files.put(f"{ids[0]}/VERSION", b"9.9"), {ids[0]: ids[1]})
    assert_accepted(data, names=["demo:1"], forms=PLAIN)
