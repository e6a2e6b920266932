"""What may not matter to the resolver: how the same things are ordered, doubled, or spread over archives.

No model of what is right is needed here: two questions with the same content must get the same answer.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar import frozen
from imgtar.errors import ImgtarError
from imgtar.graph.catalog import Catalog, Draft, Root, Slot
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_config
from imgtar.model.mediatype import IMAGE_CONFIG
from tests.builders.images import Image, Layer, attestation, make_image, make_index, random_layer
from tests.graph.shelf import Held, Item, blobs_of, catalog_of, platforms, root_of

COMPRESSIONS = (None, "gzip", "zstd")
LAYERS = {(seed, form): random_layer(seed, form, size=8) for seed in range(4) for form in COMPRESSIONS}
NAMES = ["a:1", "b:1", "c:1"]
STACKS = st.lists(st.integers(0, 3), max_size=3)


def image(content: Sequence[int], forms: Sequence[str | None], seed: int, platform: str = "linux/amd64") -> Image:
    """The same ``content`` and ``seed`` give one image ID, whatever the ``forms`` of its layers."""
    layers = [LAYERS[number, form] for number, form in zip(content, forms, strict=False)]
    return make_image((), layers, platform, seed=seed)


@dataclass(frozen=True, repr=False)
class Archive:
    """What a catalog is made from; a catalog itself remembers what it has parsed."""

    roots: tuple[Root, ...] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        listed = [(_short(root.descriptor and root.descriptor.digest), root) for root in self.roots]
        told = [
            f"{'draft ' + _short(root.draft.config.digest) if root.draft else digest} {list(root.labels)}"
            + (f" on {_short(root.parent.image_id)}" if root.parent else "")
            for digest, root in listed
        ]
        return f"Archive({told}, holds {[_short(digest) for digest in self.blobs]})"

    def catalog(self, label: str) -> Catalog:
        return catalog_of(*self.roots, blobs=self.blobs, label=label)


@dataclass(frozen=True, repr=False)
class Question:
    """All that the resolver is asked with."""

    archives: tuple[Archive, ...]
    images: tuple[Image, ...]
    """What the receiver holds as images,"""
    loose: Mapping[str, bytes]
    """and as blobs of nobody."""
    damaged: frozenset[str]
    policy: Policy

    def __repr__(self) -> str:
        held = [f"{_short(one.digest)} {list(one.names)}" for one in self.images]
        loose, damaged = map(_short, self.loose), map(_short, self.damaged)
        return f"{list(self.archives)}\nheld {held}, {list(loose)}, damaged {list(damaged)}\n{self.policy}"

    def answer(self) -> dict[str, Any]:
        """Everything that may not depend on the order of things, or the error."""
        catalogs = [one.catalog(f"archive {place}") for place, one in enumerate(self.archives)]
        held = Held(self.loose, images=self.images, damaged=self.damaged)
        try:
            plan = resolve(catalogs, held, self.policy)
        except ImgtarError as error:
            return {"error": error.code}
        return {
            "missing": {_gap(gap) for gap in plan.missing},
            "bytes": plan.bytes_to_write + plan.bytes_reused,
            "writes": {write.digest: write.size for write in plan.writes},
            "reused": dict(plan.reused),
            "tags": {(move.reference.full, move.before, move.after, move.root) for move in plan.tags},
            "roots": {
                (
                    root.descriptor.digest,
                    frozenset(root.references),
                    root.parent.image_id if root.parent is not None else None,
                )
                for root in plan.roots
            },
            "images": {(one.image_id, one.digest, frozenset(one.names), one.state) for one in plan.images},
            "left": {(one.title, frozenset(map(_gap, one.missing))) for one in plan.left_behind},
        }


def _gap(gap: Any) -> tuple[Any, ...]:
    starts = frozenset(way[0] for way in gap.through)
    return (gap.kind, gap.digest, gap.diff_id, gap.size, gap.gap_class, frozenset(gap.needed_by), starts)


def _short(digest: object) -> str:
    """What a blob is, so that a failing case can be read."""
    return _KNOWN.get(str(digest), str(digest).removeprefix("sha256:")[:8])


_KNOWN = {layer.digest: f"layer {number} {form or 'plain'}" for (number, form), layer in LAYERS.items()}


def _told(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple):
        return (
            sorted((_told(each) for each in value), key=str)
            if isinstance(value, set | frozenset)
            else [*map(_told, value)]
        )
    if isinstance(value, Mapping):
        return {_short(key): _told(each) for key, each in value.items()}
    return _short(value) if isinstance(value, Digest) else value


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        what: (_told(one.get(what)), _told(other.get(what)))
        for what in {**one, **other}
        if one.get(what) != other.get(what)
    }


def draft_of(one: Image, names: Sequence[str], blobs: Mapping[str, bytes], promised: bool) -> Root:
    """The image as a docker archive with ``blobs`` lists it."""

    def slot(layer: Layer) -> Slot:
        known = Descriptor(layer.media_type, Digest.parse(layer.digest), len(layer.blob))
        diff_id = Digest.parse(layer.diff_id)
        return Slot(diff_id, known if layer.digest in blobs else None, layer.digest, known if promised else None)

    root = root_of(one, names)
    config = Descriptor(IMAGE_CONFIG, Digest.parse(one.image_id), len(one.config))
    draft = Draft(config, parse_config(one.config, "test"), tuple(map(slot, one.layers)))
    return frozen.replace(root, draft=draft, descriptor=None)


POLICIES = st.sampled_from(
    [
        Policy(),
        Policy(partial=True),
        Policy(parents="warn"),
        Policy(platforms=platforms("linux/amd64")),
        Policy(every_form=True),
        Policy(remake="first"),
        Policy(remake="never"),
        Policy(select=("a:1",)),
        Policy(no_clobber=True),
    ]
)


@st.composite
def questions(draw: st.DrawFn, drafts: bool = True, policies: st.SearchStrategy[Policy] = POLICIES) -> Question:
    """A few images over few layers, in several forms, inside indexes, under few names, spread at random."""
    stacks = draw(st.lists(STACKS, min_size=1, max_size=3))
    shapes = st.lists(st.sampled_from(COMPRESSIONS), min_size=3, max_size=3)
    images = [
        image(stack, draw(shapes), seed) for seed, stack in enumerate(stacks) for _ in range(draw(st.integers(1, 2)))
    ]
    items: list[Item] = list(images)
    if draw(st.booleans()):
        arm = image(draw(STACKS), draw(shapes), 9, "linux/arm64")
        items.append(make_index(images[0], arm, *([attestation(images[0])] if draw(st.booleans()) else [])))
        if draw(st.booleans()):
            items.append(arm)
    pool = blobs_of(*items)
    archives = []
    parents = st.none() | st.sampled_from([one.image_id for one in images])
    for _ in range(draw(st.integers(1, 3))):
        lost = draw(st.sets(st.sampled_from(sorted(pool)), max_size=4) | st.just(set(pool)))
        blobs = {digest: raw for digest, raw in pool.items() if digest not in lost}
        roots = []
        for item in draw(st.lists(st.sampled_from(items), max_size=3)):
            names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
            if drafts and isinstance(item, Image) and item.image_id in blobs and draw(st.integers(0, 3)) == 0:
                roots.append(draft_of(item, names, blobs, draw(st.booleans())))
            else:
                parent = draw(parents) if isinstance(item, Image) else None
                roots.append(root_of(item, names, parent=parent if parent != _id_of(item) else None))
        archives.append(Archive(tuple(roots), blobs))
    held = draw(st.lists(st.sampled_from(images), unique_by=lambda one: one.digest, max_size=2))
    held = [one.named(*name) for one, name in zip(held, (["a:1"], []), strict=False)]
    loose = draw(st.sets(st.sampled_from(sorted(pool)), max_size=3))
    damaged = draw(st.just(set()) | st.sets(st.sampled_from(sorted(pool)), max_size=1))
    return Question(
        tuple(archives),
        tuple(held),
        {digest: pool[digest] for digest in sorted(loose)},
        frozenset(damaged),
        draw(policies),
    )


def _id_of(item: Item) -> str:
    return item.image_id if isinstance(item, Image) else ""


def shuffled(question: Question, chance: random.Random) -> Question:
    archives = list(question.archives)
    chance.shuffle(archives)
    return replace(question, archives=tuple(archives))


def roots_shuffled(question: Question, chance: random.Random) -> Question:
    def mixed(one: Archive) -> Archive:
        return replace(one, roots=tuple(chance.sample(one.roots, len(one.roots))))

    return replace(question, archives=tuple(map(mixed, question.archives)))


def doubled(question: Question, chance: random.Random) -> Question:
    archives = list(question.archives)
    archives.insert(chance.randint(0, len(archives)), chance.choice(archives))
    return replace(question, archives=tuple(archives))


def split(question: Question, chance: random.Random) -> Question:
    archives = list(question.archives)
    one = archives.pop(chance.randrange(len(archives)))
    sides = {digest: chance.choice([{0}, {1}, {0, 1}]) for digest in sorted(one.blobs)}
    homes = [chance.randrange(2) for _ in one.roots]
    for side in (0, 1):
        roots = tuple(root for root, home in zip(one.roots, homes, strict=True) if home == side)
        blobs = {digest: raw for digest, raw in one.blobs.items() if side in sides[digest]}
        archives.insert(chance.randint(0, len(archives)), Archive(roots, blobs))
    return replace(question, archives=tuple(archives))


SAME = st.sampled_from([shuffled, roots_shuffled, doubled, split])


@given(questions(), st.lists(SAME, min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_order_doubles_and_the_spread_over_archives_do_not_change_the_answer(
    question: Question, changes: list[Callable[[Question, random.Random], Question]], chance: random.Random
) -> None:
    other = question
    for change in changes:
        other = change(other, chance)
    difference = _difference(question.answer(), other.answer())
    assert not difference, f"{difference}\n{question}\n{other}"


FULL = st.sampled_from([Policy(), Policy(parents="warn"), Policy(remake="never"), Policy(every_form=True)])


@given(questions(drafts=False, policies=FULL), st.integers(0, 1))
@settings(max_examples=25)
def test_a_loose_blob_may_as_well_come_in_an_archive(question: Question, which: int) -> None:
    question = replace(question, images=(), damaged=frozenset(), loose=dict(question.loose))
    # A compressed layer in an archive has a known diff ID, so a plain one can be made from it; a loose blob has none.
    remade = {layer.digest for (_, form), layer in LAYERS.items() if form is not None}
    stays = {digest: raw for digest, raw in question.loose.items() if digest in remade}
    goes = {digest: raw for digest, raw in question.loose.items() if digest not in remade}
    archives = list(question.archives)
    place = which % len(archives)
    archives[place] = replace(archives[place], blobs={**archives[place].blobs, **goes})
    before, after = question.answer(), replace(question, archives=tuple(archives), loose=stays).answer()
    for answer in (before, after):
        if "error" not in answer:
            answer["all"] = {**answer.pop("writes"), **answer.pop("reused")}
            answer["images"] = {entry[:3] for entry in answer["images"]}  # What is not held yet is new.
    difference = _difference(before, after)
    assert not difference, f"{difference}\n{question}"


@given(questions(), st.booleans(), st.integers(0, 1))
@settings(max_examples=25)
def test_an_unrelated_image_adds_itself_and_changes_nothing_else(question: Question, own: bool, which: int) -> None:
    question = replace(question, policy=frozen.replace(question.policy, select=(), platforms=()))
    stranger = make_image("z:1", [random_layer(77, "gzip", size=8), random_layer(78, size=8)], seed=77)
    mine = Archive((root_of(stranger),), blobs_of(stranger))
    archives = list(question.archives)
    place = which % len(archives)
    if own:
        archives.insert(which, mine)
    else:
        there = archives[place]
        archives[place] = Archive((*there.roots, *mine.roots), {**there.blobs, **mine.blobs})
    before, after = question.answer(), replace(question, archives=tuple(archives)).answer()
    if "error" in before:
        assert after == before
        return
    alone = Question((mine,), (), {}, frozenset(), Policy()).answer()
    if question.policy.partial and before["missing"]:
        # No image was whole; now one is, and all others stay behind for the same reasons.
        gaps = {gap for _, left in after["left"] for gap in left}
        assert (gaps, after["missing"]) == (before["missing"], set())
        assert (after["writes"], after["tags"]) == (alone["writes"], alone["tags"])
        return
    assert after["missing"] == before["missing"]
    assert after["left"] == before["left"]
    assert after["bytes"] == before["bytes"] + alone["bytes"]
    assert after["writes"] == {**before["writes"], **alone["writes"]}
    assert after["reused"] == before["reused"]
    for what in ("tags", "roots", "images"):
        assert after[what] == before[what] | alone[what]


# The cases that were found, by name.


@pytest.mark.parametrize("order", [1, -1])
def test_a_manifest_needed_by_itself_is_absent_whatever_the_index_above_it_says(order: int) -> None:
    """In the index alone it would be a platform that was not shipped; which was said depended on who came first."""
    arm = make_image("arm:1", 1, "linux/arm64")
    index = make_index(make_image((), 1, seed=1), arm)
    catalogs = [catalog_of(root_of(index, ["multi:1"]), blobs={index.digest: index.raw}), catalog_of(arm, blobs={})]
    plan = resolve(catalogs[::order], Held(), Policy())
    (gap,) = (gap for gap in plan.missing if str(gap.digest) == arm.digest)
    assert (gap.gap_class, set(gap.needed_by)) == ("absent", {"arm:1", "multi:1"})


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_that_is_held_stays_present_beside_a_new_index_over_it(order: int) -> None:
    amd = make_image("amd:1", 1)
    index = make_index(amd, make_image((), 1, "linux/arm64", seed=1))
    roots = [root_of(index, ["multi:1"]), root_of(amd)]
    plan = resolve([catalog_of(*roots[::order], blobs=blobs_of(index))], Held(images=[amd]), Policy())
    assert {str(one.digest): one.state for one in plan.images}[amd.digest] == "present"


@pytest.mark.parametrize("form", [0, 1])
def test_a_parent_that_one_of_two_listings_declares_counts_when_the_image_comes_in_another_form_too(form: int) -> None:
    """Only the first listing of each form was asked: in some orders the parent was forgotten, and nothing was missing."""
    forms = [image([1], ["gzip"], 0), image([1], ["zstd"], 0)]
    one, other = forms[form], forms[1 - form]
    parent = "sha256:" + "ab" * 32
    archives = [
        Archive((root_of(one, ["a:1"]),), blobs_of(one)),
        Archive((root_of(one, ["a:1"], parent=parent),)),
        Archive((root_of(other, ["a:1"]),), blobs_of(other)),
    ]
    for order in itertools.permutations(archives):
        plan = resolve([each.catalog("archive") for each in order], Held(), Policy())
        assert [(gap.kind, str(gap.digest)) for gap in plan.missing] == [("parent", parent)]
