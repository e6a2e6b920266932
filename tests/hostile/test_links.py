"""Section B: links and special files in the outer archive, and in an OCI layout directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import rawtar
from tests.builders.images import Member, blob_name, docker_files, make_image, oci_files, random_layer
from tests.hostile.conftest import LONG, LOOKS, World

Assert = Callable[..., None]

IMAGE = make_image("demo:1", layers=2)
DOCKER = docker_files([IMAGE])
OCI = oci_files([IMAGE])
CONFIG = next(name for name in DOCKER.names if name.endswith(".json") and name != "manifest.json")
LAYER = next(name for name in DOCKER.names if name.endswith(".tar"))
FIRST_BLOB = blob_name(IMAGE.layers[0].digest)

TWICE = make_image("twice:1", layers=[random_layer(1), random_layer(2), random_layer(1)])
V1 = docker_files([TWICE], "v1")
LINK = next(member.name for member in V1.members if member.kind == b"2")


def test_h18_a_config_that_links_to_a_file_of_the_host_is_refused(world: World) -> None:
    world.refused(DOCKER.linked(CONFIG, str(world.canary)).tar(), "E_LINK")
    world.refused(OCI.linked(blob_name(IMAGE.image_id), str(world.canary)).tar(), "E_LINK")


def test_h18_a_config_that_links_to_another_member_is_refused(assert_refused: Assert) -> None:
    files = DOCKER.plus(Member("other", IMAGE.config)).linked(CONFIG, "other")
    assert_refused(files.tar(), "E_LINK")


@pytest.mark.parametrize("target", ["../../../canary", "../canary", "./../canary"])
def test_h19_a_layer_that_links_out_of_the_archive_is_refused(assert_refused: Assert, target: str) -> None:
    assert_refused(DOCKER.linked(LAYER, target).tar(), "E_LINK")
    assert_refused(V1.linked(LINK, target).tar(), "E_LINK", forms=["file"])


@pytest.mark.parametrize("name", ["manifest.json", "index.json", "oci-layout"])
def test_h20_a_marker_that_is_a_link_is_refused(world: World, name: str) -> None:
    files = DOCKER if name == "manifest.json" else OCI
    world.refused(files.renamed(name, "other").plus(Member(name, kind=b"2", link="other")).tar(), "E_LINK")
    world.refused(files.linked(name, str(world.canary)).tar(), "E_LINK")


@pytest.mark.parametrize("kind", [b"2", b"1"])
def test_h21_a_repeated_layer_as_a_link_is_accepted(assert_accepted: Assert, world: World, kind: bytes) -> None:
    target = next(member.link for member in V1.members if member.name == LINK)
    if kind == b"1":
        target = target.removeprefix("../")
    files = V1.linked(LINK, target, kind)
    assert_accepted(files.tar(), names=["twice:1"])
    assert world.run("load", files.tar()).status == 0
    held = [path.name for path in (world.store / "blobs" / "sha256").iterdir()]
    assert {layer.digest.partition(":")[2] for layer in TWICE.layers} <= set(held)


def test_h22_a_link_to_a_later_member_is_accepted_from_a_file_and_from_a_pipe(assert_accepted: Assert) -> None:
    assert_accepted(V1.reversed().tar(), names=["twice:1"])


@pytest.mark.parametrize("count", [2, 40])
def test_h23_a_chain_of_links_is_refused(assert_refused: Assert, count: int) -> None:
    folder = LINK.partition("/")[0]
    target = next(member.link for member in V1.members if member.name == LINK)
    chain = [Member(f"{folder}/l{place}", kind=b"2", link=f"l{place + 1}") for place in range(1, count - 1)]
    chain.append(Member(f"{folder}/l{count - 1}", kind=b"2", link=target))
    assert_refused(V1.linked(LINK, "l1").plus(*chain).tar(), "E_LINK")


@pytest.mark.parametrize("loop", ["itself", "pair"])
def test_h24_a_loop_of_links_is_refused(assert_refused: Assert, loop: str) -> None:
    files = DOCKER.linked(LAYER, LAYER if loop == "itself" else "back").plus(Member("back", kind=b"2", link=LAYER))
    assert_refused(files.tar(), "E_LINK")


def test_h25_a_dangling_link_is_refused_with_both_ends(assert_refused: Assert) -> None:
    assert_refused(DOCKER.linked(LAYER, "nowhere.tar").tar(), "E_LINK", says=[LAYER, "nowhere.tar"])


def test_h26_a_linked_parent_is_refused_in_either_order(world: World) -> None:
    link = Member("blobs", kind=b"2", link=str(world.outside / "inner"))
    world.refused(OCI.plus(link, first=True).tar(), "E_LINK")
    world.refused(OCI.plus(link).tar(), "E_LINK")


def test_h27_a_member_replaced_by_a_link_is_refused(world: World) -> None:
    world.refused(DOCKER.plus(Member(CONFIG, kind=b"2", link=str(world.canary))).tar(), "E_DUP")


@pytest.mark.parametrize("target", ["/etc/passwd", "../canary", "later", "missing"])
def test_h28_a_hard_link_elsewhere_is_refused(assert_refused: Assert, target: str) -> None:
    files = DOCKER.linked(LAYER, target, b"1").plus(Member("later", DOCKER[LAYER]))
    assert_refused(files.tar(), "E_LINK")


def test_h29_a_hard_link_to_a_symlink_is_refused(assert_refused: Assert) -> None:
    files = DOCKER.renamed(LAYER, "real").plus(Member("s", kind=b"2", link="real"), Member(LAYER, kind=b"1", link="s"))
    assert_refused(files.tar(), "E_LINK")


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_h30_a_link_with_data_is_refused(assert_refused: Assert, kind: bytes) -> None:
    block = rawtar.entry(b"extra", b"x" * 512, kind=kind, link=b"manifest.json")
    assert_refused(DOCKER.tar(end=b"") + block + rawtar.END, "E_HEADER", forms=["file", "pipe"])


@pytest.mark.parametrize("kind", [b"3", b"4", b"6", b"7"])
def test_h31_a_special_file_is_refused(assert_refused: Assert, kind: bytes) -> None:
    assert_refused(DOCKER.plus(Member("special", kind=kind)).tar(), "E_LINK")


@pytest.mark.parametrize("kind", [b"Q", b"\x7f", b"V", b"M", b"D"])
def test_h32_an_unknown_type_is_refused(assert_refused: Assert, kind: bytes) -> None:
    assert_refused(DOCKER.plus(Member("special", kind=kind)).tar(), "E_HEADER", forms=["file", "pipe"])


@pytest.mark.parametrize("what", ["blob", "blobs", "algorithm", "index", "layout"])
def test_h33_a_layout_directory_with_links_is_refused(world: World, what: str) -> None:
    top = OCI.directory(world.incoming / "layout")
    path = (
        top
        / {
            "blob": FIRST_BLOB,
            "blobs": "blobs",
            "algorithm": "blobs/sha256",
            "index": "index.json",
            "layout": "oci-layout",
        }[what]
    )
    # Even the right content behind a link is refused.
    moved = world.incoming / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    world.refused(top, "E_LINK")


@pytest.mark.parametrize("name", ["index.json", "oci-layout", FIRST_BLOB, "special"])
def test_h33_a_layout_directory_with_a_fifo_is_refused_without_a_hang(world: World, name: str) -> None:
    top = OCI.directory(world.incoming / "layout")
    if (top / name).exists():
        (top / name).unlink()
    os.mkfifo(top / name)
    world.refused(top, "E_LINK")


def test_h34_a_directory_swapped_for_a_link_while_it_is_read_leads_nowhere(world: World) -> None:
    top = OCI.directory(world.incoming / "layout")
    blobs, aside = top / "blobs", top.parent / "aside"
    trap = world.outside / "inner" / "sha256"
    trap.mkdir()
    for name in os.listdir(blobs / "sha256"):
        (trap / name).write_bytes(world.canary.read_bytes())
    before = world.snapshot()
    stop = threading.Event()
    rounds = 0

    def swap() -> None:
        nonlocal rounds
        while not stop.is_set():
            rounds += 1
            blobs.rename(aside)
            blobs.symlink_to(world.outside / "inner")
            blobs.unlink()
            aside.rename(blobs)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300 if LONG else 15):
            for command in ("verify", *LOOKS):
                assert world.run(command, top, "directory").status in (0, 3, 4, 5, 6)
    finally:
        stop.set()
        thread.join()
    assert rounds > (10_000 if LONG else 300)
    assert world.snapshot() == before


def test_h33_a_folder_of_archives_is_read_without_following_links_out(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    (folder / "a.tar").write_bytes(DOCKER.tar())
    (folder / "b.tar").symlink_to(world.canary)
    assert world.run("verify", folder, "directory").status in (0, 5)
