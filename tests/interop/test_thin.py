"""Thin archives and real engines: a chain made by Docker, shipped layer by layer, and what each engine does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from family import commit, member_names, to_pre_1_10

pytestmark = pytest.mark.interop

CHAIN = ["base:1", "runtime:1", "app:1", "app:2"]


def saved(engine: Any, target: Path, *names: str) -> Path:
    engine.run("save", "--output", target, *names)
    return target


@pytest.fixture
def sender(imgtar, docker_engine, family, tmp_path):
    """A store with the whole chain, as docker saved it."""
    imgtar.loads(saved(docker_engine, tmp_path / "chain.tar", *CHAIN))
    return imgtar


@pytest.fixture
def site(imgtar, docker_engine, family, tmp_path) -> Path:
    """The store of a receiver that has everything up to app:1."""
    store = tmp_path / "site"
    imgtar("load", "-i", saved(docker_engine, tmp_path / "site.tar", *CHAIN[:3]), store=store)
    return store


def layers_in(archive: Path) -> set[str]:
    """The digests of the files in ``blobs/`` that no document of the archive is named by."""
    listed = {name.rpartition("/")[2] for name in member_names(archive) if name.startswith("blobs/sha256/")}
    return {f"sha256:{name}" for name in listed if len(name) == 64}


def test_against_an_inventory_of_a_site_with_app_1_only_the_top_layer_of_app_2_travels(
    sender, site, receiver, family, tmp_path
):
    inventory, thin = tmp_path / "site.inv.zst", tmp_path / "thin.tar"
    sender("inventory", "-o", inventory, store=site)
    done = sender.json("save", "--base", inventory, "-o", thin, "app:2")
    (row,) = [row for row in sender.json("inspect", thin)["images"] if row["names"] == ["app:2"]]
    assert [layer["present"] for layer in row["layers"]] == [False] * (len(row["layers"]) - 1) + [True]
    top = row["layers"][-1]
    assert layers_in(thin) == {top["digest"], row["image_id"], row["digest"]}
    assert {out["digest"] for out in done["left_out"]} == {layer["digest"] for layer in row["layers"][:-1]}
    assert sender("verify", "--against", inventory, thin).returncode == 0
    sender("load", "-i", thin, store=site)
    assert sender.images(site) == family.named(*CHAIN)
    sender("verify", store=site)
    full = sender("save", "app:2").stdout
    assert sender("save", "app:2", store=site).stdout == full
    (tmp_path / "full.tar").write_bytes(full)
    receiver.run("load", "--input", tmp_path / "full.tar")
    assert receiver.images() == family.named("app:2")


def test_the_thin_archive_is_refused_on_an_empty_store_and_after_the_base_was_removed(sender, site, family, tmp_path):
    thin, empty = tmp_path / "thin.tar", tmp_path / "empty"
    sender("save", "--base", site, "-o", thin, "app:2")
    refused = sender("load", "-i", thin, store=empty, check=False)
    assert refused.returncode == 4
    assert f"bring app:1 ({family.app1}), or save app:2 without --base" in refused.stderr.decode()
    for name in ("app:1", "runtime:1", "base:1"):
        sender("rmi", "-f", name, store=site)
    assert sender("load", "-i", thin, store=site, check=False).returncode == 4
    assert sender.images(site) == {}
    verdict = sender("verify", "--against", site, thin, check=False)
    assert verdict.returncode == 4


@pytest.mark.parametrize("form", ["docker", "hybrid"])
def test_docker_loads_a_thin_archive_when_it_has_the_chain_and_fails_when_it_has_not(
    sender, docker_engine, receiver, family, tmp_path, form
):
    thin = tmp_path / "thin.tar"
    sender("save", "--base", "app:1", "--format", form, "-o", thin, "app:2")
    assert receiver.run("load", "--input", thin, check=False).returncode != 0
    assert receiver.images() == {}
    receiver.run("load", "--input", saved(docker_engine, tmp_path / "app1.tar", "app:1"))
    assert receiver.run("load", "--input", thin).stdout == "Loaded image: app:2\n"
    assert receiver.images() == family.named("app:1", "app:2")


@pytest.mark.xdist_group("debian")
def test_a_change_of_a_few_bytes_on_a_real_debian_travels_in_a_few_kilobytes_and_runs(
    imgtar, docker_engine, debian_image, scratch
):
    site, home = scratch / "site", scratch / "home"
    commit(docker_engine, debian_image, {"srv/": b"", "srv/hello.py": b"print('hello from a delta')\n"}, name="hello:1")
    both = saved(docker_engine, scratch / "both.tar", debian_image, "hello:1")
    imgtar("load", "-i", both, debian_image, store=site)
    imgtar("load", "-i", both, store=home)
    both.unlink()
    docker_engine.run("rmi", "hello:1")
    inventory, thin = scratch / "site.inv", scratch / "thin.tar"
    imgtar("inventory", "-o", inventory, store=site)
    imgtar("save", "--base", inventory, "-o", thin, "hello:1", store=home)
    assert thin.stat().st_size < 64 << 10
    imgtar("load", "-i", thin, store=site)
    # What the site makes of it, whole, and the few kilobytes themselves: an engine that has the base takes either.
    whole = scratch / "whole.tar"
    imgtar("save", "-o", whole, "hello:1", store=site)
    for archive in (whole, thin):
        docker_engine.run("load", "--input", archive)
        done = docker_engine.run("run", "--rm", "--network", "none", "hello:1", "python3", "/srv/hello.py")
        assert done.stdout == "hello from a delta\n"
        docker_engine.run("rmi", "hello:1")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_site_that_has_the_layers_compressed_takes_a_thin_archive_of_plain_ones(
    sender, family, tmp_path, compression
):
    site, packed = tmp_path / "site", tmp_path / "packed.tar"
    sender("save", "--layers", compression, "-o", packed, "app:1")
    sender("load", "-i", packed, store=site)
    thin = tmp_path / "thin.tar"
    done = sender.json("save", "--base", site, "-o", thin, "app:2")
    assert len(done["left_out"]) == len(sender.json("inspect", "app:1")["images"][0]["layers"])
    sender("load", "-i", thin, store=site)
    assert sender.images(site) == family.named("app:1", "app:2")
    assert sender("save", "app:2", store=site).stdout == sender("save", "app:2").stdout


def test_a_site_that_has_the_layers_plain_takes_a_thin_archive_of_compressed_ones_as_they_were(
    imgtar, docker_engine, family, tmp_path
):
    site, home = tmp_path / "site", tmp_path / "home"
    imgtar("load", "-i", saved(docker_engine, tmp_path / "app1.tar", "app:1"), store=site)
    imgtar("load", "-i", saved(docker_engine, tmp_path / "app2.tar", "app:2"), store=tmp_path / "plain")
    imgtar("save", "--layers", "gzip", "-o", tmp_path / "packed.tar", "app:2", store=tmp_path / "plain")
    imgtar("load", "-i", tmp_path / "packed.tar", store=home)
    thin = tmp_path / "thin.tar"
    imgtar("save", "--base", site, "-o", thin, "app:2", store=home)
    imgtar("load", "-i", thin, store=site)
    assert imgtar("save", "app:2", store=site).stdout == imgtar("save", "app:2", store=home).stdout
    plain = imgtar.json("save", "--base", site, "--layers", "none", "-o", thin, "app:2", store=home)
    assert len(plain["left_out"]) == len(imgtar.json("inspect", "app:2", store=home)["images"][0]["layers"])


def test_skopeo_reads_what_it_can_of_a_thin_layout(sender, skopeo, tmp_path):
    """An image layout may lack blobs (image-spec image-layout.md): the documents of a thin one are all there."""
    folder = tmp_path / "thin"
    sender("save", "--base", "app:1", "--format", "oci-dir", "-o", folder, "app:2")
    seen = json.loads(skopeo.run("inspect", f"oci:{folder}:app:2").stdout)
    (row,) = sender.json("inspect", "app:2")["images"]
    assert seen["Layers"] == [layer["digest"] for layer in row["layers"]]
    assert seen["Digest"] == row["digest"]


def test_containerd_that_has_the_base_takes_a_thin_oci_archive(sender, containerd, family, tmp_path):
    base, thin = tmp_path / "base.tar", tmp_path / "thin.tar"
    sender("save", "--format", "oci", "-o", base, "app:1")
    sender("save", "--format", "oci", "--base", "app:1", "-o", thin, "app:2")
    containerd.ctr("images", "import", "--no-unpack", base)
    containerd.ctr("images", "import", "--no-unpack", thin)
    assert containerd.image_ids() == family.named("app:1", "app:2")
    (row,) = sender.json("inspect", "app:2")["images"]
    assert {layer["digest"] for layer in row["layers"]} <= containerd.content()


def test_two_halves_of_a_pre_1_10_archive_are_one_load(imgtar, docker_engine, receiver, family, tmp_path):
    whole = to_pre_1_10(saved(docker_engine, tmp_path / "new.tar", "app:2"), tmp_path / "old.tar")
    import tarfile

    with tarfile.open(whole) as tar:
        chain = [name.removesuffix("/json") for name in tar.getnames() if name.endswith("/json")]
        parents = {identity: json.loads(tar.extractfile(f"{identity}/json").read()).get("parent") for identity in chain}
        top = next(identity for identity in chain if identity not in parents.values())
        order = [top]
        while parents[order[-1]]:
            order.append(parents[order[-1]])
        lower = set(order[len(order) // 2 :])
        halves = []
        for number, keep in enumerate((lower, set(order) - lower)):
            path = tmp_path / f"half{number}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
                for info in tar.getmembers():
                    if info.name.partition("/")[0] in keep or (number == 1 and info.name == "repositories"):
                        out.addfile(info, tar.extractfile(info) if info.isfile() else None)
            halves.append(path)
    for policy in ("require", "warn", "ignore"):
        refused = imgtar("load", "--parents", policy, "-i", halves[1], check=False)
        assert refused.returncode == 4
        assert order[len(order) // 2] in refused.stderr.decode()
    imgtar("load", "-i", halves[1], "-i", halves[0])
    receiver.run("load", "--input", whole)
    assert imgtar.images() == receiver.images()


def test_a_base_that_buildah_names_informs_and_counts_when_asked(imgtar, buildah, docker_engine, family, tmp_path):
    saved(docker_engine, tmp_path / "base.tar", "base:1")
    pulled = buildah.run("pull", f"docker-archive:{tmp_path / 'base.tar'}").stdout.split()[-1]
    buildah.run("tag", pulled, "docker.io/library/base:1")
    container = buildah.run("from", "--pull-never", "docker.io/library/base:1").stdout.strip()
    (tmp_path / "file").write_bytes(b"on top\n")
    buildah.run("copy", container, tmp_path / "file", "/on-top")
    buildah.run("commit", "--format", "oci", container, f"oci-archive:{tmp_path / 'child.tar'}:child:1")
    buildah.run("push", "--format", "oci", "docker.io/library/base:1", f"oci-archive:{tmp_path / 'parent.tar'}:base:1")
    (child,) = imgtar.json("inspect", tmp_path / "child.tar")["images"]
    assert child["parent"]["learned_from"] == "base annotations"
    for policy, plain, strict in (("require", 0, 4), ("warn", 0, 0), ("ignore", 0, 0)):
        store = tmp_path / policy
        assert imgtar("load", "--parents", policy, "-i", tmp_path / "child.tar", store=store).returncode == plain
        asked = imgtar(
            "load", "--require-base", "--parents", policy, "-i", tmp_path / "child.tar", store=store, check=False
        )
        assert asked.returncode == strict, asked.stderr
    buildah.run("rmi", "--all", "--force")
    tree = imgtar.json("deps", tmp_path / "child.tar")
    assert tree["images"][0]["parent"]["present"] is False
