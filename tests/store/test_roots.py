"""What is remembered of roots: deleted, torn, forged or of another store, the answers are the same."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtar.errors import ImgtarError, UsageError
from imgtar.graph.candidates import grow_candidates
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.select import select, with_platforms
from imgtar.ops.choose import choose
from imgtar.ops.upkeep import list_images
from imgtar.store.entry import STORE_LIMITS
from imgtar.store.inventory import StoreInventory
from imgtar.store.roots import RootCache
from imgtar.store.store import Store
from imgtar.transport.check import Check
from tests.builders.images import (
    OCI_INDEX,
    OCI_MANIFEST,
    attestation,
    dumps,
    make_image,
    make_index,
    oci_archive,
    oci_layout,
    sha256,
)
from tests.conftest import Imgtar
from tests.store.spoiled import SPOILED

BASE = make_image("base:1", 2, seed=1)
APP = make_image(("app:1", "app:2", "quay.io/x/app:1"), 1, seed=2, base=BASE, compression="gzip")
ARM = make_image((), 1, seed=3, platform="linux/arm64")
RISC = make_image((), 1, seed=4, platform="linux/riscv64")
PROOF = attestation(ARM)
OUTER = make_index(APP, make_index(ARM, PROOF), sparse=[RISC])
BARE = make_image((), 1, seed=5)
STRANGER = make_image("stranger:1", 1, seed=6)


def artifact(subject: str, size: int, seed: int) -> bytes:
    """A manifest that says it is about ``subject``."""
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}
    return dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.test",
            "config": empty,
            "layers": [empty],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": size},
            "annotations": {"seed": str(seed)},
        }
    )


SIGNATURE = artifact(APP.digest, len(APP.manifest), 1)
OF_SIGNATURE = artifact(sha256(SIGNATURE), len(SIGNATURE), 2)
OF_BASE = artifact(BASE.digest, len(BASE.manifest), 3)
OF_LABEL = make_image((), 0, seed=7).manifest


def put(store: Path, raw: bytes, **entry: Any) -> None:
    """What another tool does: a blob and an entry of ``index.json``, no cache, no lock."""
    (store / "blobs" / "sha256" / sha256(raw)[7:]).write_bytes(raw)
    index = json.loads((store / "index.json").read_bytes())
    index["manifests"].append({"mediaType": OCI_MANIFEST, "digest": sha256(raw), "size": len(raw), **entry})
    (store / "index.json").write_text(json.dumps(index))


@pytest.fixture
def filled(imgtar: Imgtar) -> Imgtar:
    imgtar.load(oci_archive([BASE, APP, (OUTER, ["outer:1"]), BARE])).ok()
    (imgtar.store / "blobs" / "sha256" / sha256(b"{}")[7:]).write_bytes(b"{}")
    for raw in (SIGNATURE, OF_SIGNATURE, OF_BASE):
        put(imgtar.store, raw)
    put(
        imgtar.store,
        OF_LABEL,
        annotations={"org.opencontainers.image.ref.name": f"sha256-{BASE.digest[7:]}.sig"},
    )
    imgtar("images", "-a").ok()
    return imgtar


def cache(imgtar: Imgtar) -> Path:
    return imgtar.store / "imgtar" / "roots"


def lines(imgtar: Imgtar) -> list[list[Any]]:
    return [json.loads(line[9:]) for line in cache(imgtar).read_bytes().split(b"\n") if line]


def written(values: list[Any]) -> bytes:
    bodies = [one if isinstance(one, bytes) else json.dumps(one, separators=(",", ":")).encode() for one in values]
    return b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies)


def rows(imgtar: Imgtar, *, everything: bool = True) -> list[dict[str, Any]]:
    return list_images(Store(str(imgtar.store)), everything=everything)


def as_it_is(path: Path) -> None:
    assert path.read_bytes().count(b"\n") > 5


def older_lines(path: Path) -> None:
    """Lines that were true of other files: the later one counts."""
    values = [json.loads(line[9:]) for line in path.read_bytes().split(b"\n") if line]
    old = [[key, refers, [[digest, "1 2 3 4"] for digest, _ in documents], []] for key, refers, documents, _ in values]
    path.write_bytes(written([*values, *old]))


def other_form(path: Path) -> None:
    """What a later version may write, and what nobody should."""
    for damage in (b"[", b"{}", b"[[", b'"', b"null", b"0"):
        keys = [line[9:46] for line in path.read_bytes().split(b"\n") if line[9:11] == b'["']
        path.write_bytes(written([key + b"0," + damage for key in keys]))


states = pytest.mark.parametrize(
    "state",
    [as_it_is, *SPOILED, older_lines, other_form],
)


@states
def test_images_are_shown_alike_whatever_became_of_the_cache(state: Callable[[Path], None], filled: Imgtar) -> None:
    cache(filled).unlink()
    before = rows(filled)
    assert {row["name"] for row in before} >= {"app:1", "app:2", "base:1", "outer:1", None}
    assert [row["platform"] for row in before if row["name"] == "outer:1"].count("linux/arm64") == 1
    assert rows(filled) == before
    state(cache(filled))
    assert rows(filled) == before
    assert rows(filled) == before


FORGED = {
    "no list": {},
    "too few": [["x", "y"]],
    "a number for an ID": [[7, None, None, 1]],
    "an ID that is none": [["sha256:zz", None, None, 1]],
    "a path for an ID": [["../../etc/passwd", None, None, 1]],
    "a time that is none": [[BASE.image_id, None, "2024-13-45T99:00:00Z", 1]],
    "a time of another kind": [[BASE.image_id, None, 5, 1]],
    "a size below nothing": [[BASE.image_id, None, None, -1]],
    "a size without end": [[BASE.image_id, None, None, 10**400]],
    "a size that is no number": [[BASE.image_id, None, None, True]],
    "a platform of another kind": [[BASE.image_id, ["linux"], None, 1]],
    "half a surrogate pair": [[BASE.image_id, "\ud800", None, 1]],
}


@pytest.mark.parametrize("images", FORGED.values(), ids=FORGED)
def test_what_can_be_no_image_is_not_believed(images: Any, filled: Imgtar) -> None:
    before = rows(filled)
    cache(filled).write_bytes(written([[key, refers, docs, images] for key, refers, docs, _ in lines(filled)]))
    assert rows(filled) == before
    filled("images", "-a").ok()
    filled("images", "-a", "--json").ok()


@pytest.mark.parametrize("documents", [[], [["x", "y"]], [[5, 5]], [["../../etc/passwd", ""]], 5, [[]], {"a": 1}])
def test_a_line_that_names_no_file_of_the_root_is_not_believed(documents: Any, filled: Imgtar) -> None:
    before = rows(filled)
    lie = [[sha256(b"lie"), "no/such", None, 1]]
    cache(filled).write_bytes(written([[key, refers, documents, lie] for key, refers, _, _ in lines(filled)]))
    assert rows(filled) == before


def test_a_line_nested_without_end_is_not_believed(filled: Imgtar) -> None:
    before = rows(filled)
    deep = [f'["{key}",0,'.encode() + b"[" * 100_000 for key, *_ in lines(filled)]
    cache(filled).write_bytes(written(deep))
    assert rows(filled) == before


@pytest.mark.parametrize("victim", [BASE.digest, BASE.image_id, ARM.digest, ARM.image_id, OUTER.digest])
@pytest.mark.parametrize("how", ["gone", "a flipped bit", "shorter", "a folder", "back again"])
def test_a_document_that_changed_is_looked_at_again(victim: str, how: str, filled: Imgtar) -> None:
    whole = rows(filled)
    path = filled.store / "blobs" / victim.replace(":", "/")
    raw = path.read_bytes()
    path.unlink()
    if how == "a flipped bit":
        path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
    elif how == "shorter":
        path.write_bytes(raw[:-1])
    elif how == "a folder":
        path.mkdir()
    elif how == "back again":
        rows(filled)
        path.write_bytes(raw)
    with_cache = rows(filled)
    cache(filled).unlink()
    assert with_cache == rows(filled)
    assert (with_cache == whole) == (how == "back again")


def test_a_platform_that_comes_later_is_shown(filled: Imgtar) -> None:
    assert "linux/riscv64" not in {row["platform"] for row in rows(filled)}
    filled.load(oci_archive([(make_index(RISC), ["risc:1"])])).ok()
    assert [row["name"] for row in rows(filled) if row["platform"] == "linux/riscv64"] == ["outer:1", "risc:1"]


def test_the_cache_of_another_store_does_no_harm(filled: Imgtar, tmp_path: Path) -> None:
    before = rows(filled)
    shutil.copytree(filled.store, tmp_path / "copy")
    other = Store(str(tmp_path / "copy"))
    assert list_images(other, everything=True) == before
    (tmp_path / "copy" / "blobs" / APP.image_id.replace(":", "/")).unlink()
    assert list_images(other, everything=True) != before


def test_what_another_tool_added_is_shown_and_what_it_removed_is_not(filled: Imgtar) -> None:
    theirs = json.loads(next(m.data for m in oci_layout([STRANGER]).members if m.name == "index.json"))
    for digest, raw in STRANGER.document.blobs().items():
        (filled.store / "blobs" / digest.replace(":", "/")).write_bytes(raw)
    (filled.store / "index.json").write_text(json.dumps(theirs))
    assert [(row["name"], row["image_id"]) for row in rows(filled)] == [("stranger:1", STRANGER.image_id)]


def test_the_same_manifest_under_another_platform_is_another_root(filled: Imgtar) -> None:
    raw = BASE.manifest
    for architecture in ("one", "two"):
        put(filled.store, raw, platform={"os": "linux", "architecture": architecture})
    for _ in range(2):
        found = [row["platform"] for row in rows(filled) if row["digest"] == BASE.digest]
        assert {"linux/one", "linux/two"} <= set(found)


def test_a_complete_cache_means_that_no_document_is_read(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(filled)
    monkeypatch.setattr("imgtar.store.inventory.StoreInventory.fetch", lambda *_: pytest.fail("a document was read"))
    assert rows(filled) == before


def test_a_store_that_cannot_be_written_is_listed(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(filled)
    cache(filled).unlink()

    def refuse(path: Any, flags: int, *_: Any, **__: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "read-only", path)
        return real(path, flags, *_, **__)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    assert rows(filled) == before
    assert not cache(filled).exists()


def test_the_file_does_not_grow_without_end(filled: Imgtar) -> None:
    size = cache(filled).stat().st_size
    cache(filled).write_bytes(cache(filled).read_bytes() + written([["0" * 32, 0, [], []]] * 500))
    rows(filled)
    assert cache(filled).stat().st_size <= size
    path = filled.store / "blobs" / BASE.digest.replace(":", "/")
    for turn in range(200):
        os.utime(path, ns=(turn, turn))
        rows(filled)
    assert cache(filled).stat().st_size < 40 * size


def test_many_at_once_do_no_harm(filled: Imgtar) -> None:
    before = rows(filled)
    cache(filled).unlink()
    wrong: list[object] = []

    def look() -> None:
        for _ in range(10):
            if rows(filled) != before:
                wrong.append("other rows")
            cache(filled).unlink(missing_ok=True)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert rows(filled) == before


# -- names and IDs ---------------------------------------------------------------------------------------------------

TEXTS = [
    "app:1", "app:2", "app", "quay.io/x/app:1", "quay.io/x/app", "docker.io/library/app:1", "base:1", "base",
    "outer:1", "outer", "nobody:1", "app:3", "APP:1", "", "a b", "dead", "sha256:", "0000", "sha256:zz",
    APP.image_id, APP.digest, APP.digest[7:], APP.digest[7:12], APP.image_id[7:19], ARM.image_id, ARM.digest,
    ARM.image_id[7:12], RISC.digest, RISC.image_id, OUTER.digest, OUTER.digest[:20], BARE.image_id, BARE.digest[7:13],
    PROOF.digest, sha256(SIGNATURE), sha256(OF_SIGNATURE)[7:20], f"app@{APP.digest}", f"app:1@{APP.image_id}",
    f"app@{BASE.digest}", f"sha256-{BASE.digest[7:]}.sig", sha256(b"{}"), BASE.layers[0].digest,
]  # fmt: skip


def answer(find: Callable[[], Any]) -> Any:
    try:
        return [(one.root, one.node.descriptor, one.node.fault) for one in find()]
    except ImgtarError as error:
        return type(error), error.code, error.message, error.hint


@states
def test_a_name_means_the_same_as_among_all_images(state: Callable[[Path], None], filled: Imgtar) -> None:
    store = Store(str(filled.store))
    with store.reading() as inventory:
        catalog = store.source(inventory).survey(Check())
        everything = with_platforms(grow_candidates([catalog], EmptyInventory(), STORE_LIMITS)[0])
    state(cache(filled))
    asked = [[text] for text in TEXTS] + [["app:1", BARE.image_id], [BARE.image_id, "nobody"], ["base", "app:2"]]
    for names in asked:
        with store.reading() as inventory:
            found = answer(lambda: choose(store, inventory, names)[2])  # noqa: B023
        assert found == answer(lambda: select(everything, names)), names  # noqa: B023


def empty_store(place: Path) -> Path:
    """A store that another tool has made; :func:`put` fills it."""
    (place / "blobs" / "sha256").mkdir(parents=True)
    (place / "imgtar").mkdir()
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (place / "index.json").write_bytes(dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}))
    return place


def alike(beginning: str) -> Any:
    """An image whose manifest has a digest that begins so."""
    for seed in range(100, 1 << 20):
        image = make_image((), 0, seed=seed)
        if image.digest[7:].startswith(beginning):
            return image
    raise AssertionError("none was found")


def add(store: Path, image: Any, **entry: Any) -> None:
    (store / "blobs" / "sha256" / image.image_id[7:]).write_bytes(image.config)
    put(store, image.manifest, **entry)


def means(store: Path, text: str) -> Any:
    """What ``text`` means, asked of what may be meant; it is compared with what it means among everything."""
    place = Store(str(store))
    with place.reading() as inventory:
        narrowed = answer(lambda: choose(place, inventory, [text])[2])
        catalog = place.source(inventory).survey(Check())
        everything = with_platforms(grow_candidates([catalog], EmptyInventory(), STORE_LIMITS)[0])
    assert narrowed == answer(lambda: select(everything, [text]))
    return narrowed


def test_an_id_that_stands_inside_an_embedded_manifest_too_is_ambiguous(tmp_path: Path) -> None:
    store, inner = empty_store(tmp_path / "s"), make_image((), 0, seed=11)
    child = {"mediaType": OCI_MANIFEST, "digest": inner.digest, "size": len(inner.manifest)}
    outer = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{**child, "data": base64.b64encode(inner.manifest).decode()}],
        }
    )
    (store / "blobs" / "sha256" / inner.image_id[7:]).write_bytes(inner.config)
    put(store, outer, mediaType=OCI_INDEX)
    add(store, alike(inner.digest[7:11]))
    assert means(store, inner.digest[7:11])[0] is UsageError


def test_the_id_of_an_image_without_a_platform_counts(tmp_path: Path) -> None:
    store, odd = empty_store(tmp_path / "s"), make_image((), 0, seed=12)
    add(store, odd, platform={"architecture": "unknown", "os": "unknown"})
    add(store, alike(odd.image_id[7:11]))
    assert means(store, odd.image_id[7:11])[0] is UsageError


def test_who_refers_to_an_image_does_not_depend_on_what_an_index_says_of_him(tmp_path: Path) -> None:
    store, subject = empty_store(tmp_path / "s"), make_image((), 0, seed=13)
    about = artifact(BASE.digest, 1, 9).replace(b'"subject"', b'"ignored"')
    entry = {"mediaType": OCI_MANIFEST, "digest": sha256(about), "size": len(about)}
    says = {"io.containerd.manifest.subject": subject.digest}
    put(
        store,
        dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{**entry, "annotations": says}]}),
        mediaType=OCI_INDEX,
    )
    add(store, subject, annotations={"org.opencontainers.image.ref.name": "subject:1"})
    put(store, about)
    assert len(means(store, "subject:1")) == 1


def test_what_has_no_line_is_read_once_however_many_ids_are_asked_for(
    filled: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in (BASE, APP):
        (filled.store / "blobs" / "sha256" / image.image_id[7:]).write_bytes(b"rotten")
    read: Counter[str] = Counter()
    real = StoreInventory.fetch
    monkeypatch.setattr(
        StoreInventory, "fetch", lambda self, one, cap: (read.update([str(one.digest)]), real(self, one, cap))[1]
    )
    place = Store(str(filled.store))
    with place.reading() as inventory:
        choose(place, inventory, [BARE.image_id, BARE.digest, ARM.image_id, ARM.digest[:20], BARE.image_id[:20]])
    assert read[BASE.image_id] <= 2, read
    assert read[BASE.digest] <= 2, read


def test_nothing_is_added_to_a_file_that_has_another_name_too(filled: Imgtar, tmp_path: Path) -> None:
    cache(filled).unlink()
    (tmp_path / "precious").write_bytes(b"mine")
    os.link(tmp_path / "precious", cache(filled))
    filled("images", "-a").ok()
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_platform_that_came_later_has_an_id_and_may_refer(filled: Imgtar) -> None:
    late = json.loads(RISC.manifest)
    late["subject"] = {"mediaType": OCI_MANIFEST, "digest": BASE.digest, "size": len(BASE.manifest)}
    raw = dumps(late)
    child = {"mediaType": OCI_MANIFEST, "digest": sha256(raw), "size": len(raw)}
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    put(filled.store, index, mediaType=OCI_INDEX)

    def known() -> tuple[bool, bool]:
        with Store(str(filled.store)).reading() as inventory:
            roots = RootCache(inventory)
            entry = next(one for one in inventory.entries if str(one.digest) == sha256(index))
            found = roots.mentions(entry, RISC.image_id[7:]), roots.may_refer(entry)
            roots.keep(inventory.entries)
        return found

    assert known() == known() == (False, False)
    for blob in (raw, RISC.config):
        (filled.store / "blobs" / "sha256" / sha256(blob)[7:]).write_bytes(blob)
    assert known() == known() == (True, True)


def test_what_refers_to_an_image_comes_along(filled: Imgtar, tmp_path: Path) -> None:
    filled("save", "-o", tmp_path / "one.tar", "app:1").ok()
    inside = filled("inspect", tmp_path / "one.tar", "--json").ok().json()
    assert {one["digest"] for one in inside["other"]} == {sha256(SIGNATURE), sha256(OF_SIGNATURE)}


def test_only_what_may_be_meant_is_read(filled: Imgtar, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgtar.store.inventory import StoreInventory

    read: list[str] = []
    real = StoreInventory.fetch
    monkeypatch.setattr(
        StoreInventory, "fetch", lambda self, one, cap: (read.append(str(one.digest)), real(self, one, cap))[1]
    )
    store = Store(str(filled.store))
    for name in ("base:1", BASE.image_id[7:15]):
        read.clear()
        with store.reading() as inventory:
            choose(store, inventory, [name])
        assert BASE.digest in read
        assert not {APP.digest, ARM.digest, BARE.digest, OUTER.digest} & set(read)


def test_a_lie_about_who_refers_makes_nothing_refer(filled: Imgtar) -> None:
    cache(filled).write_bytes(written([[key, 1, docs, images] for key, _, docs, images in lines(filled)]))
    store = Store(str(filled.store))
    with store.reading() as inventory:
        roots = RootCache(inventory)
        assert all(roots.may_refer(entry) for entry in inventory.entries)
        chosen = choose(store, inventory, ["base:1"])[2]
    # Both the artifact with the subject and the one whose label says so.
    about = {sha256(OF_BASE), sha256(OF_LABEL)}
    assert {str(one.node.descriptor.digest) for one in chosen} == {BASE.digest, *about}
