"""Section C: the two views of a hybrid archive. Engines read one or the other, so they must mean the same images."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders.images import (
    CONTAINERD_NAME,
    Files,
    attestation,
    blob_name,
    docker_files,
    hexed,
    hybrid_files,
    make_image,
    make_index,
    oci_layout,
)
from tests.hostile.conftest import PLAIN, World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
OTHER = make_image("other:1", layers=1, seed=7)
ARM = make_image("demo:1", platform="linux/arm64", seed=8)
HYBRID = hybrid_files([IMAGE])


def promising(files: Files, config: str) -> Files:
    """With another config in the first entry of ``manifest.json``, which the archive does not hold."""
    return files.edited("manifest.json", lambda value: value[0].update(Config=config))


@pytest.mark.parametrize("path", [blob_name(OTHER.image_id), f"{hexed(OTHER.image_id)}.json", OTHER.image_id])
def test_h43_a_config_that_is_only_named_contradicts_too(assert_refused: Assert, path: str) -> None:
    assert_refused(promising(HYBRID, path).tar(), "E_TYPE", says=[IMAGE.image_id, OTHER.image_id, "demo:1"])


def test_h43_a_config_that_is_only_named_contradicts_a_whole_index_too(assert_refused: Assert) -> None:
    files = indexed(make_index(IMAGE, ARM))
    assert_refused(promising(files, blob_name(OTHER.image_id)).tar(), "E_TYPE", forms=PLAIN)


def test_h43_a_view_that_is_not_whole_names_the_same_config_and_is_accepted(assert_accepted: Assert) -> None:
    # The layers of the docker view are no files of this archive, and neither is its config: the OCI view is whole.
    files = promising(HYBRID, f"{hexed(IMAGE.image_id)}.json")
    files = files.edited("manifest.json", lambda value: value[0].update(Layers=["0/layer.tar", "1/layer.tar"]))
    assert_accepted(files.tar(), names=["demo:1"], warning="E_MISSING", strict=False, forms=PLAIN)


@pytest.mark.parametrize("path", ["config.json", "0/json", "f" * 63 + ".json"])
def test_h43_a_path_that_names_no_digest_contradicts_nothing(assert_accepted: Assert, path: str) -> None:
    data = promising(HYBRID, path).tar()
    assert_accepted(data, names=["demo:1"], warning="E_MISSING", strict=False, forms=PLAIN)


def indexed(index: object, name: str = "demo:1") -> Files:
    """A hybrid whose OCI view has an index under ``name``, and whose Docker view has :data:`IMAGE`."""
    files = oci_layout([(index, [name])], hybrid=True)  # type: ignore[list-item]
    return files.put("manifest.json", HYBRID["manifest.json"])


def test_h43_a_name_for_several_platforms_is_no_contradiction(assert_accepted: Assert) -> None:
    for files in (
        indexed(make_index(IMAGE, ARM)),
        indexed(make_index(ARM, IMAGE, attestation(IMAGE))),
    ):
        assert_accepted(files.tar(), names=["demo:1"], forms=PLAIN)
        # The same, but the Docker view lacks its config under the path that it gives: docker 29 and ctr export so.
        assert_accepted(promising(files, f"{hexed(IMAGE.image_id)}.json").tar(), names=["demo:1"], forms=PLAIN)


def test_h43_two_platforms_as_two_entries_of_one_name_are_no_contradiction(world: World) -> None:
    files = hybrid_files([IMAGE, ARM])
    for data in (files.tar(), promising(files, f"{hexed(IMAGE.image_id)}.json").tar()):
        for form in PLAIN:
            done = world.run("verify", data, form)
            assert done.status == 0, done


def test_h43_a_platform_that_did_not_come_is_no_contradiction(assert_accepted: Assert) -> None:
    index = make_index(IMAGE, attestation(IMAGE), sparse=[ARM])
    files = indexed(index).put("manifest.json", docker_files([ARM])["manifest.json"])
    data = files.edited("manifest.json", lambda value: value[0].update(Config=blob_name(ARM.image_id))).tar()
    assert_accepted(data, names=["demo:1"], warning="E_MISSING", strict=False, forms=PLAIN)


def test_h43_a_config_under_another_name_is_no_contradiction(world: World) -> None:
    # index.json speaks of other names: nothing is said twice. What manifest.json lacks is then a gap of its own.
    files = promising(HYBRID, blob_name(OTHER.image_id)).edited(
        "manifest.json", lambda value: value[0].update(RepoTags=["else:1"])
    )
    assert CONTAINERD_NAME in files["index.json"].decode()
    assert world.run("verify", files.tar()).status == 4
