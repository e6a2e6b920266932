"""Hostile thin archives: what ``imgtar.json`` says of blobs that are not there is a stranger's word, and no more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgtar.errors import Refused
from imgtar.graph.thin import parse_thin
from imgtar.store.transaction import StoreTransaction
from tests.builders.images import (
    Files,
    Image,
    Layer,
    Member,
    blob_name,
    dir_files,
    docker_files,
    dumps,
    hexed,
    hybrid_files,
    legacy_files,
    make_image,
    oci_files,
    random_layer,
    sha256,
)
from tests.conftest import Imgtar
from tests.hostile.conftest import FEW, KEPT, LOOKS, PLAIN, World
from tests.hostile.mutation import EDITS, edited
from tests.hostile.sandbox import MEMORY
from tests.hostile.test_documents import BAD_BYTES, Edit

Assert = Callable[..., None]
Change = Callable[[Any], Any]

NAME = "imgtar.json"
APP = make_image("app:1", 1, seed=7000, base=KEPT)
"""What the thin archives bring; the layers of :data:`KEPT` are left out of them."""
FORMS = {"oci": oci_files, "docker": docker_files, "hybrid": hybrid_files}


def record(image: Image = APP, out: tuple[Layer, ...] = KEPT.layers) -> dict[str, Any]:
    """What an honest sender would say about ``image`` without the layers ``out``."""
    places = {layer.digest: place for place, layer in enumerate(out)}
    base = {"names": ["keep:1"], "image_id": KEPT.image_id, "digest": KEPT.digest, "inventory": sha256(b"")}
    about = {
        "names": list(image.names),
        "digest": image.digest,
        "image_id": image.image_id,
        "platform": image.platform,
        "requires": sorted(places.values()),
        "layers": [places.get(layer.digest) for layer in image.layers],
    }
    requires = [{"kind": "layer", **layer.descriptor(), "diff_id": layer.diff_id, "base": 0} for layer in out]
    return {"schema": "imgtar.thin/1", "bases": [base], "images": [about], "requires": requires}


def thin_files(image: Image = APP, out: tuple[Layer, ...] = KEPT.layers, form: str = "oci") -> Files:
    """An archive of ``image`` without the layers ``out``, and no record yet."""
    files = FORMS[form]([image])
    return files.without(*(layer_name(layer, form) for layer in out))


def layer_name(layer: Layer, form: str) -> str:
    """Where a layer lies in an archive of that form."""
    return f"{hexed(layer.digest)}.tar" if form == "docker" else blob_name(layer.digest)


def thin(change: Change | bytes | None = None, *, form: str = "oci") -> bytes:
    """The honest thin archive with another record: given as bytes, or changed in place or by value."""
    value: Any = record()
    if callable(change):
        result = change(value)
        value = value if result is None else result
    raw = change if isinstance(change, bytes) else dumps(value)
    return thin_files(form=form).plus(Member(NAME, raw)).tar()


def setting(*path: Any) -> Callable[[Any], Change]:
    """A change that puts a value at a place of the record."""

    def to(new: Any) -> Change:
        def change(value: Any) -> None:
            for key in path[:-1]:
                value = value[key]
            value[path[-1]] = new

        return change

    return to


def loads(world: World, data: bytes | Path, name: str = "app:1") -> None:
    """Assert that it loads where :data:`KEPT` is, and leaves a store that is good."""
    done = world.run("load", data, "file", "--json")
    assert done.status == 0, done
    assert name in {move["name"] for move in done.document["tags"]} or done.document["images"], done
    assert world.command("verify").status == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["file", "pipe", "gzip", "zstd"])
def test_an_honest_thin_archive_loads_in_every_form(world: World, form: str, how: str) -> None:
    done = world.run("load", thin(form=form), how)
    assert done.status == 0, done
    assert world.command("verify").status == 0


# --- the document


@pytest.mark.parametrize("how", BAD_BYTES)
def test_a_record_that_is_no_strict_json_is_refused(assert_refused: Assert, how: str) -> None:
    spoil: Edit = BAD_BYTES[how]
    assert_refused(thin(spoil(dumps(record()))), "E_JSON", runs=FEW, says=[NAME])


@pytest.mark.parametrize("form", [*FORMS, "legacy", "dir"])
def test_a_bad_record_is_refused_in_archives_of_every_form(assert_refused: Assert, form: str) -> None:
    files = {"legacy": legacy_files([APP]), "dir": dir_files(APP)}.get(form) or thin_files(form=form)
    assert_refused(files.plus(Member(NAME, b"{")).tar(), ("E_JSON", "E_TYPE"))
    assert_refused(files.plus(Member(NAME, b"{}")).tar(), "E_TYPE")


@pytest.mark.parametrize("form", ["oci", "hybrid"])
def test_a_bad_record_is_refused_in_a_directory(assert_refused: Assert, tmp_path: Path, form: str) -> None:
    folder = thin_files(form=form).put(NAME, b"[]").directory(tmp_path / "layout")
    assert_refused(folder, "E_TYPE")


@pytest.mark.parametrize("form", ["legacy", "dir", "oci", "docker", "hybrid"])
def test_a_record_in_an_archive_that_lacks_nothing_changes_nothing(world: World, form: str) -> None:
    whole = {"legacy": legacy_files([APP]), "dir": dir_files(APP)}.get(form) or FORMS[form]([APP])
    done = world.run("load", whole.plus(Member(NAME, dumps(record()))).tar(), "file", "--json")
    assert done.status == 0, done
    assert world.command("verify").status == 0


def test_a_record_in_a_sub_folder_is_no_record(world: World) -> None:
    files = thin_files().plus(Member(f"sub/{NAME}", b"{"))
    done = world.run("load", files.tar(), "file", "--json")
    assert done.status == 0, done  # What it lacks is held; nobody was asked to believe anything.


@pytest.mark.parametrize("schema", [None, 1, "", "imgtar.thin/2", "imgtar.thin/1 ", "IMGTAR.THIN/1", "\x1b[2J\u202e"])
def test_a_record_of_another_kind_is_refused(assert_refused: Assert, schema: Any) -> None:
    assert_refused(thin(setting("schema")(schema)), "E_TYPE", runs=FEW)


WRONG = [None, True, -1, "x", [], {}, [[]], 2**63]
PLACES = """
    bases bases.0 bases.0.names bases.0.image_id bases.0.inventory
    images images.0 images.0.names images.0.digest images.0.platform images.0.requires images.0.requires.0
    images.0.layers images.0.layers.0
    requires requires.0 requires.0.kind requires.0.mediaType requires.0.digest requires.0.size requires.0.diff_id
    requires.0.base
""".split()


@pytest.mark.parametrize("part", ["bases", "images", "requires"])
def test_a_value_of_the_wrong_type_is_refused_or_harmless(world: World, part: str) -> None:
    for wrong in WRONG:
        world.harmless(thin(lambda _, wrong=wrong: {} if wrong is None else wrong), runs=[("load", "file")])
        for place in PLACES:
            path = [int(step) if step.isdigit() else step for step in place.split(".")]
            if path[0] == part:
                world.harmless(thin(setting(*path)(wrong)), runs=[("load", "file")])


@pytest.mark.parametrize("key", ["bases", "images", "requires"])
def test_a_record_without_one_of_its_lists_is_refused(assert_refused: Assert, key: str) -> None:
    assert_refused(thin(lambda value: value.pop(key) and None), "E_JSON", runs=FEW)


@pytest.mark.parametrize("place", [2, 99, 2**31, 2**63 - 1])
@pytest.mark.parametrize("path", [("images", 0, "requires"), ("images", 0, "layers"), ("requires", 0, "base")])
def test_a_place_that_is_not_there_is_refused(assert_refused: Assert, path: tuple[Any, ...], place: int) -> None:
    value = place if path[-1] == "base" else [place]
    assert_refused(thin(setting(*path)(value)), "E_JSON", runs=FEW)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../outside",
        f"../sha256:{hexed(KEPT.layers[0].digest)}",
        KEPT.layers[0].digest.upper(),
        f"sha256:{hexed(KEPT.layers[0].digest).upper()}",
        KEPT.layers[0].digest + "\n",
        hexed(KEPT.layers[0].digest),
        f"sha512:{hexed(KEPT.layers[0].digest)}",
        "sha256:",
        "",
        "\x1b]0;title\x07",
    ],
)
@pytest.mark.parametrize("path", [("bases", 0, "image_id"), ("images", 0, "digest"), ("requires", 0, "diff_id")])
def test_a_digest_that_is_none_is_refused(assert_refused: Assert, path: tuple[Any, ...], digest: str) -> None:
    assert_refused(thin(setting(*path)(digest)), "E_DIGEST", runs=[("load", "file"), ("verify", "pipe")])


@pytest.mark.parametrize("digest", [f"sha512:{'a' * 128}", f"md5:{'a' * 32}", f"unknown+b64u:{'A' * 40}"])
@pytest.mark.parametrize("form", FORMS)
def test_a_digest_of_another_algorithm_is_refused_or_harmless(world: World, form: str, digest: str) -> None:
    for path in (
        ("images", 0, "digest"),
        ("images", 0, "image_id"),
        ("requires", 0, "digest"),
        ("requires", 0, "diff_id"),
    ):
        world.harmless(thin(setting(*path)(digest), form=form), runs=FEW)


def test_a_blob_that_is_listed_twice_is_refused(assert_refused: Assert) -> None:
    assert_refused(thin(lambda value: value["requires"].append(dict(value["requires"][0]))), "E_DUP", runs=FEW)


def test_unknown_keys_and_another_order_of_keys_are_accepted(world: World) -> None:
    def more(value: Any) -> Any:
        value = {"later": {"a": [1, None, "\u202e"]}, **dict(reversed(value.items()))}
        for part in ("bases", "images", "requires"):
            value[part] = [{"later": 1, **dict(reversed(one.items()))} for one in value[part]]
        return value

    loads(world, thin(more))


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\r\nb:1", "a\u202eb:1", "\x00", "../../x:1", "A:1", "x" * 5000, ""])
@pytest.mark.parametrize("path", [("bases", 0, "names"), ("images", 0, "names")])
def test_a_name_that_is_none_is_refused(assert_refused: Assert, path: tuple[Any, ...], text: str) -> None:
    assert_refused(thin(setting(*path)([text])), "E_NAME", runs=FEW)


@pytest.mark.parametrize("text", ["a\x1b[2J/\u202eb", "linux/amd64/\r/x", "/", "//", "linux", "x" * 100_000])
@pytest.mark.parametrize("path", [("images", 0, "platform"), ("requires", 0, "mediaType")])
@pytest.mark.parametrize("form", ["oci", "docker"])
def test_strange_text_is_never_shown_as_it_is(world: World, form: str, path: tuple[Any, ...], text: str) -> None:
    data = thin(setting(*path)(text), form=form)
    world.harmless(data, runs=FEW)
    world.harmless(data, runs=[("verify", "file"), ("inspect", "file")], options=[])
    given = world.incoming / "strange.tar"
    given.write_bytes(data)
    world.command("deps", str(given))
    world.command("inventory", "--of", str(given))
    world.command("inventory", "diff", str(given), str(given))
    world.command("verify", "--against", "store", str(given))
    world.command("verify", "--against", str(given), str(given))
    world.command("save", "--base", str(given), "--dry-run", "keep:1")


# --- its size


@pytest.mark.parametrize("key", ["bases", "images"])
def test_more_bases_or_images_than_the_limit_are_refused(assert_refused: Assert, key: str) -> None:
    def many(value: Any) -> None:
        value[key] = value[key] * 1001

    assert_refused(thin(many), "E_LIMIT", runs=FEW)


def test_more_names_than_the_limit_are_refused(assert_refused: Assert) -> None:
    assert_refused(thin(setting("images", 0, "names")([f"n:{n}" for n in range(1001)])), "E_LIMIT", runs=FEW)


def test_a_record_of_5_mib_is_refused_before_it_is_read(assert_refused: Assert) -> None:
    assert_refused(thin(b"{" + b" " * (5 << 20)), "E_LIMIT")


def test_a_record_as_long_as_may_be_is_read_in_bounds(world: World) -> None:
    """Every blob is needed by every image: what is asked about it must not cost images times blobs."""
    value = record()
    places = 7_000
    more = [{**value["requires"][0], "digest": sha256(b"%d" % n)} for n in range(places - 2)]
    value["requires"] += more
    image = value["images"][0]
    value["images"] = [
        {**image, "digest": sha256(b"i%d" % n), "requires": list(range(n, places, 300))} for n in range(300)
    ]
    value["images"].append({**image, "requires": list(range(places))})
    raw = dumps(value)
    assert len(raw) < 4 << 20
    data = thin(raw)
    for command in ("load", "verify", "inspect"):
        done = world.run(command, data, "file", "--json")
        assert done.status == 0, done
        assert done.peak < 2 * MEMORY


def test_many_images_that_share_one_config_are_completed_in_bounds(world: World) -> None:
    """Layers that are left out are looked for image by image: that must not cost images times images."""
    layers = tuple(random_layer(0) for _ in range(1000))
    image = make_image("many:1", layers)
    config = f"{hexed(image.image_id)}.json"
    items = [{"Config": config, "RepoTags": [f"many:{n}"], "Layers": ["x"] * 1000} for n in range(30)]
    about = record(image, layers[:1])["images"][0]
    value = record(image, layers[:1])
    value["images"] = [
        {**about, "digest": sha256(b"%d" % n), "image_id": sha256(b"%d" % n), "layers": []} for n in range(1000)
    ]
    data = Files.of({config: image.config, "manifest.json": dumps(items), NAME: dumps(value)}).tar()
    assert len(data) < 1 << 20
    world.harmless(data, runs=[("load", "file"), ("inspect", "file")])


# --- the member


@pytest.mark.parametrize("kind", [b"1", b"2"])
def test_a_record_that_is_a_link_is_refused(world: World, kind: bytes) -> None:
    other = thin_files().plus(Member("other", dumps(record())), Member(NAME, kind=kind, link="other"))
    world.refused(other.tar(), "E_LINK")
    out = thin_files().plus(Member(NAME, kind=kind, link=str(world.canary)))
    world.refused(out.tar(), "E_LINK")


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"7"])
def test_a_record_that_is_a_device_or_a_fifo_is_refused(assert_refused: Assert, kind: bytes) -> None:
    assert_refused(thin_files().plus(Member(NAME, kind=kind)).tar(), ("E_LINK", "E_HEADER"))


def test_a_record_that_is_a_directory_is_none(world: World) -> None:
    world.harmless(thin_files().plus(Member(f"{NAME}/", kind=b"5")).tar())


def test_two_records_are_refused(assert_refused: Assert) -> None:
    files = thin_files().plus(Member(NAME, dumps(record())))
    assert_refused(files.plus(Member(NAME, dumps(record()))).tar(), "E_DUP")
    assert_refused(files.plus(Member(f"./{NAME}", b"{}")).tar(), "E_DUP")


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "loop"])
def test_in_a_directory_a_record_that_is_no_file_is_refused_or_none(world: World, what: str) -> None:
    folder = thin_files().directory(world.incoming / "layout")
    path = folder / NAME
    if what == "link":
        path.symlink_to(world.canary)
    elif what == "loop":
        path.symlink_to(NAME)
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
        world.harmless(folder)
        return
    world.refused(folder, "E_LINK")


# --- what it claims


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 1, len(KEPT.layers[0].blob) + 1, 2**63 - 1])
def test_a_lying_size_is_refused_or_changes_nothing(world: World, form: str, size: int) -> None:
    """In a layout the manifest says how long the layer is; in a docker archive what is held counts, not the promise."""
    data = thin(setting("requires", 0, "size")(size), form=form)
    world.harmless(data)
    assert world.run("load", data).status in (0, 5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["manifest", "index", "config", "blob"])
def test_a_lying_kind_changes_nothing(world: World, form: str, kind: str) -> None:
    loads(world, thin(setting("requires", 0, "kind")(kind), form=form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("media_type", ["", "x", "application/vnd.oci.image.index.v1+json", "text/html; \x1b[0m"])
def test_a_lying_media_type_gets_nowhere(world: World, form: str, media_type: str) -> None:
    """imgtar writes the manifest for an image of a docker archive: a stranger does not choose the words in it."""
    loads(world, thin(setting("requires", 0, "mediaType")(media_type), form=form))
    raw = world.command("inspect", "--raw", "manifest", "app:1")
    assert raw.status == 0, raw
    assert [layer["mediaType"] for layer in raw.document["layers"]] == [layer.media_type for layer in APP.layers]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", [KEPT.layers[1].digest, KEPT.image_id, KEPT.digest, sha256(b"nobody")])
def test_a_promise_of_another_blob_never_makes_another_image(world: World, form: str, other: str) -> None:
    """The diff ID in the config decides; a docker archive without a promise that fits goes by that alone."""

    def change(value: Any) -> None:
        value["requires"] = value["requires"][:1]
        value["requires"][0]["digest"] = other
        value["images"][0].update(requires=[0], layers=[0, None, None])

    world.harmless(thin(change, form=form))


@pytest.mark.parametrize("form", FORMS)
def test_layers_in_another_order_never_make_another_image(world: World, form: str) -> None:
    world.harmless(thin(setting("images", 0, "layers")([1, 0, None]), form=form))
    world.harmless(thin(lambda value: value["requires"].reverse(), form=form))


@pytest.mark.parametrize("form", FORMS)
def test_a_promise_of_what_the_archive_carries_is_of_no_effect(world: World, form: str) -> None:
    loads(world, thin_files(out=(), form=form).plus(Member(NAME, dumps(record(out=APP.layers)))).tar())


@pytest.mark.parametrize("form", FORMS)
def test_a_carried_layer_is_checked_although_the_record_calls_it_left_out(assert_refused: Assert, form: str) -> None:
    files = thin_files(out=(), form=form).plus(Member(NAME, dumps(record(out=APP.layers))))
    name = layer_name(APP.layers[-1], form)
    data = bytearray(files[name])
    data[600] ^= 1
    assert_refused(files.put(name, bytes(data)).tar(), ("E_DIGEST", "E_DIFFID"), unseen=LOOKS)


def test_a_root_that_is_said_to_be_left_out_altogether_is_a_gap(world: World) -> None:
    """The receiver holds every blob that is named, but not the root: nobody can say that they belong together."""
    ghost = make_image("ghost:1", 1, seed=7100)
    files = oci_files([ghost]).without(*(blob_name(d) for d in ghost.document.blobs()))
    value = record(ghost, KEPT.layers)
    value["images"][0].update(image_id=KEPT.image_id, layers=[])
    data = files.plus(Member(NAME, dumps(value))).tar()
    before = world.snapshot()
    for form in ("file", "pipe", "gzip", "zstd"):
        assert world.run("load", data, form).status == 4
        assert world.run("load", data, form, "--partial").status == 4
    assert world.snapshot() == before


@pytest.mark.parametrize("digest", [KEPT.image_id, KEPT.layers[0].digest])
def test_a_root_that_is_something_else_at_the_receiver_is_refused(world: World, digest: str) -> None:
    size = len(KEPT.config) if digest == KEPT.image_id else len(KEPT.layers[0].blob)
    ghost = make_image("ghost:1", 1, seed=7100)

    def root(value: Any) -> None:
        value["manifests"][0].update(digest=digest, size=size)

    files = oci_files([ghost]).without(*(blob_name(d) for d in ghost.document.blobs())).edited("index.json", root)
    value = record(ghost, KEPT.layers)
    value["images"][0].update(digest=digest)
    before = world.snapshot()
    done = world.run("load", files.plus(Member(NAME, dumps(value))).tar(), "file", "--json")
    assert done.status == 5, done
    assert world.snapshot() == before


def test_a_record_does_not_pass_for_a_declared_parent(world: World) -> None:
    """A left-out root that claims the image ID of a parent does not stand for that parent."""
    parent = make_image("parent:1", 1, seed=7200)
    child = make_image("child:1", 1, seed=7201, base=parent)
    ghost = make_image("ghost:1", 1, seed=7100)
    value = record(ghost, KEPT.layers)
    value["images"][0].update(image_id=parent.image_id, layers=[])
    ghosts = oci_files([ghost]).without(*(blob_name(d) for d in ghost.document.blobs()))
    declared = docker_files([child]).edited("manifest.json", lambda items: items[0].update(Parent=parent.image_id))
    first, second = world.incoming / "a.tar", world.incoming / "b.tar"
    first.write_bytes(ghosts.plus(Member(NAME, dumps(value))).tar())
    second.write_bytes(declared.tar())
    before = world.snapshot()
    for options in ([], ["--partial"]):
        done = world.command("load", "-i", str(first), "-i", str(second), *options)
        assert done.status == 4, done
        assert world.snapshot() == before


# --- layers that are made from other ones


PACKED = random_layer(8000, "gzip", size=50_000)
OTHER = random_layer(8001, "gzip", size=50_000)


def plain_image(layer: Layer, name: str = "plain:1", size: int | None = None) -> Image:
    """An image with the layer plain; its manifest may lie about the size."""
    own = Layer(layer.tar, layer.tar)
    image = make_image(name, [own], seed=8100)
    if size is None:
        return image
    return image.with_manifest(lambda value: value["layers"][0].update(size=size))


def made(image: Image, carried: Image | None = None) -> Files:
    """An archive of ``image`` without its one layer, and of another image that may carry it compressed."""
    files = oci_files([image, carried] if carried is not None else [image]).without(blob_name(image.layers[0].digest))
    return files.plus(Member(NAME, dumps(record(image, image.layers))))


@pytest.mark.parametrize("size", [0, 1, len(PACKED.tar) - 1, len(PACKED.tar) + 1, 2**63 - 1])
@pytest.mark.parametrize("source", ["held", "carried"])
def test_a_made_layer_of_another_size_than_promised_is_refused(world: World, source: str, size: int) -> None:
    """The same verdict whether the compressed layer is held, lies in the archive, or passed through a pipe."""
    packed = make_image("packed:1", [PACKED], seed=8200)
    if source == "held":
        assert world.run("load", oci_files([packed]).tar()).status == 0
    data = made(plain_image(PACKED, size=size), None if source == "held" else packed).tar()
    runs = [("load", form) for form in ("file", "pipe", "gzip", "zstd")]
    if source == "carried":
        runs += [("verify", form) for form in ("file", "pipe")]
    world.refused(data, ("E_SIZE", "E_LIMIT"), runs=runs)


@pytest.mark.parametrize("form", ["file", "pipe", "gzip", "zstd"])
@pytest.mark.parametrize("source", ["held", "carried"])
def test_an_honest_made_layer_is_made(world: World, source: str, form: str) -> None:
    packed = make_image("packed:1", [PACKED], seed=8200)
    if source == "held":
        assert world.run("load", oci_files([packed]).tar()).status == 0
    done = world.run("load", made(plain_image(PACKED), None if source == "held" else packed).tar(), form)
    assert done.status == 0, done
    assert world.command("verify").status == 0


@pytest.mark.parametrize("form", ["file", "pipe", "gzip", "zstd"])
def test_a_compressed_layer_with_a_lying_diff_id_is_no_source(world: World, form: str) -> None:
    """Another image claims that its layer unpacks to what is wanted: that is found out, and nothing is committed."""
    liar = make_image("liar:1", [OTHER], seed=8201).with_config(
        lambda value: value["rootfs"].update(diff_ids=[PACKED.diff_id])
    )
    data = made(plain_image(PACKED), liar).tar()
    world.refused(data, ("E_DIGEST", "E_SIZE", "E_DIFFID"), runs=[("load", form), ("verify", form)])
    # Nor when only the image is wanted whose layer would be made.
    before = world.snapshot()
    done = world.run("load", data, form, "plain:1")
    assert done.status in (4, 5), done
    assert world.snapshot() == before


@pytest.mark.parametrize("promised", ["right", "small", "huge"])
@pytest.mark.parametrize("form", PLAIN)
def test_a_bomb_as_the_source_of_a_made_layer_is_bounded(world: World, promised: str, form: str) -> None:
    """1 MiB of gzip that is 1 GiB of layer: more than promised is never written, and memory is not needed for it."""
    bomb = make_bomb()
    size = {"right": len(bomb.tar), "small": 1000, "huge": 2**40}[promised]
    image = plain_image(bomb, size=size)
    packed = make_image("packed:1", [Layer(bomb.tar, bomb.blob, "gzip", bomb.media_type + "+gzip")], seed=8202)
    data = made(image, packed).tar()
    before = world.snapshot()
    done = world.run("load", data, form, "--json")
    if promised == "right":
        assert done.status == 0, done
    else:
        assert done.status in (5, 6), done
        assert world.snapshot() == before


def make_bomb() -> Layer:
    """A layer of 100 MiB of zeros in one file; the blob is its gzip of 100 KiB."""
    from tests.builders import rawtar
    from tests.builders.images import compress

    tar = rawtar.entry(b"zeros", bytes(100 << 20)) + rawtar.END
    return Layer(tar, compress(tar, "gzip"))


@pytest.mark.parametrize("how", ["flipped", "emptied"])
def test_a_held_source_that_rots_between_plan_and_read_is_the_stores_fault_and_can_be_repaired(
    imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    packed, plain = oci_files([make_image("packed:1", [PACKED], seed=8200)]).tar(), made(plain_image(PACKED)).tar()
    imgtar.load(packed).ok()
    path = imgtar.store / blob_name(PACKED.digest)
    receive = StoreTransaction.receive

    def rotten(*arguments: Any) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(bytes(data) if how == "flipped" else bytes(len(data)))
        receive(*arguments)

    monkeypatch.setattr(StoreTransaction, "receive", rotten)
    done = imgtar.load(plain)
    monkeypatch.undo()
    assert (done.code, "[E_STORE]" in done.errors) == (7, True), done
    assert "plain:1" not in imgtar.names()
    # The load that carries it in full mends the store; after that the thin one loads.
    imgtar.load(packed).ok()
    imgtar.load(plain).ok()
    imgtar("verify").ok()


# --- at random


GOOD = dumps(record())


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_no_change_of_a_record_makes_the_reader_stumble(data: st.DataObject) -> None:
    raw = edited(GOOD, data)
    said = []
    try:
        parse_thin(raw, "imgtar.json")
    except Refused as error:
        said.append(error)
    assert {error.code for error in said} <= {"E_TYPE", "E_JSON", "E_DUP", "E_LIMIT", "E_DIGEST", "E_NAME"}
    assert all(str(error).startswith("imgtar.json") for error in said)


@given(edit=EDITS, form=st.sampled_from(sorted(FORMS)), command=st.sampled_from(FEW))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_change_of_a_record_does_harm(world: World, edit: Any, form: str, command: tuple[str, str]) -> None:
    raw = json.dumps(edit(json.loads(GOOD))).encode()
    world.harmless(thin(raw, form=form), runs=[command])
