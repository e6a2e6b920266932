"""Upkeep of the store: names come and go, images go with their last name, nothing that is needed is ever deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imgtar.model.limits import DEFAULT_LIMITS
from tests.builders.images import (
    OCI_INDEX,
    OCI_MANIFEST,
    Document,
    attestation,
    docker_files,
    dumps,
    make_image,
    make_index,
    oci_archive,
    sha256,
)
from tests.conftest import Imgtar, stored

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "app:2"), 2, seed=2, base=BASE)
TOOL = make_image("tool:1", 1, seed=3, base=BASE)
BARE = make_image((), 1, seed=4)


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(oci_archive([BASE, APP, TOOL, BARE])).ok()
    return imgtar


def ids(imgtar: Imgtar) -> set[str]:
    return {row["image_id"] for row in imgtar.images()}


def blobs(imgtar: Imgtar) -> set[str]:
    return {"sha256:" + path.name for path in (imgtar.store / "blobs" / "sha256").iterdir()}


def everything(*images: Any) -> set[str]:
    return {digest for image in images for digest in image.document.blobs()}


# -- tag -------------------------------------------------------------------------------------------------------------


def test_a_tag_adds_a_name_and_no_blob(filled: Imgtar) -> None:
    before = blobs(filled)
    done = filled("tag", "app:1", "mine/app:9", "--json").ok().json()
    assert done["tags"] == [{"name": "mine/app:9", "from": None, "to": APP.image_id}]
    assert filled.names()["mine/app:9"] == APP.image_id
    assert blobs(filled) == before


def test_a_tag_moves_a_name_and_the_old_image_stays(filled: Imgtar) -> None:
    done = filled("tag", "app:1", "tool:1").ok()
    assert TOOL.image_id in done.errors
    assert filled.names()["tool:1"] == APP.image_id
    assert TOOL.image_id in ids(filled)


def test_a_tag_on_itself_changes_nothing(filled: Imgtar) -> None:
    before = stored(filled.store)
    filled("tag", "app:1", "app:1").ok()
    assert stored(filled.store) == before


@pytest.mark.parametrize("source", ["app:1", "app:2", APP.image_id, APP.digest, APP.image_id[7:19]])
def test_whatever_means_an_image_can_be_tagged(source: str, filled: Imgtar) -> None:
    filled("tag", source, "new").ok()
    assert filled.names()["new:latest"] == APP.image_id


def test_a_source_that_means_two_images_is_a_usage_error(filled: Imgtar) -> None:
    filled("tag", "tool:1", "app:3").ok()
    assert filled("tag", "app", "x:1").code == 2
    filled("tag", "tool:1", "app:latest").ok()
    filled("tag", "app", "x:1").ok()
    assert filled.names()["x:1"] == TOOL.image_id, "without a tag, latest is meant if there is one"


def test_an_index_can_be_tagged(imgtar: Imgtar) -> None:
    index = make_index(BARE, make_image((), seed=5, platform="linux/arm64"))
    imgtar.load(oci_archive([(index, ["multi:1"])])).ok()
    imgtar("tag", "multi:1", "multi:2").ok()
    assert {row["name"] for row in imgtar.images() if row["digest"] == index.digest} == {"multi:1", "multi:2"}


# -- rmi -------------------------------------------------------------------------------------------------------------


def test_an_image_goes_with_its_last_name_and_what_others_need_stays(filled: Imgtar) -> None:
    done = filled("rmi", "app:1", "--json").ok().json()
    assert (done["untagged"], done["deleted"], done["blobs_deleted"]) == (["app:1"], [], 0)
    done = filled("rmi", "app:2", "--json").ok().json()
    assert (done["untagged"], done["deleted"]) == (["app:2"], [APP.image_id])
    assert blobs(filled) == everything(BASE, TOOL, BARE)
    assert done["blobs_deleted"] == len(everything(APP) - everything(BASE, TOOL, BARE))
    filled("verify").ok()


def test_both_names_of_an_image_in_one_command_remove_it(filled: Imgtar) -> None:
    done = filled("rmi", "app:1", "app:2", "--json").ok().json()
    assert done["deleted"] == [APP.image_id]
    assert APP.image_id not in ids(filled)


def test_several_images_in_one_command(filled: Imgtar) -> None:
    filled("rmi", "app:1", "tool:1", BARE.image_id, "app:2").ok()
    assert ids(filled) == {BASE.image_id}
    assert blobs(filled) == everything(BASE)


def test_one_wrong_name_among_several_removes_nothing(filled: Imgtar) -> None:
    before = stored(filled.store)
    assert filled("rmi", "app:1", "nobody:1", "tool:1").code == 3
    assert stored(filled.store) == before


def test_the_same_name_twice_is_one_name(filled: Imgtar) -> None:
    done = filled("rmi", "tool:1", "tool:1", "--json").ok().json()
    assert done["untagged"] == ["tool:1"]
    assert done["deleted"] == [TOOL.image_id]


@pytest.mark.parametrize("text", [APP.image_id, APP.digest, APP.image_id[7:19]])
def test_an_id_with_several_names_needs_force(text: str, filled: Imgtar) -> None:
    done = filled("rmi", text)
    assert done.code == 9
    assert "app:1, app:2" in done.errors
    filled("rmi", "-f", text).ok()
    assert APP.image_id not in ids(filled)
    assert not {"app:1", "app:2"} & set(filled.names())


def test_an_id_with_one_name_or_none_needs_no_force(filled: Imgtar) -> None:
    filled("rmi", TOOL.image_id, BARE.image_id).ok()
    assert ids(filled) == {BASE.image_id, APP.image_id}


@pytest.fixture
def with_parent(imgtar: Imgtar) -> Imgtar:
    def declare(items: Any) -> None:
        items[1]["Parent"] = BASE.image_id

    imgtar.load(docker_files([BASE, APP]).edited("manifest.json", declare).tar()).ok()
    return imgtar


def test_a_parent_is_not_removed_before_its_child(with_parent: Imgtar) -> None:
    done = with_parent("rmi", "base:1")
    assert done.code == 9
    assert "app:1" in done.errors
    assert set(with_parent.names()) == {"base:1", "app:1", "app:2"}


def test_force_removes_a_parent_and_the_child_keeps_all_it_needs(with_parent: Imgtar) -> None:
    with_parent("rmi", "-f", "base:1").ok()
    assert blobs(with_parent) == everything(APP)
    with_parent("verify").ok()
    with_parent("save", "app:1").ok()


def test_parent_and_child_go_together(with_parent: Imgtar) -> None:
    with_parent("rmi", "base:1", "app:1", "app:2").ok()
    assert blobs(with_parent) == set()


def test_a_parent_that_keeps_another_name_may_lose_one(with_parent: Imgtar) -> None:
    with_parent("tag", "base:1", "base:2").ok()
    with_parent("rmi", "base:1").ok()
    assert with_parent("rmi", "base:2").code == 9


def test_a_moved_child_still_protects_its_parent(with_parent: Imgtar) -> None:
    with_parent("tag", "app:1", "moved:1").ok()
    with_parent("rmi", "app:1", "app:2").ok()
    assert with_parent("rmi", "base:1").code == 9


def signature(subject: str) -> Document:
    config = b"{}"
    raw = dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/x.signature",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(config), "size": 2},
            "layers": [],
            "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1},
        }
    )
    return Document(raw, "application/vnd.oci.image.manifest.v1+json", None, {}, {sha256(config): config})


def test_referrers_go_with_what_they_refer_to_and_only_then(imgtar: Imgtar) -> None:
    first = signature(TOOL.digest)
    second = signature(first.digest)
    kept = signature(BASE.digest)
    imgtar.load(oci_archive([BASE, TOOL, (first, []), (second, []), (kept, [])])).ok()
    assert {first.digest, second.digest, kept.digest} <= blobs(imgtar)
    imgtar("rmi", "tool:1").ok()
    assert blobs(imgtar) == everything(BASE) | set(kept.blobs())
    imgtar("verify").ok()


def test_prune_keeps_referrers_of_what_stays(imgtar: Imgtar) -> None:
    kept = signature(BASE.digest)
    imgtar.load(oci_archive([BASE, (kept, [])])).ok()
    imgtar("prune", "--untagged").ok()
    assert blobs(imgtar) == everything(BASE) | set(kept.blobs())


def test_an_index_goes_with_all_its_platforms_and_attestations(imgtar: Imgtar) -> None:
    index = make_index(BARE, make_image((), seed=5, platform="linux/arm64"), attestation(BARE))
    imgtar.load(oci_archive([(index, ["multi:1"]), BASE])).ok()
    imgtar("rmi", "multi:1").ok()
    assert blobs(imgtar) == everything(BASE)


def test_a_platform_that_another_name_holds_too_stays(imgtar: Imgtar) -> None:
    index = make_index(TOOL, make_image((), seed=5, platform="linux/arm64"))
    imgtar.load(oci_archive([(index, ["multi:1"]), TOOL])).ok()
    imgtar("rmi", "multi:1").ok()
    assert blobs(imgtar) == everything(TOOL)
    imgtar("verify").ok()


def test_an_image_with_a_rotten_layer_can_be_removed(filled: Imgtar) -> None:
    (filled.store / "blobs" / TOOL.layers[2].digest.replace(":", "/")).write_bytes(b"rotten")
    filled("rmi", "tool:1").ok()
    filled("verify").ok()


# -- prune -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def littered(filled: Imgtar) -> Imgtar:
    (filled.store / "blobs" / "sha256" / sha256(b"litter")[7:]).write_bytes(b"litter")
    return filled


def test_prune_drops_what_nothing_reaches_and_keeps_untagged_images(littered: Imgtar) -> None:
    done = littered("prune", "--json").ok().json()
    assert (done["blobs_deleted"], done["bytes_freed"], done["deleted"]) == (1, 6, [])
    assert blobs(littered) == everything(BASE, APP, TOOL, BARE)
    assert littered("prune", "--json").ok().json()["blobs_deleted"] == 0


def test_prune_untagged_drops_images_without_a_name(littered: Imgtar) -> None:
    done = littered("prune", "--untagged", "--json").ok().json()
    assert done["deleted"] == [BARE.image_id]
    assert blobs(littered) == everything(BASE, APP, TOOL)
    assert ids(littered) == {BASE.image_id, APP.image_id, TOOL.image_id}


@pytest.mark.parametrize("options", [[], ["--untagged"]])
def test_a_dry_run_promises_what_prune_then_does(options: list[str], littered: Imgtar) -> None:
    before = stored(littered.store)
    promised = littered("prune", "--dry-run", *options, "--json").ok().json()
    assert stored(littered.store) == before
    done = littered("prune", *options, "--json").ok().json()
    assert promised == {**done, "dry_run": True}


@pytest.mark.parametrize("victim", [APP.digest, "index"])
def test_what_cannot_be_read_might_need_anything_so_nothing_is_deleted(victim: str, littered: Imgtar) -> None:
    index = make_index(BARE, make_image((), seed=5, platform="linux/arm64"))
    littered.load(oci_archive([(index, ["multi:1"])])).ok()
    path = littered.store / "blobs" / (index.digest if victim == "index" else victim).replace(":", "/")
    good = path.read_bytes()
    path.write_bytes(good.replace(b"2", b"3", 1))
    before = stored(littered.store)
    done = littered("prune", "--untagged")
    assert done.code == 7, done.errors
    assert stored(littered.store) == before
    path.write_bytes(good)
    littered("prune", "--untagged").ok()


def test_a_manifest_that_is_gone_hides_what_it_needs_too(littered: Imgtar) -> None:
    """Its layers may be all that is left to repair the image with: they are not litter yet."""
    (littered.store / "blobs" / APP.digest.replace(":", "/")).unlink()
    littered("prune")
    assert {layer.digest for layer in APP.layers} <= blobs(littered)


def test_rmi_beside_an_unreadable_image_deletes_no_blob_it_may_need(filled: Imgtar) -> None:
    (filled.store / "blobs" / APP.digest.replace(":", "/")).write_bytes(b"rotten")
    filled("rmi", "tool:1")
    assert {layer.digest for layer in APP.layers} <= blobs(filled)
    filled.load(oci_archive([APP])).ok()
    filled("verify").ok()


def test_a_sparse_index_does_not_stop_prune(imgtar: Imgtar) -> None:
    index = make_index(BARE, sparse=[make_image((), seed=5, platform="linux/arm64")])
    imgtar.load(oci_archive([(index, ["multi:1"])])).ok()
    (imgtar.store / "blobs" / "sha256" / sha256(b"litter")[7:]).write_bytes(b"litter")
    assert imgtar("prune", "--json").ok().json()["blobs_deleted"] == 1
    imgtar("verify").ok()


# -- large stores ----------------------------------------------------------------------------------------------------


def put_large_index(imgtar: Imgtar, entries: int) -> None:
    """As another tool may leave it: first in ``index.json``, an index most of whose platforms are not here."""
    listed = [{"mediaType": OCI_MANIFEST, "digest": f"sha256:{n:064x}", "size": 1} for n in range(entries)]
    raw = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})
    (imgtar.store / "blobs" / "sha256" / sha256(raw)[7:]).write_bytes(raw)
    index = json.loads((imgtar.store / "index.json").read_bytes())
    index["manifests"].insert(0, {"mediaType": OCI_INDEX, "digest": sha256(raw), "size": len(raw)})
    (imgtar.store / "index.json").write_bytes(dumps(index))


def test_more_descriptors_than_an_archive_may_have_cost_no_image_its_layers(filled: Imgtar, tmp_path: Path) -> None:
    put_large_index(filled, DEFAULT_LIMITS.descriptors)
    verdict = filled("verify", "--json").json()["archives"][0]
    assert {name for image in verdict["images"] if image["ok"] for name in image["names"]} >= {"app:1", "tool:1"}
    filled("prune").ok()
    assert everything(BASE, APP, TOOL, BARE) <= blobs(filled)
    filled("rmi", "tool:1").ok()
    assert everything(BASE, APP, BARE) <= blobs(filled)
    assert not set(TOOL.document.blobs()) & blobs(filled) - everything(BASE, APP, BARE)
    filled("save", "-o", tmp_path / "app.tar", APP.image_id).ok()


def test_a_name_beside_others_goes_without_a_document_being_read(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgtar.store.inventory.StoreInventory.fetch", lambda *_: pytest.fail("a document was read"))
    done = filled("rmi", "app:2", "--json").ok().json()
    assert (done["untagged"], done["deleted"], done["blobs_deleted"]) == (["app:2"], [], 0)
    assert "app:2" not in (filled.store / "index.json").read_text()
    assert "app:1" in (filled.store / "index.json").read_text()


def test_rmi_reads_each_document_once(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtar.store.inventory import StoreInventory

    read: list[str] = []
    real = StoreInventory.fetch
    monkeypatch.setattr(
        StoreInventory, "fetch", lambda self, one, cap: (read.append(str(one.digest)), real(self, one, cap))[1]
    )
    filled("rmi", "app:1", "app:2").ok()
    assert len(read) == len(set(read))
    assert blobs(filled) == everything(BASE, TOOL, BARE)
