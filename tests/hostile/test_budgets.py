"""What one archive may cost in all: every single thing below its limit, and a thousand of them (H280-H282)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from itertools import count

import pytest
import zstandard

from imgtar.blob.compression import Compression
from imgtar.blob.decompress import decompressing
from imgtar.blob.measure import measure
from imgtar.blob.tar_reader import TarReader
from imgtar.blob.tar_stream import PipeStream
from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.graph.library import Library
from imgtar.model.budget import Budget, weight
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from tests.builders import rawtar
from tests.builders.images import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Member,
    blob_name,
    docker_files,
    dumps,
    make_image,
    make_layer,
    oci_archive,
    oci_files,
    sha256,
)
from tests.hostile.conftest import World

GIB = 1 << 30


class Source:
    """Bytes as a stream."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, target: memoryview, /) -> int:
        size = min(len(target), len(self._left))
        target[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def zeros(size: int) -> bytes:
    """So many zeros as one zstd frame."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    piece = bytes(1 << 24)
    return b"".join([*(compressor.compress(piece) for _ in range(size // len(piece))), compressor.flush()])


def unlike(blob: bytes, place: int) -> bytes:
    """The same content in another blob: a skippable frame follows."""
    return blob + bytes.fromhex("502a4d1804000000") + place.to_bytes(4, "big")


# -- H280: what is decompressed ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return zeros(GIB)


@pytest.mark.parametrize("place", ["before", "after"])
def test_h280_blobs_that_nobody_refers_to_are_not_decompressed_without_end(
    place: str, bomb: bytes, world: World
) -> None:
    members = [unlike(bomb, number) for number in range(20)]
    extra = [Member(blob_name(sha256(raw)), raw) for raw in members]
    data = oci_files([make_image("app:1", compression="gzip", seed=1)]).plus(*extra, first=place == "before").tar()
    assert len(data) < 1 << 20
    for command, form in (("load", "file"), ("verify", "file"), ("inspect", "pipe"), ("plan", "pipe")):
        assert world.run(command, data, form).status == 0
    # Where documents come last, nobody knows yet what is needed: what goes over the budget has no diff ID.
    for command, expected in (("load", 5), ("verify", 5), ("inspect", 0)):
        status = expected if place == "before" else 0
        for raw, form in ((data, "pipe"), (data, "zstd"), (gzip.compress(data), "pipe")):
            done = world.run(command, raw, form, "--json")
            assert done.status == status, done
            assert (b"E_LIMIT" in done.stdout) == (status == 5)


def test_h280_layers_of_one_image_that_are_each_below_the_limit_are_refused_together(bomb: bytes, world: World) -> None:
    digest = hashlib.sha256()
    for _ in range(GIB >> 24):
        digest.update(bytes(1 << 24))
    config = dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"] * 20},
        }
    )
    layers = [unlike(bomb, number) for number in range(20)]
    manifest = dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": f"{OCI_LAYER}+zstd", "digest": sha256(raw), "size": len(raw)} for raw in layers],
        }
    )
    index = {
        "schemaVersion": 2,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": sha256(manifest), "size": len(manifest)}],
    }
    files = oci_files([]).put("index.json", dumps(index))
    data = files.plus(*(Member(blob_name(sha256(raw)), raw) for raw in (*layers, config, manifest))).tar()
    assert len(data) < 1 << 20
    world.refused(data, "E_LIMIT", runs=(("load", "file"), ("load", "pipe"), ("verify", "file"), ("verify", "pipe")))


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD], ids=str)
def test_h280_members_without_content_are_charged_too(kind: Compression) -> None:
    empty = gzip.compress(b"", mtime=0) if kind is Compression.GZIP else zstandard.ZstdCompressor().compress(b"")
    budget = Budget(replace(DEFAULT_LIMITS, expansion_judged_after=1 << 20))
    stream = decompressing(Source(empty * 10_000), kind, budget=budget)
    with pytest.raises(Refused) as caught:
        stream.readinto(memoryview(bytearray(1 << 16)))
    assert caught.value.code == "E_LIMIT"


def test_h280_the_budget_is_that_of_all_streams_together_and_grows_with_the_archive() -> None:
    limits = replace(DEFAULT_LIMITS, expansion_judged_after=10 << 20, expansion_free=1000, expansion_ratio=10)
    data = gzip.compress(bytes(4 << 20))
    poor = Budget(limits)
    found = [measure(Source(data), budget=poor) for _ in range(4)]
    assert [one.diff_id is None for one in found] == [False, False, True, True]
    assert [one.fault.code if one.fault else "" for one in found] == ["", "", "E_LIMIT", "E_LIMIT"]
    assert len({one.digest for one in found}) == 1, "the bytes themselves are always hashed"
    rich = Budget(limits, taken=lambda: 3 << 20)
    assert all(measure(Source(data), budget=rich).diff_id for _ in range(9))


def test_an_honest_compressed_archive_of_compressed_layers_is_read_in_one_pass(world: World) -> None:
    layers = [
        make_layer(rawtar.entry(b"f%d" % number, b"text %d\n" % number * 20_000) + rawtar.END, "gzip")
        for number in range(40)
    ]
    data = oci_files([make_image("app:1", layers, seed=1)]).reversed().tar()
    world.accepted(data, names=["app:1"], runs=(("load", "zstd-pipe"), ("verify", "gzip-pipe"), ("load", "pipe")))


# -- H281: documents --------------------------------------------------------------------------------------------------


def labelled(images: int, labels: int, text: str) -> bytes:
    """An archive of images with so many labels each."""

    def heavy(number: int) -> object:
        def change(config: dict[str, dict[str, object]]) -> None:
            config["config"]["Labels"] = {f"{number}-{label}": text for label in range(labels)}

        return change

    base = make_image("app:0", seed=1)
    many = [base.with_config(heavy(number)).named(f"app:{number}") for number in range(images)]  # type: ignore[arg-type]
    return zstandard.ZstdCompressor().compress(oci_archive(many))


@pytest.mark.parametrize(("labels", "text"), [(60_000, "x" * 24), (1, "\U0001f600" * (1 << 19))], ids=["many", "long"])
def test_h281_many_images_with_many_labels_are_read_in_little_memory(labels: int, text: str, world: World) -> None:
    data = labelled(20, labels, text)
    assert len(data) < 1 << 20
    for command, form in (("load", "file"), ("plan", "file"), ("verify", "pipe"), ("inspect", "file")):
        assert world.run(command, data, form, "--json").status == 0


def test_h281_one_config_that_a_thousand_images_name_is_read_once(world: World) -> None:
    image = make_image("app:0", seed=1)

    def heavy(config: dict[str, dict[str, object]]) -> None:
        config["config"]["Labels"] = {f"{label}": "x" for label in range(60_000)}

    files = docker_files([image.with_config(heavy)])
    data = files.edited(
        "manifest.json", lambda items: [{**items[0], "RepoTags": [f"app:{number}"]} for number in range(1000)]
    ).tar()
    assert len(gzip.compress(data)) < 1 << 20
    for command in ("load", "inspect"):
        assert world.run(command, data, "gzip").status == 0


def test_h281_one_document_of_an_unknown_kind_that_is_listed_again_and_again_is_read_once(world: World) -> None:
    raw = dumps({"x": ["y"] * 100_000})
    entry = {"mediaType": "application/octet-stream", "digest": sha256(raw), "size": len(raw)}
    index = dumps({"schemaVersion": 2, "manifests": [entry] * 15_000})
    image = make_image("app:1", seed=1)
    inner = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": sha256(index),
        "size": len(index),
        "annotations": {"org.opencontainers.image.ref.name": "many:1"},
    }
    files = oci_files([image]).edited("index.json", lambda value: value["manifests"].append(inner))
    data = files.plus(Member(blob_name(sha256(raw)), raw), Member(blob_name(sha256(index)), index)).tar()
    for command in ("load", "inspect", "verify"):
        assert world.run(command, data, "zstd").status == 0


def test_h281_documents_are_counted_by_bytes_by_values_and_by_what_is_kept_of_them() -> None:
    budget = Budget(Limits(documents=100, documents_values=10, documents_kept=1000))
    budget.document(b"[1,2,3]", "a")
    with pytest.raises(Refused, match="10 values"):
        budget.document(b"[1,2,3,4,5,6,7]", "b")
    with pytest.raises(Refused, match="of documents"):
        budget.document(b"x" * 100, "c")
    budget.keep({"a": "b" * 100}, "d")
    with pytest.raises(Refused, match="of memory"):
        budget.keep(("\U0001f600" * 300,), "e")


def test_the_weight_of_a_value_is_about_what_it_takes() -> None:
    assert weight("a" * 1000) > 1000
    assert weight("\U0001f600" * 1000) > 4000
    assert weight({"a" * 500: ["b" * 500, {"c": "d" * 500}]}) > 1500
    assert weight(Descriptor("x" * 500, Digest.of(b""), 3, annotations={"a": "b" * 500})) > 1000
    assert weight(None) == 0


def test_what_two_libraries_share_is_parsed_once() -> None:
    image = make_image("app:1", seed=1)
    asked = count()

    def fetch(descriptor: Descriptor, _cap: int) -> bytes | None:
        next(asked)
        return image.config if str(descriptor.digest) == image.image_id else None

    config = Descriptor(OCI_CONFIG, Digest.parse(image.image_id), len(image.config))
    library = Library([fetch], budget=Budget())
    first = library.then(Library([])).config(config)
    assert first is not None
    assert first is Library([]).then(library).config(config) is library.config(config)
    assert next(asked) == 1
    assert (first.labels, {entry.created_by for entry in first.history}) == ({}, {""})
    whole = library.then(Library([])).whole_config(config)
    assert whole is not None
    assert (whole.labels["seed"], len(whole.history)) == ("1", len(first.history))
    assert whole.diff_ids == first.diff_ids


@pytest.mark.slow
def test_h281_a_thousand_images_with_a_hundred_layers_each_are_loaded_in_the_memory_of_any_input(world: World) -> None:
    layers = [make_layer(rawtar.entry(b"f%d" % number, b"%d" % number) + rawtar.END) for number in range(100)]
    data = oci_archive([make_image(f"app:{number}", layers, seed=number) for number in range(1000)])
    data = zstandard.ZstdCompressor().compress(data)
    assert world.run("load", data, "file").status == 0


# -- H282: extension headers ------------------------------------------------------------------------------------------


def entries(many: int, head: bytes) -> Iterator[bytes]:
    """So many entries behind one extension header each."""
    for number in range(many):
        yield head + rawtar.entry(b"e%d" % number)
    yield rawtar.END


def test_h282_extension_records_of_all_entries_together_are_limited(world: World) -> None:
    head = rawtar.pax(*((b"k%d" % record, b"") for record in range(60_000)))
    data = zstandard.ZstdCompressor().compress(b"".join(entries(60, head)))
    assert len(data) < 1 << 20
    world.refused(data, "E_LIMIT", runs=[("load", "file"), ("verify", "pipe")])


def test_h282_long_names_of_all_entries_together_are_limited(world: World) -> None:
    name = b"/".join([b"n" * 200] * 19)
    pieces = [rawtar.pax((b"path", name + b"/%d" % number)) + rawtar.entry(b"e", kind=b"0") for number in range(30_000)]
    data = zstandard.ZstdCompressor().compress(b"".join([*pieces, rawtar.END]))
    assert len(data) < 1 << 20
    world.refused(data, "E_LIMIT", runs=[("load", "file"), ("inspect", "pipe")])


def test_h282_a_name_of_200_bytes_for_each_of_100_000_entries_is_read() -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(100_000):
            yield rawtar.pax((b"path", b"%0200d" % number), (b"mtime", b"1700000000.123456789"))
            yield rawtar.entry(b"e")
        yield rawtar.END

    reader = TarReader(PipeStream(_Pieces(pieces())), where="a.tar")
    assert sum(1 for entry in reader if len(entry.name) == 200) == 100_000


class _Pieces:
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readinto(self, target: memoryview, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def test_h282_headers_that_mean_nothing_are_counted_too() -> None:
    empty = rawtar.pax(kind=b"g")
    few = Limits(extended_headers=384 * 10)
    reader = TarReader(PipeStream(Source(b"".join(entries(11, empty)))), limits=few)
    with pytest.raises(Refused, match="extension headers in the archive"):
        list(reader)
    assert len(list(TarReader(PipeStream(Source(b"".join(entries(10, empty)))), limits=few))) == 10
