"""Images from before Docker 1.10: parent chains and what becomes of them, without any archive."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from imgtar.errors import Refused
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.library import Library
from imgtar.graph.plan import Missing, Plan
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.graph.v1 import Chains, Step, V1Image, convert, parse_v1
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference

A, B, C, D = (letter * 64 for letter in "abcd")
FEW = Limits(layers_per_image=3, images=2)


def v1(identity: str, parent: str = "", *, label: str = "one.tar", layer: bytes | None = b"?", **more: Any) -> V1Image:
    """An image whose layer is the text ``layer`` (by default one of its own), or not there."""
    document = {"id": identity, **({"parent": parent} if parent else {}), "docker_version": "1.9.1", **more}
    image = parse_v1(identity, label, json.dumps(document).encode())
    if layer is None:
        return image
    content = layer if layer != b"?" else identity.encode()
    digest = Digest.of(content)
    made = Descriptor(mediatype.LAYER, digest, len(content))
    return V1Image(identity, label, image.raw, image.value, image.history, digest, made)


def table(*images: V1Image) -> dict[str, V1Image]:
    return {image.identity: image for image in images}


def chain(images: Mapping[str, V1Image], top: str, limits: Limits = FEW) -> Step:
    return Chains(images.get, limits).up_to(images[top])


def catalog(label: str, images: Sequence[V1Image], tags: Mapping[str, str] | None = None) -> Catalog:
    """The catalog of an archive in which no chain is whole."""
    images = [V1Image(i.identity, label, i.raw, i.value, i.history, i.diff_id, i.layer) for i in images]
    heads = {image.identity for image in images} - {image.parent for image in images}
    roots = []
    for identity in sorted(heads | set((tags or {}).values())):
        names = [name for name, meant in (tags or {}).items() if meant == identity]
        references = tuple(Reference.parse(name) for name in names)
        roots.append(Root(None, tuple(names), references, v1_id=identity))
    offers = {image.layer.digest: image.layer.size for image in images if image.layer is not None}
    return Catalog(label, "docker-legacy", "none", tuple(roots), Library([]), offers, v1=table(*images))


def plan_of(*catalogs: Catalog, limits: Limits = DEFAULT_LIMITS, **policy: Any) -> Plan:
    return resolve(catalogs, EmptyInventory(), Policy(**policy), limits)


# -- conversion ------------------------------------------------------------------------------------------------------


def test_the_config_names_the_layers_from_the_bottom_and_leaves_out_the_links_between_images() -> None:
    images = table(
        v1(A, container_config={"Cmd": ["/bin/sh", "-c", "echo <a>"]}, Size=7),
        v1(B, A, author="me & you", created="2024-01-02T03:04:05.600Z", layer_id="x", config={"Env": ["A=1"]}),
    )
    raw = convert(chain(images, B))
    config = json.loads(raw)
    assert config["rootfs"] == {"type": "layers", "diff_ids": [str(images[A].diff_id), str(images[B].diff_id)]}
    assert [entry.get("created_by") for entry in config["history"]] == ["/bin/sh -c echo <a>", None]
    assert config["history"][1] == {"created": "2024-01-02T03:04:05.6Z", "author": "me & you"}
    assert not {"id", "parent", "Size", "layer_id"} & set(config)
    assert list(config) == sorted(config)
    assert b"\\u003ca\\u003e" in raw, "as Go writes it"


def test_the_json_of_an_old_docker_loses_what_the_v1_struct_does_not_know() -> None:
    images = table(v1(A, docker_version="1.8.2", unknown=1))
    assert "unknown" not in json.loads(convert(chain(images, A)))
    images = table(v1(A, docker_version="1.8.3", unknown=1))
    assert json.loads(convert(chain(images, A)))["unknown"] == 1


@pytest.mark.parametrize(
    ("config", "written"),
    [
        ({"Env": [None, "A=1"]}, '"Env":["","A=1"]'),
        ({"Cmd": ["a", None]}, '"Cmd":["a",""]'),
        ({"Volumes": {"/x": None}}, '"Volumes":{"/x":{}}'),
        ({"ExposedPorts": {"80/tcp": {"a": 1}}}, '"ExposedPorts":{"80/tcp":{}}'),
        ({"StopTimeout": 0}, '"StopTimeout":0'),
        (
            {"Healthcheck": {"Retries": 3, "Interval": 7, "Timeout": 0, "Test": ["CMD"]}},
            '"Healthcheck":{"Test":["CMD"],"Interval":7,"Retries":3}',
        ),
        ({"Healthcheck": {"Retries": None}}, '"Healthcheck":{}'),
    ],
)
def test_the_json_of_an_old_docker_has_what_the_types_of_go_hold(config: dict[str, Any], written: str) -> None:
    # Docker 20.10 gives the same image IDs.
    images = table(v1(A, docker_version="1.8.2", config=config))
    assert written in convert(chain(images, A)).decode()


@pytest.mark.parametrize(
    "document",
    [
        b"[]",
        b'{"Parent":"a"}',
        b'{"parent":1}',
        b'{"created":"yesterday"}',
        b'{"container_config":{"Cmd":[1]}}',
        b'{"config":{"env":[]}}',
    ],
)
def test_a_document_that_could_not_be_converted_without_doubt_is_refused(document: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_v1(A, "one.tar", document)
    assert caught.value.code == "E_JSON"
    assert caught.value.where == f"one.tar: {A}/json"


# -- chains ----------------------------------------------------------------------------------------------------------


def test_a_chain_is_whole_down_to_an_image_without_a_parent_when_every_layer_is_there() -> None:
    assert chain(table(v1(A), v1(B, A)), B).whole
    assert not chain(table(v1(A, layer=None), v1(B, A)), B).whole
    assert not chain(table(v1(B, A)), B).whole
    assert chain(table(v1(A), v1(B, A, layer=None)), A).whole


@pytest.mark.parametrize("parents", [{A: A}, {A: B, B: A}, {A: B, B: C, C: B}])
def test_a_loop_is_refused_wherever_it_is_entered(parents: dict[str, str]) -> None:
    images = table(*(v1(identity, parent) for identity, parent in parents.items()))
    for top in parents:
        with pytest.raises(Refused) as caught:
            chain(images, top, Limits())
        assert caught.value.code == "E_GRAPH"


def test_a_chain_may_be_as_long_as_an_image_may_have_layers_and_no_longer() -> None:
    images = table(v1(A), v1(B, A), v1(C, B), v1(D, C))
    assert chain(images, C).height == 3
    chains = Chains(images.get, FEW)
    chains.up_to(images[B])
    for known in (chains, Chains(images.get, FEW)):
        with pytest.raises(Refused) as caught:
            known.up_to(images[D])
        assert caught.value.code == "E_LIMIT"


def test_a_chain_deeper_than_python_recurses_is_followed_and_one_over_the_limit_refused() -> None:
    images = table(*(v1(f"{n:064x}", f"{n - 1:064x}" if n else "") for n in range(3000)))
    assert chain(images, f"{2999:064x}", Limits(layers_per_image=3000)).whole
    with pytest.raises(Refused) as caught:
        chain(images, f"{2999:064x}", Limits())
    assert caught.value.code == "E_LIMIT"


# -- several archives ------------------------------------------------------------------------------------------------


def test_archives_complete_each_other_in_any_order_to_the_image_that_one_would_hold() -> None:
    images = [v1(A), v1(B, A), v1(C, B)]
    (whole,) = plan_of(catalog("all.tar", images, {"app:1": C})).images
    for parts in itertools.permutations(images):
        catalogs = [
            catalog(f"{part.identity[0]}.tar", [part], {"app:1": C} if part is images[2] else {}) for part in parts
        ]
        plan = plan_of(*catalogs)
        assert plan.complete
        assert plan.images == (whole,), "and no image without a name for what is only a parent"
        assert {write.catalog.label for write in plan.writes if write.kind == "layer" and write.catalog} == {
            "a.tar",
            "b.tar",
            "c.tar",
        }


def test_a_layer_and_the_json_of_its_image_may_come_from_two_archives() -> None:
    thin = catalog("thin.tar", [v1(A, layer=None), v1(B, A)], {"app:1": B})
    fat = catalog("fat.tar", [v1(A), v1(B, A, layer=None)])
    for catalogs in ((thin, fat), (fat, thin)):
        plan = plan_of(*catalogs)
        assert plan.complete
        assert [image.names for image in plan.images] == [("app:1",)]


def test_a_parent_that_has_a_name_stays_an_image_of_its_own() -> None:
    low, high = catalog("low.tar", [v1(A)], {"base:1": A}), catalog("high.tar", [v1(B, A)], {"app:1": B})
    assert {image.names for image in plan_of(high, low).images} == {("app:1",), ("base:1",)}


@pytest.mark.parametrize(
    ("other", "what"),
    [(v1(A, comment="another"), "json"), (v1(A, layer=b"other bytes"), "layer.tar")],
    ids=["json", "layer"],
)
def test_one_id_with_two_contents_is_refused_whatever_the_order(other: V1Image, what: str) -> None:
    catalogs = [
        catalog("one.tar", [v1(A)]),
        catalog("two.tar", [other]),
        catalog("app.tar", [v1(B, A)], {"app:1": B}),
    ]
    for order in itertools.permutations(catalogs):
        with pytest.raises(Refused) as caught:
            plan_of(*order)
        assert caught.value.code == "E_GRAPH"
        assert f"{A}/{what}" in str(caught.value)


def test_one_layer_in_two_compressions_gives_one_image_whatever_the_order() -> None:
    plain = v1(A)
    packed = Descriptor(mediatype.LAYER_GZIP, Digest.of(b"packed"), 6)
    other = V1Image(A, "", plain.raw, plain.value, plain.history, plain.diff_id, packed)
    app = catalog("app.tar", [v1(B, A)], {"app:1": B})
    plans = [
        plan_of(*order)
        for order in itertools.permutations([catalog("plain.tar", [plain]), catalog("gzip.tar", [other]), app])
    ]
    assert len({plan.images for plan in plans}) == 1
    assert all(packed.digest not in {write.digest for write in plan.writes} for plan in plans)


def test_a_loop_and_a_length_that_only_exist_over_several_archives_are_refused() -> None:
    loop = [catalog("one.tar", [v1(A, B)], {"app:1": A}), catalog("two.tar", [v1(B, A)])]
    long = [catalog("one.tar", [v1(A), v1(B, A)]), catalog("two.tar", [v1(C, B), v1(D, C)], {"app:1": D})]
    for catalogs, code in ((loop, "E_GRAPH"), (long, "E_LIMIT")):
        for order in (catalogs, catalogs[::-1]):
            with pytest.raises(Refused) as caught:
                plan_of(*order, limits=FEW)
            assert caught.value.code == code


# -- gaps ------------------------------------------------------------------------------------------------------------


def gaps(*catalogs: Catalog, **policy: Any) -> list[Missing]:
    return list(plan_of(*catalogs, **policy).missing)


def test_every_gap_of_every_image_is_told_once_with_all_who_need_it() -> None:
    images = [v1(B, A), v1(C, B, layer=None), v1(D, B)]
    found = gaps(catalog("cut.tar", images, {"app:1": C, "app:2": C, "tool:1": D}))
    parent, layer = sorted(found, key=lambda gap: gap.kind, reverse=True)
    assert (parent.kind, parent.digest, parent.expected_in) == ("parent", None, f"cut.tar: {A}/json")
    assert parent.needed_by == ("app:1", "app:2", "tool:1")
    assert (layer.kind, layer.digest, layer.expected_in) == ("layer", None, f"cut.tar: {C}/layer.tar")
    assert layer.needed_by == ("app:1", "app:2")
    assert {gap.gap_class for gap in found} == {"absent"}
    assert all("--parents" in gap.hint and "one load" in gap.hint for gap in found)


def test_an_id_that_is_no_digest_stands_where_it_was_expected() -> None:
    (gap,) = gaps(catalog("cut.tar", [v1("top", "low\x1b")], {"app:1": "top"}))
    assert (gap.digest, gap.expected_in) == (None, "cut.tar: low\x1b/json")


def test_an_image_without_a_name_is_known_by_its_v1_id() -> None:
    (gap,) = gaps(catalog("cut.tar", [v1(B, A)]))
    assert gap.needed_by == (B,)
    for text in (B, B[:12], f"sha256:{B}"):
        assert gaps(catalog("cut.tar", [v1(B, A)]), select=(text,)) == [gap]


def test_a_gap_below_two_archives_is_one_gap_of_the_image_at_the_top() -> None:
    high, middle = catalog("high.tar", [v1(C, B)], {"app:1": C}), catalog("middle.tar", [v1(B, A)])
    for order in ((high, middle), (middle, high)):
        (gap,) = gaps(*order)
        assert (gap.needed_by, gap.expected_in) == (("app:1",), f"middle.tar: {A}/json")


@pytest.mark.parametrize("parents", ["require", "warn", "ignore"])
def test_no_policy_for_parents_makes_a_cut_chain_whole(parents: str) -> None:
    (gap,) = gaps(catalog("cut.tar", [v1(B, A)], {"app:1": B}), parents=parents)
    assert "--parents warn or ignore cannot help" in gap.hint


def test_only_the_gaps_of_the_wanted_images_count_and_all_of_them_do() -> None:
    images = [v1(B, A), v1(C, layer=None)]
    cut = catalog("cut.tar", images, {"app:1": B, "app:2": C, "tool:1": C})
    assert [gap.kind for gap in gaps(cut, select=("tool:1",))] == ["layer"]
    assert sorted(gap.kind for gap in gaps(cut, select=("app",))) == ["layer", "parent"]
