"""JSON from strangers, read so strictly that no two readers could understand it differently.

OCI documents are I-JSON (RFC 7493): UTF-8 without a byte order mark, no duplicate names. Python keeps the last of two
equal keys. Go matches the names of properties by simple Unicode folding, and keeps the last of those too. Both do so
silently: a document that could mean two things is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from imgtar.errors import Refused
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import shown

__all__ = ["fold", "parse_json"]

_MAPS = frozenset(("annotations", "labels", "exposedports", "volumes"))
"""Properties (folded) whose value is a map for every reader: its keys are free text, "Version" may stand beside "version"."""
_LONGEST_NAME = 64
"""Characters; the longest name of a property that anybody reads has 18."""
_LONGEST_NUMBER = 400
_MOST_SHAPES, _LONGEST_SHAPE = 256, 512
_good_shapes: set[tuple[str, ...]] = set()
"""Key sequences that were looked at: an index has thousands of objects with the same few."""


def fold(key: str) -> str:
    """Return what Go compares of the name of a property: two keys of one fold are one property for Go programs.

    Source: Go encoding/json, fold.go. Besides the case of letters that makes U+017F an ``s`` and U+212A a ``k``. Only
    simple folding counts: ``\ufb06`` is not ``st``. For letters that no name of a property has it is not looked at.
    """
    if key.isascii():
        return key.lower()
    if len(key) > _LONGEST_NAME:
        return key  # No property has such a name.
    return "".join(low if len(low := letter.casefold()) == 1 else letter for letter in key)


def parse_json(
    raw: bytes, what: str, *, limit: int | None = None, limits: Limits = DEFAULT_LIMITS, maps: bool = False
) -> Any:
    """Return the value of ``raw``; ``what`` names the document in errors, ``limit`` caps its size in bytes.

    Two keys of one object that fold to the same are refused, but for maps, whose keys are free text. With ``maps`` every
    object of the document is one. Raises :class:`Refused` with ``E_LIMIT`` for a document too large, too deep or with
    too many values, and ``E_JSON`` for anything that is not exactly one I-JSON value.
    """
    cap = limits.document if limit is None else limit
    if len(raw) > cap:
        raise Refused("E_LIMIT", f"the document has {len(raw)} bytes, the limit is {cap}", where=what)
    # Every value but the first follows a comma, a colon or an opening bracket: a cheap upper bound, before any memory.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > limits.json_values:
        raise Refused("E_LIMIT", f"the document has more than {limits.json_values} values", where=what)
    if raw.startswith(b"\xef\xbb\xbf"):
        raise Refused("E_JSON", "starts with a byte order mark", where=what)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("E_JSON", f"is not UTF-8 at byte {error.start}", where=what) from None
    try:
        value = _decoder.decode(text)
    except _Objection as error:
        raise Refused("E_JSON", str(error), where=what) from None
    except RecursionError:
        raise Refused("E_JSON", f"is nested deeper than {limits.json_depth} levels", where=what) from None
    except json.JSONDecodeError as error:
        raise Refused(
            "E_JSON", f"is not valid JSON: {error.msg.removesuffix(' starting at')} at byte {error.pos}", where=what
        ) from None
    if _check_tree(value, what, limits, surrogates=b"\\u" in raw) and not maps:
        _check_keys(value, what)
    return value


class _Objection(ValueError):
    """Raised inside the decoder's hooks."""


class _Folding(dict[str, Any]):
    """An object in which two keys fold to the same: fine for a map, and for nothing else."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Objection(f"has the key {shown(key)} twice in one object")
            seen.add(key)
    shape = tuple(result)
    if shape in _good_shapes:
        return result
    # Labels may be a hundred thousand: only keys that are not folded already can meet another one.
    odd = [low for key in shape if (low := fold(key)) != key]
    if odd and (len(set(odd)) != len(odd) or any(low in result for low in odd)):
        return _Folding(result)
    if len(_good_shapes) < _MOST_SHAPES and sum(map(len, shape)) < _LONGEST_SHAPE:
        _good_shapes.add(shape)
    return result


def _no_constant(name: str) -> Any:
    raise _Objection(f"holds {name}, which JSON does not have")


def _finite(text: str) -> float:
    if len(text) > _LONGEST_NUMBER or not math.isfinite(value := float(text)):
        raise _Objection(f"holds the number {shown(text[:40])}, which is out of range")
    return value


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER or text == "-0":
        raise _Objection(f"holds the number {shown(text[:40])}, which is out of range")
    return int(text)


# Made once: an inventory has a document in every line.
_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
)


def _check_tree(value: Any, what: str, limits: Limits, *, surrogates: bool) -> bool:
    """Check depth and text; return whether two keys of some object fold to the same."""
    folding = False
    level: Iterable[Any] = [value]
    containers = (dict, list, str) if surrogates else (dict, list)
    depth = 0
    while level:
        depth += 1
        if depth > limits.json_depth:
            raise Refused("E_JSON", f"is nested deeper than {limits.json_depth} levels", where=what)
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                folding = folding or type(item) is _Folding
                below.extend(item.values())
                if surrogates:
                    below.extend(item.keys())
            elif isinstance(item, list):
                below.extend(item)
            elif surrogates and isinstance(item, str) and not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError:
                    raise Refused("E_JSON", "holds half of a surrogate pair", where=what) from None
        # Leaves need no further level unless they are text to be looked at.
        level = [item for item in below if isinstance(item, containers)]
    return folding


def _check_keys(value: Any, what: str) -> None:
    """Refuse every object, but maps, in which two keys fold to the same."""
    stack = [value]
    while stack:
        item = stack.pop()
        if type(item) is _Folding:
            one, other = _twins(item)
            message = f"has the keys {shown(one)} and {shown(other)} in one object, which Go programs take for the same"
            raise Refused("E_JSON", message, where=what)
        if isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            for key, inner in item.items():
                # A map is not looked at itself, but what stands in it is.
                stack += inner.values() if type(inner) is _Folding and fold(key) in _MAPS else (inner,)


def _twins(item: _Folding) -> tuple[str, str]:
    known: dict[str, str] = {}
    return next((known[low], key) for key in item if known.setdefault(low := fold(key), key) != key)
