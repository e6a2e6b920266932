"""The resolver against a model: random graphs, random splits over archives, random holdings, every order."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model.digest import Digest
from tests.builders.images import Image, make_image, make_index, random_layer
from tests.graph.shelf import Held, Item, blobs_of, catalog_of

KINDS = st.sampled_from([None, "gzip", "zstd"])
STACKS = st.lists(st.tuples(st.integers(0, 5), KINDS), max_size=5)
NAMES = ["a:1", "b:1", "c:1", "d:1"]


def image(place: int, stack: list[tuple[int, str | None]], platform: str = "linux/amd64") -> Image:
    return make_image(NAMES[place], [random_layer(seed, kind, size=8) for seed, kind in stack], platform, seed=place)


def lacking(wanted: list[Image], held: list[Image], carried: set[str]) -> set[str]:
    """What nobody has and nothing can be made into, by definition."""
    there = carried | set(blobs_of(*held))
    read = [one for one in wanted if {one.digest, one.image_id} <= there]
    content = {layer.diff_id for one in read for layer in one.layers if layer.digest in carried}
    content |= {layer.diff_id for one in held for layer in one.layers}
    missing: set[str] = set()
    for one in wanted:
        if one.digest not in there:
            missing.add(one.digest)
            continue
        missing |= {one.image_id} - there
        for layer in one.layers:
            made = layer.compression is None and layer.diff_id in content
            if layer.digest not in there and not made:
                missing.add(layer.digest)
    return missing


@given(
    st.lists(STACKS, min_size=1, max_size=4),
    st.lists(STACKS, max_size=2),
    st.sets(st.integers(0, 3), max_size=2),
    st.integers(1, 3),
    st.data(),
)
@settings(max_examples=150)
def test_the_plan_is_complete_exactly_when_the_union_covers_the_closure(
    stacks: list[list[tuple[int, str | None]]],
    others: list[list[tuple[int, str | None]]],
    common: set[int],
    count: int,
    data: st.DataObject,
) -> None:
    images = [image(place, stack) for place, stack in enumerate(stacks)]
    held = [image(place, stack).named(f"held:{place}") for place, stack in enumerate(others)]
    held = [make_image(one.names[0], one.layers, seed=20 + n) for n, one in enumerate(held)]
    held += [one for place, one in enumerate(images) if place in common]
    blobs = blobs_of(*images)
    places = st.sets(st.integers(0, count - 1), max_size=count)
    shares = {digest: data.draw(places, label=digest[:15]) for digest in sorted(blobs)}
    lists = [data.draw(st.sets(st.integers(0, len(images) - 1)), label="listed") for _ in range(count)]
    catalogs = []
    for at in range(count):
        listed: list[Item] = [images[place] for place in sorted(lists[at])]
        carried = {digest: raw for digest, raw in blobs.items() if at in shares[digest]}
        catalogs.append(catalog_of(*listed, blobs=carried, label=f"archive {at}"))
    wanted = [images[place] for place in sorted(set().union(*lists))]
    carried_anywhere = {digest for digest, where in shares.items() if where}
    expected = lacking(wanted, held, carried_anywhere)
    seen = set()
    for order in itertools.permutations(catalogs):
        plan = resolve(order, Held(images=held), Policy())
        assert {str(gap.digest) for gap in plan.missing} == expected
        assert len(plan.missing) == len(expected)
        for gap in plan.missing:
            # Whose manifest is nowhere, nobody knows to need anything else.
            read = [one for one in wanted if one.digest not in expected or one.digest == str(gap.digest)]
            needing = {one.name for one in read if str(gap.digest) in one.document.blobs()}
            assert set(gap.needed_by) == needing
            assert {way[0] for way in gap.through} == needing
        seen.add((frozenset(write.digest for write in plan.writes), plan.bytes_to_write, frozenset(plan.reused)))
        if plan.complete:
            closure = set(blobs_of(*wanted))
            assert {str(w.digest) for w in plan.writes} | {str(d) for d in plan.reused} == closure
            assert plan.bytes_to_write == sum(len(blobs[str(write.digest)]) for write in plan.writes)
        partial = resolve(order, Held(images=held), Policy(partial=True))
        whole = {one.digest for one in wanted if not expected & set(one.document.blobs())}
        if whole and expected:
            assert partial.complete
            assert {str(root.descriptor.digest) for root in partial.roots} == whole
            assert {str(gap.digest) for one in partial.left_behind for gap in one.missing} == expected
    assert len(seen) == 1


@given(STACKS, STACKS, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_one_platform_of_an_index_is_covered_or_not_without_regard_to_the_other(
    first: list[tuple[int, str | None]], second: list[tuple[int, str | None]], drop: bool, narrow: bool
) -> None:
    from tests.graph.shelf import platforms, root_of

    amd, arm = image(0, first), image(1, second, "linux/arm64")
    index = make_index(amd, arm)
    only = [layer.digest for layer in arm.layers if layer.digest not in {one.digest for one in amd.layers}]
    dropped = only[:1] if drop else []
    catalog = catalog_of(
        root_of(index, ["multi:1"]), blobs={d: raw for d, raw in blobs_of(index).items() if d not in dropped}
    )
    policy = Policy(platforms=platforms("linux/amd64") if narrow else ())
    plan = resolve([catalog], Held(), policy)
    made = {layer.diff_id for layer in (*amd.layers, *arm.layers) if layer.digest not in dropped}
    expected = {
        layer.digest
        for layer in arm.layers
        if layer.digest in dropped and not (layer.compression is None and layer.diff_id in made)
    }
    assert {str(gap.digest) for gap in plan.missing} == (set() if narrow else expected)
    for gap in plan.missing:
        assert gap.through[0][0] == "multi:1"
        assert Digest.parse(arm.digest).encoded in gap.through[0][1]
