"""Small archives that ask for much: every one under 1 MB ends in time and memory, because what it lists is counted."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.builders.images import Files, Member, blob_name, dumps, random_layer, sha256
from tests.builders.rawtar import END
from tests.hostile.conftest import World

Assert = Callable[..., None]

LAYER = random_layer(1)
CONFIG = dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id] * 50}})
BARE = dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}})


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


def hybrid(index: bytes, items: list[dict[str, object]], blobs: list[bytes], *more: Member) -> bytes:
    """Two views and what they lead to, compressed."""
    members = [
        Member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        Member("index.json", index),
        Member("manifest.json", dumps(items)),
        *(Member(blob_name(sha256(raw)), raw) for raw in blobs),
        *more,
    ]
    return gzip.compress(Files(tuple(members)).tar(), 6, mtime=0)


def pointer(raw: bytes, kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": sha256(raw), "size": len(raw), **more}


def test_h124_images_that_only_the_docker_view_promises_are_not_compared_with_all_others_each(world: World) -> None:
    layer = pointer(LAYER.blob, "layer.v1.tar")
    manifests: list[dict[str, object]] = [
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "annotations": {"number": str(number)},
            "config": pointer(CONFIG, "config.v1+json"),
            "layers": [layer] * 50,
        }
        for number in range(900)
    ]
    index = {"schemaVersion": 2, "manifests": [pointer(dumps(one), "manifest.v1+json") for one in manifests]}
    items: list[dict[str, object]] = [
        {"Config": f"none{number}.json", "RepoTags": None, "Layers": []} for number in range(900)
    ]
    data = hybrid(dumps(index), items, [CONFIG, LAYER.blob, *map(dumps, manifests)])
    assert len(data) < 1 << 20
    assert world.run("inspect", data).status == 0


def test_h124_h179_the_names_of_one_index_are_not_looked_through_for_each_image_anew(world: World) -> None:
    missing = [pointer(b"%d" % number, "config.v1+json") for number in range(2999)]
    manifests: list[dict[str, object]] = [
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": [],
        }
        for config in [pointer(BARE, "config.v1+json"), *missing]
    ]
    index = dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                pointer(dumps(one), "manifest.v1+json", platform={"os": "linux", "architecture": f"x{number}"})
                for number, one in enumerate(manifests)
            ],
        }
    )
    names = [f"many:{number}" for number in range(100)]
    roots = [
        pointer(index, "index.v1+json", annotations={"io.containerd.image.name": f"docker.io/library/{name}"})
        for name in names
    ]
    items: list[dict[str, object]] = [{"Config": "bare.json", "RepoTags": names, "Layers": []} for _ in range(900)]
    data = hybrid(
        dumps({"schemaVersion": 2, "manifests": roots}),
        items,
        [index, *map(dumps, manifests)],
        Member("bare.json", BARE),
    )
    assert len(data) < 1 << 20
    assert world.run("inspect", data).status in (0, 4, 5)


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
