"""Small archives that ask for much: every one under 1 MB ends in time and memory, because what it lists is counted."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.builders.images import Files, Member, dumps, random_layer
from tests.builders.rawtar import END

Assert = Callable[..., None]

LAYER = random_layer(1)


def listing(images: int, slots: int, tags: int = 1) -> bytes:
    """A docker archive that lists one config and one layer file again and again."""
    config = dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id] * slots}}
    )
    items = [
        {
            "Config": "c",
            "RepoTags": [f"many:{place * tags + tag}" for tag in range(tags)],
            "Layers": ["a"] * slots,
        }
        for place in range(images)
    ]
    files = Files((Member("a", LAYER.blob), Member("c", config), Member("manifest.json", dumps(items))))
    return files.tar()


def forest(heads: int, depth: int, names: int = 0) -> bytes:
    """A pre-1.10 archive of images that stand on one chain."""
    chain = [f"{place:064x}" for place in range(depth)]
    tops = [f"{place + 10**6:064x}" for place in range(heads)]
    values = [{"id": one, "parent": below} for one, below in zip(chain, [*chain[1:], ""], strict=True)]
    values += [{"id": one, "parent": chain[0]} for one in tops]
    members = [
        Member(f"{value['id']}/json", dumps({key: text for key, text in value.items() if text})) for value in values
    ]
    members += [Member(f"{value['id']}/layer.tar", END) for value in values]
    tags = {str(place): tops[place % heads] for place in range(names or heads)}
    return gzip.compress(Files((*members, Member("repositories", dumps({"many": tags})))).tar(), 6, mtime=0)


def test_h124_h154_a_layer_listed_more_often_than_descriptors_may_be_is_refused(assert_refused: Assert) -> None:
    data = listing(150, 1000)
    assert len(data) < 1 << 20
    assert_refused(data, "E_LIMIT", forms=["file", "pipe"])


def test_h124_many_images_that_share_a_layer_are_read_in_time(assert_accepted: Assert) -> None:
    assert_accepted(listing(50, 400), names=[f"many:{place}" for place in range(50)], runs=[("load", "file")])


def test_h124_h179_one_image_listed_with_new_names_each_time_is_refused(assert_refused: Assert) -> None:
    assert_refused(listing(300, 1, tags=200), "E_LIMIT", forms=["file", "pipe"])


def test_h124_h129_many_old_images_on_one_long_chain_are_refused(assert_refused: Assert) -> None:
    assert_refused(forest(300, 400), "E_LIMIT", forms=["file", "pipe"])


def test_h124_h129_more_old_images_than_an_archive_may_have_are_refused(assert_refused: Assert) -> None:
    assert_refused(forest(1100, 1), "E_LIMIT", forms=["file", "pipe"])


def test_h129_h179_an_old_image_with_too_many_names_is_refused(assert_refused: Assert) -> None:
    assert_refused(forest(1, 1, names=1500), "E_LIMIT", forms=["file", "pipe"])
