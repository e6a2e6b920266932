"""Section C: duplicates and parser differentials. Where two readers could disagree, the archive is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import rawtar
from tests.builders.images import (
    Files,
    Member,
    docker_files,
    dumps,
    hexed,
    hybrid_files,
    make_image,
    make_layer,
    oci_files,
)
from tests.hostile.conftest import World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
OTHER = make_image("other:1", layers=1, seed=7)
DOCKER = docker_files([IMAGE])
OCI = oci_files([IMAGE])
HYBRID = hybrid_files([IMAGE])
CONFIG = f"{hexed(IMAGE.image_id)}.json"


@pytest.mark.parametrize(
    ("files", "member"),
    [
        pytest.param(DOCKER, Member(CONFIG, OTHER.config), id="h35-config"),
        pytest.param(DOCKER, Member("manifest.json", b"[]"), id="h36-manifest"),
        pytest.param(OCI, Member("oci-layout", OCI["oci-layout"]), id="h37-layout"),
        pytest.param(OCI, Member("index.json", b"{}"), id="h37-index"),
        pytest.param(DOCKER, Member(CONFIG, IMAGE.config), id="h38-same-content"),
        pytest.param(DOCKER, Member(f"./{CONFIG}", OTHER.config), id="h39-dot"),
        pytest.param(OCI, Member(OCI.names[2].replace("/", "//"), b"x"), id="h39-slashes"),
    ],
)
def test_h35_to_h39_a_name_given_twice_is_refused(assert_refused: Assert, files: Files, member: Member) -> None:
    assert_refused(files.plus(member).tar(), "E_DUP")
    assert_refused(files.plus(member, first=True).tar(), "E_DUP", forms=["file"])


@pytest.mark.parametrize(
    "name",
    [f"{CONFIG[:-5].upper()}.json", "MANIFEST.JSON", "caf\u00e9", "cafe\u0301"],
    ids=["h40", "h40m", "h41", "h41d"],
)
def test_h40_h41_names_that_only_look_alike_are_different(assert_accepted: Assert, name: str) -> None:
    files = DOCKER.plus(Member(name, b"something else"), Member("caf\u00e9 composed", b"x"))
    assert_accepted(files.tar(), names=["demo:1"], forms=["file", "pipe"])


def test_h42_two_views_that_agree_are_accepted(assert_accepted: Assert) -> None:
    assert_accepted(HYBRID.tar(), names=["demo:1"], ids=[IMAGE.image_id])


def test_h43_two_views_with_two_images_under_one_tag_are_refused(assert_refused: Assert) -> None:
    liar = OTHER.named("demo:1")
    files = hybrid_files([IMAGE]).put("manifest.json", docker_files([liar])["manifest.json"])
    for member in docker_files([liar]).without("manifest.json").members:
        files = files.plus(member)
    assert_refused(files.tar(), "E_TYPE", says=[IMAGE.image_id, OTHER.image_id])


def test_h44_a_repositories_file_that_disagrees_is_a_warning(assert_accepted: Assert) -> None:
    files = docker_files([IMAGE], "v1").put("repositories", dumps({"demo": {"1": "0" * 64}, "evil": {"9": "1" * 64}}))
    assert_accepted(files.tar(), names=["demo:1"], warning="E_TYPE", forms=["file", "pipe"])


def test_h45_an_index_without_oci_layout_is_a_warning(assert_accepted: Assert) -> None:
    assert_accepted(OCI.without("oci-layout").tar(), names=["demo:1"], warning="E_TYPE")


def test_h45_oci_layout_without_an_index_is_refused(assert_refused: Assert) -> None:
    assert_refused(OCI.without("index.json").tar(), "E_TYPE")


@pytest.mark.parametrize(("key", "other"), [("Config", "config"), ("Layers", "layers"), ("RepoTags", "repotags")])
def test_h46_keys_that_differ_in_case_only_are_refused(assert_refused: Assert, key: str, other: str) -> None:
    def double(value: list[dict[str, object]]) -> None:
        value[0][other] = value[0][key]

    assert_refused(DOCKER.edited("manifest.json", double).tar(), "E_JSON")


def test_h46_a_single_key_in_lower_case_is_accepted(assert_accepted: Assert) -> None:
    files = DOCKER.edited("manifest.json", lambda value: [{key.lower(): value[0][key] for key in value[0]}])
    assert_accepted(files.tar(), names=["demo:1"], forms=["file", "pipe"])


def test_h47_a_second_value_in_a_document_is_refused(assert_refused: Assert) -> None:
    body = DOCKER["manifest.json"]
    assert_refused(DOCKER.put("manifest.json", body + b"\n" + body).tar(), "E_JSON")


def test_h48_a_pax_size_that_hides_an_archive_is_refused(assert_refused: Assert) -> None:
    inner = docker_files([OTHER]).tar()
    hidden = rawtar.pax((b"size", b"%d" % len(inner))) + rawtar.header(b"extra", size=0) + inner
    assert_refused(hidden + DOCKER.tar(), "E_HEADER")
    assert_refused(DOCKER.tar(end=b"") + hidden + rawtar.END, "E_HEADER", forms=["file"])


def test_h49_nothing_is_taken_for_a_member_after_a_damaged_header(assert_refused: Assert) -> None:
    nested = make_image("nested:1", layers=[make_layer(docker_files([OTHER]).tar())])
    files = docker_files([nested])
    data = bytearray(files.tar())
    data[300] ^= 1  # The header of the layer, which comes first.
    assert_refused(bytes(data), "E_HEADER")
    data = bytearray(files.reversed().tar())
    data[len(data) - 1024 - len(nested.layers[0].blob) - 512 + 20] ^= 1
    assert_refused(bytes(data), "E_HEADER")


@pytest.mark.parametrize("inner", [docker_files([OTHER]), oci_files([OTHER])], ids=["docker", "oci"])
def test_h50_a_layer_that_looks_like_an_archive_is_a_layer(world: World, inner: Files) -> None:
    nested = make_image("nested:1", layers=[make_layer(inner.tar())])
    for files in (docker_files([nested]), oci_files([nested])):
        world.accepted(files.tar(), names=["nested:1"], ids=[nested.image_id], forms=["file", "pipe"])
