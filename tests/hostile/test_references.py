"""Section I: names, tags and what the terminal shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders.images import (
    CONTAINERD_NAME,
    REF_NAME,
    Files,
    docker_files,
    dumps,
    hybrid_files,
    legacy_files,
    make_image,
    make_index,
    oci_files,
)
from tests.builders.rawtar import END, entry
from tests.hostile.conftest import KEPT, PLAIN, World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
OTHER = make_image("other:1", layers=1, seed=5)
HEX = "0123456789abcdef" * 4

CONTROLS = [
    pytest.param("demo:\x1b[2Jx", id="h167-escape"),
    pytest.param("demo:1\r\nLoaded image: safe:1", id="h167-lines"),
    pytest.param("demo:\x1b]8;;http://x\x07y", id="h167-link"),
    pytest.param("demo:\x1b]52;c;AAAA\x07", id="h167-clipboard"),
    pytest.param("demo:1\x08\x08", id="h167-backspace"),
    pytest.param("demo:\u202e1", id="h168-override"),
    pytest.param("demo:1\u200b", id="h168-invisible"),
    pytest.param("demo\u2066:1", id="h168-isolate"),
    pytest.param("\u0430pp:1", id="h168-homoglyph"),
]
INVALID = [
    "",
    ":",
    "a:",
    ":1",
    "Demo:1",
    "a:" + "t" * 129,
    "n" * 300 + ":1",
    "a//b:1",
    "a:b:c",
    "-x:1",
    "a@sha256:bad",
    "a b:1",
    " a:1",
    "a:1 ",
    "--help:1",
    "../x:1",
    "/abs:1",
    "a:-1",
    "a:.1",
    f"sha256:{HEX}",
    f"{HEX}:1",
    HEX,
]


def tagged(*names: str) -> bytes:
    """A docker archive with these tags."""
    return docker_files([IMAGE.named(*names)]).tar()


@pytest.mark.parametrize("name", CONTROLS)
def test_h167_h168_a_tag_with_controls_or_look_alikes_is_refused(assert_refused: Assert, name: str) -> None:
    assert_refused(tagged(name), "E_NAME")
    assert_refused(tagged("demo:1", name), "E_NAME", forms=["file"])


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("key", [REF_NAME, CONTAINERD_NAME])
def test_h167_h168_an_annotation_with_controls_is_refused(assert_refused: Assert, key: str, name: str) -> None:
    files = oci_files([IMAGE]).edited("index.json", lambda value: value["manifests"][0].update(annotations={key: name}))
    assert_refused(files.tar(), "E_NAME", forms=["file"])


@pytest.mark.parametrize("name", INVALID)
def test_h171_h172_h173_a_tag_that_is_no_reference_is_refused(assert_refused: Assert, name: str) -> None:
    assert_refused(tagged(name), "E_NAME", forms=PLAIN)


@pytest.mark.parametrize("repository", ["../x", "Demo", "--help", HEX, "a\x1b[2J"])
def test_h171_h172_h173_a_legacy_name_that_is_no_reference_is_refused(assert_refused: Assert, repository: str) -> None:
    files = legacy_files([IMAGE])
    top = next(name for name in reversed(files.names) if name.endswith("/json")).partition("/")[0]
    assert_refused(files.put("repositories", dumps({repository: {"1": top}})).tar(), "E_NAME", forms=PLAIN)


@pytest.mark.parametrize("name", ["Demo:1", "../x:1", "a//b:1", "--help:1", f"sha256:{HEX}"])
def test_h172_h173_h177_an_annotation_that_is_no_reference_names_nothing(world: World, name: str) -> None:
    data = oci_files([IMAGE.named(name)]).tar()
    for form in PLAIN:
        done = world.run("load", data, form, "--json")
        assert done.status in (0, 5), done
        if done.status == 0:
            assert done.document["tags"] == [], done


def test_h174_a_taken_tag_moves_and_says_so(world: World) -> None:
    thief = make_image(KEPT.name, layers=1, seed=77)
    data = docker_files([thief]).tar()
    before = world.snapshot()
    done = world.run("load", data, "file", "--json", "--no-clobber")
    assert done.status == 9, done
    assert done.document["error"]["code"] == "E_CONFLICT"
    assert world.snapshot() == before
    plan = world.run("plan", data, "file", "--json").document["tags"]
    assert plan == [{"name": KEPT.name, "from": KEPT.image_id, "to": thief.image_id}]
    done = world.run("load", data)
    assert done.status == 0, done
    assert KEPT.image_id in done.errors, "the old image must be named"
    assert thief.image_id in done.errors, "the new image must be named"
    listed = world.command("images", "-a", "--json").document["images"]
    assert {(row["name"], row["image_id"]) for row in listed} >= {(None, KEPT.image_id), (KEPT.name, thief.image_id)}
    assert world.command("verify").status == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("demo:1", "demo:1", id="h175"),
        pytest.param("demo:1", "docker.io/library/demo:1", id="h176-full"),
        pytest.param("demo:latest", "demo", id="h176-latest"),
        pytest.param("demo:1", "index.docker.io/demo:1", id="h176-old-host"),
    ],
)
def test_h175_h176_one_name_for_two_images_is_refused(assert_refused: Assert, one: str, other: str) -> None:
    images = [IMAGE.named(one), OTHER.named(other)]
    assert_refused(docker_files(images).tar(), "E_NAME", forms=PLAIN)
    if other != "demo":
        assert_refused(oci_files(images).tar(), "E_NAME", forms=PLAIN)
        assert_refused(hybrid_files(images).tar(), ("E_NAME", "E_TYPE"), forms=PLAIN)


def test_h176_two_spellings_for_one_image_are_one_name(assert_accepted: Assert) -> None:
    image = IMAGE.named("demo:1", "docker.io/library/demo:1", "index.docker.io/demo:1")
    assert_accepted(docker_files([image]).tar(), names=["demo:1"], forms=PLAIN)


@pytest.mark.parametrize(
    ("label", "names"),
    [
        (None, []),
        ("", []),
        ("1", []),
        ("latest", []),
        ("demo", []),
        ("demo:1", ["demo:1"]),
        ("host.example/a/b:1", ["host.example/a/b:1"]),
        ("host.example/a/b", ["host.example/a/b:latest"]),
    ],
)
def test_h177_the_annotation_of_a_name(assert_accepted: Assert, label: str | None, names: list[str]) -> None:
    marks = {} if label is None else {REF_NAME: label}
    files = oci_files([IMAGE]).edited("index.json", lambda value: value["manifests"][0].update(annotations=marks))
    assert_accepted(files.tar(), names=names, forms=PLAIN)


def test_h178_one_name_twice_for_one_digest_is_accepted(assert_accepted: Assert) -> None:
    files = oci_files([IMAGE]).edited("index.json", lambda value: value["manifests"].append(value["manifests"][0]))
    assert_accepted(files.tar(), names=["demo:1"], forms=PLAIN)


def test_h178_one_name_for_two_platforms_is_accepted(assert_accepted: Assert) -> None:
    arm = make_image("demo:1", platform="linux/arm64", seed=8)
    assert_accepted(oci_files([IMAGE, arm]).tar(), names=["demo:1", "demo:1"], forms=PLAIN)


def test_h266_a_bare_word_that_engines_read_as_the_name_of_another_image_is_refused(
    assert_refused: Assert, assert_accepted: Assert
) -> None:
    def files(first: str, second: str) -> Files:
        layout = oci_files([IMAGE, OTHER])
        for place, name in ((0, first), (1, second)):
            layout = layout.edited(
                "index.json", lambda v, p=place, n=name: v["manifests"][p].update(annotations={REF_NAME: n})
            )
        return layout

    assert_refused(files("demo", "demo:latest").tar(), "E_NAME", forms=PLAIN)
    assert_refused(files("demo:latest", "demo").tar(), "E_NAME", forms=PLAIN)
    hybrid = files("demo", "other:1").put("manifest.json", docker_files([OTHER.named("demo:latest")])["manifest.json"])
    for member in docker_files([OTHER]).members:
        hybrid = hybrid if member.name == "manifest.json" else hybrid.plus(member)
    assert_refused(hybrid.tar(), "E_NAME", forms=PLAIN)
    assert_accepted(files("demo", "demo:1").tar(), names=["demo:1"], forms=PLAIN)


def test_h178_one_name_for_an_index_and_an_image_is_refused(assert_refused: Assert) -> None:
    index = make_index(OTHER)
    assert_refused(oci_files([IMAGE, (index, ["demo:1"])]).tar(), "E_NAME", forms=PLAIN)


def test_h178_one_bare_tag_under_two_names_is_two_names(assert_accepted: Assert) -> None:
    images = [IMAGE.named("one:1"), OTHER.named("two:1")]
    assert_accepted(hybrid_files(images).tar(), names=["one:1", "two:1"], forms=PLAIN)


@pytest.mark.parametrize("evil", [b"a\x1b[2Jb", b"a\x9bb", b"a\rLoaded image: safe:1", "a\u202eb".encode()])
def test_h170_escapes_reach_no_terminal_through_an_error(world: World, evil: bytes) -> None:
    # The oracle checks every run for clean text; here the name must be shown all the same.
    data = docker_files([IMAGE]).tar(end=b"") + entry(evil + b"/../x", b"x") + END
    for command in ("load", "verify", "inspect"):
        done = world.run(command, data, "file")
        assert done.status == 5, done
        assert "[E_PATH]" in done.errors, done
        assert "/../x" in done.errors, done
