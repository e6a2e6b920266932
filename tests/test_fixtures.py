"""Real archives by real tools: what imgtar says of them must be what is in them.

``IMGTAR_FIXTURES=DIR`` runs the same tests over another folder with an ``expected.json`` of the same shape.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from imgtar.errors import ImgtarError
from imgtar.graph.select import Policy
from imgtar.graph.views import Views
from imgtar.ops.inspect import inspect_archive
from imgtar.ops.inventory import make_inventory
from imgtar.ops.load import load
from imgtar.ops.save import SaveOptions, save
from imgtar.ops.upkeep import list_images
from imgtar.ops.verify import verify
from imgtar.store.store import Store

ROOT = Path(os.environ.get("IMGTAR_FIXTURES") or Path(__file__).parent.parent / "fixtures")
EXPECTED = json.loads((ROOT / "expected.json").read_text())["files"]
COMPLETE = [name for name, facts in EXPECTED.items() if facts["complete"]]
SPARSE = [
    name for name, facts in EXPECTED.items() if not facts["complete"] and facts["images"] and facts.get("missing")
]
BROKEN = [name for name in EXPECTED if name not in COMPLETE and name not in SPARSE]


def facts_of(inspected: dict) -> set:
    return {
        (
            tuple(image["names"]),
            image["platform"],
            image["image_id"],
            image["digest"],
            tuple(layer["diff_id"] for layer in image["layers"]),
            tuple((layer["digest"], layer["size"]) for layer in image["layers"]),
            len(image["history"]),
        )
        for image in Views(inspected["images"]).flat()
    }


def expected_of(facts: dict) -> set:
    return {
        (
            tuple(image["names"]),
            image["platform"],
            image["image_id"],
            image["manifest_digest"],
            tuple(image["diff_ids"]),
            tuple((layer["digest"], layer["size"]) for layer in image["layers"]),
            image["history"],
        )
        for image in facts["images"]
    }


def as_pipe(path: Path) -> None:
    """Put the file's bytes behind descriptor 0 through a real pipe."""
    reading, writing = os.pipe()
    data = path.read_bytes()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(writing, view) :]
        finally:
            os._exit(0)
    os.close(writing)
    saved = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)

    def undo() -> None:
        os.dup2(saved, 0)
        os.close(saved)
        os.waitpid(pid, 0)

    as_pipe.undo = undo  # type: ignore[attr-defined]


@pytest.fixture
def piped():
    yield as_pipe
    as_pipe.undo()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [*COMPLETE, *SPARSE])
def test_inspect_agrees_with_what_is_known_of_the_archive(name):
    assert facts_of(inspect_archive(str(ROOT / name)).document) == expected_of(EXPECTED[name])


@pytest.mark.parametrize("name", [*COMPLETE, *SPARSE])
def test_inspect_through_a_pipe_says_the_same(name, piped):
    piped(ROOT / name)
    assert facts_of(inspect_archive("-").document) == expected_of(EXPECTED[name])


@pytest.mark.parametrize("name", COMPLETE)
def test_a_whole_archive_verifies_without_a_fault(name):
    result = verify([str(ROOT / name)])
    assert result.ok
    assert result.archives[0].sha256 == EXPECTED[name]["file_sha256"]
    assert result.archives[0].size == EXPECTED[name]["size"]
    assert {image["image_id"] for image in result.archives[0].images} == {
        image["image_id"] for image in EXPECTED[name]["images"]
    }


@pytest.mark.parametrize("name", [*COMPLETE, *SPARSE])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_it_loads_into_a_fresh_store_with_its_ids_and_the_store_is_good(name, way, tmp_path, request):
    if way == "pipe":
        request.getfixturevalue("piped")(ROOT / name)
    store = Store(str(tmp_path / "store"))
    load(["-" if way == "pipe" else str(ROOT / name)], store, Policy())
    rows = list_images(store, everything=True)
    assert {row["image_id"] for row in rows} == {image["image_id"] for image in EXPECTED[name]["images"]}
    assert verify([], store).ok


@pytest.mark.parametrize("name", SPARSE)
def test_a_platform_that_was_not_shipped_is_said_to_be_so_and_is_an_error_only_when_asked_for(name, tmp_path):
    absent = [gap["platform"] for gap in EXPECTED[name]["missing"] if gap["platform"] not in (None, "unknown/unknown")]
    document = inspect_archive(str(ROOT / name)).document
    assert [row["platform"] for image in document["images"] for row in image["absent"]] == absent
    store = Store(str(tmp_path / "store"))
    from imgtar.model.platform import parse_platforms

    with pytest.raises(ImgtarError) as caught:
        load([str(ROOT / name)], store, Policy(platforms=parse_platforms(absent)))
    assert caught.value.exit_code == 4
    assert {gap["class"] for gap in caught.value.details["missing"]} == {"platform-not-shipped"}
    assert list_images(store, everything=True) == []


@pytest.mark.parametrize("name", BROKEN)
def test_an_incomplete_archive_is_reported_as_exactly_that(name, tmp_path):
    facts = EXPECTED[name]
    store = Store(str(tmp_path / "store"))
    with pytest.raises(ImgtarError) as caught:
        load([str(ROOT / name)], store, Policy())
    verdict = verify([str(ROOT / name)])
    if facts.get("truncated"):
        assert (caught.value.code, caught.value.exit_code) == ("E_TRUNC", 5)
        assert [finding.code for finding in verdict.findings] == ["E_TRUNC"]
        assert str(facts["size"]) in caught.value.message
    else:
        assert (caught.value.code, caught.value.exit_code) == ("E_MISSING", 4)
        named = {gap["digest"] for gap in caught.value.details["missing"]}
        assert {gap["digest"] for gap in facts["missing"]} <= named
        assert {finding.code for finding in verdict.faults} == {"E_MISSING"}
        assert verdict.exit_code == 4
    assert list_images(store, everything=True) == []


@pytest.mark.parametrize("name", COMPLETE)
def test_a_damaged_copy_is_refused_or_the_damage_means_nothing(name, tmp_path):
    """Bits flipped at seeded places: refused, or every image is exactly as it was.

    Names alone may come out differently: index.json and manifest.json are covered by no digest in any format.
    """
    data = bytearray((ROOT / name).read_bytes())
    chance = random.Random(name)
    refused = 0
    for _ in range(12):
        copy = bytearray(data)
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        path = tmp_path / "damaged.tar"
        path.write_bytes(copy)
        result = verify([str(path)])
        if not result.ok:
            refused += 1
            continue
        contents = {image[2:] for image in facts_of(inspect_archive(str(path)).document)}
        assert contents == {image[2:] for image in expected_of(EXPECTED[name])}
    assert refused > 0


@pytest.mark.parametrize("name", COMPLETE)
def test_a_copy_that_was_cut_short_is_refused_at_every_cut(name, tmp_path):
    data = (ROOT / name).read_bytes()
    chance = random.Random(name)
    end = len(data.rstrip(b"\0")) if not name.startswith("outer/") and not name.endswith((".gz", ".zst")) else len(data)
    for cut in sorted({0, 1, 511, 512, end - 1, *(chance.randrange(end) for _ in range(8))}):
        path = tmp_path / "cut.tar"
        path.write_bytes(data[:cut])
        store = Store(str(tmp_path / "store"))
        with pytest.raises(ImgtarError) as caught:
            load([str(path)], store, Policy())
        assert caught.value.exit_code == 5, cut
        assert list_images(store, everything=True) == []


@pytest.mark.parametrize("name", [*COMPLETE, *SPARSE])
@pytest.mark.parametrize("form", ["hybrid", "docker", "oci", "oci-dir"])
def test_saving_and_loading_elsewhere_keeps_ids_digests_and_names(name, form, tmp_path):
    first, second = Store(str(tmp_path / "first")), Store(str(tmp_path / "second"))
    load([str(ROOT / name)], first, Policy())
    before = list_images(first, everything=True)
    names = sorted({row["name"] or row["digest"] for row in before})
    if not before:  # An artifact only: it has no name, but a digest.
        names = [str(entry.descriptor.digest) for entry in first.inventory().entries]
        if form == "docker":
            with pytest.raises(ImgtarError, match="no image that a docker archive can carry"):
                save(names, first, str(tmp_path / "out"), SaveOptions(form=form))
            return
    target = tmp_path / "out"
    save(names, first, str(target), SaveOptions(form=form))
    if form != "oci-dir":
        save(names[::-1], first, str(tmp_path / "again"), SaveOptions(form=form), jobs=1)
        assert target.read_bytes() == (tmp_path / "again").read_bytes()
    load([str(target)], second, Policy())
    after = list_images(second, everything=True)
    if form == "docker":
        # A docker archive holds one platform of an index, and no manifests.
        assert {row["image_id"] for row in after} <= {row["image_id"] for row in before}
        assert {row["name"] for row in after} == {row["name"] for row in before}
    else:
        keys = ("name", "image_id", "digest", "platform", "size")
        assert [[row[key] for key in keys] for row in after] == [[row[key] for key in keys] for row in before]
        assert {entry.descriptor.digest for entry in second.inventory().entries} == {
            entry.descriptor.digest for entry in first.inventory().entries
        }


@pytest.mark.parametrize("name", [*COMPLETE, *SPARSE])
@pytest.mark.parametrize("form", ["hybrid", "docker", "oci", "oci-dir"])
def test_a_thin_archive_for_a_receiver_of_one_of_its_images_gives_what_the_full_one_gives(name, form, tmp_path):
    home, site, twin = (Store(str(tmp_path / folder)) for folder in ("home", "site", "twin"))
    load([str(ROOT / name)], home, Policy())
    rows = list_images(home, everything=True)
    names = sorted({row["name"] or row["digest"] for row in rows})
    if not rows:  # An artifact only.
        names = [str(entry.descriptor.digest) for entry in home.inventory().entries]
        form = "oci" if form == "docker" else form
    for store in (site, twin):
        load([str(ROOT / name)], store, Policy(select=(names[0],)))
    base = make_inventory(site.label, home, target=str(tmp_path / "site.inv"))
    thin, full = str(tmp_path / "thin"), str(tmp_path / "full")
    done = save(names, home, thin, SaveOptions(form=form, bases=(str(tmp_path / "site.inv"),)))
    save(names, home, full, SaveOptions(form=form))
    for fate in done.fates:
        # It is there, or can be made there: a plain layer from a compressed one.
        assert fate.carried or fate.digest in base.blobs or base.layer_for(fate.diff_id) is not None
    assert verify([thin]).ok
    assert verify([thin], home, against=[site.label]).ok
    load([thin], site, Policy())
    load([full], twin, Policy())
    assert verify([], site).ok
    assert list_images(site, everything=True) == list_images(twin, everything=True)
    assert make_inventory(site.label, home).encode() == make_inventory(twin.label, home).encode()
    if form != "docker":
        for store, target in ((home, "a"), (site, "b")):
            save(names, store, str(tmp_path / target), SaveOptions())
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
