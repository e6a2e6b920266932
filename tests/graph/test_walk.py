"""From a root down: every digest once, no matter how many ways lead to it, and never deeper than is sane."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtar import frozen
from imgtar.errors import Refused
from imgtar.graph.walk import Walker, images_of, parts_of, platform_of
from imgtar.model.limits import Limits
from imgtar.model.platform import Platform
from tests.builders.images import EMPTY, Document, attestation, make_image, make_index, make_layer, sha256
from tests.graph.shelf import Item, blobs_of, descriptor_of, index_over, library_of


def grow(item: Item, limits: Limits | None = None) -> Any:
    walker = Walker(library_of(blobs_of(item)), limits or Limits())
    return walker.grow(descriptor_of(item))


def ladder(rungs: int, width: int = 2) -> Document:
    """Indexes above indexes, each naming the one below ``width`` times: width**rungs ways down, rungs+1 documents."""
    image = make_image(layers=1)
    below = image.document.blobs()
    descriptor: dict[str, Any] = image.document.descriptor()
    made = image.document
    for _ in range(rungs):
        made = index_over(*[descriptor] * width, below=below)
        below = made.blobs()
        descriptor = made.descriptor()
    return made


def test_many_ways_to_one_image_are_walked_once() -> None:
    limits = Limits(index_depth=100)
    node = grow(ladder(60, 3), limits)  # 3**60 ways: this test ends only when each node is looked at once.
    assert len(list(images_of(node))) == 1
    parts = list(parts_of(node))
    assert len(parts) == 60 + 3
    assert len({part.descriptor.digest for part in parts}) == len(parts)


def test_indexes_as_deep_as_the_limit_are_walked_and_one_deeper_is_refused() -> None:
    assert len(list(images_of(grow(ladder(3), Limits(index_depth=3))))) == 1
    with pytest.raises(Refused) as caught:
        grow(ladder(4), Limits(index_depth=3))
    assert caught.value.code == "E_LIMIT"


def test_an_index_wider_than_the_limit_is_refused() -> None:
    image = make_image(layers=1)
    listed = index_over(*[image.document.descriptor()] * 50, below=image.document.blobs())
    assert list(images_of(grow(listed, Limits(descriptors=53))))
    with pytest.raises(Refused) as caught:
        grow(listed, Limits(descriptors=49))
    assert caught.value.code == "E_LIMIT"


def test_a_digest_with_two_sizes_is_refused() -> None:
    image = make_image(layers=2)

    def lie(manifest: Any) -> None:
        manifest["layers"][1] = {**manifest["layers"][0], "size": manifest["layers"][0]["size"] + 1}

    with pytest.raises(Refused) as caught:
        grow(image.with_manifest(lie))
    assert caught.value.code == "E_SIZE"


@pytest.mark.parametrize("role", ["config", "layer"])
def test_a_manifest_that_is_also_used_as_something_else_is_refused(role: str) -> None:
    inner = make_image(layers=1)

    def lie(manifest: Any) -> None:
        place = manifest["config"] if role == "config" else manifest["layers"][0]
        place["digest"], place["size"] = inner.digest, len(inner.manifest)

    outer = make_image(layers=1, seed=2).with_manifest(lie)
    both = make_index(inner, outer)
    with pytest.raises(Refused) as caught:
        grow(both)
    assert caught.value.code == "E_TYPE"


def test_the_empty_descriptor_may_be_config_and_layer_at_once() -> None:
    descriptor = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(EMPTY), "size": 2}
    raw = json.dumps({"schemaVersion": 2, "config": descriptor, "layers": [descriptor]}).encode()
    artifact = Document(raw, "application/vnd.oci.image.manifest.v1+json", None, {}, {sha256(EMPTY): EMPTY})
    node = grow(artifact)
    assert not node.is_image
    assert [str(part.descriptor.digest) for part in parts_of(node)] == [sha256(EMPTY), artifact.digest]


@pytest.mark.parametrize("change", [lambda ids: ids[:-1], lambda ids: [*ids, ids[0]]], ids=["fewer", "more"])
def test_another_number_of_diff_ids_than_layers_is_refused(change: Any) -> None:
    def lie(config: Any) -> None:
        config["rootfs"]["diff_ids"] = change(config["rootfs"]["diff_ids"])

    with pytest.raises(Refused) as caught:
        grow(make_image().with_config(lie))
    assert caught.value.code == "E_DIFFID"


def test_a_document_that_is_not_here_is_absent_and_its_parts_unknown() -> None:
    image = make_image()
    index = make_index(image)
    blobs = blobs_of(index)
    del blobs[image.digest]
    node = Walker(library_of(blobs)).grow(descriptor_of(index))
    assert [child.absent for child in node.children] == [True]
    assert [str(part.descriptor.digest) for part in parts_of(node)] == [image.digest, index.digest]


def test_parts_stand_children_first_and_layers_in_order_with_their_diff_ids() -> None:
    image = make_image(compression="gzip")
    index = make_index(image)
    parts = list(parts_of(grow(index)))
    assert [part.kind for part in parts] == ["layer", "layer", "layer", "config", "manifest", "index"]
    assert [(str(part.diff_id), part.position) for part in parts[:3]] == [
        (layer.diff_id, place) for place, layer in enumerate(image.layers, 1)
    ]


def test_a_pruned_child_keeps_what_it_shares_with_another() -> None:
    base = make_image("base:1", 1)
    left, right = make_image(base=base, seed=2), make_image(base=base, seed=3, platform="linux/arm64")
    node = grow(make_index(left, right))
    kept = {str(part.descriptor.digest) for part in parts_of(node, lambda child: child is not node.children[1])}
    assert base.layers[0].digest in kept
    assert kept & {layer.digest for layer in right.layers} == {base.layers[0].digest}
    assert right.digest not in kept


def test_an_attestation_is_no_image() -> None:
    image = make_image()
    index = make_index(image, attestation(image))
    node = grow(index)
    assert [str(found.descriptor.digest) for found in images_of(node)] == [image.digest]
    assert [child.is_attestation for child in node.children] == [False, True]
    assert not node.children[1].is_image


def test_an_artifact_with_a_config_of_its_own_kind_is_no_image() -> None:
    def helm(manifest: Any) -> None:
        manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"

    assert not grow(make_image().with_config(b'{"name":"chart"}').with_manifest(helm)).is_image
    # containerd looks at the content alone: what reads as the config of an image makes one.
    assert grow(make_image().with_manifest(helm)).is_image


def test_the_platform_is_what_the_descriptor_says_else_what_the_config_says() -> None:
    image = make_image(platform="linux/arm/v6")
    node = grow(image)
    assert str(platform_of(node)) == "linux/arm/v6"
    bare = frozen.replace(node, descriptor=frozen.replace(node.descriptor, platform=None))
    assert str(platform_of(bare)) == "linux/arm/v6"
    told = frozen.replace(node, descriptor=frozen.replace(node.descriptor, platform=Platform("linux", "riscv64")))
    assert str(platform_of(told)) == "linux/riscv64"
    assert platform_of(frozen.replace(bare, config=None)) is None


def test_a_thing_of_unknown_kind_is_carried_as_one_opaque_blob() -> None:
    thing = Document(b"\x00anything", "application/x.unknown")
    node = grow(make_index(thing))
    assert node.children[0].opaque
    assert [part.kind for part in parts_of(node)] == ["blob", "index"]


def test_a_foreign_layer_is_marked() -> None:
    layer = replace(make_layer(b"x" * 10), media_type="application/vnd.oci.image.layer.nondistributable.v1.tar")
    parts = list(parts_of(grow(make_image(layers=[layer, make_layer(b"y" * 10)]))))
    assert [part.foreign for part in parts if part.kind == "layer"] == [True, False]


def test_an_index_entry_without_a_media_type_is_known_by_its_content() -> None:
    image = make_image()
    descriptor = {key: value for key, value in image.document.descriptor().items() if key != "mediaType"}
    node = grow(index_over(descriptor, below=image.document.blobs()))
    assert node.children[0].is_image


@given(st.data())
def test_the_parts_of_any_graph_are_exactly_what_can_be_reached_each_once_and_below_before_above(data: Any) -> None:
    pool: list[Document] = [
        make_image(layers=data.draw(st.integers(0, 3)), seed=seed % 3).document
        for seed in range(data.draw(st.integers(1, 4)))
    ]
    edges: dict[str, set[str]] = {each.digest: set(each.below) for each in pool}
    for level in range(data.draw(st.integers(0, 5))):
        children = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))
        below = {digest: raw for child in children for digest, raw in child.blobs().items()}
        made = index_over(*[child.descriptor() for child in children], below=below, annotations={"level": str(level)})
        edges[made.digest] = {child.digest for child in children}
        pool.append(made)
    top = pool[-1]
    parts = [str(part.descriptor.digest) for part in parts_of(grow(top, Limits(index_depth=10)))]
    assert len(parts) == len(set(parts))
    assert set(parts) == set(top.blobs())
    place = {digest: at for at, digest in enumerate(parts)}
    for above, under in edges.items():
        assert all(place[each] < place[above] for each in under if above in place)
