"""Documents from strangers: what may be ``null``, and what must be of its type."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imgtar.errors import Refused
from imgtar.model.documents import parse_index

DIGEST = "sha256:" + "0" * 64


def index(**members: Any) -> bytes:
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": DIGEST, "size": 1, **members}
    return json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()


OPTIONAL = ["mediaType", "platform", "annotations", "artifactType", "urls", "data"]


@pytest.mark.parametrize("member", OPTIONAL)
def test_null_in_a_descriptor_is_as_good_as_nothing(member: str) -> None:
    (found,) = parse_index(index(**{member: None}), "", "test").manifests
    value = json.loads(index())
    value["manifests"][0].pop(member, None)
    assert parse_index(json.dumps(value).encode(), "", "test").manifests == (found,)


def test_null_in_a_platform_is_as_good_as_nothing() -> None:
    nulls = dict.fromkeys(["variant", "os.version", "os.features"])
    (found,) = parse_index(index(platform={"os": "linux", "architecture": None, **nulls}), "", "test").manifests
    (same,) = parse_index(index(platform={"os": "linux"}), "", "test").manifests
    assert found.platform == same.platform
    assert found.platform is not None
    assert (found.platform.architecture, found.platform.os_features) == ("", ())


@pytest.mark.parametrize("member", [*OPTIONAL, "digest", "size"])
def test_another_type_in_a_descriptor_is_refused_and_named(member: str) -> None:
    for wrong in (1.5, True, ["x", 1], {"os": 1}):
        with pytest.raises(Refused) as caught:
            parse_index(index(**{member: wrong}), "", "test")
        assert caught.value.code == "E_JSON"
        assert f"manifests.0.{member}" in caught.value.message
