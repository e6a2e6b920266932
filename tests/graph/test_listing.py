"""Inventories as values: what they say, that they repeat, and that a damaged one is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.errors import Refused
from imgtar.graph.inventory import Holding
from imgtar.graph.listing import ListedBlob, ListedImage, Listing, parse_listing
from imgtar.graph.several import AllOf, AnyOf
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


def layer(number: int, diff: int | None = None, size: int = 10) -> ListedBlob:
    diff_id = digest(diff) if diff is not None else digest(number)
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if diff is not None else "")
    return ListedBlob(digest(number), size, "layer", diff_id, kind)


def named(name: str, *blobs: int, complete: bool = True) -> ListedImage:
    reference = Reference.parse(name).tagged()
    return ListedImage(
        reference, digest(blobs[0]), digest(blobs[0] + 1), complete, "linux/amd64", tuple(map(digest, blobs))
    )


CONTENT = [ListedBlob(digest(1), 5, "manifest"), ListedBlob(digest(2), 6, "config"), layer(3), layer(4, diff=5)]
LISTING = Listing("store", CONTENT, [named("app:1", 1, 2, 3, 4), named("app:2", 1, 2, 3, 4)])


def test_what_is_written_is_read_again() -> None:
    again = parse_listing(LISTING.encode(), "x.inv")
    assert again.blobs == LISTING.blobs
    assert again.images == LISTING.images
    assert again.root == LISTING.root
    assert again.encode() == LISTING.encode()


def test_the_order_in_which_things_were_found_does_not_show() -> None:
    assert Listing("store", CONTENT[::-1], LISTING.images[::-1]).encode() == LISTING.encode()


def test_every_line_is_json_with_the_promised_keys() -> None:
    head, *lines = [json.loads(line) for line in LISTING.encode().splitlines()]
    assert {"schema", "where", "created", "root"} <= set(head)
    assert head["schema"] == "imgtar.inventory/1"
    assert all({"digest", "size", "kind"} <= set(line) for line in lines[:4])
    assert all({"name", "digest", "image_id", "complete"} <= set(line) for line in lines[4:])
    assert [line["name"] for line in lines[4:]] == ["app:1", "app:2"]


def test_names_do_not_count_in_the_root_and_contents_do() -> None:
    assert LISTING.without_names().root == LISTING.root
    assert b"app:" not in LISTING.without_names().encode()
    assert Listing("store", CONTENT[1:], []).root != LISTING.root
    assert Listing("store", [*CONTENT[:3], layer(4, diff=6)], []).root != LISTING.root


def test_it_answers_like_the_receiver_that_it_lists() -> None:
    assert LISTING.holding(digest(3)) == Holding(10)
    assert LISTING.holding(digest(9)) is None
    plain, packed = LISTING.layer_for(digest(3)), LISTING.layer_for(digest(5))
    assert plain is not None
    assert packed is not None
    assert (plain.digest, packed.digest) == (digest(3), digest(4))
    assert LISTING.diff_id_of(digest(4)) == digest(5)
    assert LISTING.has_image(digest(2))
    assert LISTING.has_image(digest(1))
    assert not LISTING.has_image(digest(3))
    assert LISTING.has_root(digest(1))
    tagged = LISTING.tagged("docker.io/library/app:1")
    assert tagged is not None
    assert tagged.image_id == digest(2)
    assert LISTING.without_names().tagged("docker.io/library/app:1") is None


def test_a_plain_layer_is_preferred_to_a_compressed_one_of_the_same_content() -> None:
    listing = Listing("store", [layer(4, diff=3), layer(3)], [])
    found = listing.layer_for(digest(3))
    assert found is not None
    assert found.digest == digest(3)


def test_any_of_several_holds_the_union_and_all_of_several_the_intersection() -> None:
    one, two = Listing("a", [layer(1), layer(2)], []), Listing("b", [layer(2), layer(3, diff=1)], [])
    union, common = AnyOf([one, two]), AllOf([one, two])
    assert [union.holding(digest(n)) is not None for n in (1, 2, 3)] == [True, True, True]
    assert [common.holding(digest(n)) is not None for n in (1, 2, 3)] == [False, True, False]
    assert common.layer_for(digest(1)) is not None  # one has it plain, the other compressed
    assert common.layer_for(digest(3)) is None
    assert AllOf([]).holding(digest(1)) is None
    assert not AllOf([]).has_root(digest(1))


def test_receivers_that_disagree_about_a_size_hold_nothing_sound() -> None:
    holding = AllOf([Listing("a", [layer(1)], []), Listing("b", [layer(1, size=11)], [])]).holding(digest(1))
    assert holding is not None
    assert not holding.sound


@given(st.integers(0, len(LISTING.encode()) - 1))
@settings(max_examples=200)
def test_a_cut_inventory_is_refused(length: int) -> None:
    with pytest.raises(Refused):
        parse_listing(LISTING.encode()[:length], "x.inv")


@given(st.integers(0, len(LISTING.encode()) - 1), st.integers(0, 7))
@settings(max_examples=400)
def test_an_inventory_with_one_bit_flipped_is_refused_or_says_the_same(place: int, bit: int) -> None:
    raw = bytearray(LISTING.encode())
    raw[place] ^= 1 << bit
    try:
        read = parse_listing(bytes(raw), "x.inv")
    except Refused:
        return
    # Words of the first line that decide nothing ("where", "created") are not covered by a digest.
    assert read.blobs == LISTING.blobs
    assert read.images == LISTING.images
