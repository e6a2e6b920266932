"""Changes to JSON documents: of the bytes, and of the values with an eye for what hurts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

__all__ = ["EDITS", "edited", "spoiled_bytes"]

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.sampled_from([0, 1, 2, 3, -1, 2**63 - 1, 2**63]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["", "sha256:" + "0" * 64, "sha512:" + "0" * 128, "\x1b[2J", "layer", "index", "a/b", "keep:1"]),
    st.just([]),
    st.just({}),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _one_edit(where: int, how: str, new: Any, value: Any) -> Any:
    value = copy.deepcopy(value)
    places = _places(value)
    path = places[where % len(places)]
    if not path:
        return new if how == "set" else value
    above, key = _at(value, path[:-1]), path[-1]
    if how == "set":
        above[key] = new
    elif how == "drop":
        del above[key]
    elif how == "swap":
        above[key] = copy.deepcopy(_at(value, places[(where * 7 + 3) % len(places)]))
    elif isinstance(above, list):
        above.insert(key, copy.deepcopy(above[key]))
    else:
        above[f"{key}2"] = new
    return value


EDITS: st.SearchStrategy[Callable[[Any], Any]] = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "drop", "swap", "double"]), _VALUES),
    min_size=1,
    max_size=3,
).map(lambda steps: lambda value: _applied(steps, value))
"""Functions that return a document with some values set, dropped, doubled or exchanged for other ones of it."""


def _applied(steps: list[tuple[int, str, Any]], value: Any) -> Any:
    for where, how, new in steps:
        value = _one_edit(where, how, new, value)
    return value


def spoiled_bytes(raw: bytes, data: st.DataObject) -> bytes:
    """``raw`` with a few bytes changed, cut out or put in."""
    result = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(len(result) - 1, 0)))
        how = data.draw(st.sampled_from(["flip", "cut", "put", "end"]))
        if how == "flip" and result:
            result[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del result[place : place + data.draw(st.integers(1, 40))]
        elif how == "put":
            result[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            del result[place:]
    return bytes(result)


def edited(raw: bytes, data: st.DataObject) -> bytes:
    """A document with either its values or its bytes changed."""
    if data.draw(st.booleans()):
        return json.dumps(data.draw(EDITS)(json.loads(raw))).encode("utf-8", "surrogatepass")
    return spoiled_bytes(raw, data)
