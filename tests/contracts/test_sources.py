"""What every source promises, whatever its form (imgtar/ports.py: Source)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imgtar.errors import ImgtarError
from imgtar.graph.catalog import Catalog
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model.digest import Digest
from imgtar.ports import Blob
from tests.builders import images as build
from tests.builders.images import sha256
from tests.contracts.ends import FORMS, SEVERAL, Form, MemoryDock, content, family

all_forms = pytest.mark.parametrize("form", FORMS, ids=str)


def planned(catalog: Catalog) -> dict[str, tuple[set[str], str]]:
    """Image ID to its names and its manifest digest, as a receiver with empty hands would get them."""
    plan = resolve([catalog], EmptyInventory(), Policy())
    assert not plan.missing
    return {str(image.image_id): (set(image.names), str(image.digest)) for image in plan.images}


@all_forms
def test_the_catalog_names_the_form_and_its_compression(form: Form, tmp_path: Path) -> None:
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(MemoryDock())
    assert (catalog.form, catalog.compression) == (form.form, form.compression)
    assert catalog.label == source.label


@all_forms
def test_the_catalog_brings_every_image_with_its_names_and_nothing_else(form: Form, tmp_path: Path) -> None:
    images = family(form)
    with form.open(tmp_path, images) as source:
        found = planned(source.survey(MemoryDock()))
    names = [set(image.names) if form.named else set() for image in images]
    assert sorted(map(sorted, (names for names, _ in found.values()))) == sorted(map(sorted, names))
    if form.ids:
        assert {identity: names for identity, (names, _) in found.items()} == dict(
            zip((image.image_id for image in images), names, strict=True)
        )
    if form.digests:
        assert {digest for _, digest in found.values()} == {image.digest for image in images}


@all_forms
def test_an_image_without_a_manifest_gets_one_that_names_its_layers_in_order(form: Form, tmp_path: Path) -> None:
    images = family(form)
    with form.open(tmp_path, images) as source:
        plan = resolve([source.survey(MemoryDock())], EmptyInventory(), Policy())
    found = [[str(layer.digest) for layer in root.node.manifest.layers] for root in plan.roots if root.node.manifest]
    assert sorted(found) == sorted([layer.digest for layer in image.layers] for image in images)


@all_forms
def test_every_blob_on_offer_has_the_bytes_of_its_digest_and_the_size_that_was_told(form: Form, tmp_path: Path) -> None:
    dock = MemoryDock()
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(dock)
        offers = list(catalog.offers)
        assert len(offers) >= 3
        for digest in offers:
            blob = source.blob(digest)
            assert blob is not None
            raw = content(blob, dock)
            assert sha256(raw) == str(digest)
            assert len(raw) == blob.size == catalog.offers.get(digest)


@all_forms
def test_every_layer_of_every_image_is_on_offer(form: Form, tmp_path: Path) -> None:
    images = family(form)
    with form.open(tmp_path, images) as source:
        catalog = source.survey(MemoryDock())
        for layer in {layer for image in images for layer in image.layers}:
            digest = Digest.parse(layer.digest)
            assert digest in catalog.offers
            assert catalog.offers.get(digest) == len(layer.blob)


@all_forms
def test_a_blob_may_be_read_twice_and_two_at_once(form: Form, tmp_path: Path) -> None:
    dock = MemoryDock()
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(dock)
        first, second, *_ = sorted(catalog.offers, key=str)
        blobs = [source.blob(first), source.blob(second)]
        assert all(blob is not None for blob in blobs)
        once = [content(blob, dock) for blob in blobs if blob is not None]
        if all(blob is not None and blob.open is not None for blob in blobs):
            assert _interleaved([blob for blob in blobs if blob is not None]) == once
        assert [content(blob, dock) for blob in blobs if blob is not None] == once


def _interleaved(blobs: list[Blob]) -> list[bytes]:
    assert blobs[0].open is not None
    assert blobs[1].open is not None
    with blobs[0].open() as one, blobs[1].open() as two:
        data = [bytearray(), bytearray()]
        piece = memoryview(bytearray(7))
        left = [one, two]
        while any(left):
            for place, stream in enumerate(left):
                if stream is not None:
                    count = stream.readinto(piece)
                    data[place] += piece[:count]
                    if not count:
                        left[place] = None
        return [bytes(each) for each in data]


@all_forms
def test_an_unknown_digest_has_no_blob(form: Form, tmp_path: Path) -> None:
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(MemoryDock())
        unknown = Digest.of(b"nobody has this")
        assert source.blob(unknown) is None
        assert unknown not in catalog.offers
        assert catalog.offers.get(unknown) is None


@all_forms
def test_closing_twice_is_fine(form: Form, tmp_path: Path) -> None:
    with form.open(tmp_path, family(form)) as source:
        source.survey(MemoryDock())
        source.close()
        source.close()


@all_forms
def test_closing_before_the_survey_is_fine(form: Form, tmp_path: Path) -> None:
    with form.open(tmp_path, family(form)) as source:
        source.close()


@pytest.mark.parametrize("form", [form for form in FORMS if form.seekable and form.name != "store"], ids=str)
def test_a_closed_source_never_gives_the_bytes_of_another_file(form: Form, tmp_path: Path) -> None:
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(MemoryDock())
        blobs = [(digest, source.blob(digest)) for digest in catalog.offers]
        source.close()
        # Descriptor numbers are given out again at once: a file of other bytes sits where the archive was.
        other = tmp_path / "other"
        other.write_bytes(b"x" * (1 << 20))
        taken = [os.open(other, os.O_RDONLY) for _ in range(3)]
        try:
            for digest, blob in blobs:
                assert blob is not None
                try:
                    raw = content(blob, MemoryDock())
                except (OSError, ImgtarError, ValueError):
                    continue
                assert sha256(raw) == str(digest)
        finally:
            for fd in taken:
                os.close(fd)


@all_forms
def test_a_source_leaves_no_descriptor_open(form: Form, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    dock = MemoryDock()
    with form.open(tmp_path, family(form)) as source:
        catalog = source.survey(dock)
        for digest in catalog.offers:
            blob = source.blob(digest)
            assert blob is not None
            content(blob, dock)
    assert count() == before


@pytest.mark.parametrize("form", SEVERAL, ids=str)
def test_one_image_under_many_names_is_one_root(form: Form, tmp_path: Path) -> None:
    names = ("app:1", "app:2", "other.example/app:1")
    with form.open(tmp_path, [build.make_image(names)]) as source:
        catalog = source.survey(MemoryDock())
    assert [sorted(reference.familiar for reference in root.references) for root in catalog.roots] == [sorted(names)]


def _spoiled_layer(files: build.Files, layer: build.Layer) -> build.Files:
    at = next(place for place, member in enumerate(files.members) if member.data == layer.blob)
    name = files.members[at].name
    return files.put(name, layer.blob[:-1] + bytes([layer.blob[-1] ^ 1]))


@pytest.mark.parametrize("lay_out", [build.oci_files, build.hybrid_files, build.docker_files])
def test_a_seekable_archive_is_surveyed_without_reading_layers(lay_out: object, tmp_path: Path) -> None:
    """A spoiled layer is found when its bytes move, not before: the survey reads headers and small documents."""
    assert callable(lay_out)
    image = build.make_image()
    form = Form("spoiled", "", lambda folder, images: _opened(folder, _spoiled_layer(lay_out(images), image.layers[1])))
    dock = MemoryDock()
    with form.open(tmp_path, [image]) as source:
        catalog = source.survey(dock)
        blob = source.blob(Digest.parse(image.layers[1].digest))
        assert blob is not None
        assert sha256(content(blob, dock)) != image.layers[1].digest
        assert len(catalog.roots) == 1


def _opened(folder: Path, files: build.Files):  # type: ignore[no-untyped-def]
    from contextlib import closing

    from imgtar.transport.location import open_archive

    path = folder / "spoiled.tar"
    path.write_bytes(files.tar())
    return closing(open_archive(str(path)))


@pytest.mark.parametrize("form", [form for form in FORMS if form.ids], ids=str)
def test_zero_layers_are_an_image_too(form: Form, tmp_path: Path) -> None:
    image = build.make_image("empty:1", 0)
    with form.open(tmp_path, [image]) as source:
        assert set(planned(source.survey(MemoryDock()))) == {image.image_id}
