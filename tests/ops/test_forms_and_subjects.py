"""One image in several forms, artifacts and what they are about: the same outcome whatever lies beside them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import (
    OCI_MANIFEST,
    Files,
    Image,
    docker_archive,
    docker_files,
    dumps,
    hexed,
    make_image,
    make_index,
    oci_archive,
    oci_files,
    oci_layout,
    sha256,
)
from tests.conftest import Imgtar


def put(imgtar: Imgtar, **archives: bytes) -> list[object]:
    """Write archives and return the options that load them all, in the order given."""
    inputs: list[object] = []
    for name, raw in archives.items():
        path = imgtar.home / f"{name}.tar"
        path.write_bytes(raw)
        inputs += ["-i", path]
    return inputs


def two_forms(seed: int) -> tuple[Image, Image]:
    packed = make_image("app:1", 2, "linux/amd64", "gzip", seed=seed)
    return packed, make_image("app:1", [layer.plain() for layer in packed.layers], seed=seed)


def about(files: Files, subject: str, size: int, seed: int = 0, name: str = "") -> tuple[Files, str, int]:
    """The layout with an artifact about ``subject``."""
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": f"application/example-{seed}",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": size},
        }
    )
    entry: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": sha256(raw), "size": len(raw)}
    if name:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    for blob in (raw, b"{}"):
        files = files.put(f"blobs/sha256/{hexed(sha256(blob))}", blob)
    files = files.edited("index.json", lambda index: {**index, "manifests": [*index["manifests"], entry]})
    return files, sha256(raw), len(raw)


@pytest.mark.parametrize("seed", range(6))
def test_an_incomplete_form_beside_a_whole_one_does_no_harm(seed: int, imgtar: Imgtar) -> None:
    packed, plain = two_forms(seed)
    cut = oci_files([packed]).without(f"blobs/sha256/{hexed(packed.layers[0].digest)}").tar()
    imgtar("load", *put(imgtar, whole=docker_archive([plain]), cut=cut)).ok()
    assert imgtar.names() == {"app:1": plain.image_id}
    imgtar("verify").ok()


@pytest.mark.parametrize("seed", range(4))
def test_a_parent_that_only_one_form_declares_is_asked_for(seed: int, imgtar: Imgtar) -> None:
    packed, plain = two_forms(seed)
    parent = sha256(b"nowhere")
    docker = docker_files([plain]).edited("manifest.json", lambda items: [{**item, "Parent": parent} for item in items])
    done = imgtar("load", "--json", "--dry-run", *put(imgtar, docker=docker.tar(), oci=oci_archive([packed])))
    assert done.code == 4
    assert [(gap["kind"], gap["digest"]) for gap in done.json()["missing"]] == [("parent", parent)]


def test_the_form_that_an_artifact_is_about_stays(imgtar: Imgtar) -> None:
    packed, plain = two_forms(1)
    archives = {}
    for name, image in (("packed", packed), ("plain", plain)):
        archives[name] = about(oci_files([image]), image.digest, len(image.manifest), seed=len(name))[0].tar()
    for order in (("packed", "plain"), ("plain", "packed")):
        store = imgtar.home / order[0]
        imgtar("load", *put(imgtar, **{name: archives[name] for name in order}), "app:1", store=store).ok()
        imgtar("verify", store=store).ok()
        assert imgtar.names(store=store) == {"app:1": plain.image_id}


def test_an_archive_is_judged_by_all_forms_that_it_lists(imgtar: Imgtar) -> None:
    packed, plain = two_forms(1)
    files = oci_layout([packed, plain])
    imgtar("verify", *put(imgtar, both=files.tar())[1:]).ok()
    assert imgtar("verify", "--json", imgtar.home / "both.tar").json()["archives"][0]["unreferenced_blobs"] == 0
    cut = files.without(f"blobs/sha256/{hexed(packed.layers[0].digest)}")
    assert imgtar("verify", *put(imgtar, cut=cut.tar())[1:]).code == 4


def test_an_artifact_about_an_artifact_brings_both(imgtar: Imgtar) -> None:
    image = make_image("app:1", 1, seed=1)
    files, sbom, size = about(oci_files([image]), image.digest, len(image.manifest), 1)
    files, signature, _ = about(files, sbom, size, 2)
    imgtar.load(files.tar(), signature).ok()
    assert {row["image_id"] for row in imgtar.images()} == {image.image_id}
    for digest in (sbom, signature):
        assert (imgtar.store / "blobs" / digest.replace(":", "/")).exists()


def test_an_artifact_about_a_platform_that_was_never_shipped_lacks_it(imgtar: Imgtar) -> None:
    amd, arm = make_image((), 1, seed=1), make_image((), 1, "linux/arm64", seed=2)
    files = oci_files([(make_index(amd, sparse=[arm]), ["multi:1"])])
    files, artifact, _ = about(files, arm.digest, len(arm.manifest))
    done = imgtar.load(files.tar(), artifact, "--json")
    assert done.code == 4
    assert [gap["digest"] for gap in done.json()["error"]["details"]["missing"]] == [arm.digest]


def test_a_partial_load_names_the_artifacts_that_are_left_with_their_image(imgtar: Imgtar) -> None:
    image, other = make_image("app:1", 1, seed=1), make_image("ok:1", 1, seed=2)
    files, sbom, size = about(oci_files([image, other]), image.digest, len(image.manifest), 1, "docker.io/x/sbom:1")
    files, signature, _ = about(files, sbom, size, 2, "docker.io/x/sig:1")
    cut = files.without(f"blobs/sha256/{hexed(image.layers[0].digest)}")
    done = imgtar.load(cut.tar(), "--partial", "--json").ok().json()
    assert {left["image"] for left in done["left_behind"]} == {"app:1", "x/sbom:1", "x/sig:1"}
    assert not (imgtar.store / "blobs" / signature.replace(":", "/")).exists()
    assert set(imgtar.names()) == {"ok:1"}


def test_two_images_of_one_name_are_seen_though_both_stay_at_home(imgtar: Imgtar, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for number in (1, 2):
        home = tmp_path / f"home{number}"
        image = make_image("a:1", 1, seed=number)
        imgtar.load(oci_archive([image]), store=home).ok()
        imgtar.load(oci_archive([image.named(f"held:{number}")]), store=site).ok()
        imgtar("save", "--base", "a:1", "-o", tmp_path / f"t{number}.tar", "a:1", store=home).ok()
    imgtar("inventory", "-o", tmp_path / "r.inv", store=site).ok()
    archives = [tmp_path / "t1.tar", tmp_path / "t2.tar"]
    assert imgtar("verify", *archives, "--against", tmp_path / "r.inv").code == 5
    assert imgtar("verify", *archives, "--against", site).code == 5
    assert imgtar("load", "-i", archives[0], "-i", archives[1], store=site).code == 5


def test_a_platform_that_is_not_wanted_may_be_incomplete_in_a_docker_archive(imgtar: Imgtar) -> None:
    amd, arm = make_image("x:amd", 1, seed=1), make_image("x:arm", 1, "linux/arm64", seed=2)
    files = docker_files([amd, arm]).without(f"{hexed(amd.layers[0].digest)}.tar")
    imgtar.load(files.tar(), "--platform", "linux/arm64").ok()
    assert set(imgtar.names()) == {"x:arm"}


def test_the_order_of_archives_decides_neither_the_form_of_a_layer_nor_the_parent(imgtar: Imgtar) -> None:
    image = make_image("d:1", 1, seed=1)
    packed = make_image("b:1", 1, "linux/amd64", "gzip", seed=1)
    cut = docker_files([image]).without(f"{hexed(image.layers[0].digest)}.tar").tar()
    others = {"b": oci_archive([packed]), "c": oci_archive([make_image("c:1", image.layers, seed=9)])}
    found = set()
    for order in (("b", "c"), ("c", "b")):
        store = imgtar.home / f"store-{order[0]}"
        imgtar("load", *put(imgtar, a=cut, **{name: others[name] for name in order}), store=store).ok()
        found.add(next(row["digest"] for row in imgtar.images(store=store) if row["name"] == "d:1"))
    assert found == {image.digest}
    parents = set()
    bases = [make_image(f"base:{n}", 0, seed=20 + n) for n in (1, 2)]
    named = [
        docker_files([image])
        .edited("manifest.json", lambda items, base=base: [{**i, "Parent": base.image_id} for i in items])
        .tar()
        for base in bases
    ]
    for number, order2 in enumerate((named, named[::-1])):
        store = imgtar.home / f"parents{number}"
        imgtar.load(docker_archive(bases), store=store).ok()
        imgtar("load", *put(imgtar, one=order2[0], two=order2[1]), store=store).ok()
        entries = json.loads((store / "index.json").read_bytes())["manifests"]
        parents |= {
            entry["annotations"].get("imgtar.parent") for entry in entries if "imgtar.parent" in entry["annotations"]
        }
    assert parents == {min(base.image_id for base in bases)}


def test_what_is_made_is_not_counted_as_a_part_of_the_archive(imgtar: Imgtar) -> None:
    packed, plain = two_forms(3)
    files = oci_layout([packed.named("packed:1"), plain])
    for layer in plain.layers:
        files = files.without(f"blobs/sha256/{hexed(layer.digest)}")
    (verdict,) = imgtar("verify", "--json", *put(imgtar, x=files.tar())[1:]).ok().json()["archives"]
    blobs = {member.name: len(member.data) for member in files.members if member.name.startswith("blobs/")}
    assert (verdict["blobs_checked"], verdict["bytes_checked"]) == (len(blobs), sum(blobs.values()))


def test_a_missing_config_of_a_parent_is_one_gap_that_the_child_has_too(imgtar: Imgtar) -> None:
    base = make_image("base:1", 1, seed=1)
    child = make_image("kid:1", 1, seed=2, base=base)
    files = docker_files([base, child]).without(f"{hexed(base.image_id)}.json")
    files = files.edited(
        "manifest.json",
        lambda items: [{**item, "Parent": base.image_id} if "kid:1" in item["RepoTags"] else item for item in items],
    )
    (gap,) = imgtar.load(files.tar(), "--dry-run", "--json").json()["missing"]
    assert (gap["kind"], set(gap["needed_by"])) == ("config", {"base:1", "kid:1"})


def test_a_name_for_the_only_image_is_not_given_to_the_one_that_is_left(imgtar: Imgtar) -> None:
    one, two = make_image((), 1, seed=1), make_image((), 1, seed=2)
    files = docker_files([one, two]).without(f"{hexed(one.layers[0].digest)}.tar")
    assert imgtar.load(files.tar(), "--partial", "--tag", "new:1").code == 2


def test_a_chain_of_incomplete_parents_is_planned_in_reasonable_steps(imgtar: Imgtar) -> None:
    chain = [make_image("c:0", 1, seed=1)]
    for number in range(1, 60):
        chain.append(make_image(f"c:{number}", 1, seed=1 + number, base=chain[-1]))
    files = docker_files(chain[:1])
    parents = {image.names[0]: above.image_id for above, image in itertools.pairwise(chain)}
    files = docker_files(chain).edited(
        "manifest.json",
        lambda items: [
            {**item, **({"Parent": parents[item["RepoTags"][0]]} if item["RepoTags"][0] in parents else {})}
            for item in items
        ],
    )
    files = files.without(*{f"{hexed(image.layers[-1].digest)}.tar" for image in chain})
    gaps = imgtar.load(files.tar(), "--dry-run", "--json").json()["missing"]
    assert len(gaps) == 60
    assert {name for gap in gaps for name in gap["needed_by"]} == {image.name for image in chain}


def test_a_folder_called_store_does_not_hide_the_store(imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(imgtar.home)
    imgtar.load(oci_archive([make_image("app:1", 1, seed=1)])).ok()
    imgtar.store.rename(imgtar.home / "elsewhere")
    (imgtar.home / "store").mkdir()
    path = put(imgtar, x=oci_archive([make_image("app:1", 1, seed=1)]))[1]
    imgtar("verify", path, "--against", "store", store=imgtar.home / "elsewhere").ok()


def test_the_reason_tells_bases_from_receivers(imgtar: Imgtar, tmp_path: Path) -> None:
    base, app = make_image("base:1", 1, seed=1), make_image("app:1", 1, seed=2)
    for name, image in (("a", base), ("b", app)):
        imgtar.load(oci_archive([image]), store=tmp_path / name).ok()
        imgtar("inventory", "-o", tmp_path / f"{name}.inv", store=tmp_path / name).ok()
    imgtar.load(oci_archive([app])).ok()
    receivers = ["--for", tmp_path / "a.inv", "--for", tmp_path / "b.inv"]
    text = imgtar("save", "--dry-run", "--base", tmp_path / "a.inv", *receivers, "app:1").ok().text
    assert f"not all of them hold it: {tmp_path / 'a.inv'} does not" in text


def test_a_document_in_one_line_is_an_inventory_too(imgtar: Imgtar, tmp_path: Path) -> None:
    imgtar.load(oci_archive([make_image("app:1", 1, seed=1)])).ok()
    document = imgtar("inventory", "--json").ok().json()
    (tmp_path / "x.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    assert imgtar("inventory", "diff", tmp_path / "x.json", "store").ok().text == "they hold the same\n"
