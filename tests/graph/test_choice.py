"""Which image of an index engines take: as they were seen to, on linux/amd64."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imgtar.errors import Refused
from imgtar.graph.choice import choices, one_image_for_each_platform, preferred
from imgtar.graph.library import Library
from imgtar.graph.walk import Node, Walker
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.mediatype import IMAGE_INDEX
from tests.builders.images import dumps, make_image

A = make_image("demo:1", layers=1, seed=1)
B = make_image("demo:1", layers=1, seed=2)
Said = dict[str, Any] | None


def platform(text: str | None) -> Said:
    """``os/architecture/variant`` as it stands in a document; ``None`` for no platform at all."""
    if text is None:
        return None
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def index_of(*entries: tuple[Any, str | None, str | None], feature: str = "") -> Node:
    """An index of images, each with the platform of its descriptor and that of its config (the same if ``None``).

    The last entry has the ``feature``.
    """
    blobs, manifests = {}, []
    for image, said, own in entries:
        config = platform(own or said) or {}
        one = image.with_config(lambda c, config=config: c.update({"os": "", "architecture": "", **config}))
        entry: dict[str, Any] = {**one.document.descriptor(), "platform": platform(said)}
        manifests.append({key: value for key, value in entry.items() if value is not None})
        blobs.update(one.document.blobs())
    if feature:
        manifests[-1]["platform"]["os.features"] = [feature]
    raw = dumps({"schemaVersion": 2, "manifests": manifests})
    blobs[str(Digest.of(raw))] = raw
    library = Library([lambda descriptor, _: blobs.get(str(descriptor.digest))])
    return Walker(library).grow(Descriptor(IMAGE_INDEX, Digest.of(raw), len(raw)))


def taken(root: Node) -> dict[str, str]:
    """Engine to A or B, on the machine that counts most."""
    letters = {layer.digest: name for name, image in (("A", A), ("B", B)) for layer in image.layers}
    return {
        engine.split()[0]: letters[str(node.manifest.layers[0].digest)]
        for engine, node in next(choices(root)).by.items()
        if node.manifest is not None
    }


AMD = "linux/amd64"
SEEN = [
    # descriptor and config of the first, of the second; what containerd, Docker (containerd store) and podman took
    ("linux/x86_64", AMD, None, "linux/arm64", "A", "A", "B"),
    (None, "linux/arm64", None, AMD, "", "B", "A"),
    (None, AMD, AMD, AMD, "B", "A", "B"),
    ("linux/amd64/v1", AMD, AMD, AMD, "A", "A", "B"),
    ("linux/amd64/v2", AMD, AMD, AMD, "B", "A", "B"),
    (AMD, AMD, AMD, AMD, "A", "A", "A"),
    ("Linux/AMD64", AMD, AMD, AMD, "A", "A", "B"),
    ("linux/386", AMD, AMD, AMD, "B", "A", "B"),
    ("linux/arm64", AMD, AMD, AMD, "B", "A", "B"),
    (AMD, "linux/arm64", "linux/arm64", AMD, "A", "B", "A"),
    ("linux/386", "linux/386", None, AMD, "A", "B", "B"),
    ("linux/arm", "linux/x86_64", AMD, AMD, "B", "A", "B"),
    ("linux/arm", "linux/AMD64", AMD, AMD, "B", "A", "B"),
    # When no config fits, Docker shows the first that there is.
    ("linux/arm64", "linux/arm64", AMD, "windows/amd64", "B", "A", "B"),
    ("linux/arm64", "linux/arm64", AMD, "linux/i386", "B", "A", "B"),
    # Also when nothing is for this machine.
    ("linux/386", "linux/386", None, "linux/arm64", "A", "A", "B"),
    ("linux/arm64", "linux/arm64", None, "linux/s390x", "", "A", "B"),
    ("windows/amd64", "windows/amd64", None, "linux/arm64", "", "A", "B"),
]


@pytest.mark.parametrize("row", SEEN, ids=lambda row: "-".join(map(str, row[:4])))
def test_engines_take_what_they_were_seen_to_take(row: tuple[Any, ...]) -> None:
    root = index_of((A, row[0], row[1]), (B, row[2], row[3]))
    seen = {"containerd": row[4], "Docker": row[5], "podman": row[6]}
    assert taken(root) == {engine: one for engine, one in seen.items() if one}
    with pytest.raises(Refused) as caught:
        one_image_for_each_platform(root)
    assert caught.value.code == "E_TYPE"


@pytest.mark.parametrize(
    "entries",
    [
        [(A, AMD), (B, "linux/arm64")],
        [(A, "linux/arm64"), (B, AMD)],
        [(A, AMD), (B, "linux/386")],
        [(A, "linux/386"), (B, AMD)],
        [(A, "linux/arm/v6"), (B, "linux/arm/v7")],
        [(A, AMD), (B, "linux/amd64/v3")],
        [(A, "linux/amd64/v3"), (B, AMD)],
        [(A, "windows/amd64"), (B, AMD)],
        [(A, "wasi/wasm"), (B, "linux/s390x")],
        [(A, "linux/x86_64"), (B, "linux/arm64")],
    ],
    ids=repr,
)
def test_honest_indexes_are_taken_alike(entries: list[tuple[Any, str]]) -> None:
    root = index_of(*((image, said, None) for image, said in entries))
    one_image_for_each_platform(root)
    own = next((said for _, said in entries if said in (AMD, "linux/x86_64")), entries[0][1])
    assert preferred(root) is root.children[[said for _, said in entries].index(own)]


def test_a_config_that_tells_another_platform_is_fine_where_nobody_is_misled() -> None:
    # The common mistake: an image for arm64 whose config was never told so. Only Docker on amd64 could take it.
    one_image_for_each_platform(index_of((A, AMD, AMD), (B, "linux/arm64", AMD)))
    with pytest.raises(Refused, match="Docker with the containerd store takes sha256:"):
        one_image_for_each_platform(index_of((B, "linux/arm64", AMD), (A, AMD, AMD)))


def test_one_image_in_two_forms_is_no_question() -> None:
    packed = A.with_manifest(lambda m: m.update(annotations={"x": "y"}))
    for said in (AMD, None):
        one_image_for_each_platform(index_of((A, said, AMD), (packed, said, AMD)))


def test_two_that_differ_in_a_feature_are_taken_alike_and_two_without_are_two() -> None:
    root = index_of((A, AMD, AMD), (B, AMD, AMD), feature="erofs")
    one_image_for_each_platform(root)
    assert preferred(root) is root.children[0]


def test_podman_looks_at_one_level_after_the_other() -> None:
    inner = index_of((A, AMD, None))
    outer = Node(inner.descriptor, index=inner.index, children=(*index_of((B, None, "linux/arm64")).children, inner))
    assert taken(outer) == {"Docker": "A", "podman": "B"}
    with pytest.raises(Refused, match="would take different images"):
        one_image_for_each_platform(outer)
    turned = Node(inner.descriptor, index=inner.index, children=(inner, *index_of((B, "linux/arm64", None)).children))
    assert taken(turned) == {"containerd": "A", "Docker": "A", "podman": "A"}
    one_image_for_each_platform(turned)


def test_an_index_of_thousands_of_platforms_is_soon_looked_through() -> None:
    one_image_for_each_platform(index_of(*((A, f"linux/x{number}", None) for number in range(3000))))


def test_one_manifest_for_two_platforms_is_one_image() -> None:
    one_image_for_each_platform(index_of((A, AMD, AMD), (A, "linux/arm64", AMD)))


def test_the_refusal_names_both() -> None:
    root = index_of((A, AMD, None), (B, "linux/amd64/v1", AMD))
    first, second = (json.dumps(str(child.descriptor.digest)).strip('"') for child in root.children)
    with pytest.raises(Refused, match=f"two images for linux/amd64: {first} and {second}"):
        one_image_for_each_platform(root)
