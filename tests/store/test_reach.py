"""What a document mentions, whatever hides it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from imgtar.model.digest import Digest
from imgtar.store.reach import mentioned

ONE, TWO = (f"sha256:{digit * 64}" for digit in "ab")
LONG = f"sha512:{'c' * 128}"


@pytest.mark.parametrize(
    "raw",
    [
        ONE.encode(),
        json.dumps({"a": [{"b": ONE}]}).encode(),
        json.dumps({ONE: 1}).encode(),
        json.dumps(f"see {ONE}!").encode(),
        json.dumps({"a": ONE}).replace("sha", "\\u0073ha").encode(),
        json.dumps({"a": ONE}).replace(":a", "\\u003aa").encode(),
        b'{"digest": "%b", "digest": "%b"}' % (ONE.replace("s", "\\u0073").encode(), b"none"),
        json.dumps({"data": base64.b64encode(json.dumps({"x": ONE}).encode()).decode()}).encode(),
        json.dumps({"Data": base64.b64encode(json.dumps({"x": ONE}).encode()).decode()}).encode(),
        json.dumps({"a": ONE}).encode("utf-16"),
        json.dumps({"a": ONE}).encode()[:-1],
        b"[" * 100_000 + ONE.encode(),
        b"\xff\xfe" + ONE.encode() + b"\xff",
    ],
)
def test_a_digest_is_found_wherever_it_stands(raw: bytes) -> None:
    assert Digest.parse(ONE) in mentioned(raw)


@pytest.mark.parametrize(
    "value", [{}, {"data": "%%"}, {"data": "YQ=="}, ONE[:-1], ONE.upper(), f"sha256:{'g' * 64}", 1, None]
)
def test_what_is_no_digest_is_none(value: Any) -> None:
    assert mentioned(json.dumps(value).encode()) == set()


def test_several_are_all_found() -> None:
    found = mentioned(json.dumps({"a": [ONE, {"b": TWO}], "c": {"d": LONG}}).encode())
    assert found == {Digest.parse(text) for text in (ONE, TWO, LONG)}
