"""Random images, split over archives at random, for a receiver that holds something: all of it, or nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.images import Files, Image, blob_name, make_image, oci_files, oci_layout, random_layer
from tests.conftest import Imgtar, command_line, stored

NAMES = ["app:1", "app:2", "tool:latest", "team/app:9"]


@dataclass(frozen=True)
class Shipment:
    """Images, which archive lists which and carries which blobs, and the images that the receiver has."""

    images: tuple[Image, ...]
    listed: tuple[tuple[Image, ...], ...]
    carried: tuple[frozenset[str], ...]
    held: tuple[Image, ...]

    def __repr__(self) -> str:
        listed = [[image.name for image in archive] for archive in self.listed]
        held = [image.name for image in self.held]
        return f"Shipment({len(self.images)} images, listed {listed}, held {held}, carried {self.carried})"

    @property
    def wanted(self) -> dict[str, Image]:
        """The images that some archive lists, by digest."""
        return {image.digest: image for archive in self.listed for image in archive}

    def archive(self, place: int) -> bytes:
        """One archive: an OCI layout that lacks what it does not carry."""
        files = oci_layout(self.listed[place])
        blobs = {digest: raw for image in self.images for digest, raw in image.document.blobs().items()}
        files = Files(tuple(member for member in files.members if not member.name.startswith("blobs/")))
        for digest in sorted(self.carried[place]):
            files = files.put(blob_name(digest), blobs[digest])
        return files.tar()

    def missing(self) -> set[str]:
        """What nobody has, and what cannot be made from what somebody has: by a model, not by the resolver."""
        carried = set().union(*self.carried)
        held = {digest for image in self.held for digest in image.document.blobs()}
        there = carried | held
        known = [one for one in self.wanted.values() if {one.digest, one.image_id} <= there]
        content = {layer.diff_id for one in known for layer in one.layers if layer.digest in carried}
        content |= {layer.diff_id for one in self.held for layer in one.layers}
        lacking: set[str] = set()
        for image in self.wanted.values():
            if image.digest not in there:
                lacking.add(image.digest)
                continue
            if image.image_id not in there:
                lacking.add(image.image_id)
            for layer in image.layers:
                made = layer.compression is None and layer.diff_id in content
                if layer.digest not in there and not made:
                    lacking.add(layer.digest)
        return lacking


@st.composite
def shipments(draw: st.DrawFn) -> Shipment:
    kinds = st.sampled_from([None, None, "gzip", "zstd"])
    images: dict[str, Image] = {}
    for place in range(draw(st.integers(1, 3))):
        layers = [random_layer(seed, draw(kinds)) for seed in draw(st.lists(st.integers(0, 3), max_size=3))]
        image = make_image(NAMES[place], layers, seed=place)
        images[image.digest] = image
    family = tuple(images.values())
    # The receiver may have the same contents in another compression, in an image of another name.
    others = tuple(
        make_image(f"other:{place}", [random_layer(seed, kind)], seed=50 + place)
        for place, (seed, kind) in enumerate(draw(st.lists(st.tuples(st.integers(0, 3), kinds), max_size=2)))
    )
    held = (*draw(st.lists(st.sampled_from(family), unique=True, max_size=2)), *others)
    count = draw(st.integers(1, 3))
    listed = tuple(
        tuple(draw(st.lists(st.sampled_from(family), unique=True, max_size=len(family)))) for _ in range(count)
    )
    digests = sorted({digest for image in family for digest in image.document.blobs()})
    chance = draw(st.sampled_from([1, 4, 30]))  # of one blob in so many being in none of the archives
    carried: list[set[str]] = [set() for _ in range(count)]
    for digest in digests:
        if draw(st.integers(1, chance)) == 1 and chance < 30:
            continue
        for place in draw(st.sets(st.integers(0, count - 1), min_size=1)):
            carried[place].add(digest)
    return Shipment(family, listed, tuple(map(frozenset, carried)), held)


def receiver(imgtar: Imgtar, name: str, held: tuple[Image, ...]) -> Path:
    store = imgtar.home / name
    for image in held or [make_image("seen:1", 1, seed=90)]:
        imgtar.load(oci_files([image]).tar(), store=store).ok()
    return store


def blob_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "blobs").rglob("*") if path.is_file())


def named(document: Any) -> set[str]:
    return {gap["digest"] for gap in document["missing"]}


@given(shipments())
@settings(max_examples=10, deadline=None)
def test_a_load_succeeds_exactly_when_the_union_covers_the_closure(shipment: Shipment) -> None:
    with command_line() as imgtar:
        paths = []
        for place in range(len(shipment.listed)):
            path = imgtar.home / f"{place}.tar"
            path.write_bytes(shipment.archive(place))
            paths.append(path)
        lacking = shipment.missing()
        full = receiver(imgtar, "full", shipment.held)
        if shipment.wanted:
            imgtar.load(oci_files(list(shipment.wanted.values())).tar(), store=full).ok()
        results = set()
        for number, order in enumerate(itertools.permutations(paths)):
            store = receiver(imgtar, f"store{number}", shipment.held)
            inputs = [part for path in order for part in ("-i", path)]
            before, bytes_before = stored(store), blob_bytes(store)
            plan = imgtar("load", "--dry-run", "--json", *inputs, store=store)
            assert plan.code == (4 if lacking else 0), plan.errors
            assert named(plan.json()) == lacking
            assert stored(store) == before
            against = imgtar("verify", "--json", "--against", store, *order)
            assert against.code == (4 if lacking else 0), against.errors
            assert named(against.json()["against"]) == lacking
            assert stored(store) == before
            done = imgtar("load", "--json", *inputs, store=store)
            assert done.code == (4 if lacking else 0), done.errors
            if lacking:
                assert {gap["digest"] for gap in done.json()["error"]["details"]["missing"]} == lacking
                assert stored(store) == before
                continue
            assert blob_bytes(store) - bytes_before == done.json()["bytes_written"] == plan.json()["bytes_written"]
            imgtar("verify", store=store).ok()
            names = sorted(imgtar.names(store=store))
            assert names == sorted(imgtar.names(store=full))
            saved = imgtar("save", *names, store=store).ok().out
            assert saved == imgtar("save", *names, store=full).ok().out
            results.add(saved)
        assert len(results) == (0 if lacking else 1)


@given(shipments())
@settings(max_examples=10, deadline=None)
def test_a_partial_load_brings_every_image_that_is_whole_and_names_the_others(shipment: Shipment) -> None:
    with command_line() as imgtar:
        inputs: list[object] = []
        for place in range(len(shipment.listed)):
            path = imgtar.home / f"{place}.tar"
            path.write_bytes(shipment.archive(place))
            inputs += ["-i", path]
        store = receiver(imgtar, "store", shipment.held)
        before = imgtar.names(store=store)
        lacking = shipment.missing()
        whole = {
            image.name: image.image_id
            for image in shipment.wanted.values()
            if not lacking & {image.digest, image.image_id, *(layer.digest for layer in image.layers)}
        }
        done = imgtar("load", "--partial", "--json", *inputs, store=store)
        if lacking and not whole:
            assert done.code == 4
            assert imgtar.names(store=store) == before
            return
        done.ok()
        assert imgtar.names(store=store) == {**before, **whole}
        left = {image.name for image in shipment.wanted.values()} - set(whole)
        assert {one["image"] for one in done.json()["left_behind"]} <= left | {i.digest for i in shipment.images}
        assert len(done.json()["left_behind"]) == len(left)
        assert named(done.json()) == lacking
        imgtar("verify", store=store).ok()
