"""What save writes: the same bytes always, what every engine reads, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.builders.images import (
    attestation,
    docker_archive,
    docker_files,
    hexed,
    make_image,
    make_index,
    make_layer,
    oci_archive,
)
from tests.conftest import Imgtar, snapshot

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "registry.example:5000/team/app:new"), 2, seed=2, base=BASE, compression="gzip")
ARM = make_image((), seed=3, platform="linux/arm64/v8")
AMD = make_image((), seed=4)
MULTI = make_index(ARM, AMD, attestation(ARM), attestation(AMD))
TARS = ("hybrid", "docker", "oci")


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(oci_archive([BASE, APP, (MULTI, ["multi:1"])])).ok()
    return imgtar


def members(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            info.name: tar.extractfile(info).read()  # type: ignore[union-attr]
            for info in tar.getmembers()
            if info.isfile()
        }


# -- the same bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TARS)
@pytest.mark.parametrize(
    "extra", [[], ["--compress", "gzip"], ["--compress", "zstd:3"], ["--layers", "gzip"]], ids=" ".join
)
def test_the_same_images_give_the_same_bytes(form: str, extra: list[str], filled: Imgtar, tmp_path: Path) -> None:
    names = ["base:1", "app:1", "multi:1"]
    first = filled("save", "--format", form, *extra, "-j", "1", *names).ok().out
    second = filled("save", "--format", form, *extra, "-j", "4", *reversed(names)).ok().out
    assert first == second
    filled("save", "--format", form, *extra, "-o", tmp_path / "a.tar", *names, names[0]).ok()
    assert (tmp_path / "a.tar").read_bytes() == first


@pytest.mark.parametrize("form", TARS)
def test_another_store_another_order_of_loading_and_another_time_give_the_same_bytes(
    form: str, filled: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = filled("save", "--format", form, "base:1", "app:1").ok().out
    other = tmp_path / "other"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "C")
    for image in (APP, BASE):
        filled.load(oci_archive([image]), store=other).ok()
    before = os.umask(0o077)
    try:
        second = filled("save", "--format", form, "app:1", "base:1", store=other).ok().out
    finally:
        os.umask(before)
    assert first == second


@pytest.mark.parametrize("form", [*TARS, "oci-dir"])
def test_what_was_saved_and_loaded_saves_to_the_same_bytes_again(form: str, filled: Imgtar, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    names = ["base:1", *APP.names]
    filled("save", "--format", form, "-o", first, *names).ok()
    filled.load(first, store=tmp_path / "other").ok()
    filled("save", "--format", form, "-o", second, *names, store=tmp_path / "other").ok()
    if form == "oci-dir":
        assert snapshot(first) == snapshot(second)
    else:
        assert first.read_bytes() == second.read_bytes()


# -- the container ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TARS)
def test_every_entry_is_plain_and_says_nothing_of_the_machine(form: str, filled: Imgtar) -> None:
    data = filled("save", "--format", form, "base:1", "app:1", "multi:1").ok().out
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = tar.getmembers()
    assert len({entry.name for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.isfile() or entry.isdir()
        assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 0)
        assert entry.mode == (0o755 if entry.isdir() else 0o644)
        assert entry.pax_headers == {}
    assert data.endswith(bytes(1024))
    assert len(data) % 512 == 0


@pytest.mark.parametrize("form", TARS)
def test_small_documents_stand_before_the_layers(form: str, filled: Imgtar) -> None:
    names = list(members(filled("save", "--format", form, "base:1", "app:1").ok().out))
    layers = {hexed(layer.digest) for layer in (*BASE.layers, *APP.layers)}
    first_layer = min(place for place, name in enumerate(names) if any(each in name for each in layers))
    assert "manifest.json" in names[:first_layer] or "index.json" in names[:first_layer]
    assert all(any(each in name for each in layers) for name in names[first_layer:])
    assert len(names[first_layer:]) == len(layers), "shared layers stand in the archive once"


def test_a_hybrid_has_both_views_and_they_agree(filled: Imgtar) -> None:
    found = members(filled("save", "base:1", *APP.names).ok().out)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(found["index.json"])
    by_name = {e["annotations"]["io.containerd.image.name"]: e for e in index["manifests"]}
    assert set(by_name) == {
        "docker.io/library/base:1",
        "docker.io/library/app:1",
        "registry.example:5000/team/app:new",
    }
    assert by_name["docker.io/library/app:1"]["digest"] == APP.digest
    assert by_name["docker.io/library/app:1"]["annotations"]["org.opencontainers.image.ref.name"] == "1"
    assert found["blobs/" + APP.digest.replace(":", "/")] == APP.manifest
    items = {item["Config"]: item for item in json.loads(found["manifest.json"])}
    item = items["blobs/" + APP.image_id.replace(":", "/")]
    assert item["RepoTags"] == ["docker.io/library/app:1", "registry.example:5000/team/app:new"] or item[
        "RepoTags"
    ] == list(APP.names)
    assert [found[path] for path in item["Layers"]] == [layer.blob for layer in APP.layers]
    for path, data in found.items():
        if path.startswith("blobs/"):
            assert hashlib.sha256(data).hexdigest() == path.rpartition("/")[2]


def test_a_docker_archive_has_only_the_docker_view(filled: Imgtar) -> None:
    found = members(filled("save", "--format", "docker", "app:1").ok().out)
    (item,) = json.loads(found["manifest.json"])
    assert found[item["Config"]] == APP.config
    assert [found[path] for path in item["Layers"]] == [layer.blob for layer in APP.layers]
    assert set(found) == {"manifest.json", item["Config"], *item["Layers"]}
    assert not [name for name in found if name.startswith("blobs")]


def test_an_oci_archive_has_only_the_oci_view_with_whole_names(filled: Imgtar) -> None:
    found = members(filled("save", "--format", "oci", *APP.names).ok().out)
    assert "manifest.json" not in found
    marks = [
        e["annotations"]["org.opencontainers.image.ref.name"] for e in json.loads(found["index.json"])["manifests"]
    ]
    assert sorted(marks) == sorted(APP.names)


def test_a_directory_holds_what_the_oci_archive_holds(filled: Imgtar, tmp_path: Path) -> None:
    found = members(filled("save", "--format", "oci", "app:1", "multi:1").ok().out)
    filled("save", "--format", "oci-dir", "-o", tmp_path / "dir", "app:1", "multi:1").ok()
    on_disk = {name: data for name, data in snapshot(tmp_path / "dir").items() if data is not None}
    assert on_disk == found


def test_an_untagged_image_has_null_tags_and_no_name(filled: Imgtar) -> None:
    found = members(filled("save", APP.image_id).ok().out)
    assert [item["RepoTags"] for item in json.loads(found["manifest.json"])] == [None]
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert not {"io.containerd.image.name", "org.opencontainers.image.ref.name"} & set(entry.get("annotations", {}))


@pytest.mark.parametrize("form", ["hybrid", "docker"])
def test_of_several_platforms_the_docker_view_shows_linux_amd64(form: str, filled: Imgtar) -> None:
    done = filled("save", "--format", form, "multi:1").ok()
    found = members(done.out)
    (item,) = json.loads(found["manifest.json"])
    assert hashlib.sha256(found[item["Config"]]).hexdigest() == hexed(AMD.image_id)
    assert "several platforms" in done.errors


def test_where_there_is_no_linux_amd64_the_docker_view_shows_the_first(imgtar: Imgtar) -> None:
    index = make_index(ARM, make_image((), seed=9, platform="linux/s390x"))
    imgtar.load(oci_archive([(index, ["multi:1"])])).ok()
    found = members(imgtar("save", "multi:1").ok().out)
    (item,) = json.loads(found["manifest.json"])
    assert item["Config"].endswith(hexed(ARM.image_id))


def test_a_hybrid_of_an_index_carries_every_byte_of_it(filled: Imgtar) -> None:
    found = members(filled("save", "multi:1").ok().out)
    for digest, raw in MULTI.blobs().items():
        assert found["blobs/" + digest.replace(":", "/")] == raw


def test_one_platform_stands_for_the_whole_under_its_name(filled: Imgtar, tmp_path: Path) -> None:
    archive = filled("save", "--platform", "linux/arm64", "multi:1").ok().out
    filled.load(archive, store=tmp_path / "other").ok()
    assert filled.names(store=tmp_path / "other") == {"multi:1": ARM.image_id}


# -- Parent ----------------------------------------------------------------------------------------------------------


def with_history(image: Any, *steps: str) -> Any:
    def change(config: Any) -> None:
        config["history"] = [{"created_by": step} for step in steps]

    return image.with_config(change)


@pytest.mark.parametrize(
    ("steps", "names", "expected"),
    [
        (("a", "b", "c"), ("parent:1", "child:1"), True),
        (("a", "b", "c", "d"), ("parent:1", "child:1"), False),
        (("x", "b", "c"), ("parent:1", "child:1"), False),
        (("a", "b", "c"), ("child:1",), False),
    ],
    ids=["one step more", "two steps more", "another history", "parent not in the archive"],
)
def test_a_parent_is_written_only_where_docker_accepts_it(
    steps: tuple[str, ...], names: tuple[str, ...], expected: bool, imgtar: Imgtar
) -> None:
    """A Parent that does not fit makes Docker abort the whole load (moby tarexport, checkValidParent)."""
    parent = with_history(make_image("parent:1", 1, seed=1), "a", "b")
    child = with_history(make_image("child:1", 1, seed=2, base=make_image("x:1", 1, seed=1)), *steps)

    def declare(items: Any) -> None:
        items[1]["Parent"] = parent.image_id

    imgtar.load(docker_files([parent, child]).edited("manifest.json", declare).tar()).ok()
    found = json.loads(members(imgtar("save", "--format", "docker", *names).ok().out)["manifest.json"])
    (item,) = [item for item in found if "child:1" in item["RepoTags"][0]]
    assert item.get("Parent") == (parent.image_id if expected else None)


# -- compression -----------------------------------------------------------------------------------------------------


def test_the_archive_can_be_compressed_as_a_whole(filled: Imgtar) -> None:
    plain = filled("save", "app:1").ok().out
    zipped = filled("save", "--compress", "gzip", "app:1").ok().out
    assert gzip.decompress(zipped) == plain
    packed = filled("save", "--compress", "zstd", "app:1").ok().out
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    assert filled("save", "--compress", "none", "app:1").ok().out == plain


@pytest.mark.parametrize("text", ["gzip:99", "zstd:0x3", "lz4", "gzip:", "", "none:1", "gzip:-5", "xz"])
@pytest.mark.parametrize("option", ["--compress", "--layers"])
def test_a_compression_that_is_none_is_a_usage_error(option: str, text: str, filled: Imgtar, tmp_path: Path) -> None:
    done = filled("save", "-o", tmp_path / "x.tar", option, text, "app:1")
    assert done.code == 2, done.errors
    assert not (tmp_path / "x.tar").exists()


# -- the target ------------------------------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_an_old_file_stays_until_the_new_one_is_whole(filled: Imgtar, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"precious")
    victim = filled.store / "blobs" / APP.layers[3].digest.replace(":", "/")
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    done = filled("save", "-o", folder / "a.tar", "app:1")
    assert done.code == 7
    assert (folder / "a.tar").read_bytes() == b"precious"
    assert listing(folder) == ["a.tar"]
    filled("save", "-o", folder / "a.tar", "base:1").ok()
    assert listing(folder) == ["a.tar"]
    assert tarfile.is_tarfile(folder / "a.tar")


def test_a_directory_appears_whole_or_not_at_all(filled: Imgtar, tmp_path: Path) -> None:
    victim = filled.store / "blobs" / APP.layers[3].digest.replace(":", "/")
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + b"!")
    folder = tmp_path / "out"
    folder.mkdir()
    assert filled("save", "--format", "oci-dir", "-o", folder / "d", "app:1").code == 7
    assert listing(folder) == []


@pytest.mark.parametrize("what", ["file", "full directory", "link"])
def test_an_existing_directory_is_never_merged_into(what: str, filled: Imgtar, tmp_path: Path) -> None:
    target = tmp_path / "d"
    if what == "file":
        target.write_text("x")
    elif what == "full directory":
        target.mkdir()
        (target / "x").write_text("x")
    else:
        (tmp_path / "e").mkdir()
        target.symlink_to(tmp_path / "e")
    assert filled("save", "--format", "oci-dir", "-o", target, "app:1").code == 2


def test_an_empty_directory_may_be_the_target(filled: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    filled("save", "--format", "oci-dir", "-o", tmp_path / "d", "app:1").ok()
    filled("verify", tmp_path / "d").ok()


@pytest.mark.parametrize(("target", "code"), [("nowhere/a.tar", 3), ("file/a.tar", 6)])
def test_a_target_that_cannot_be_made_is_said(target: str, code: int, filled: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for form in ("hybrid", "oci-dir"):
        done = filled("save", "--format", form, "-o", tmp_path / target, "app:1")
        assert done.code == code, done.errors
        assert "Traceback" not in done.errors


def test_a_directory_as_the_target_of_a_tar_is_a_usage_error(filled: Imgtar, tmp_path: Path) -> None:
    assert filled("save", "-o", tmp_path, "app:1").code == 2


def test_a_link_as_the_target_is_replaced_and_what_it_points_to_stays(filled: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old.tar").write_bytes(b"old")
    (tmp_path / "a.tar").symlink_to("elsewhere/old.tar")
    filled("save", "-o", tmp_path / "a.tar", "app:1").ok()
    assert not (tmp_path / "a.tar").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "a.tar")
    assert (tmp_path / "elsewhere" / "old.tar").read_bytes() == b"old"


def test_a_link_to_standard_output_is_written_to_and_stays(filled: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    command = [
        sys.executable,
        "-m",
        "imgtar",
        "save",
        "--store",
        str(filled.store),
        "-o",
        str(tmp_path / "stdout"),
        "app:1",
    ]
    with open(tmp_path / "out.tar", "wb") as out:
        subprocess.run(command, stdout=out, check=True)
    assert (tmp_path / "stdout").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "out.tar")


def test_the_mode_of_the_file_follows_the_umask(filled: Imgtar, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        filled("save", "-o", tmp_path / "a.tar", "app:1").ok()
    finally:
        os.umask(before)
    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o640


def test_the_report_names_size_and_checksum_of_what_was_written(filled: Imgtar, tmp_path: Path) -> None:
    done = filled("save", "-o", tmp_path / "a.tar", "app:1", "--json").ok().json()
    data = (tmp_path / "a.tar").read_bytes()
    assert (done["size"], done["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert done["blobs"] == len(APP.document.blobs())


def test_long_names_and_big_archives_are_read_by_everybody(imgtar: Imgtar) -> None:
    name = "registry.example:5000/" + "/".join(f"component-{n:02d}" for n in range(15)) + ":" + "t" * 120
    image = make_image(name, [make_layer(bytes(3_000_000)), make_layer(os.urandom(1_500_000))])
    imgtar.load(docker_archive([image])).ok()
    data = imgtar("save", name).ok().out
    found = members(data)
    assert found["blobs/" + image.layers[1].digest.replace(":", "/")] == image.layers[1].blob


def test_h214_a_folder_that_the_disk_cannot_look_at_is_local_trouble_and_not_absent(
    filled: Imgtar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real = os.stat

    def refusing(path: object, *arguments: object, **options: object) -> os.stat_result:
        if str(path) == str(tmp_path / "bad"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    (tmp_path / "bad").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refusing)
        done = filled("save", "-o", tmp_path / "bad" / "a.tar", "app:1")
    assert done.code == 6, done.errors
    assert list((tmp_path / "bad").iterdir()) == []
