"""What engines see otherwise, or refuse, in an archive that imgtar loads: it is said, and is not in what imgtar writes."""

from __future__ import annotations

import base64
import bz2
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.builders.images import (
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
    random_layer,
)
from tests.conftest import Imgtar
from tests.hostile.conftest import FEW, World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
URL = "https://example.com/layer"


def written(imgtar: Imgtar, *arguments: object) -> dict[str, bytes]:
    """The members of what ``save`` writes."""
    done = imgtar("save", "-o", "-", *arguments).ok()
    with tarfile.open(fileobj=io.BytesIO(done.out)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


# -- URLs --------------------------------------------------------------------------------------------------------------


def with_urls(image: Image, *places: int) -> Image:
    return image.with_manifest(lambda m: [m["layers"][at].update(urls=[URL]) for at in places] and None)


def test_h270_a_layer_that_is_carried_and_has_urls_is_a_warning(assert_accepted: Assert) -> None:
    assert_accepted(oci_files([with_urls(IMAGE, 1)]).tar(), names=["demo:1"], warning="E_TYPE", runs=FEW)


def test_h270_what_is_written_has_no_urls_where_the_manifest_may_change(imgtar: Imgtar) -> None:
    image = with_urls(make_image("demo:1", [random_layer(1, "gzip"), random_layer(2, "gzip")]), 0, 1)
    imgtar.load(oci_archive([image])).ok()
    kept = imgtar("save", "-o", "-", "demo:1").ok()
    assert "2 layers keep their URLs" in kept.errors
    assert image.manifest in kept.out
    for arguments in (["--layers", "gzip"], ["--layers", "none"], ["--format", "docker"]):
        files = written(imgtar, *arguments, "demo:1")
        assert not any(URL.encode() in content for content in files.values()), arguments
        assert "URL" not in imgtar("save", "-o", "-", *arguments, "demo:1").errors


def test_h270_a_layer_with_urls_that_is_not_carried_is_missing_and_is_not_told_to_be_fetched(imgtar: Imgtar) -> None:
    foreign = replace(
        random_layer(5, "gzip"), media_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    )
    image = with_urls(make_image("demo:1", [foreign, random_layer(6, "gzip")]), 0)
    files = oci_files([image]).without(f"blobs/sha256/{hexed(foreign.digest)}")
    done = imgtar.load(files.tar())
    assert done.code == 4
    assert "is a foreign layer" in done.errors
    assert "podman and skopeo fetch it" not in done.errors


# -- data --------------------------------------------------------------------------------------------------------------


def embedded(*what: str) -> bytes:
    """A layout in which the config, or the manifest, stands in its descriptor only."""
    image = IMAGE
    gone = []
    if "config" in what:
        data = base64.b64encode(image.config).decode()
        image = image.with_manifest(lambda m: m["config"].update(data=data))
        gone.append(image.image_id)
    files = oci_files([image])
    if "manifest" in what:
        data = base64.b64encode(image.manifest).decode()
        files = files.edited("index.json", lambda v: v["manifests"][0].update(data=data))
        gone.append(image.digest)
    return files.without(*(f"blobs/sha256/{hexed(digest)}" for digest in gone)).tar()


@pytest.mark.parametrize("what", [["config"], ["manifest"], ["config", "manifest"]])
def test_h271_a_document_that_stands_in_its_descriptor_only_is_a_warning(
    assert_accepted: Assert, what: list[str]
) -> None:
    assert_accepted(embedded(*what), names=["demo:1"], ids=[IMAGE.image_id], warning="E_TYPE", runs=FEW)


def test_h271_what_is_written_has_it_as_a_blob(imgtar: Imgtar) -> None:
    imgtar.load(embedded("config", "manifest")).ok()
    files = written(imgtar, "demo:1")
    assert files[f"blobs/sha256/{hexed(IMAGE.image_id)}"] == IMAGE.config
    assert "data" not in json.loads(files["index.json"])["manifests"][0]


def test_h271_data_beside_the_blob_is_fine(assert_accepted: Assert) -> None:
    data = base64.b64encode(IMAGE.config).decode()
    image = IMAGE.with_manifest(lambda m: m["config"].update(data=data))
    assert_accepted(oci_files([image]).tar(), names=["demo:1"], runs=FEW)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a" * 237 + ":1", True),
        ("a" * 238 + ":1", False),
        ("x/" + "a" * 243 + ":1", True),
        ("x/" + "a" * 244 + ":1", False),
        ("localhost/" + "a" * 245 + ":1", True),
        ("localhost/" + "a" * 246 + ":1", False),
    ],
)
def test_h272_a_name_that_is_too_long_with_its_registry_is_told_and_not_written(
    assert_accepted: Assert, imgtar: Imgtar, name: str, fits: bool
) -> None:
    image = make_image(name, layers=1)
    for data in (oci_archive([image]), docker_archive([image])):
        assert_accepted(data, names=[name], warning=None if fits else "E_NAME", runs=FEW)
    imgtar.load(oci_archive([image])).ok()
    for form in ("hybrid", "docker", "oci"):
        done = imgtar("save", "-o", "-", "--format", form, name)
        assert (done.code, bool(done.out)) == ((0, True) if fits else (2, False)), done.errors
    imgtar("tag", name, "short:1").ok()
    assert imgtar("save", "-o", "-", "short:1").ok()


def test_h272_a_new_name_that_is_too_long_is_told(imgtar: Imgtar) -> None:
    done = imgtar.load(oci_archive([IMAGE]), "--tag", "demo:1=" + "a" * 240 + ":1").ok()
    assert "more than 255" in done.errors


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress], ids=["bzip2", "xz"])
def test_a_docker_archive_that_our_own_reader_would_refuse_is_not_written(
    imgtar: Imgtar, pack: Callable[[bytes], bytes]
) -> None:
    plain = random_layer(1)
    packed = replace(plain, blob=pack(plain.tar), media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    imgtar.load(oci_archive([make_image("demo:1", [packed])])).ok()
    done = imgtar("save", "-o", "-", "--format", "docker", "demo:1")
    assert (done.code, done.out) == (2, b"")
    assert "--layers gzip" in done.errors
    for arguments in (["--format", "docker", "--layers", "gzip"], ["--format", "hybrid"]):
        (imgtar.home / "out.tar").write_bytes(imgtar("save", "-o", "-", *arguments, "demo:1").ok().out)
        imgtar("verify", imgtar.home / "out.tar").ok()


# -- several platforms under one name ----------------------------------------------------------------------------------

ARM = make_image("demo:1", platform="linux/arm64", seed=8)


@pytest.mark.parametrize("order", [[IMAGE, ARM], [ARM, IMAGE]])
@pytest.mark.parametrize("form", ["hybrid", "oci"])
def test_h266_one_name_for_two_platforms_is_written_as_one_index(imgtar: Imgtar, order: list[Image], form: str) -> None:
    imgtar.load(oci_archive(order)).ok()
    files = written(imgtar, "--format", form, "demo:1")
    (entry,) = json.loads(files["index.json"])["manifests"]
    index = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert [one["digest"] for one in index["manifests"]] == [IMAGE.digest, ARM.digest]
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]
    if form == "hybrid":
        (item,) = json.loads(files["manifest.json"])
        assert hexed(IMAGE.image_id) in item["Config"]
    # What was written says the same of the name, and is written again as it is.
    again = Imgtar(imgtar.home / "again")
    again.home.mkdir()
    out = imgtar("save", "-o", "-", "--format", form, "demo:1").ok().out
    again.load(out).ok()
    assert {row["image_id"] for row in again.images()} == {IMAGE.image_id, ARM.image_id}
    assert again("save", "-o", "-", "--format", form, "demo:1").ok().out == out


def test_h266_platforms_in_another_spelling_are_joined_too(imgtar: Imgtar) -> None:
    images = [make_image("demo:1", 1, "linux/arm64/v8", seed=2), make_image("demo:1", 1, "linux/x86_64", seed=3)]
    imgtar.load(oci_archive(images)).ok()
    files = written(imgtar, "demo:1")
    (entry,) = json.loads(files["index.json"])["manifests"]
    index = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]
    for image in images:
        assert files[f"blobs/sha256/{hexed(image.image_id)}"] == image.config
    (imgtar.home / "out.tar").write_bytes(imgtar("save", "-o", "-", "demo:1").ok().out)
    imgtar("verify", imgtar.home / "out.tar").ok()


def test_h266_what_no_index_can_tell_apart_is_written_as_it_is(imgtar: Imgtar) -> None:
    # The config of the second says another system than its entry: engines would not agree about an index.
    odd = make_image("demo:1", 1, "linux/arm64", seed=4).with_config(lambda c: c.update(architecture=""))
    imgtar.load(oci_archive([make_image("demo:1", 1, "linux/s390x", seed=5), odd])).ok()
    (imgtar.home / "out.tar").write_bytes(imgtar("save", "-o", "-", "demo:1").ok().out)
    imgtar("verify", imgtar.home / "out.tar").ok()
    assert {
        row["image_id"] for row in imgtar("verify", "--json", imgtar.home / "out.tar").json()["archives"][0]["images"]
    } >= {odd.image_id}


def test_h266_one_platform_of_such_a_name_can_be_saved(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([ARM, IMAGE])).ok()
    for platform, image in (("linux/amd64", IMAGE), ("linux/arm64", ARM)):
        files = written(imgtar, "--platform", platform, "demo:1")
        assert [one["digest"] for one in json.loads(files["index.json"])["manifests"]] == [image.digest]


def test_h266_a_name_of_its_own_stays_beside_the_index(imgtar: Imgtar) -> None:
    imgtar.load(oci_archive([ARM.named("demo:1", "arm:1"), IMAGE])).ok()
    files = written(imgtar, "demo:1", "arm:1")
    entries = json.loads(files["index.json"])["manifests"]
    names = {one["annotations"]["io.containerd.image.name"]: one["digest"] for one in entries}
    assert names["docker.io/library/arm:1"] == ARM.digest
    assert names["docker.io/library/demo:1"] not in (ARM.digest, IMAGE.digest)


def test_h266_an_archive_with_such_a_name_is_told(world: World) -> None:
    done = world.run("verify", oci_archive([ARM, IMAGE]), "file", "--json")
    assert done.status == 0
    assert [(one["code"], one["severity"]) for one in done.document["findings"]] == [("E_NAME", "info")]


def test_h266_engines_on_another_machine_that_disagree_are_a_warning(assert_accepted: Assert) -> None:
    def bare(*images: Image) -> bytes:
        value = json.loads(make_index(*images).raw)
        for entry in value["manifests"]:
            del entry["platform"]
        return oci_layout([(replace(make_index(*images), raw=dumps(value)), ["demo:1"])]).tar()

    # Without platforms podman takes the first, on every machine.
    assert_accepted(bare(IMAGE, ARM), names=["demo:1"], warning="E_TYPE", runs=FEW)


def test_h266_an_index_of_which_podman_takes_another_image_is_refused(assert_refused: Assert) -> None:
    value = json.loads(make_index(ARM, IMAGE).raw)
    for entry in value["manifests"]:
        del entry["platform"]
    files = oci_layout([(replace(make_index(ARM, IMAGE), raw=dumps(value)), ["demo:1"])])
    assert_refused(files.tar(), "E_TYPE", runs=FEW, says=["podman"])


# -- dry runs ----------------------------------------------------------------------------------------------------------


def other_diff_id(image: Image) -> Image:
    return image.with_config(lambda c: c["rootfs"].update(diff_ids=["sha256:" + "0" * 64]))


PLANS = [("plan", "file"), ("plan", "pipe"), ("plan", "gzip"), ("load", "file"), ("load", "pipe")]


def test_h283_a_dry_run_refuses_a_plain_layer_with_another_diff_id(assert_refused: Assert) -> None:
    image = other_diff_id(make_image("demo:1", layers=1))
    assert_refused(oci_files([image]).tar(), "E_DIFFID", runs=PLANS)
    index = make_index(image, ARM)
    assert_refused(oci_layout([(index, ["demo:1"])]).tar(), "E_DIFFID", runs=PLANS)


def test_h283_a_dry_run_of_a_pipe_refuses_what_it_has_measured(assert_refused: Assert) -> None:
    image = other_diff_id(make_image("demo:1", layers=1, compression="gzip"))
    pipes = [run for run in PLANS if run != ("plan", "file")]
    assert_refused(oci_files([image]).tar(), "E_DIFFID", runs=pipes)
    spoiled = oci_files([IMAGE]).put(f"blobs/sha256/{hexed(IMAGE.layers[0].digest)}", IMAGE.layers[0].blob[::-1])
    assert_refused(spoiled.tar(), "E_DIGEST", runs=pipes)


def test_h283_a_dry_run_refuses_an_archive_that_poses_as_something_else(assert_refused: Assert) -> None:
    layer = replace(random_layer(1), media_type="application/octet-stream")
    assert_refused(oci_files([make_image("demo:1", [layer])]).tar(), "E_TYPE", runs=PLANS)


def test_h283_a_plain_type_for_compressed_bytes_is_no_such_case(world: World) -> None:
    layer = replace(random_layer(1, "gzip"), media_type="application/vnd.oci.image.layer.v1.tar")
    data = oci_files([make_image("demo:1", [layer])]).tar()
    for command, form in PLANS:
        assert world.run(command, data, form).status == 0
    assert world.run("plan", docker_files([IMAGE]).tar(), "file").status == 0
