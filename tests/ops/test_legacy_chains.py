"""Archives from before Docker 1.10 that do not hold the whole parent chain: completed by others, or told as gaps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import Files, Member, dumps, legacy_files, make_image, make_layer, random_layer
from tests.conftest import Imgtar, stored

APP = make_image("app:1", 4, seed=2)
TOOL = make_image("tool:1", 2, seed=3)
WHOLE = legacy_files([APP])
IDS = [name.partition("/")[0] for name in WHOLE.names if name.endswith("/json")]
CUT = WHOLE.without(f"{IDS[1]}/json", f"{IDS[1]}/layer.tar", f"{IDS[1]}/VERSION", f"{IDS[1]}/")
POLICIES = ["require", "warn", "ignore"]


def part(*places: int, tagged: bool = False) -> Files:
    """An archive with some of the four v1 images of ``app:1``, the lowest is 0; ``tagged`` with the name."""
    kept = {IDS[place] for place in places}
    members = [member for member in WHOLE.members if member.name.partition("/")[0] in kept]
    files = Files(tuple(members))
    return files.put("repositories", WHOLE["repositories"] if tagged else b"{}")


def lay(imgtar: Imgtar, *archives: Files) -> list[Path]:
    paths = []
    for number, files in enumerate(archives):
        path = imgtar.home / f"part{number}.tar"
        path.write_bytes(files.tar())
        paths.append(path)
    return paths


def options(paths: Sequence[object]) -> list[object]:
    return [word for path in paths for word in ("-i", path)]


def expected(imgtar: Imgtar) -> tuple[list[dict[str, Any]], bytes]:
    """The images of a store that loaded the whole archive, and what it saves."""
    store = imgtar.home / "expected"
    imgtar.load(WHOLE.tar(), store=store).ok()
    return imgtar.images(store=store), imgtar("save", "app:1", store=store).ok().out


def loaded(imgtar: Imgtar, store: Path) -> tuple[list[dict[str, Any]], bytes]:
    imgtar("verify", store=store).ok()
    return imgtar.images(store=store), imgtar("save", "app:1", store=store).ok().out


# -- cut -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parents", POLICIES)
@pytest.mark.parametrize("pipe", [False, True])
def test_a_chain_that_is_cut_in_the_middle_is_refused_under_every_policy_and_the_store_stays_as_it_was(
    imgtar: Imgtar, parents: str, pipe: bool
) -> None:
    imgtar.load(legacy_files([TOOL]).tar()).ok()
    before = stored(imgtar.store)
    data = CUT.tar()
    path = imgtar.home / "cut.tar"
    path.write_bytes(data)
    source = "-" if pipe else path
    done = imgtar("load", "-i", source, "--parents", parents, "--json", stdin=data if pipe else None)
    assert done.code == 4
    assert stored(imgtar.store) == before
    (gap,) = done.json()["error"]["details"]["missing"]
    label = "standard input" if pipe else str(path)
    assert gap["kind"] == "parent"
    assert gap["digest"] is None
    assert IDS[1] in gap["expected_in"]
    assert gap["needed_by"] == ["app:1"]
    assert gap["expected_in"] == f"{label}: {IDS[1]}/json"
    assert gap["class"] == "absent"
    assert "docker save" in gap["hint"]
    assert "--parents warn or ignore cannot help" in gap["hint"]


def test_a_dry_run_shows_the_gap_too(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, CUT)
    done = imgtar("load", "--dry-run", "-i", path, "--json")
    assert done.code == 4
    assert [IDS[1] in gap["expected_in"] for gap in done.json()["missing"]] == [True]
    assert not imgtar.store.exists()


def test_a_layer_that_is_not_there_is_a_gap_of_its_own(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, WHOLE.without(f"{IDS[1]}/layer.tar", f"{IDS[3]}/layer.tar"))
    done = imgtar("load", "-i", path, "--json")
    assert done.code == 4
    gaps = done.json()["error"]["details"]["missing"]
    assert [(gap["kind"], gap["digest"], gap["expected_in"]) for gap in gaps] == [
        ("layer", None, f"{path}: {IDS[1]}/layer.tar"),
        ("layer", None, f"{path}: {IDS[3]}/layer.tar"),
    ]
    assert all(gap["needed_by"] == ["app:1"] for gap in gaps)


def test_an_archive_that_lost_every_layer_is_still_known_for_what_it_is(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, WHOLE.without(*(f"{one}/layer.tar" for one in IDS)))
    done = imgtar("inspect", path, "--json").ok().json()
    assert done["archive"]["format"] == "docker-legacy"
    assert len(done["missing"]) == 4


def beside() -> Files:
    """A whole image and a cut one in one archive."""
    both = legacy_files([APP, TOOL])
    return both.without(f"{IDS[0]}/json", f"{IDS[0]}/layer.tar")


def test_a_whole_image_beside_a_cut_one_is_refused_with_it_and_loaded_alone(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, beside())
    assert imgtar("load", "-i", path).code == 4
    assert imgtar("load", "-i", path, "app:1").code == 4
    assert imgtar.load(path, "tool:1").ok()
    assert set(imgtar.names()) == {"tool:1"}


@pytest.mark.parametrize("depth", [[], ["--fast"]])
@pytest.mark.parametrize("pipe", [False, True])
def test_verify_reports_the_gap_and_checks_the_rest(imgtar: Imgtar, pipe: bool, depth: list[str]) -> None:
    files = beside().without(f"{IDS[2]}/layer.tar")
    (path,) = lay(imgtar, files)
    done = imgtar("verify", "-" if pipe else path, *depth, "--json", stdin=files.tar() if pipe else None)
    assert done.code == 4
    report = done.json()
    assert [(finding["code"], finding["severity"]) for finding in report["findings"]] == [("E_MISSING", "error")] * 2
    assert report["findings"][0]["subject"].endswith(f"{IDS[0]}/json")
    assert report["findings"][1]["subject"].endswith(f"{IDS[2]}/layer.tar")
    (archive,) = report["archives"]
    assert {tuple(image["names"]): image["ok"] for image in archive["images"]} == {
        ("app:1",): False,
        ("tool:1",): True,
    }
    assert archive["unreferenced_blobs"] == 0
    if not depth:
        # Two layers, the config and the manifest of tool:1, and the two layers of app:1 that are there.
        assert archive["blobs_checked"] == 6


def test_verify_names_a_cut_image_that_has_no_name_by_its_v1_id(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, CUT.put("repositories", b"{}"))
    done = imgtar("verify", path, "--json")
    assert done.code == 4
    (image,) = [one for one in done.json()["archives"][0]["images"] if not one["ok"]]
    assert image == {"names": [IDS[3]], "image_id": None, "ok": False}


def test_inspect_shows_the_whole_images_and_lists_the_gaps(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, beside())
    done = imgtar("inspect", path, "--json").ok().json()
    assert [image["names"] for image in done["images"]] == [["tool:1"]]
    assert [(gap["kind"], gap["needed_by"]) for gap in done["missing"]] == [("parent", ["app:1"])]
    assert f"{IDS[0]}/json, needed by app:1" in imgtar("inspect", path).ok().text


def test_history_of_an_archive_with_nothing_whole_says_what_is_missing(imgtar: Imgtar) -> None:
    (path,) = lay(imgtar, part(1, 2, 3, tagged=True))
    done = imgtar("history", path)
    assert done.code == 4
    assert IDS[0] in done.errors
    assert "repairs the store" not in done.errors


# -- completed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        [((0, 1), False), ((2, 3), True)],
        [((0, 2), False), ((1, 3), True)],
        [((0, 1, 2), False), ((1, 2, 3), True)],
        [((0,), False), ((1, 2), False), ((3,), True)],
        [((1,), False), ((0, 2), False), ((3,), True)],
    ],
)
def test_archives_complete_each_other_in_every_order_and_give_what_the_whole_one_gives(
    imgtar: Imgtar, pieces: list[tuple[tuple[int, ...], bool]]
) -> None:
    paths = lay(imgtar, *(part(*places, tagged=tagged) for places, tagged in pieces))
    whole = expected(imgtar)
    for number, order in enumerate(itertools.permutations(paths)):
        store = imgtar.home / f"store{number}"
        imgtar("load", *options(order), store=store).ok()
        assert loaded(imgtar, store) == whole


@pytest.mark.parametrize("piped", [0, 1])
@pytest.mark.parametrize("first", [False, True])
def test_one_of_them_may_come_through_a_pipe(imgtar: Imgtar, piped: int, first: bool) -> None:
    pieces = [part(0, 1), part(2, 3, tagged=True)]
    paths: list[object] = [*lay(imgtar, *pieces)]
    paths[piped] = "-"
    order = paths if first else paths[::-1]
    assert imgtar("load", "--dry-run", *options(order), stdin=pieces[piped].tar()).code == 0
    imgtar("load", *options(order), stdin=pieces[piped].tar()).ok()
    assert loaded(imgtar, imgtar.store) == expected(imgtar)


def test_a_layer_may_be_brought_by_another_archive_than_its_json(imgtar: Imgtar) -> None:
    paths = lay(imgtar, WHOLE.without(f"{IDS[1]}/layer.tar"), part(0, 1))
    whole = expected(imgtar)
    for number, order in enumerate((paths, paths[::-1])):
        store = imgtar.home / f"store{number}"
        imgtar("load", *options(order), store=store).ok()
        assert loaded(imgtar, store) == whole


def test_what_is_held_already_is_not_written_again(imgtar: Imgtar) -> None:
    imgtar.load(WHOLE.tar()).ok()
    before = stored(imgtar.store)
    done = imgtar("load", *options(lay(imgtar, part(0, 1), part(2, 3, tagged=True))), "--json").ok().json()
    assert done["blobs_written"] == 0
    assert [image["state"] for image in done["images"]] == ["present"]
    assert stored(imgtar.store) == before


def test_two_archives_that_do_not_reach_down_lack_one_thing(imgtar: Imgtar) -> None:
    paths = lay(imgtar, part(3, tagged=True), part(1, 2))
    for order in (paths, paths[::-1]):
        done = imgtar("load", *options(order), "--json")
        assert done.code == 4
        (gap,) = done.json()["error"]["details"]["missing"]
        assert IDS[0] in gap["expected_in"]
        assert gap["needed_by"] == ["app:1"]


# -- contradictions --------------------------------------------------------------------------------------------------


def _comment(value: Any) -> None:
    value["comment"] = "another"


@pytest.mark.parametrize(
    "other",
    [
        part(0, 1).edited(f"{IDS[1]}/json", _comment),
        part(0, 1).put(f"{IDS[1]}/layer.tar", random_layer(77).blob),
    ],
    ids=["json", "layer"],
)
def test_one_id_with_two_contents_is_refused_in_every_order(imgtar: Imgtar, other: Files) -> None:
    paths = lay(imgtar, other, part(1, 2, 3, tagged=True))
    for order in (paths, paths[::-1]):
        done = imgtar("load", *options(order))
        assert done.code == 5
        assert "E_GRAPH" in done.errors
        assert IDS[1] in done.errors
    assert not imgtar.store.exists() or not imgtar.images()


def test_a_loop_over_two_archives_is_refused(imgtar: Imgtar) -> None:
    def loop(value: Any) -> None:
        value["parent"] = IDS[3]

    paths = lay(imgtar, part(0, 1).edited(f"{IDS[0]}/json", loop), part(2, 3, tagged=True))
    for order in (paths, paths[::-1]):
        done = imgtar("load", *options(order))
        assert done.code == 5
        assert "E_GRAPH" in done.errors
        assert "loops" in done.errors


def test_a_chain_over_two_archives_may_not_have_more_layers_than_one_image(imgtar: Imgtar) -> None:
    layer = make_layer(b"\0" * 1024)
    ids = [f"{n:064x}" for n in range(1001)]

    def archive(lower: int, upper: int, tags: dict[str, Any]) -> Files:
        files = {"repositories": dumps(tags)}
        for n in range(lower, upper):
            document = {"id": ids[n], **({"parent": ids[n - 1]} if n else {})}
            files |= {f"{ids[n]}/json": json.dumps(document).encode(), f"{ids[n]}/layer.tar": layer.blob}
        return Files.of(files)

    low = archive(0, 500, {})
    (first, fits, over) = lay(
        imgtar, low, archive(500, 1000, {"a": {"1": ids[999]}}), archive(500, 1001, {"a": {"1": ids[1000]}})
    )
    done = imgtar("load", "-i", over, "-i", first)
    assert done.code == 5
    assert "E_LIMIT" in done.errors
    imgtar("load", "-i", fits, "-i", first).ok()


# -- compressed layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipe", [False, True])
def test_a_fast_verification_knows_the_images_of_an_archive_with_compressed_layers(imgtar: Imgtar, pipe: bool) -> None:
    files = legacy_files([make_image("zip:1", [random_layer(5, "gzip"), random_layer(6)])])
    (path,) = lay(imgtar, files)
    imgtar.load(path).ok()
    done = imgtar("verify", "--fast", "-" if pipe else path, "--json", stdin=files.tar() if pipe else None).ok()
    (image,) = done.json()["archives"][0]["images"]
    assert {image["names"][0]: image["image_id"]} == imgtar.names()


def test_a_fast_verification_does_not_guess_at_a_compressed_layer_under_another_name(imgtar: Imgtar) -> None:
    files = legacy_files([make_image("zip:1", [random_layer(5, "gzip")])])
    layer = next(name for name in files.names if name.endswith("/layer.tar"))
    data = files.plus(Member("elsewhere", files[layer])).linked(layer, "../elsewhere").tar()
    (imgtar.home / "linked.tar").write_bytes(data)
    imgtar("verify", imgtar.home / "linked.tar").ok()
    done = imgtar("verify", "--fast", imgtar.home / "linked.tar")
    assert done.code == 5
    assert "verify without --fast" in done.errors
