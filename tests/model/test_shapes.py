"""The table of shapes: what holds for every one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from imgtar.errors import Refused
from imgtar.model import shapes
from imgtar.model.shapes import Kind, checked

KINDS = get_args(Kind)


def parts_of(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and every schema inside it."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for inner in schema.values():
            yield from parts_of(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_every_shape_is_strict(kind: Kind) -> None:
    parts = list(parts_of(shapes._SHAPES[kind]))
    assert len(parts) > 2
    lax = [part for part in parts if part["type"] in ("str", "int", "bool", "list", "dict", "typed-dict")]
    assert all(part["strict"] is True for part in lax)
    assert {part["type"] for part in parts} <= {
        *("str", "int", "bool", "list", "dict", "typed-dict"),
        *("nullable", "literal", "typed-dict-field"),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_has_no_shape(kind: Kind, value: object) -> None:
    with pytest.raises(Refused, match="the document: Input should be a valid dictionary") as caught:
        checked(kind, value, "x")
    assert caught.value.code == "E_JSON"


@pytest.mark.parametrize("wrong", [True, 1.0, 1.5, "1", -1, 1 << 63, 10**30, None])
def test_a_size_is_a_whole_number_that_go_can_hold(wrong: object) -> None:
    good = {"digest": "d", "size": (1 << 63) - 1, "kind": "layer"}
    assert checked("listed blob", good, "x") == good
    with pytest.raises(Refused, match=r"^x: size: Input should be "):
        checked("listed blob", {**good, "size": wrong}, "x")


def test_unknown_properties_are_allowed_and_left_out() -> None:
    good = {"digest": "d", "size": 1, "kind": "layer"}
    assert checked("listed blob", {**good, "more": [1]}, "x") == good


def test_a_refusal_names_the_place() -> None:
    item = {"Config": "c", "Layers": ["a", 5]}
    with pytest.raises(Refused, match=r"^x: Layers\.1: Input should be a valid string$"):
        checked("docker item", item, "x")
    with pytest.raises(Refused, match=r"^x: Layers: Field required$"):
        checked("docker item", {"Config": "c"}, "x")
