"""imgtar and a real Docker engine (classic store): what one writes the other loads, same names, same image IDs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from family import SECOND_NAME, V1Image, docker_view, member, member_names, sha256, to_pre_1_10, v1_archive

pytestmark = pytest.mark.interop

SAVED = {
    "one image": ["app:1"],
    "one image with two tags": ["app:1", SECOND_NAME],
    "three images": ["base:1", "runtime:1", "app:2"],
    "the whole family": ["base:1", "runtime:1", "app:1", SECOND_NAME, "app:2"],
}


def save(engine: Any, target: Path, *names: str) -> Path:
    engine.run("save", "--output", target, *names)
    return target


def lines(output: str | bytes) -> list[str]:
    text = output.decode() if isinstance(output, bytes) else output
    return sorted(line for line in text.splitlines() if line)


# --- what docker saves, imgtar loads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", SAVED.values(), ids=SAVED)
def test_what_docker_saves_imgtar_loads_with_the_same_ids(docker_engine, family, imgtar, tmp_path, names):
    archive = save(docker_engine, tmp_path / "saved.tar", *names)
    assert imgtar.loads(archive) == family.named(*names)
    assert imgtar.image_ids() == set(family.named(*names).values())


@pytest.mark.parametrize("names", SAVED.values(), ids=SAVED)
def test_imgtar_load_prints_on_stdout_what_docker_load_prints(docker_engine, receiver, family, imgtar, tmp_path, names):
    archive = save(docker_engine, tmp_path / "saved.tar", *names)
    assert lines(imgtar("load", "-i", archive).stdout) == lines(receiver.run("load", "--input", archive).stdout)


def test_an_image_saved_by_its_id_loads_untagged(docker_engine, receiver, family, imgtar, tmp_path):
    archive = save(docker_engine, tmp_path / "saved.tar", family.untagged)
    assert imgtar.loads(archive) == {}
    assert imgtar.image_ids() == {family.untagged}
    # and docker prints the same line for it
    said = imgtar("load", "-i", archive, store=tmp_path / "second-store").stdout
    assert (
        lines(said) == lines(receiver.run("load", "--input", archive).stdout) == [f"Loaded image ID: {family.untagged}"]
    )


def test_a_tagged_image_saved_by_its_id_loads_untagged_and_can_be_given_a_tag(docker_engine, family, imgtar, tmp_path):
    archive = save(docker_engine, tmp_path / "saved.tar", family.app1)
    assert imgtar.loads(archive) == {}
    imgtar("load", "-i", archive, "--tag", "app:given")
    assert imgtar.images() == {"app:given": family.app1}


def test_a_docker_save_piped_into_imgtar_loads_as_from_a_file(docker_engine, family, imgtar, tmp_path):
    archive = save(docker_engine, tmp_path / "saved.tar", "base:1", "app:1")
    imgtar("load", input=archive.read_bytes())
    assert imgtar.images() == family.named("base:1", "app:1")


@pytest.mark.parametrize("command", ["gzip", "zstd", "xz", "bzip2"])
def test_a_compressed_docker_save_loads_with_the_same_ids(docker_engine, family, imgtar, tmp_path, command):
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    archive = save(docker_engine, tmp_path / "saved.tar", "app:1")
    packed = tmp_path / "saved.tar.packed"
    with open(archive, "rb") as source, open(packed, "wb") as target:
        subprocess.run([command, "-c"], stdin=source, stdout=target, check=True)
    assert imgtar.loads(packed) == family.named("app:1")


# --- what imgtar saves, docker loads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["hybrid", "docker"])
@pytest.mark.parametrize("names", SAVED.values(), ids=SAVED)
def test_what_imgtar_saves_an_empty_docker_loads_with_the_same_names_and_ids(
    docker_engine, receiver, family, imgtar, tmp_path, names, form
):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", *names))
    imgtar("save", "--format", form, "-o", tmp_path / "carried.tar", *names)
    assert receiver.images() == {}
    said = receiver.run("load", "--input", tmp_path / "carried.tar").stdout
    assert receiver.images() == family.named(*names)
    assert lines(said) == sorted(f"Loaded image: {name}" for name in names)


@pytest.mark.parametrize("form", ["hybrid", "docker"])
def test_an_untagged_image_travels_through_imgtar_to_docker_by_its_id(
    docker_engine, receiver, family, imgtar, tmp_path, form
):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", family.untagged))
    imgtar("save", "--format", form, "-o", tmp_path / "carried.tar", family.untagged)
    receiver.run("load", "--input", tmp_path / "carried.tar")
    assert receiver.images() == {}
    assert receiver.image_ids() == {family.untagged}


def test_an_image_removed_from_docker_comes_back_from_the_imgtar_archive(docker_engine, imgtar, tmp_path, family):
    docker_engine.run("tag", "app:2", "comes-back:1")
    container = docker_engine.run("create", "--network", "none", "comes-back:1", "/bin/true").stdout.strip()
    image = docker_engine.run("commit", "--message", "only here", container, "comes-back:1").stdout.strip()
    docker_engine.run("rm", container)
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "comes-back:1"))
    imgtar("save", "-o", tmp_path / "carried.tar", "comes-back:1")
    docker_engine.run("rmi", "comes-back:1")
    assert "comes-back:1" not in docker_engine.images()
    assert image not in docker_engine.image_ids()
    docker_engine.run("load", "--input", tmp_path / "carried.tar")
    assert docker_engine.image_id("comes-back:1") == image
    docker_engine.run("rmi", "comes-back:1")


def test_imgtar_save_piped_into_docker_load_gives_the_same_images(docker_engine, receiver, family, imgtar, tmp_path):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "runtime:1", "app:1"))
    stream = imgtar("save", "runtime:1", "app:1").stdout
    receiver.run("load", input=stream)
    assert receiver.images() == family.named("runtime:1", "app:1")


def test_a_repository_without_a_tag_saves_all_its_tags_as_docker_save_does(
    docker_engine, receiver, family, imgtar, tmp_path
):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "app", "base:1"))
    imgtar("save", "-o", tmp_path / "carried.tar", "app")
    receiver.run("load", "--input", tmp_path / "carried.tar")
    assert receiver.images() == family.named("app:1", "app:2")


def test_the_engine_saves_the_same_config_and_layers_after_the_journey(
    docker_engine, receiver, family, imgtar, tmp_path
):
    first = save(docker_engine, tmp_path / "first.tar", "app:2")
    imgtar.loads(first)
    imgtar("save", "-o", tmp_path / "carried.tar", "app:2")
    receiver.run("load", "--input", tmp_path / "carried.tar")
    second = save(receiver, tmp_path / "second.tar", "app:2")
    before, after = (json.loads(member(archive, "manifest.json"))[0] for archive in (first, second))
    assert before == after
    for name in [before["Config"], *before["Layers"]]:
        assert member(first, name) == member(second, name)


# --- layer compression on the way out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["hybrid", "docker"])
def test_gzip_layers_load_in_docker_with_the_same_image_id(docker_engine, receiver, family, imgtar, tmp_path, form):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "app:1"))
    imgtar("save", "--format", form, "--layers", "gzip", "-o", tmp_path / "carried.tar", "app:1")
    layers = json.loads(member(tmp_path / "carried.tar", "manifest.json"))[0]["Layers"]
    assert all(member(tmp_path / "carried.tar", name).startswith(b"\x1f\x8b") for name in layers)
    receiver.run("load", "--input", tmp_path / "carried.tar")
    assert receiver.images() == family.named("app:1")


def test_zstd_layers_come_with_a_notice_that_names_docker_23_and_the_way_out(
    docker_engine, receiver, family, imgtar, tmp_path
):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "app:1"))
    said = imgtar("save", "--layers", "zstd", "-o", tmp_path / "carried.tar", "app:1").stderr.decode()
    assert "Docker" in said
    assert "23" in said
    assert "--layers" in said.replace("--layers zstd", ""), f"no way out is named: {said}"
    version = receiver.run("version", "--format", "{{.Server.Version}}").stdout
    loaded = receiver.run("load", "--input", tmp_path / "carried.tar", check=False)
    if int(version.split(".")[0]) < 23:  # the notice tells the truth
        assert loaded.returncode != 0
        assert receiver.images() == {}
    else:
        assert receiver.images() == family.named("app:1")


def test_layers_without_compression_after_zstd_load_in_docker_again(docker_engine, receiver, family, imgtar, tmp_path):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "app:1"))
    imgtar("save", "--layers", "zstd", "-o", tmp_path / "zstd.tar", "app:1")
    second = tmp_path / "second-store"
    imgtar("load", "-i", tmp_path / "zstd.tar", store=second)
    assert imgtar.images(store=second) == family.named("app:1")
    imgtar("save", "--layers", "none", "-o", tmp_path / "plain.tar", "app:1", store=second)
    receiver.run("load", "--input", tmp_path / "plain.tar")
    assert receiver.images() == family.named("app:1")


def test_a_gzip_archive_loads_in_docker(docker_engine, receiver, family, imgtar, tmp_path):
    imgtar.loads(save(docker_engine, tmp_path / "saved.tar", "app:1"))
    imgtar("save", "--compress", "gzip", "-o", tmp_path / "carried.tar.gz", "app:1")
    assert (tmp_path / "carried.tar.gz").read_bytes().startswith(b"\x1f\x8b")
    receiver.run("load", "--input", tmp_path / "carried.tar.gz")
    assert receiver.images() == family.named("app:1")


# --- a real Debian with Python ----------------------------------------------------------------------------------------


@pytest.mark.xdist_group("debian")
def test_a_real_debian_image_runs_after_the_journey_through_imgtar(
    docker_engine, receiver, debian_image, imgtar, scratch
):
    imgtar.store = scratch / "store"
    program = ["run", "--rm", "--network", "none", debian_image, "python3", "-c", "print(6*7)"]
    image = docker_engine.image_id(debian_image)
    archive = save(docker_engine, scratch / "saved.tar", debian_image)
    assert archive.stat().st_size > 200_000_000
    assert imgtar.loads(archive) == {debian_image: image}
    imgtar("save", "-o", scratch / "carried.tar", debian_image)
    archive.unlink()
    receiver.run("load", "--input", scratch / "carried.tar")
    assert receiver.run(*program).stdout == "42\n"
    receiver.run("rmi", debian_image)
    assert receiver.image_ids() == set()
    receiver.run("load", "--input", scratch / "carried.tar")
    assert receiver.images() == {debian_image: image}
    assert receiver.run(*program).stdout == "42\n"


# --- archives from before Docker 1.10 ---------------------------------------------------------------------------------


def convert(engine: Any, archive: Path) -> dict[str, str]:
    """Names and image IDs that the engine makes of a pre-1.10 archive; a skip where it no longer can (29 and later)."""
    major = int(engine.run("version", "--format", "{{.Server.Version}}").stdout.split(".")[0])
    if major >= 29:
        pytest.skip(f"Docker {major} no longer converts pre-1.10 archives")
    engine.run("load", "--input", archive)
    return engine.images()


@pytest.mark.parametrize("names", SAVED.values(), ids=SAVED)
def test_a_pre_1_10_archive_gets_the_ids_that_docker_gives_it(docker_engine, receiver, family, imgtar, tmp_path, names):
    modern = save(docker_engine, tmp_path / "modern.tar", *names)
    legacy = to_pre_1_10(modern, tmp_path / "legacy.tar")
    assert "manifest.json" not in member_names(legacy)
    by_docker = convert(receiver, legacy)
    assert set(by_docker) == set(names)
    assert imgtar.json("inspect", legacy)["archive"]["format"] == "docker-legacy"
    assert imgtar.loads(legacy) == by_docker


def test_a_converted_pre_1_10_image_is_the_engines_to_the_byte(docker_engine, receiver, family, imgtar, tmp_path):
    modern = save(docker_engine, tmp_path / "modern.tar", "base:1", "runtime:1", "app:2")
    by_docker = convert(receiver, to_pre_1_10(modern, tmp_path / "legacy.tar"))
    engines = save(receiver, tmp_path / "engines.tar", "app:2")
    imgtar.loads(tmp_path / "legacy.tar")
    imgtar("save", "-o", tmp_path / "carried.tar", "app:2")
    configs = []
    for archive in (engines, tmp_path / "carried.tar"):
        assert docker_view(archive) == {"app:2": by_docker["app:2"]}
        configs.append(member(archive, json.loads(member(archive, "manifest.json"))[0]["Config"]))
    assert configs[0] == configs[1]
    assert sha256(configs[0]) == by_docker["app:2"]


LAYER = {"etc/": b"", "etc/issue": b"hand-made\n"}

# One line for each way a v1 document can differ from what Go would write for it.
HAND_MADE: dict[str, str | bytes] = {
    "docker 1.6 with HTML characters and unicode": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09.120000000Z","container_config":{"Cmd":["/bin/sh","-c",'
        '"echo <a> & \'b\' > /dev/null # Zürich ☃ 𝄞"]},"docker_version":"1.6.0","author":"Jö <j@example.test>",'
        '"config":{"Cmd":["sh","-c","<&>"],"Env":["PATH=/bin","X=<>&"]},"architecture":"amd64","os":"linux","Size":1024}'
    ),
    "docker 1.9.1 keeps what it does not know": (
        '{"id":"@ID@","created":"2015-11-20T21:22:23Z","docker_version":"1.9.1","zebra":{"b":1,"a":2},"Foo":"<&>",'
        '"container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD file:<x> in /"]},"config":null,"architecture":"amd64",'
        '"os":"linux","Size":7,"throwaway":true,"layer_id":"sha256:00","parent_id":"sha256:11"}'
    ),
    "docker 1.6 drops what it does not know": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09Z","docker_version":"1.6.0","zebra":{"b":1,"a":2},"Foo":"<&>",'
        '"container_config":{"Cmd":["x"],"CpuShares":2,"Memory":64,"PortSpecs":null,"Unknown":[1]},'
        '"config":{"Cmd":null,"MemorySwap":-1},"architecture":"amd64","os":"linux","comment":"","author":""}'
    ),
    "without docker_version": (
        '{"id":"@ID@","created":"2013-01-02T03:04:05.000000006Z","container_config":{"Cmd":["a","b"]},'
        '"architecture":"amd64","os":"linux"}'
    ),
    "pretty-printed with escapes": (
        '{\n  "id": "@ID@",\n  "created": "2015-11-20T21:22:23.5Z",\n  "docker_version": "1.10.0-rc1",\n'
        '  "comment": "\\u00fc \\/ \\u003c \\u2028",\n  "config": {\n    "Cmd": [ "a" ,  "\\u0041" ],\n'
        '    "Labels": { "b": "<2>",  "a": "1" }\n  },\n  "architecture": "amd64",\n  "os": "linux"\n}\n'
    ),
    "pretty-printed with escapes by an old docker": (
        '{\n  "id": "@ID@",\n  "created": "2015-11-20T21:22:23.5Z",\n  "docker_version": "1.8.2",\n'
        '  "comment": "\\u00fc \\/ \\u003c \\u2028 \\u007f \\u0008 \\u000c",\n'
        '  "config": {\n    "Cmd": [ "a" ,  "\\u0041" ],\n'
        '    "Labels": { "b": "<2>",  "a": "1" }\n  },\n  "architecture": "amd64",\n  "os": "linux"\n}\n'
    ),
    "exactly 1.8.3": (
        '{"id":"@ID@","created":"2015-10-12T00:00:00Z","docker_version":"1.8.3","unknown":1e2,'
        '"config":{"Cmd":["a"]},"architecture":"amd64","os":"linux"}'
    ),
    "a pre-release counts as older": (
        '{"id":"@ID@","created":"2015-10-10T00:00:00.000+00:00","docker_version":"1.8.3-rc1","unknown":1e2,'
        '"container_config":{"Cmd":[]},"config":{"Cmd":["a"]},"architecture":"amd64","os":"linux"}'
    ),
    "a time with an offset and an old docker": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09.100000000+02:00","docker_version":"1.5.0",'
        '"container_config":{"Cmd":["a"]},"architecture":"amd64","os":"linux"}'
    ),
    "a time with an offset and a newer docker": (
        '{"id":"@ID@","created":"2015-12-06T07:08:09.100000000+02:00","docker_version":"1.9.0",'
        '"container_config":{"Cmd":["a"]},"architecture":"amd64","os":"linux"}'
    ),
    "a full config by an old docker": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09Z","container":"0123456789ab","docker_version":"1.7.1",'
        '"container_config":{"Hostname":"h","Domainname":"d","User":"u","AttachStdin":true,"Tty":true,"OpenStdin":true,'
        '"StdinOnce":true,"ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":["A=1"],"Cmd":["sh"],"Image":"img",'
        '"Volumes":{"/z":{},"/a":{}},"WorkingDir":"/w","Entrypoint":["/e"],"NetworkDisabled":true,"MacAddress":"aa",'
        '"OnBuild":["RUN x"],"Labels":{"z":"1","a":"<2>"},"VolumeDriver":""},"config":{"Entrypoint":null,"OnBuild":[],'
        '"Volumes":{},"Labels":{},"ExposedPorts":{},"Env":[],"StopSignal":"SIGTERM"},"architecture":"amd64","os":"linux"}'
    ),
    "a command that is a string": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09Z","docker_version":"1.4.0",'
        '"container_config":{"Cmd":"one string"},'
        '"config":{"Entrypoint":"/entry"},"architecture":"amd64","os":"linux"}'
    ),
    "an old docker without architecture, with variant": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09Z","docker_version":"0.9.1","container_config":{},'
        '"os":"linux","variant":"v7","Size":0}'
    ),
    "no creation time": '{"id":"@ID@","docker_version":"1.6.0","container_config":{"Cmd":["a"]},"os":"linux"}',
    "history from a newer docker": (
        '{"id":"@ID@","created":"2015-12-06T07:08:09.100000000Z","docker_version":"1.9.0","author":"a<b>","comment":"c&d",'
        '"container_config":{"Cmd":["/bin/sh","-c","a","b  c",""]},"architecture":"amd64","os":"linux"}'
    ),
}

# Go reads these; a strict reader of JSON refuses them.
ODD: dict[str, str | bytes] = {
    "keys in another case by an old docker": (
        '{"ID":"@ID@","Created":"2014-05-06T07:08:09Z","Docker_Version":"1.6.0","Container_Config":{"cmd":["a"]},'
        '"Architecture":"amd64","OS":"linux"}'
    ),
    "bytes that are not UTF-8 by an old docker": (
        b'{"id":"@ID@","created":"2014-05-06T07:08:09Z","docker_version":"1.6.0","comment":"a\xff\xfeb",'
        b'"container_config":{"Cmd":["\xc3\x28"]},"architecture":"amd64","os":"linux"}'
    ),
    "a lone surrogate by an old docker": (
        '{"id":"@ID@","created":"2014-05-06T07:08:09Z","docker_version":"1.6.0","comment":"a\\ud800b",'
        '"container_config":{"Cmd":["\\ud83d\\ude00"]},"architecture":"amd64","os":"linux"}'
    ),
}


@pytest.mark.parametrize("document", HAND_MADE.values(), ids=HAND_MADE)
def test_a_hand_made_v1_image_gets_the_id_that_docker_gives_it(receiver, imgtar, tmp_path, document):
    archive = v1_archive(tmp_path / "v1.tar", [V1Image("only", document, LAYER)], {"hand-made:1": "only"})
    by_docker = convert(receiver, archive)
    assert set(by_docker) == {"hand-made:1"}
    engines = save(receiver, tmp_path / "engines.tar", "hand-made:1")
    config = member(engines, json.loads(member(engines, "manifest.json"))[0]["Config"])
    loaded = imgtar.loads(archive)
    imgtar("save", "--format", "docker", "-o", tmp_path / "carried.tar", "hand-made:1")
    carried = json.loads(member(tmp_path / "carried.tar", "manifest.json"))[0]["Config"]
    assert member(tmp_path / "carried.tar", carried) == config
    assert loaded == by_docker


@pytest.mark.parametrize("document", ODD.values(), ids=ODD)
def test_an_odd_v1_image_is_refused_or_gets_the_id_that_docker_gives_it(receiver, imgtar, tmp_path, document):
    archive = v1_archive(tmp_path / "v1.tar", [V1Image("only", document, LAYER)], {"hand-made:1": "only"})
    by_docker = convert(receiver, archive)
    result = imgtar("load", "-i", archive, check=False)
    assert result.returncode in (0, 5)
    assert imgtar.images() == (by_docker if result.returncode == 0 else {})


def test_a_chain_of_v1_images_from_two_ages_of_docker_gets_the_ids_that_docker_gives_it(receiver, imgtar, tmp_path):
    def document(version: str, command: str, parent: str = "") -> str:
        return (
            f'{{"id":"@ID@",{parent}"created":"2014-05-06T07:08:09.5Z","container_config":{{"Cmd":["/bin/sh","-c",'
            f'"{command}"]}},"docker_version":"{version}","config":{{"Cmd":["<sh>"]}},"architecture":"amd64","os":"linux"}}'
        )

    images = [
        V1Image("leaf", document("1.9.1", "echo <leaf>", '"parent":"@ID:middle@",'), {"leaf": b"leaf"}),
        V1Image("middle", document("1.6.0", "echo & middle", '"parent":"@ID:root@",'), LAYER),
        V1Image("root", document("1.2.0", "echo root"), LAYER),
        V1Image("other", document("1.2.0", "echo other"), {"other": b"other"}),
    ]
    tags = {"leaf:1": "leaf", "leaf:latest": "leaf", "example.test/mid/dle:2": "middle", "other:1": "other"}
    archive = v1_archive(tmp_path / "v1.tar", images, tags)
    by_docker = convert(receiver, archive)
    assert set(by_docker) == set(tags)
    assert imgtar.loads(archive) == by_docker


def test_a_converted_v1_image_goes_back_to_docker_with_its_new_id(receiver, imgtar, tmp_path):
    document = HAND_MADE["docker 1.6 with HTML characters and unicode"]
    archive = v1_archive(tmp_path / "v1.tar", [V1Image("only", document, LAYER)], {"hand-made:1": "only"})
    by_docker = convert(receiver, archive)
    imgtar.loads(archive)
    imgtar("save", "-o", tmp_path / "carried.tar", "hand-made:1")
    receiver.wipe()
    receiver.run("load", "--input", tmp_path / "carried.tar")
    assert receiver.images() == by_docker
