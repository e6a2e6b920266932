"""What two readers could understand differently is refused, however often the like of it was fine before."""

from __future__ import annotations

import json

import pytest

from imgtar.errors import Refused
from imgtar.model.strictjson import parse_json


@pytest.mark.parametrize(
    "again",
    ['{"digest":1,"size":2,"digest":3}', '{"digest":1,"size":2,"size":2}', '{"digest":1,"size":2,"SIZE":2}'],
)
@pytest.mark.parametrize("before", ['{"digest":1,"size":2}', '{"digest":1,"size":2,"other":3}'])
def test_an_object_with_one_key_twice_is_refused_after_many_good_ones(before: str, again: str) -> None:
    good = f"[{','.join([before] * 50)}]".encode()
    assert parse_json(good, "") == json.loads(good)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            parse_json(f"[{before},{again}]".encode(), "")
        assert caught.value.code == "E_JSON"


def test_objects_of_very_many_kinds_are_read_as_what_they_are() -> None:
    raw = json.dumps([{f"key{number}": number, "size": 1} for number in range(1000)]).encode()
    assert parse_json(raw, "") == json.loads(raw)
    assert parse_json(raw, "") == json.loads(raw)
