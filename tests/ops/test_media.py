"""Folders with archives on them: one medium is one load, and what is damaged on it is not passed over."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.builders.images import docker_archive, docker_files, make_image, oci_archive, oci_directory, oci_files
from tests.conftest import Imgtar

APP = make_image("app:1", seed=1)
TOOL = make_image("tool:1", seed=2)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "app.tar").write_bytes(docker_archive([APP]))
    oci_directory(folder / "tool", [TOOL])
    (folder / "README").write_text("what this is")
    (folder / "app.tar.sha256").write_text("00  app.tar")
    return folder


def test_every_archive_of_a_medium_is_loaded_and_other_files_are_named(imgtar: Imgtar, medium: Path) -> None:
    done = imgtar("load", "-i", medium).ok()
    assert imgtar.names() == {"app:1": APP.image_id, "tool:1": TOOL.image_id}
    assert "README" in done.errors
    assert imgtar("verify", medium).ok().out.count(b": OK") == 2


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes(20480),
        b"text that should be a tar",
        bytes([docker_archive([TOOL])[0] ^ 1]) + docker_archive([TOOL])[1:],
    ],
    ids=["empty", "zeros", "text", "flipped header"],
)
def test_a_damaged_archive_on_a_medium_stops_verify_and_load(imgtar: Imgtar, medium: Path, damaged: bytes) -> None:
    (medium / "zz.tar").write_bytes(damaged)
    assert imgtar("verify", medium).code == 5
    assert imgtar("load", "-i", medium).code == 5
    assert imgtar.names() == {}


def test_a_layout_that_lost_its_index_is_not_passed_over(imgtar: Imgtar, medium: Path) -> None:
    (medium / "tool" / "index.json").unlink()
    (medium / "tool" / "oci-layout").unlink()
    assert imgtar("verify", medium).code == 5
    assert imgtar("load", "-i", medium).code == 5


def test_a_report_that_cannot_be_written_is_known_before_the_work(imgtar: Imgtar, medium: Path) -> None:
    done = imgtar("verify", "--json", "--report", medium / "nowhere" / "r.json", medium / "app.tar")
    assert done.code == 3
    assert json.loads(done.out)["schema"] == "imgtar.error/1"


def test_the_parent_that_one_archive_declares_is_kept_in_whatever_order_they_come(
    imgtar: Imgtar, tmp_path: Path
) -> None:
    base = make_image("base:1", layers=1, seed=5)
    child = make_image("child:1", layers=1, seed=6, base=base)
    plain = docker_files([base, child])

    def declare(items: list[dict[str, object]]) -> None:
        items[1]["Parent"] = base.image_id

    declared = plain.edited("manifest.json", declare)
    saved = []
    for order in ((plain, declared), (declared, plain)):
        store = tmp_path / f"store{len(saved)}"
        for files in order:
            imgtar.load(files.tar(), store=store).ok()
        target = tmp_path / f"out{len(saved)}.tar"
        imgtar("save", "-o", target, "base:1", "child:1", store=store).ok()
        saved.append(target.read_bytes())
        assert imgtar("rmi", "base:1", store=store).code == 9
    assert saved[0] == saved[1]


@pytest.mark.parametrize("form", ["hybrid", "oci", "docker"])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_an_image_named_by_sha512_goes_round(imgtar: Imgtar, tmp_path: Path, form: str, way: str) -> None:
    files = oci_files([APP])

    def name(data: bytes) -> str:
        return "sha512:" + hashlib.sha512(data).hexdigest()

    manifest = json.loads(files[f"blobs/{APP.digest.replace(':', '/')}"])
    members = {}
    for part in (manifest["config"], *manifest["layers"]):
        data = files[f"blobs/{part['digest'].replace(':', '/')}"]
        part["digest"] = name(data)
        members[f"blobs/{name(data).replace(':', '/')}"] = data
    raw = json.dumps(manifest).encode()
    members[f"blobs/{name(raw).replace(':', '/')}"] = raw
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": manifest["mediaType"],
                "digest": name(raw),
                "size": len(raw),
                "annotations": {"org.opencontainers.image.ref.name": "app:1"},
            }
        ],
    }
    members |= {"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    archive = tmp_path / "s512.tar"
    with tarfile.open(archive, "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    imgtar("load", "-i", archive).ok()
    imgtar("verify").ok()
    imgtar("save", "--format", form, "-o", tmp_path / "out.tar", "app:1").ok()
    again = tmp_path / "again"
    if way == "file":
        imgtar("load", "-i", tmp_path / "out.tar", store=again).ok()
    else:
        imgtar("load", stdin=(tmp_path / "out.tar").read_bytes(), store=again).ok()
    assert imgtar("verify", tmp_path / "out.tar").code == 0
    rows = json.loads(imgtar("images", "--json", store=again).ok().out)["images"]
    assert [row["name"] for row in rows] == ["app:1"]
    imgtar("verify", store=again).ok()


def test_files_that_begin_with_a_dot_are_no_part_of_a_medium(imgtar: Imgtar, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(oci_archive([make_image("app:1", seed=1)]))
    (tmp_path / "._app.tar").write_bytes(b"\0\5\x16\7" + bytes(300))
    imgtar("load", "-i", tmp_path).ok()
    assert set(imgtar.names()) == {"app:1"}
