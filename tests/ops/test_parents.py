"""Parent images: declared inside and outside the archive, annotated bases, and what each policy makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.images import (
    OCI_MANIFEST,
    Image,
    docker_files,
    dumps,
    make_image,
    make_index,
    oci_archive,
    oci_files,
    sha256,
)
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 2, seed=1)
MIDDLE = make_image("middle:1", 1, seed=2, base=BASE)
CHILD = make_image("child:1", 1, seed=3, base=MIDDLE)
POLICIES = ["require", "warn", "ignore"]


def with_parents(images: list[Image], parents: dict[str, str]) -> bytes:
    """A docker archive whose ``manifest.json`` names parents: name of the child to ID of the parent."""

    def edit(items: list[dict[str, object]]) -> None:
        for item in items:
            for name in item["RepoTags"]:  # type: ignore[attr-defined]
                if name in parents:
                    item["Parent"] = parents[name]

    return docker_files(images).edited("manifest.json", edit).tar()


def on_base(image: Image, *, digest: str | None = None, name: str | None = None) -> Image:
    """The image with base annotations in its manifest."""
    notes = {
        **({"org.opencontainers.image.base.digest": digest} if digest else {}),
        **({"org.opencontainers.image.base.name": name} if name else {}),
    }
    return image.with_manifest(lambda manifest: {**manifest, "annotations": notes})


@pytest.mark.parametrize("policy", POLICIES)
def test_a_parent_inside_the_archive_satisfies_every_policy(policy: str, imgtar: Imgtar) -> None:
    archive = with_parents([CHILD, BASE, MIDDLE], {"child:1": MIDDLE.image_id, "middle:1": BASE.image_id})
    done = imgtar.load(archive, "--parents", policy).ok()
    assert done.text.splitlines() == [f"Loaded image: {name}" for name in ("base:1", "middle:1", "child:1")]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("there", ["nowhere", "in the store", "in another archive"])
def test_a_parent_outside_the_archive_is_looked_for_everywhere(
    there: str, policy: str, imgtar: Imgtar, tmp_path: Path
) -> None:
    path, other = tmp_path / "child.tar", tmp_path / "base.tar"
    path.write_bytes(with_parents([CHILD], {"child:1": MIDDLE.image_id}))
    other.write_bytes(oci_archive([MIDDLE]))
    imgtar.load(oci_archive([MIDDLE if there == "in the store" else make_image("other:1", seed=8)])).ok()
    inputs = ["-i", path, *(["-i", other] if there == "in another archive" else [])]
    before = stored(imgtar.store)
    done = imgtar("load", "--parents", policy, *inputs)
    if there != "nowhere" or policy != "require":
        done.ok()
        assert "child:1" in imgtar.names()
        assert ("is nowhere" in done.errors) == (there == "nowhere" and policy == "warn")
        return
    assert done.code == 4
    assert stored(imgtar.store) == before
    assert f"bring the parent image {MIDDLE.image_id}" in done.errors
    (gap,) = imgtar("load", "--json", "--dry-run", *inputs).json()["missing"]
    assert (gap["kind"], gap["digest"], gap["class"]) == ("parent", MIDDLE.image_id, "absent")
    assert gap["needed_by"] == ["child:1"]
    assert imgtar("verify", "--against", imgtar.store, path).code == 4
    assert imgtar("verify", "--parents", "warn", "--against", imgtar.store, path).code == 0


def test_a_missing_parent_is_told_with_everybody_who_stands_on_it_and_the_way(imgtar: Imgtar) -> None:
    archive = with_parents([CHILD, MIDDLE], {"child:1": MIDDLE.image_id, "middle:1": BASE.image_id})
    (gap,) = imgtar.load(archive, "--dry-run", "--json").json()["missing"]
    assert gap["digest"] == BASE.image_id
    assert gap["needed_by"] == ["middle:1", "child:1"]
    assert gap["through"] == [["middle:1", BASE.image_id], ["child:1", "middle:1", BASE.image_id]]


def test_a_partial_load_leaves_what_stands_on_an_image_that_is_left(imgtar: Imgtar) -> None:
    other = make_image("other:1", seed=8)
    archive = with_parents([CHILD, MIDDLE, other], {"child:1": MIDDLE.image_id, "middle:1": BASE.image_id})
    done = imgtar.load(archive, "--partial", "--json").ok()
    assert set(imgtar.names()) == {"other:1"}
    assert {left["image"] for left in done.json()["left_behind"]} == {"child:1", "middle:1"}
    assert "left behind: child:1" in done.errors


def test_a_child_that_does_not_start_with_the_layers_of_its_parent_is_refused_wherever_the_parent_is(
    imgtar: Imgtar,
) -> None:
    stranger = make_image("stranger:1", 2, seed=7)
    archive = with_parents([CHILD, stranger], {"child:1": stranger.image_id})
    assert imgtar.load(archive).code == 5
    imgtar.load(oci_archive([stranger])).ok()
    before = stored(imgtar.store)
    done = imgtar.load(with_parents([CHILD], {"child:1": stranger.image_id}))
    assert done.code == 5
    assert "E_GRAPH" in done.errors
    assert stored(imgtar.store) == before


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("by", ["digest", "name", "both"])
def test_an_annotated_base_informs_and_counts_only_when_asked(policy: str, by: str, imgtar: Imgtar) -> None:
    digest = BASE.digest if by != "name" else None
    name = "docker.io/library/base:1" if by != "digest" else None
    archive = oci_archive([on_base(CHILD, digest=digest, name=name)])
    done = imgtar.load(archive, "--parents", policy, "--json").ok()
    told = [f for f in done.json()["findings"] if "base image" in f["message"]]
    assert [finding["severity"] for finding in told] == ([] if policy == "ignore" else ["info"])
    imgtar("rmi", "child:1").ok()
    asked = imgtar.load(archive, "--parents", policy, "--require-base", "--json")
    assert asked.code == (4 if policy == "require" else 0)
    if policy == "require":
        (gap,) = asked.json()["error"]["details"]["missing"]
        assert gap["kind"] == "parent"
        assert gap["digest"] == digest
        assert "without --require-base" in gap["hint"]
        imgtar.load(oci_archive([BASE])).ok()
        imgtar.load(archive, "--require-base").ok()


def test_a_base_named_by_the_digest_of_an_index_is_found_in_it(imgtar: Imgtar) -> None:
    index = make_index(BASE.named(), make_image((), 2, "linux/arm64", seed=5))
    archive = oci_archive([on_base(CHILD, digest=index.digest)])
    assert imgtar.load(archive, "--require-base").code == 4
    imgtar.load(oci_archive([(index, ["base:1"])])).ok()
    imgtar.load(archive, "--require-base").ok()
    inner = oci_archive([on_base(MIDDLE, digest=BASE.digest)])
    imgtar.load(inner, "--require-base").ok()


def test_a_base_that_comes_with_the_same_load_is_there(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([on_base(CHILD, digest=BASE.digest, name="base:1"), BASE]), "--require-base").ok()


def test_an_image_that_another_names_as_its_parent_is_removed_only_by_force(imgtar: Imgtar) -> None:
    imgtar.load(with_parents([BASE, MIDDLE], {"middle:1": BASE.image_id})).ok()
    done = imgtar("rmi", "base:1")
    assert done.code == 9
    assert "middle:1 names" in done.errors
    imgtar("rmi", "-f", "base:1").ok()
    imgtar("verify").ok()
    imgtar("prune").ok()
    imgtar("verify").ok()
    assert imgtar("save", "middle:1").code == 0


def with_artifact(image: Image) -> tuple[bytes, bytes, str]:
    """An archive with an image and an artifact about it, one with the artifact alone, and the artifact's digest."""
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/example",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [],
            "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)},
        }
    )
    entry = {"mediaType": OCI_MANIFEST, "digest": sha256(raw), "size": len(raw)}
    both = oci_files([image])
    for blob in (raw, b"{}"):
        both = both.put(f"blobs/sha256/{sha256(blob)[7:]}", blob)
    both = both.edited("index.json", lambda index: {**index, "manifests": [*index["manifests"], entry]})
    alone = both.edited("index.json", lambda index: {**index, "manifests": [entry]})
    alone = alone.without(*(f"blobs/sha256/{digest[7:]}" for digest in image.document.blobs()))
    return both.tar(), alone.tar(), sha256(raw)


def test_the_subject_of_an_artifact_that_is_asked_for_comes_along_or_is_missing(imgtar: Imgtar) -> None:
    both, alone, artifact = with_artifact(BASE)
    gap_run = imgtar.load(alone, artifact, "--json")
    assert gap_run.code == 4
    (gap,) = gap_run.json()["error"]["details"]["missing"]
    assert (gap["kind"], gap["digest"], gap["size"]) == ("manifest", BASE.digest, len(BASE.manifest))
    assert gap["through"][0][1] == "subject"
    imgtar.load(both, artifact).ok()
    assert {row["image_id"] for row in imgtar.images()} == {BASE.image_id}
    imgtar.load(alone, artifact).ok()
    imgtar("verify").ok()


def test_an_artifact_that_merely_lies_in_an_archive_needs_no_subject(imgtar: Imgtar) -> None:
    """Signatures travel without what they sign; whoever loads the whole archive has not asked for one of them."""
    _, alone, artifact = with_artifact(BASE)
    imgtar.load(alone).ok()
    assert (imgtar.store / "blobs" / artifact.replace(":", "/")).exists()
