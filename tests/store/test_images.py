"""What the store remembers of its images: where to look, never what is so. Deleted, torn or full of lies, the answers
are the same."""

from __future__ import annotations

import bz2
import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.store.images import ImageCache
from imgtar.store.inventory import StoreInventory
from imgtar.store.store import Store
from tests.builders.images import (
    Image,
    Layer,
    attestation,
    docker_files,
    hexed,
    layer_tar,
    make_image,
    make_index,
    oci_archive,
    oci_layout,
    sha256,
)
from tests.conftest import Imgtar
from tests.store.spoiled import SPOILED

BASE = make_image("base:1", 2, seed=1, compression="gzip")
APP = make_image("app:1", 1, seed=2, base=BASE, compression="zstd")
ARM = make_image((), 1, seed=3, platform="linux/arm64", compression="gzip")
RISC = make_image((), 1, seed=4, platform="linux/riscv64", compression="gzip")
PROOF = attestation(ARM)
INNER = make_index(ARM, PROOF)
OUTER = make_index(APP, INNER, sparse=[RISC])
STRANGER = make_image("stranger:1", 1, seed=5, compression="gzip")

HELD = {
    "image ID": BASE.image_id,
    "manifest": BASE.digest,
    "index": OUTER.digest,
    "inner index": INNER.digest,
    "manifest below an index": APP.digest,
    "image ID below an index": APP.image_id,
    "manifest below two": ARM.digest,
    "image ID below two": ARM.image_id,
    "attestation": PROOF.digest,
}
NOT_HELD = {
    "nothing": sha256(b"nothing"),
    "layer": BASE.layers[0].digest,
    "platform not shipped": RISC.digest,
    "image ID not shipped": RISC.image_id,
    "other algorithm": "blake3:" + "a" * 64,
}


def inventory(imgtar: Imgtar) -> StoreInventory:
    return Store(str(imgtar.store)).inventory()


def cache(imgtar: Imgtar) -> Path:
    return imgtar.store / "imgtar" / "images"


def line(*words: str) -> bytes:
    body = " ".join(words).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    """A store with an image, and an index of indexes one platform of which is not there."""
    imgtar.load(oci_archive([BASE, (OUTER, ["outer:1"])])).ok()
    return imgtar


def as_it_is(path: Path) -> None:
    assert path.read_bytes().count(b"image ") == 3


def contradictions(path: Path) -> None:
    more = [line("index", digest) for digest in (OUTER.digest, INNER.digest)]
    more += [line("image", digest, STRANGER.image_id) for digest in (BASE.digest, APP.digest, ARM.digest)]
    path.write_bytes(path.read_bytes() + b"".join(more))


def lies(path: Path) -> None:
    """Everything that is not held is said to be, and every layer has every diff ID."""
    layers = [layer for image in (BASE, APP, ARM) for layer in image.layers]
    pairs = [f"{one.digest}={other.diff_id}" for one in layers for other in (*layers, *STRANGER.layers)]
    told = [line("index", BASE.digest, *NOT_HELD.values(), sha256(b"between"))]
    told += [line("image", sha256(b"between"), RISC.image_id, *pairs), line("index", BASE.layers[0].digest, "../../x")]
    told += [
        line("image", "sha256:zz", "\x1b[31m"),
        line("image"),
        line("other", BASE.digest),
        line("index", "x" * 999),
    ]
    path.write_bytes(b"".join(told))


states = pytest.mark.parametrize(
    "state",
    [as_it_is, *SPOILED, contradictions],
)


@states
def test_what_is_held_is_found_whatever_became_of_the_cache(state: Callable[[Path], None], filled: Imgtar) -> None:
    state(cache(filled))
    for _ in range(2):
        for what, digest in HELD.items():
            assert inventory(filled).has_image(Digest.parse(digest)), what
        for what, digest in NOT_HELD.items():
            assert not inventory(filled).has_image(Digest.parse(digest)), what


@states
@pytest.mark.parametrize("notes", [True, False], ids=["notes", "no notes"])
def test_a_layer_is_found_by_its_diff_id_whatever_became_of_the_cache(
    state: Callable[[Path], None], notes: bool, filled: Imgtar
) -> None:
    state(cache(filled))
    if not notes:
        shutil.rmtree(filled.store / "imgtar" / "layers")
        shutil.rmtree(filled.store / "imgtar" / "held")
    for image in (BASE, APP, ARM):
        for layer in image.layers:
            found = inventory(filled).layer_for(Digest.parse(layer.diff_id))
            assert found is not None
            assert (str(found.digest), found.size, found.media_type) == (
                layer.digest,
                len(layer.blob),
                layer.media_type,
            )
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None


def test_a_cache_full_of_lies_makes_nothing_held(filled: Imgtar) -> None:
    shutil.rmtree(filled.store / "imgtar" / "layers")
    lies(cache(filled))
    for what, digest in NOT_HELD.items():
        assert not inventory(filled).has_image(Digest.parse(digest)), what
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None
    for layer in APP.layers:
        found = inventory(filled).layer_for(Digest.parse(layer.diff_id))
        assert found is not None
        assert str(found.digest) == layer.digest


def test_an_image_that_lies_in_the_store_but_below_no_root_is_not_held_even_if_the_cache_says_so(
    filled: Imgtar,
) -> None:
    for digest, raw in STRANGER.document.blobs().items():
        (filled.store / "blobs" / digest.replace(":", "/")).write_bytes(raw)
    for told in (b"", line("image", BASE.digest, STRANGER.image_id), line("index", BASE.digest, STRANGER.digest)):
        cache(filled).write_bytes(told)
        for digest in (STRANGER.image_id, STRANGER.digest):
            assert not inventory(filled).has_image(Digest.parse(digest))


def test_the_cache_of_another_store_does_no_harm(filled: Imgtar, tmp_path: Path) -> None:
    filled.load(oci_archive([STRANGER]), store=tmp_path / "other").ok()
    shutil.copy(tmp_path / "other" / "imgtar" / "images", cache(filled))
    assert inventory(filled).has_image(Digest.parse(APP.image_id))
    assert not inventory(filled).has_image(Digest.parse(STRANGER.image_id))
    assert not inventory(filled).has_image(Digest.parse(STRANGER.digest))
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None


def test_what_another_tool_added_is_found_and_what_it_removed_is_not(filled: Imgtar) -> None:
    assert inventory(filled).has_image(Digest.parse(APP.image_id))
    index = json.loads((filled.store / "index.json").read_bytes())
    theirs = json.loads(next(m.data for m in oci_layout([STRANGER]).members if m.name == "index.json"))
    index["manifests"] = [entry for entry in index["manifests"] if entry["digest"] == BASE.digest] + theirs["manifests"]
    (filled.store / "index.json").write_text(json.dumps(index))
    for digest, raw in STRANGER.document.blobs().items():
        (filled.store / "blobs" / digest.replace(":", "/")).write_bytes(raw)
    assert inventory(filled).has_image(Digest.parse(STRANGER.image_id))
    assert inventory(filled).has_image(Digest.parse(STRANGER.digest))
    found = inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id))
    assert found is not None
    assert str(found.digest) == STRANGER.layers[0].digest
    for gone in (APP.image_id, APP.digest, OUTER.digest, INNER.digest):
        assert not inventory(filled).has_image(Digest.parse(gone))


def test_a_platform_that_comes_later_is_found(filled: Imgtar) -> None:
    assert not inventory(filled).has_image(Digest.parse(RISC.image_id))
    assert inventory(filled).layer_for(Digest.parse(RISC.layers[0].diff_id)) is None
    filled.load(oci_archive([(make_index(RISC), ["risc:1"])])).ok()
    filled("rmi", "risc:1").ok()
    assert inventory(filled).has_image(Digest.parse(RISC.image_id))
    assert inventory(filled).has_image(Digest.parse(RISC.digest))


@pytest.mark.parametrize("victim", [APP.digest, APP.image_id])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_an_image_whose_documents_are_damaged_is_not_held(victim: str, how: str, filled: Imgtar) -> None:
    path = filled.store / "blobs" / victim.replace(":", "/")
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"sha256", b"sha257"))
    assert not inventory(filled).has_image(Digest.parse(APP.image_id))
    assert inventory(filled).has_image(Digest.parse(BASE.image_id))


def test_a_store_that_cannot_be_written_answers_all_the_same(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(filled).unlink()
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert inventory(filled).has_image(Digest.parse(ARM.image_id))
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None
    assert not cache(filled).exists()


# -- what is asked of whom -------------------------------------------------------------------------------------------


def test_after_a_load_no_document_is_read_for_a_layer_that_nobody_has(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Digest] = []
    real = StoreInventory._content
    monkeypatch.setattr(StoreInventory, "_content", lambda *words: read.append(words[1]) or real(*words))  # type: ignore[func-returns-value]
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None
    assert not inventory(filled).has_image(Digest.parse(STRANGER.image_id))
    assert not read
    cache(filled).unlink()
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None
    assert read
    read.clear()
    assert inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id)) is None
    assert not read, "what was learned is kept"


def test_a_parent_is_proved_by_reading_one_image_only(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    real = StoreInventory._content
    monkeypatch.setattr(StoreInventory, "_content", lambda *words: read.add(str(words[1])) or real(*words))  # type: ignore[func-returns-value]
    assert inventory(filled).has_image(Digest.parse(BASE.image_id))
    assert read == {BASE.digest, BASE.image_id}


@pytest.mark.parametrize("image", [BASE, make_image("plain:1", 1, seed=9)], ids=["compressed", "plain"])
def test_a_layer_with_a_note_is_found_without_looking_at_any_image(
    image: Image, filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.load(oci_archive([image])).ok()

    def never(*arguments: Any) -> Any:
        raise AssertionError("asked for images")

    monkeypatch.setattr(ImageCache, "_known", never)
    found = inventory(filled).layer_for(Digest.parse(image.layers[0].diff_id))
    assert found is not None
    assert found.media_type == image.layers[0].media_type


def test_the_file_is_written_anew_when_most_of_it_is_of_images_that_are_gone(filled: Imgtar) -> None:
    true = cache(filled).read_bytes().strip().split(b"\n")
    gone = [line("image", sha256(b"%d" % number), sha256(b"c%d" % number)) for number in range(200)]
    cache(filled).write_bytes(b"".join(gone) + b"\n".join(true) + b"\n")
    inventory(filled).layer_for(Digest.parse(STRANGER.layers[0].diff_id))
    assert sorted(cache(filled).read_bytes().strip().split(b"\n")) == sorted(filter(None, true))
    assert inventory(filled).has_image(Digest.parse(ARM.image_id))


def test_a_file_that_only_loads_have_written_does_not_grow_without_end(filled: Imgtar) -> None:
    cache(filled).write_bytes(bytes(2 << 20))
    filled.load(oci_archive([STRANGER])).ok()
    assert cache(filled).stat().st_size < 1000
    assert inventory(filled).has_image(Digest.parse(APP.image_id))


# -- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pack", "declared", "told"),
    [
        (lambda tar: BASE.layers[0].blob, mediatype.DOCKER_LAYER_GZIP, mediatype.LAYER_GZIP),
        (lambda tar: BASE.layers[0].blob, mediatype.DOCKER_LAYER, mediatype.LAYER_GZIP),
        (bz2.compress, mediatype.DOCKER_LAYER, mediatype.DOCKER_LAYER),
    ],
    ids=["docker's gzip", "docker's raw", "bzip2"],
)
def test_a_held_layer_has_the_media_type_of_its_bytes(
    pack: Callable[[bytes], bytes], declared: str, told: str, imgtar: Imgtar
) -> None:
    tar = BASE.layers[0].tar if told == mediatype.LAYER_GZIP else layer_tar({"a": b"b"})
    layer = Layer(tar, pack(tar), None, declared)
    imgtar.load(oci_archive([make_image("odd:1", [layer], seed=11)])).ok()
    found = inventory(imgtar).layer_for(Digest.parse(layer.diff_id))
    assert found is not None
    assert (str(found.digest), found.media_type) == (layer.digest, told)


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
def test_a_docker_archive_without_a_layer_is_completed_and_its_parent_found(known: bool, filled: Imgtar) -> None:
    if not known:
        for name in ("images", "layers", "held"):
            path = filled.store / "imgtar" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    child = make_image("child:1", 1, seed=12, base=BASE)
    files = docker_files([child], "v1")
    layers = [member.name for member in files.members if member.name.endswith("layer.tar")]
    done = filled.load(files.without(layers[0]).tar(), "--json")
    assert done.code == 0, done.errors
    assert "child:1" in filled.names()
    filled("verify").ok()


def test_a_layer_that_nobody_has_is_missing(filled: Imgtar) -> None:
    files = docker_files([STRANGER]).without(f"{hexed(STRANGER.layers[0].digest)}.tar")
    done = filled.load(files.tar())
    assert done.code == 4, done.errors
    assert STRANGER.layers[0].diff_id in done.errors


@pytest.mark.parametrize("parent", ["image ID", "manifest"])
def test_an_archive_that_names_what_is_stored_as_parent_loads(parent: str, filled: Imgtar) -> None:
    child = make_image("child:1", 1, seed=13, base=BASE)

    def name_parent(items: Any, digest: str) -> None:
        items[0]["Parent"] = digest

    held = docker_files([child]).edited("manifest.json", lambda items: name_parent(items, HELD[parent]))
    unknown = docker_files([child]).edited("manifest.json", lambda items: name_parent(items, RISC.image_id))
    assert filled.load(unknown.tar()).code == 4
    filled.load(held.tar()).ok()
    filled("verify").ok()
