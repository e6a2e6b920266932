"""Verify lists everything that is wrong, not only the first thing, and proves what is right."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtar.ops.verify import verify
from tests.builders.images import Files, docker_files, hybrid_files, make_image, oci_archive, oci_files, sha256
from tests.conftest import Imgtar

BASE = make_image("base:1", 2, seed=1)
APP = make_image("app:1", 2, seed=2, base=BASE)
TOOL = make_image("tool:1", 2, seed=3)


def place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def spoil(files: Files, *digests: str) -> Files:
    for digest in digests:
        data = files[place(digest)]
        files = files.put(place(digest), data[:-1] + bytes([data[-1] ^ 1]))
    return files


def examined(imgtar: Imgtar, path: Path, *options: str) -> Any:
    done = imgtar("verify", path, *options, "--json").json()
    assert done["schema"] == "imgtar.verify/1"
    return done


def faults(document: Any) -> list[tuple[str, str]]:
    return [(each["code"], each["message"]) for each in document["findings"] if each["severity"] == "error"]


def test_every_damaged_and_every_missing_blob_is_listed(imgtar: Imgtar, tmp_path: Path) -> None:
    bad = [BASE.layers[0].digest, APP.layers[2].digest, TOOL.layers[1].digest]
    files = spoil(oci_files([BASE, APP, TOOL]), *bad).without(place(TOOL.layers[0].digest))
    (tmp_path / "a.tar").write_bytes(files.tar())
    document = examined(imgtar, tmp_path / "a.tar")
    found = faults(document)
    assert sorted(code for code, _ in found) == ["E_DIGEST", "E_DIGEST", "E_DIGEST", "E_MISSING"]
    for digest in [*bad, TOOL.layers[0].digest]:
        assert any(digest in message for _, message in found)
    verdicts = {image["names"][0]: image["ok"] for image in document["archives"][0]["images"]}
    assert verdicts == {"base:1": False, "app:1": False, "tool:1": False}


def test_a_fault_of_one_image_does_not_blame_another(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(spoil(oci_files([APP, TOOL]), TOOL.layers[1].digest).tar())
    verdicts = examined(imgtar, tmp_path / "a.tar")["archives"][0]["images"]
    assert {image["names"][0]: image["ok"] for image in verdicts} == {"app:1": True, "tool:1": False}


@given(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)))
@settings(max_examples=20, deadline=None)
def test_the_findings_are_exactly_the_damage_that_was_done(spoilt: set[int], lost: set[int]) -> None:
    import tempfile

    layers = [layer.digest for layer in APP.layers]
    files = spoil(oci_files([APP]), *(layers[n] for n in spoilt))
    if lost:
        files = files.without(*(place(layers[n]) for n in lost))
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(files.tar())
        file.flush()
        done = verify([file.name])
    assert sorted((f.code, f.exit_code) for f in done.findings) == sorted(
        [("E_DIGEST", 5)] * len(spoilt - lost) + [("E_MISSING", 4)] * len(lost)
    )
    assert done.ok is not bool(spoilt | lost)
    assert done.exit_code == (5 if spoilt - lost else 4 if lost else 0)


def test_one_bad_archive_among_good_ones_does_not_hide_them(imgtar: Imgtar, tmp_path: Path) -> None:
    for name, data in (("a", oci_archive([APP])), ("b", b"hello"), ("c", oci_archive([TOOL])[:-2000])):
        (tmp_path / name).write_bytes(data)
    done = imgtar("verify", tmp_path / "a", tmp_path / "b", tmp_path / "c", "--json")
    assert done.code == 5
    document = done.json()
    assert [len(archive["images"]) for archive in document["archives"]] == [1, 0, 0]
    assert [code for code, _ in faults(document)] == ["E_TYPE", "E_TRUNC"]


def test_a_wrong_diff_id_is_found_in_full_depth_and_not_claimed_to_be_checked_in_fast(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    def lie(config: Any) -> None:
        config["rootfs"]["diff_ids"][1] = sha256(b"another")

    (tmp_path / "a.tar").write_bytes(oci_archive([APP.with_config(lie)]))
    assert [code for code, _ in faults(examined(imgtar, tmp_path / "a.tar"))] == ["E_DIFFID"]
    fast = examined(imgtar, tmp_path / "a.tar", "--fast")
    assert fast["ok"] is True
    assert fast["depth"] == "fast"
    assert fast["archives"][0]["blobs_checked"] == 2, "the documents alone"


def test_views_that_disagree_are_found(imgtar: Imgtar, tmp_path: Path) -> None:
    files = hybrid_files([APP, TOOL])

    def swap(items: Any) -> None:
        items[0]["RepoTags"], items[1]["RepoTags"] = items[1]["RepoTags"], items[0]["RepoTags"]

    (tmp_path / "a.tar").write_bytes(files.edited("manifest.json", swap).tar())
    assert [code for code, _ in faults(examined(imgtar, tmp_path / "a.tar"))] == ["E_TYPE"]


def test_strict_counts_warnings(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(oci_files([APP]).without("oci-layout").tar())
    assert imgtar("verify", tmp_path / "a.tar").code == 0
    assert imgtar("verify", "--strict", tmp_path / "a.tar").code == 5


def test_damage_in_a_blob_that_nothing_refers_to_is_found_too(imgtar: Imgtar, tmp_path: Path) -> None:
    files = oci_files([APP]).put(place(sha256(b"stray")), b"stray")
    (tmp_path / "a.tar").write_bytes(files.tar())
    document = examined(imgtar, tmp_path / "a.tar")
    assert document["ok"] is True
    assert document["archives"][0]["unreferenced_blobs"] == 1
    (tmp_path / "a.tar").write_bytes(spoil(files, sha256(b"stray")).tar())
    assert [code for code, _ in faults(examined(imgtar, tmp_path / "a.tar"))] == ["E_DIGEST"]


@pytest.mark.parametrize("lay_out", [docker_files, oci_files, hybrid_files])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_single_flipped_bit_goes_unnoticed_or_changes_an_image(lay_out: Any, data: Any) -> None:
    """Whatever bit a medium flips: verify fails, or everything that is said of the archive is still true."""
    import tempfile

    raw = bytearray(lay_out([APP]).tar())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(raw)
        file.flush()
        done = verify([file.name])
    if done.ok:
        shown = {image["image_id"] for archive in done.archives for image in archive.images}
        assert shown <= {APP.image_id}


@pytest.mark.parametrize("outer", [bytes, gzip.compress], ids=["plain", "gzip"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_no_cut_goes_unnoticed(outer: Any, data: Any) -> None:
    import tempfile

    raw = outer(oci_archive([APP]))
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(raw[: data.draw(st.integers(0, len(raw) - 1))])
        file.flush()
        done = verify([file.name])
    assert not done.ok
    assert done.exit_code == 5


def test_every_damaged_blob_of_the_store_is_listed_whatever_kind_of_damage(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([BASE, APP, TOOL])).ok()
    changed, cut, gone = (imgtar.store / place(d) for d in (BASE.layers[0].digest, APP.layers[3].digest, TOOL.image_id))
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    done = imgtar("verify", "--json")
    assert done.code == 7
    for path in (changed, cut, gone):
        assert any(path.name in message or path.name in done.errors for _, message in faults(done.json())), path
    assert all(path.name in done.errors for path in (changed, cut, gone))


def test_the_evidence_counts_every_blob_once(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(oci_archive([BASE, APP]))
    blobs = {**BASE.document.blobs(), **APP.document.blobs()}
    (archive,) = examined(imgtar, tmp_path / "a.tar")["archives"]
    assert (archive["blobs_checked"], archive["bytes_checked"]) == (len(blobs), sum(map(len, blobs.values())))
