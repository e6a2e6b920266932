"""Section H: digests, descriptors and the graph."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.builders.images import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Document,
    Files,
    Image,
    Member,
    blob_name,
    docker_files,
    dumps,
    hexed,
    make_image,
    make_index,
    oci_files,
    random_layer,
    sha256,
)
from tests.hostile.conftest import KEPT, LOOKS, PLAIN, World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
OTHER = make_image("other:1", layers=2, seed=5)
DOCKER = docker_files([IMAGE])
OCI = oci_files([IMAGE])
HEX = hexed(IMAGE.layers[0].digest)
SOME = [("load", "file"), ("verify", "pipe"), ("inspect", "file")]


def with_digest(where: str, digest: Any) -> bytes:
    """A good archive with ``digest`` in one place."""
    if where == "index":
        return OCI.edited("index.json", lambda value: value["manifests"][0].update(digest=digest)).tar()
    if where == "diff_ids":
        return oci_files([IMAGE.with_config(lambda value: value["rootfs"]["diff_ids"].__setitem__(0, digest))]).tar()
    if where == "config":
        return oci_files([IMAGE.with_manifest(lambda value: value["config"].update(digest=digest))]).tar()
    return oci_files([IMAGE.with_manifest(lambda value: value["layers"][0].update(digest=digest))]).tar()


@pytest.mark.parametrize("where", ["index", "config", "layers", "diff_ids"])
@pytest.mark.parametrize(
    "digest",
    [
        pytest.param("sha256:../../../outside", id="h130-up"),
        pytest.param("sha256:..", id="h130-dots"),
        pytest.param("sha256:a/b", id="h130-slash"),
        pytest.param(f"../sha256:{HEX}", id="h130-before"),
        pytest.param(f"sha256:{HEX.upper()}", id="h131-upper"),
        pytest.param(f"sha256:{HEX[:-1]}F", id="h131-mixed"),
        pytest.param(f"sha256:{HEX[:-1]}", id="h132-63"),
        pytest.param(f"sha256:{HEX}0", id="h132-65"),
        pytest.param("sha256:", id="h132-0"),
        pytest.param(f"sha256:{HEX}{HEX}", id="h132-128"),
        pytest.param(f"sha256:{HEX}\n", id="h133-newline"),
        pytest.param(f" sha256:{HEX}", id="h133-space"),
        pytest.param(f"sha256:{HEX}\0", id="h133-nul"),
        pytest.param(f"sha256:{HEX[:-1]}\uff11", id="h133-wide-digit"),
        pytest.param("", id="empty"),
        pytest.param(HEX, id="no-algorithm"),
        *(
            pytest.param(f"{algorithm}:{HEX}", id=f"h134-{algorithm}")
            for algorithm in ("sha512", "blake3", "md5", "sha256+b64u", "unknown")
        ),
    ],
)
def test_h130_to_h134_a_digest_that_is_none_or_unknown_is_refused(
    assert_refused: Assert, where: str, digest: str
) -> None:
    assert_refused(with_digest(where, digest), "E_DIGEST", runs=SOME)


def test_h135_blobs_under_each_others_names_are_refused_with_both_digests(assert_refused: Assert) -> None:
    first, second = (blob_name(layer.digest) for layer in IMAGE.layers)
    files = OCI.renamed(first, "x").renamed(second, first).renamed("x", second)
    assert_refused(files.tar(), "E_DIGEST", unseen=LOOKS, says=[layer.digest for layer in IMAGE.layers])


@pytest.mark.parametrize("digest", [IMAGE.image_id, IMAGE.digest])
def test_h135_a_document_with_another_content_is_refused(assert_refused: Assert, digest: str) -> None:
    name = blob_name(digest)
    assert_refused(
        OCI.put(name, OCI[name].replace(b"linux", b"Linux").replace(b"Version", b"version")).tar(), "E_DIGEST"
    )


@pytest.mark.parametrize("style", ["podman", "crane"])
def test_h136_a_config_name_that_is_not_its_hash_is_refused(assert_refused: Assert, style: str) -> None:
    files = docker_files([IMAGE], style)
    old = IMAGE.image_id if style == "crane" else f"{hexed(IMAGE.image_id)}.json"
    new = OTHER.image_id if style == "crane" else f"{hexed(OTHER.image_id)}.json"
    files = files.renamed(old, new).edited("manifest.json", lambda value: value[0].update(Config=new))
    assert_refused(files.tar(), "E_DIGEST", says=[IMAGE.image_id, OTHER.image_id])


def test_h136_a_config_name_that_claims_nothing_is_accepted(assert_accepted: Assert) -> None:
    old = f"{hexed(IMAGE.image_id)}.json"
    files = DOCKER.renamed(old, "config.json").edited(
        "manifest.json", lambda value: value[0].update(Config="config.json")
    )
    assert_accepted(files.tar(), names=["demo:1"], ids=[IMAGE.image_id], forms=PLAIN)


@pytest.mark.parametrize("change", [-1, 1, "zero"])
@pytest.mark.parametrize("where", ["index", "config", "layers"])
def test_h137_a_descriptor_with_another_size_is_refused(assert_refused: Assert, where: str, change: Any) -> None:
    def resize(descriptor: Any) -> None:
        descriptor["size"] = 0 if change == "zero" else descriptor["size"] + change

    if where == "index":
        files = OCI.edited("index.json", lambda value: resize(value["manifests"][0]))
    elif where == "config":
        files = oci_files([IMAGE.with_manifest(lambda value: resize(value["config"]))])
    else:
        files = oci_files([IMAGE.with_manifest(lambda value: resize(value["layers"][1]))])
    assert_refused(files.tar(), "E_SIZE", forms=PLAIN)


def test_h137_an_absurd_size_is_refused(assert_refused: Assert) -> None:
    image = IMAGE.with_manifest(lambda value: value["layers"][0].update(size=2**62))
    assert_refused(oci_files([image]).tar(), "E_SIZE")


def test_h138_one_digest_with_two_sizes_is_refused(assert_refused: Assert) -> None:
    twice = make_image("twice:1", layers=[random_layer(1), random_layer(1)])
    image = twice.with_manifest(lambda value: value["layers"][1].update(size=5))
    assert_refused(oci_files([image]).tar(), "E_SIZE", forms=PLAIN)


def test_h139_one_digest_in_two_roles_is_refused(assert_refused: Assert) -> None:
    as_index = Document(IMAGE.manifest, OCI_INDEX, below=IMAGE.document.below)
    assert_refused(oci_files([IMAGE, (as_index, ["other:1"])]).tar(), "E_TYPE", forms=PLAIN)
    layer = {"mediaType": OCI_LAYER, "digest": IMAGE.digest, "size": len(IMAGE.manifest)}
    two = OTHER.with_manifest(lambda value: value["layers"].__setitem__(0, layer))
    assert_refused(oci_files([IMAGE, two]).tar(), "E_TYPE", forms=PLAIN)


@pytest.mark.parametrize("kind", ["manifest", "index", "index.json", "index-with-config"])
def test_h140_a_document_that_is_two_things_is_refused(assert_refused: Assert, kind: str) -> None:
    child = IMAGE.document.descriptor()
    if kind == "manifest":
        files = oci_files([IMAGE.with_manifest(lambda value: value.update(manifests=[child]))])
    elif kind == "index.json":
        files = OCI.edited("index.json", lambda value: value.update(layers=[]))
    else:
        extra = {"layers": []} if kind == "index" else {"config": {"mediaType": OCI_CONFIG}}
        files = oci_files([(make_index(IMAGE, extra=extra), ["multi:1"])])
    assert_refused(files.tar(), "E_TYPE", forms=PLAIN)


@pytest.mark.parametrize("inside", [OCI_INDEX, "application/vnd.docker.distribution.manifest.v2+json", "text/plain"])
def test_h141_another_media_type_inside_is_refused(assert_refused: Assert, inside: str) -> None:
    assert_refused(
        oci_files([IMAGE.with_manifest(lambda value: value.update(mediaType=inside))]).tar(), "E_TYPE", forms=PLAIN
    )


def test_h142_no_media_type_inside_is_accepted(assert_accepted: Assert) -> None:
    image = IMAGE.with_manifest(lambda value: value.pop("mediaType") and None)
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], forms=PLAIN)
    files = oci_files([image]).edited("index.json", lambda value: value.pop("mediaType") and None)
    assert_accepted(files.tar(), names=["demo:1"], forms=PLAIN)


@pytest.mark.parametrize(("version", "code"), [(1, "E_TYPE"), (3, "E_TYPE"), ("2", "E_JSON"), (None, "E_JSON")])
@pytest.mark.parametrize("where", ["manifest", "index"])
def test_h143_another_schema_version_is_refused(assert_refused: Assert, where: str, version: Any, code: str) -> None:
    if where == "manifest":
        files = oci_files([IMAGE.with_manifest(lambda value: value.update(schemaVersion=version))])
    else:
        files = OCI.edited("index.json", lambda value: value.update(schemaVersion=version))
    assert_refused(files.tar(), code, forms=PLAIN)


def test_h143_a_schema_1_manifest_is_refused(assert_refused: Assert) -> None:
    old = dumps({"schemaVersion": 1, "name": "demo", "tag": "1", "fsLayers": [{"blobSum": sha256(b"")}], "history": []})
    assert_refused(oci_files([IMAGE.with_manifest(old)]).tar(), "E_TYPE", forms=PLAIN)


def test_h144_layers_of_a_docker_archive_in_another_order_are_refused(assert_refused: Assert) -> None:
    files = DOCKER.edited("manifest.json", lambda value: value[0]["Layers"].reverse())
    assert_refused(files.tar(), "E_DIFFID", unseen=LOOKS, says=["layer", *(layer.diff_id for layer in IMAGE.layers)])


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_h144_a_config_with_another_diff_id_is_refused(assert_refused: Assert, compression: str | None) -> None:
    image = make_image("demo:1", layers=2, compression=compression)
    liar = image.with_config(lambda value: value["rootfs"]["diff_ids"].__setitem__(1, sha256(b"other")))
    for files in (oci_files([liar]), docker_files([liar])):
        assert_refused(files.tar(), "E_DIFFID", unseen=LOOKS, says=["layer 2 of demo:1", sha256(b"other")])


@pytest.mark.parametrize("form", ["pipe", "gzip", "zstd", "file"])
def test_h145_a_forged_layer_under_the_diff_id_of_a_held_one_is_not_taken(world: World, form: str) -> None:
    name = f"{hexed(KEPT.layers[0].digest)}.tar"
    files = docker_files([KEPT.named("evil:1")])
    forged = bytearray(files[name])
    forged[600] ^= 1
    data = files.put(name, bytes(forged)).tar()
    assert world.run("verify", data, form).status == 5
    before = world.snapshot()
    done = world.run("load", data, form, "--json")
    if form == "file":
        # What is held is not read again from a file: the good blob stays, the forged one is not looked at.
        assert done.status in (0, 5), done
        assert (world.store / blob_name(KEPT.layers[0].digest)).read_bytes() == KEPT.layers[0].blob
    else:
        assert done.status == 5, done
        assert done.document["error"]["code"] == "E_DIFFID", done
        assert world.snapshot() == before


def test_h145_a_forged_layer_of_another_length_is_refused(assert_refused: Assert) -> None:
    name = f"{hexed(KEPT.layers[0].digest)}.tar"
    files = docker_files([KEPT.named("evil:1")])
    files = files.put(name, files[name] + bytes(512))
    assert_refused(files.tar(), ("E_SIZE", "E_DIFFID"), unseen=LOOKS, runs=[("load", "file"), ("plan", "file")])


@pytest.mark.parametrize("drop", ["layer", "diff_id"])
def test_h146_another_number_of_layers_is_refused(assert_refused: Assert, drop: str) -> None:
    if drop == "layer":
        every = [
            DOCKER.edited("manifest.json", lambda value: value[0]["Layers"].pop() and None),
            oci_files([IMAGE.with_manifest(lambda value: value["layers"].pop() and None)]),
        ]
    else:
        image = IMAGE.with_config(lambda value: value["rootfs"]["diff_ids"].pop() and None)
        every = [docker_files([image]), oci_files([image])]
    for files in every:
        assert_refused(files.tar(), "E_DIFFID", forms=PLAIN)


def test_h147_one_layer_for_two_diff_ids_is_refused(assert_refused: Assert) -> None:
    files = DOCKER.edited("manifest.json", lambda value: value[0].update(Layers=[value[0]["Layers"][0]] * 2))
    assert_refused(files.tar(), "E_DIFFID", forms=PLAIN)

    def repeat(value: Any) -> None:
        value["layers"][1] = value["layers"][0]

    assert_refused(oci_files([IMAGE.with_manifest(repeat)]).tar(), "E_DIFFID", forms=PLAIN)


def test_h147_one_layer_for_two_diff_ids_in_two_images_is_refused(assert_refused: Assert) -> None:
    other = sha256(b"another tar")
    liar = make_image("demo:1", layers=IMAGE.layers, platform="linux/arm64")
    liar = liar.with_config(lambda value: value["rootfs"]["diff_ids"].__setitem__(0, other))
    index = make_index(IMAGE, liar)
    assert_refused(oci_files([(index, ["multi:1"])]).tar(), "E_DIFFID", unseen=LOOKS, forms=PLAIN)
    assert_refused(oci_files([IMAGE, liar.named("liar:1")]).tar(), "E_DIFFID", unseen=LOOKS, forms=PLAIN)
    assert_refused(oci_files([liar.named("liar:1"), IMAGE]).tar(), "E_DIFFID", unseen=LOOKS, forms=["file"])


def test_h138_one_digest_with_two_sizes_in_the_index_is_refused(assert_refused: Assert) -> None:
    second = dict(IMAGE.document.descriptor({"org.opencontainers.image.ref.name": "demo:2"}), size=9)
    files = OCI.edited("index.json", lambda value: value["manifests"].append(second))
    assert_refused(files.tar(), "E_SIZE", forms=PLAIN)


def test_h148_a_history_with_more_layers_is_a_warning(assert_accepted: Assert) -> None:
    image = IMAGE.with_config(lambda value: value["history"].append({"created_by": "one more"}))
    for files in (docker_files([image]), oci_files([image])):
        assert_accepted(files.tar(), names=["demo:1"], warning="E_TYPE", forms=PLAIN)


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.pop("rootfs") and None,
        lambda value: value.update(rootfs=None),
        lambda value: value["rootfs"].update(type="layer"),
        lambda value: value["rootfs"].update(diff_ids="x"),
        lambda value: value["rootfs"].update(diff_ids=[1, 2]),
    ],
    ids=["missing", "null", "type", "text", "numbers"],
)
def test_h149_a_config_without_a_sound_rootfs_is_refused(assert_refused: Assert, edit: Any) -> None:
    image = IMAGE.with_config(edit)
    assert_refused(docker_files([image]).tar(), "E_JSON", forms=PLAIN)
    assert_refused(oci_files([image]).tar(), "E_JSON", forms=["file"])


def test_h149_no_diff_ids_for_two_layers_are_refused(assert_refused: Assert) -> None:
    image = IMAGE.with_config(lambda value: value["rootfs"].update(diff_ids=None))
    assert_refused(docker_files([image]).tar(), "E_DIFFID", forms=PLAIN)


def test_h151_an_index_that_lists_itself_is_refused(assert_refused: Assert) -> None:
    claimed = sha256(b"no bytes have this digest and themselves in it")
    raw = dumps({"schemaVersion": 2, "manifests": [{"mediaType": OCI_INDEX, "digest": claimed, "size": 100}]})
    raw += b" " * (100 - len(raw))
    entry = {"mediaType": OCI_INDEX, "digest": claimed, "size": len(raw)}
    raw = dumps({"schemaVersion": 2, "manifests": [dict(entry, size=0)]})
    files = Files.of(
        {
            "oci-layout": OCI["oci-layout"],
            "index.json": dumps({"schemaVersion": 2, "manifests": [dict(entry, size=len(raw))]}),
            blob_name(claimed): raw,
        }
    )
    assert_refused(files.tar(), "E_DIGEST", forms=PLAIN)


def nested(depth: int, width: int = 1) -> Files:
    """An image below ``depth`` indexes, each listing the next one ``width`` times."""
    document: Image | Document = IMAGE
    for _ in range(depth):
        document = make_index(*[document] * width)
    assert isinstance(document, Document)
    return oci_files([(document, ["deep:1"])])


@pytest.mark.parametrize("depth", [6, 300])
def test_h152_indexes_nested_too_deep_are_refused(assert_refused: Assert, depth: int) -> None:
    assert_refused(nested(depth).tar(), "E_LIMIT", forms=PLAIN)


def test_h152_an_index_in_an_index_is_accepted(assert_accepted: Assert) -> None:
    assert_accepted(nested(3).tar(), names=["deep:1"], forms=PLAIN)


def test_h153_many_paths_to_one_image_are_walked_once(assert_accepted: Assert) -> None:
    assert_accepted(nested(4, width=1000).tar(), names=["deep:1"], forms=["file"])


def test_h154_a_very_wide_index_is_refused(assert_refused: Assert) -> None:
    entries = [{"digest": f"sha256:{place:064x}", "size": 1} for place in range(100_001)]
    files = OCI.edited("index.json", lambda value: value.update(manifests=entries))
    assert_refused(files.tar(), "E_LIMIT", forms=["file"])


@pytest.mark.parametrize("what", ["config", "layer", "manifest"])
def test_h155_a_missing_blob_is_named_with_who_needs_it(assert_refused: Assert, what: str) -> None:
    digest = {"config": IMAGE.image_id, "layer": IMAGE.layers[0].digest, "manifest": IMAGE.digest}[what]
    data = OCI.without(blob_name(digest)).tar()
    assert_refused(data, "E_MISSING", 4, unseen=["inspect"], says=[digest, "demo:1"])
    if what != "manifest":
        name = f"{hexed(digest)}.{'json' if what == 'config' else 'tar'}"
        assert_refused(DOCKER.without(name).tar(), "E_MISSING", 4, unseen=["inspect"], says=[hexed(digest), "demo:1"])


def test_h155_h156_layers_that_the_store_holds_need_not_come(world: World) -> None:
    child = make_image("child:1", layers=1, base=KEPT, seed=44)
    thin = oci_files([child])
    for layer in KEPT.layers:
        thin = thin.without(blob_name(layer.digest))
    for form in PLAIN:
        assert world.run("load", thin.tar(), form).status == 0
    world.refused(thin.tar(), "E_MISSING", 4, runs=[("verify", "file"), ("verify", "pipe")])
    empty = world.outside.parent / "empty"
    assert world.run("load", thin.tar(), "file", store=empty).status == 4
    assert world.run("load", oci_files([KEPT]).tar(), "file", store=empty).status == 0
    assert world.run("load", thin.tar(), "file", store=empty).status == 0


def test_h157_a_base_that_rotted_in_the_store_is_not_relied_on(world: World) -> None:
    child = make_image("child:1", layers=1, base=KEPT, seed=44)
    name = blob_name(KEPT.layers[0].digest)
    path = world.store / name
    path.chmod(0o644)
    rotten = bytearray(path.read_bytes())
    rotten[600] ^= 1
    path.write_bytes(rotten)
    before = world.snapshot()
    done = world.run("load", oci_files([child]).without(name).tar(), "file", "--json")
    assert done.status in (4, 7), done
    assert KEPT.layers[0].digest in done.errors
    assert world.snapshot() == before
    # A good copy repairs it.
    assert world.run("load", oci_files([child]).tar()).status == 0
    assert path.read_bytes() == KEPT.layers[0].blob


def test_h158_a_parent_whose_layers_are_others_is_refused(assert_refused: Assert) -> None:
    files = docker_files([IMAGE, OTHER]).edited("manifest.json", lambda value: value[1].update(Parent=IMAGE.image_id))
    assert_refused(files.tar(), "E_GRAPH", forms=PLAIN)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "file:///etc/passwd", "gopher://x", "http://u:p@h/\x1b[2J"])
def test_h159_h160_a_foreign_layer_is_missing_and_never_fetched(assert_refused: Assert, url: str) -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar"
    image = IMAGE.with_manifest(lambda value: value["layers"][0].update(mediaType=foreign, urls=[url]))
    data = oci_files([image]).without(blob_name(IMAGE.layers[0].digest)).tar()
    assert_refused(data, "E_MISSING", 4, unseen=["inspect"], says=["foreign"], forms=["file"])


@pytest.mark.parametrize(
    "data", [base64.b64encode(b"other").decode(), "%%%", "", base64.b64encode(bytes(9 << 20)).decode()]
)
@pytest.mark.parametrize("where", ["index", "config"])
def test_h161_embedded_data_that_is_not_the_content_is_refused(assert_refused: Assert, where: str, data: str) -> None:
    if where == "index":
        files = OCI.edited("index.json", lambda value: value["manifests"][0].update(data=data))
    else:
        files = oci_files([IMAGE.with_manifest(lambda value: value["config"].update(data=data))])
    assert_refused(files.tar(), "E_LIMIT" if len(data) > 1 << 20 else "E_DIGEST", forms=["file"])


def test_h161_embedded_data_that_is_the_content_is_accepted(assert_accepted: Assert) -> None:
    text = base64.b64encode(IMAGE.config).decode()
    image = IMAGE.with_manifest(lambda value: value["config"].update(data=text))
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], forms=PLAIN)


def test_h162_a_subject_that_is_missing_or_in_a_loop_is_no_fault(assert_accepted: Assert) -> None:
    nowhere = {"mediaType": OCI_MANIFEST, "digest": sha256(b"nowhere"), "size": 7}
    image = IMAGE.with_manifest(lambda value: value.update(subject=nowhere))
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], forms=PLAIN)
    subject = OTHER.with_manifest(lambda value: value.update(subject=image.document.descriptor()))
    assert_accepted(oci_files([image, subject]).tar(), names=["demo:1", "other:1"], forms=PLAIN)


def test_h163_an_index_that_lies_about_the_platform_is_a_warning(assert_accepted: Assert) -> None:
    lie = {"os": "linux", "architecture": "arm64"}
    files = OCI.edited("index.json", lambda value: value["manifests"][0].update(platform=lie))
    assert_accepted(files.tar(), names=["demo:1"], warning="E_TYPE", forms=PLAIN)


@pytest.mark.parametrize("layout", [{"imageLayoutVersion": "9.9.9"}, {}, {"imageLayoutVersion": 1}])
def test_h164_another_layout_version_is_refused(assert_refused: Assert, layout: Any) -> None:
    assert_refused(OCI.put("oci-layout", dumps(layout)).tar(), "E_TYPE", forms=PLAIN)


def test_h165_blobs_that_nothing_names_are_counted_and_not_stored(world: World) -> None:
    extra = {sha256(b"%d" % place): b"%d" % place for place in range(300)}
    data = OCI.plus(*(Member(blob_name(digest), raw) for digest, raw in extra.items())).tar()
    for form in PLAIN:
        assert world.run("load", data, form).status == 0
        checked = world.run("verify", data, form, "--json")
        assert checked.document["archives"][0]["unreferenced_blobs"] == 300
    held = {path.name for path in (world.store / "blobs" / "sha256").iterdir()}
    assert not held & {hexed(digest) for digest in extra}


@pytest.mark.parametrize(
    "name", ["blobs/sha256/" + "0" * 64 + "/", "blobs/sha512/", "blobs/SHA256/", "blobs/sha256/x/"]
)
def test_h166_odd_directories_below_blobs_are_ignored(assert_accepted: Assert, name: str) -> None:
    files = OCI.plus(Member(name, kind=b"5"))
    if name == "blobs/SHA256/":
        files = files.plus(Member(name + "A" * 64, b"x"))
    assert_accepted(files.tar(), names=["demo:1"], forms=PLAIN)


def test_h166_a_directory_in_the_place_of_a_blob_is_missing(assert_refused: Assert) -> None:
    name = blob_name(IMAGE.layers[0].digest)
    assert_refused(OCI.without(name).plus(Member(f"{name}/", kind=b"5")).tar(), "E_MISSING", 4, unseen=["inspect"])
