"""The dependency tree: who stands on whom by every kind of evidence, and what is shared, to the byte."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.frozen import replace
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.catalog import Catalog, Draft, Root, Slot
from imgtar.graph.deps import MOST, DependencyTree, ImageDeps, dependency_tree
from imgtar.graph.inventory import EmptyInventory
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_config
from tests.builders.images import Document, Image, Layer, attestation, make_image, make_index, make_layer, random_layer
from tests.graph.shelf import blobs_of, catalog_of, root_of

BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)
TOP = make_image("top:1", 1, seed=3, base=APP)
OTHER = make_image("other:1", 1, seed=4)
NOBODY = "sha256:" + "ab" * 32


def tree_of(*roots: Root | Image | Document, catalog: Catalog | None = None, **more: Any) -> DependencyTree:
    archive = catalog if catalog is not None else catalog_of(*roots, **more)
    candidates, lost = grow_candidates([archive], EmptyInventory())
    return dependency_tree(candidates, [root for root, _ in lost], lambda digest: digest in archive.offers)


def named(tree: DependencyTree, title: str) -> ImageDeps:
    return next(image for image in tree.images if image.title == title)


def shape(tree: DependencyTree) -> dict[str, str | None]:
    """Each image's title, and that of the image it is drawn under."""
    return {
        image.title: tree.everything[image.above].title if image.above is not None else None for image in tree.images
    }


def learned(tree: DependencyTree, title: str) -> tuple[str | None, bool]:
    parent = named(tree, title).parent
    return (parent.learned_from, parent.present) if parent is not None else (None, False)


def annotated(image: Image, **annotations: str) -> Image:
    def edit(manifest: Any) -> None:
        manifest["annotations"] = {f"org.opencontainers.image.base.{key}": text for key, text in annotations.items()}

    return image.with_manifest(edit)


def with_parent(image: Image, parent: str) -> Image:
    return image.with_config(lambda config: config.update(parent=parent))


# -- by layers -------------------------------------------------------------------------------------------------------


def test_an_image_that_starts_with_all_layers_of_another_stands_on_it() -> None:
    tree = tree_of(TOP, APP, BASE, OTHER)
    assert shape(tree) == {"base:1": None, "app:1": "base:1", "top:1": "app:1", "other:1": None}
    assert learned(tree, "top:1") == ("layers", True)
    assert named(tree, "base:1").parent is None


def test_parents_come_before_their_children() -> None:
    assert [image.title for image in tree_of(TOP, OTHER, APP, BASE).images] == ["base:1", "app:1", "top:1", "other:1"]


def test_compression_does_not_hide_the_base() -> None:
    packed = make_image("packed:1", [*(make_layer(one.tar, "gzip") for one in BASE.layers), random_layer(77)])
    assert shape(tree_of(BASE, packed))["packed:1"] == "base:1"


def test_images_with_the_same_layers_are_siblings() -> None:
    twin = BASE.named("twin:1").with_config(lambda config: config.update(author="somebody else"))
    tree = tree_of(BASE, twin, APP)
    assert shape(tree) == {"base:1": None, "app:1": "base:1", "twin:1": None}


def test_of_several_that_fit_the_one_with_a_name_is_the_base() -> None:
    twin = BASE.named().with_config(lambda config: config.update(author="a"))
    assert shape(tree_of(twin, BASE, APP))["app:1"] == "base:1"


def test_an_image_without_layers_is_nobodys_base() -> None:
    empty = make_image("empty:1", 0)
    tree = tree_of(empty, BASE)
    assert shape(tree) == {"base:1": None, "empty:1": None}


def test_an_image_of_another_platform_is_no_base() -> None:
    arm = make_image("arm:1", BASE.layers, platform="linux/arm64")
    assert shape(tree_of(arm, APP))["app:1"] is None
    assert shape(tree_of(arm, BASE, APP))["app:1"] == "base:1"


def test_the_spelling_of_a_platform_does_not_matter() -> None:
    base = make_image("base:1", 1, seed=5, platform="linux/arm64")
    app = make_image("app:1", 1, seed=6, platform="linux/aarch64/v8", base=base)
    assert shape(tree_of(base, app))["app:1"] == "base:1"


# -- by what is said ---------------------------------------------------------------------------------------------------


def test_a_declared_parent_counts_before_the_layers() -> None:
    tree = tree_of(BASE, OTHER, root_of(APP, parent=OTHER.image_id), blobs=blobs_of(BASE, OTHER, APP))
    assert shape(tree)["app:1"] == "other:1"
    assert learned(tree, "app:1") == ("the test", True)
    assert named(tree, "app:1").family.base is None


def test_a_declared_parent_that_is_not_here_stays_the_parent_and_the_base_is_told_besides() -> None:
    tree = tree_of(BASE, root_of(APP, parent=NOBODY), blobs=blobs_of(BASE, APP))
    app = tree.to_json()[1]
    assert app["parent"] == {
        "image_id": NOBODY,
        "digest": None,
        "name": None,
        "learned_from": "the test",
        "present": False,
    }
    assert app["base"]["image_id"] == BASE.image_id
    assert (app["base"]["learned_from"], app["base"]["present"]) == ("layers", True)
    assert shape(tree)["app:1"] == "base:1"
    assert tree.to_json()[0]["children"] == [APP.image_id]


@pytest.mark.parametrize("also", [{}, {"name": "docker.io/library/base:1"}])
def test_the_base_annotations_may_name_a_manifest(also: dict[str, str]) -> None:
    app = annotated(make_image("app:1", 1, seed=9), digest=BASE.digest, **also)
    tree = tree_of(BASE, app)
    assert learned(tree, "app:1") == ("base annotations", True)
    assert shape(tree)["app:1"] == "base:1"


def test_the_base_annotations_may_name_an_index_and_mean_its_image_of_the_platform() -> None:
    arm = make_image((), 1, seed=7, platform="linux/arm64")
    index = make_index(BASE.named(), arm)
    app = annotated(make_image("app:1", 1, seed=8, platform="linux/arm64/v8"), digest=index.digest)
    tree = tree_of(root_of(index, ["multi:1"]), app, blobs=blobs_of(index, app))
    assert shape(tree)["app:1"] == "multi:1 (linux/arm64)"
    parent = named(tree, "app:1").parent
    assert parent is not None
    assert (str(parent.image_id), str(parent.digest)) == (arm.image_id, index.digest)


def test_the_base_annotations_may_give_a_name_alone() -> None:
    app = annotated(make_image("app:1", 1, seed=9), name="docker.io/library/base:1")
    assert shape(tree_of(BASE, app))["app:1"] == "base:1"


def test_an_image_that_took_over_the_name_of_its_base_is_not_its_own_base() -> None:
    app = annotated(make_image("app:1", 1, seed=9), name="app:1")
    tree = tree_of(app)
    assert learned(tree, "app:1") == ("base annotations", False)
    assert not named(tree, "app:1").circular


def test_a_name_is_not_believed_against_its_digest() -> None:
    app = annotated(APP, digest=NOBODY, name="base:1")
    parent = named(tree_of(BASE, app), "app:1").parent
    assert parent is not None
    assert (str(parent.digest), parent.name, parent.present) == (NOBODY, "base:1", False)


@pytest.mark.parametrize("text", ["", "nonsense", "sha256:12"])
def test_an_annotation_that_is_no_digest_is_passed_over(text: str) -> None:
    assert learned(tree_of(BASE, annotated(APP, digest=text)), "app:1") == ("layers", True)


def test_a_parent_in_the_config_counts_before_the_layers_and_after_the_annotations() -> None:
    app = with_parent(APP, OTHER.image_id)
    assert learned(tree_of(BASE, OTHER, app), "app:1") == ("parent in the config", True)
    assert shape(tree_of(BASE, OTHER, app))["app:1"] == "other:1"
    both = annotated(app, digest=BASE.digest)
    assert shape(tree_of(BASE, OTHER, both))["app:1"] == "base:1"


# -- circles and depth -------------------------------------------------------------------------------------------------


def test_a_circle_of_parents_is_cut_at_the_image_with_the_fewest_layers() -> None:
    roots = [root_of(APP, parent=TOP.image_id), root_of(TOP, parent=BASE.image_id), root_of(BASE, parent=APP.image_id)]
    tree = tree_of(*roots, blobs=blobs_of(APP, TOP, BASE))
    assert shape(tree) == {"base:1": None, "top:1": "base:1", "app:1": "top:1"}
    assert named(tree, "base:1").circular
    assert learned(tree, "base:1") == ("the test", True)
    assert [image.title for image in tree.around([Digest.parse(TOP.digest)]).images] == ["base:1", "top:1", "app:1"]


def test_an_image_that_is_its_own_parent_is_drawn_once() -> None:
    tree = tree_of(root_of(APP, parent=APP.image_id), blobs=blobs_of(APP))
    assert shape(tree) == {"app:1": None}
    assert tree.to_json()[0]["children"] == []


def test_a_chain_of_a_thousand_images_is_a_tree_like_any_other() -> None:
    layers = [random_layer(place, size=1) for place in range(1000)]
    images = [make_image(f"app:{count:04}", layers[: count % 10 + 1], seed=count) for count in range(1000)]
    roots = [root_of(image, parent=images[place - 1].image_id if place else None) for place, image in enumerate(images)]
    archive = catalog_of(*roots, blobs=blobs_of(*images))
    candidates, _ = grow_candidates([archive], EmptyInventory())
    start = time.process_time()
    tree = dependency_tree(candidates, (), lambda digest: True)
    spent = time.process_time() - start
    assert [image.title for image in tree.images] == [image.name for image in images]
    assert len(tree.around([Digest.parse(images[500].digest)]).images) == 1000
    assert spent < 10, "a tree of 1,000 images must not compare all with all"  # It takes a third of a second.


# -- what there is -----------------------------------------------------------------------------------------------------


def test_every_platform_of_an_index_is_an_image_and_nothing_else_in_it_is() -> None:
    arm = make_image((), 1, seed=7, platform="linux/arm64")
    gone = make_image((), 1, seed=8, platform="linux/386")
    index = make_index(BASE.named(), arm, attestation(arm), sparse=[gone])
    tree = tree_of(root_of(index, ["multi:1"]), APP, blobs=blobs_of(index, APP))
    assert shape(tree) == {
        "multi:1 (linux/amd64)": None,
        "multi:1 (linux/arm64)": None,
        "app:1": "multi:1 (linux/amd64)",
    }


def test_an_image_that_is_also_in_an_index_is_one_image_with_both_names() -> None:
    index = make_index(BASE)
    tree = tree_of(root_of(index, ["multi:1"]), BASE, blobs=blobs_of(index, BASE))
    (image,) = tree.images
    assert image.facts.names == ("multi:1", "base:1")


def draft_of(image: Image, without: Iterable[Layer] = ()) -> Root:
    layers = [Descriptor(one.media_type, Digest.parse(one.digest), len(one.blob)) for one in image.layers]
    left_out = {one.digest for one in without}
    slots = tuple(
        Slot(Digest.parse(one.diff_id), None if one.digest in left_out else layer)
        for one, layer in zip(image.layers, layers, strict=True)
    )
    config = Descriptor("application/vnd.oci.image.config.v1+json", Digest.parse(image.image_id), len(image.config))
    draft = Draft(config, parse_config(image.config, "test"), slots)
    return replace(root_of(image), descriptor=None, draft=draft)


def test_a_draft_has_no_digest_but_all_the_rest() -> None:
    tree = tree_of(draft_of(BASE), draft_of(APP), blobs=blobs_of(BASE, APP))
    app = next(each for each in tree.to_json() if each["names"] == ["app:1"])
    assert app["digest"] is None
    assert app["parent"]["image_id"] == BASE.image_id
    assert app["parent"]["digest"] is None
    assert [layer["present"] for layer in app["layers"]] == [True] * 4


def test_a_draft_whose_layers_nobody_has_is_in_the_tree_and_they_are_absent() -> None:
    tree = tree_of(BASE, draft_of(APP, APP.layers), blobs=blobs_of(BASE))
    app = next(each for each in tree.to_json() if each["names"] == ["app:1"])
    assert app["parent"]["image_id"] == BASE.image_id
    assert [layer["present"] for layer in app["layers"]] == [True, True, False, False]
    assert [layer["digest"] for layer in app["layers"]][2:] == [None, None]
    assert app["own_bytes"] == 0
    assert app["size"] == len(APP.config) + sum(len(layer.blob) for layer in BASE.layers)


def test_an_image_without_its_config_still_shares_its_layers() -> None:
    tree = tree_of(BASE, APP, without=[APP.image_id])
    app = named(tree, "app:1")
    assert [layer.diff_id for layer in app.layers] == [None] * 4
    assert [len(layer.shared_with) for layer in app.layers] == [1, 1, 0, 0]
    assert app.parent is None


def test_absent_layers_are_told() -> None:
    tree = tree_of(APP, without=[APP.layers[1].digest])
    assert [layer.present for layer in named(tree, "app:1").layers] == [True, False, True, True]


# -- what is shared ------------------------------------------------------------------------------------------------------


def test_what_is_shared_is_told_of_layers_images_and_groups() -> None:
    tree = tree_of(BASE, APP, OTHER)
    app = next(each for each in tree.to_json() if each["names"] == ["app:1"])
    size = sum(len(layer.blob) for layer in BASE.layers)
    assert app["shared"] == [{"names": ["base:1"], "image_id": BASE.image_id, "layers": 2, "bytes": size}]
    assert [layer["shared_with"] for layer in app["layers"]] == [["base:1"], ["base:1"], [], []]
    assert app["own_bytes"] == sum(len(layer.blob) for layer in APP.layers[2:])
    (group,) = tree.groups
    assert (group.layers, group.size) == (2, size)
    assert {tree.everything[place].title for place in group.places} == {"app:1", "base:1"}


def test_a_layer_in_another_compression_is_the_same_layer() -> None:
    packed = make_image("packed:1", [make_layer(one.tar, "gzip") for one in BASE.layers])
    tree = tree_of(BASE, packed)
    assert [image.own_size for image in tree.images] == [0, 0]
    share = named(tree, "packed:1").shared[0]
    assert (share.layers, share.size) == (2, sum(len(layer.blob) for layer in packed.layers))


def test_a_layer_that_stands_twice_counts_once() -> None:
    layer = random_layer(1)
    image = named(tree_of(make_image("twice:1", [layer, random_layer(2), layer])), "twice:1")
    assert image.own_size == len(layer.blob) + len(random_layer(2).blob)
    assert len(image.layers) == 3


def test_of_very_many_that_share_only_some_are_listed_but_own_bytes_are_exact() -> None:
    images = [make_image(f"app:{place}", 1, seed=100 + place, base=BASE) for place in range(MOST + 10)]
    tree = tree_of(BASE, *images)
    for image in tree.images:
        assert len(image.shared) == MOST
        assert {len(layer.shared_with) for layer in image.layers} <= {0, MOST}
        assert image.place not in image.layers[0].shared_with
    assert all(image.own_size == len(image_layer(images, image).blob) for image in tree.images[1:])


def image_layer(images: Sequence[Image], found: ImageDeps) -> Layer:
    return next(image for image in images if image.name == found.title).layers[-1]


def test_around_an_image_are_what_it_stands_on_and_what_stands_on_it() -> None:
    tool = make_image("tool:1", 1, seed=5, base=BASE)
    near = tree_of(BASE, APP, TOP, OTHER, tool).around([Digest.parse(APP.digest)])
    assert [image.title for image in near.images] == ["base:1", "app:1", "top:1"]
    assert near.to_json()[0]["children"] == [APP.image_id]
    assert near.to_json()[0]["layers"][0]["shared_with"] == ["app:1", "tool:1", "top:1"]


# -- any store -----------------------------------------------------------------------------------------------------------

POOL = [random_layer(seed, size=10 + seed) for seed in range(40)]


@st.composite
def forests(draw: st.DrawFn) -> list[int | None]:
    """For each image the one that it stands on, an earlier one, if any."""
    count = draw(st.integers(1, 10))
    return [draw(st.none() | st.integers(0, place - 1)) if place else None for place in range(count)]


@given(forests(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_images_built_upon_each_other_give_back_just_that_forest(forest: list[int | None], chance: Any) -> None:
    images: list[Image] = []
    for place, above in enumerate(forest):
        own = [POOL[place * 3 + more] for more in range(chance.randint(1, 3))]
        images.append(make_image(f"app:{place}", own, base=images[above] if above is not None else None))
    shuffled = list(images)
    chance.shuffle(shuffled)
    expected = {f"app:{place}": f"app:{above}" if above is not None else None for place, above in enumerate(forest)}
    tree = tree_of(*shuffled)
    assert shape(tree) == expected
    order = [image.title for image in tree.images]
    assert all(above is None or order.index(above) < order.index(title) for title, above in expected.items())


@given(st.lists(st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=5), min_size=1, max_size=6))
@settings(max_examples=60)
def test_own_bytes_and_shares_are_what_comparing_everything_gives(stacks: list[list[tuple[int, bool]]]) -> None:
    images = [
        make_image(
            f"app:{place}", [make_layer(POOL[at].tar, "gzip" if packed else None) for at, packed in stack], seed=place
        )
        for place, stack in enumerate(stacks)
    ]
    tree = tree_of(*images)
    for image in images:
        found = named(tree, image.name)
        others = {layer.diff_id for other in images if other is not image for layer in other.layers}
        own = {layer.digest: len(layer.blob) for layer in image.layers if layer.diff_id not in others}
        assert found.own_size == sum(own.values())
        expected = {}
        for other in images:
            theirs = {layer.diff_id for layer in other.layers}
            common = {layer.digest: layer for layer in image.layers if layer.diff_id in theirs}
            if other is not image and common:
                layers = len({layer.diff_id for layer in common.values()})
                expected[other.name] = (layers, sum(len(layer.blob) for layer in common.values()))
        assert {tree.everything[s.place].title: (s.layers, s.size) for s in found.shared} == expected
        for layer, told in zip(image.layers, found.layers, strict=True):
            holders = {o.name for o in images if o is not image and layer.diff_id in {x.diff_id for x in o.layers}}
            assert {tree.everything[place].title for place in told.shared_with} == holders


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8))
@settings(max_examples=60)
def test_whatever_parents_are_declared_every_image_is_drawn_once(parents: list[int]) -> None:
    images = [make_image(f"app:{place}", [POOL[place]]) for place in range(len(parents))]
    roots = [root_of(image, parent=images[parents[place] % len(images)].image_id) for place, image in enumerate(images)]
    tree = tree_of(*roots, blobs=blobs_of(*images))
    assert sorted(image.title for image in tree.images) == sorted(image.name for image in images)
    drawn: set[int] = set()
    for image in tree.images:
        assert image.above is None or image.above in drawn
        drawn.add(image.place)
    json.dumps(list(tree.to_json()))
