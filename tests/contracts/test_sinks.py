"""What every sink promises, whatever comes in (imgtar/ports.py: Sink, Transaction)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from imgtar.blob.stream import Readable
from imgtar.errors import DependencyMissing, ImgtarError, Refused
from imgtar.graph.catalog import Catalog
from imgtar.graph.select import Policy
from imgtar.model.digest import Digest
from imgtar.ops.transfer import Transfer, transfer
from imgtar.ports import Blob, Dock, Source, Transaction
from imgtar.store.store import Store
from imgtar.transport.check import Check
from imgtar.transport.location import open_archive
from tests.builders import images as build
from tests.builders.images import Image, make_image
from tests.conftest import Imgtar, stored
from tests.contracts.ends import FORMS, Form, MemoryDock, family

all_forms = pytest.mark.parametrize("form", FORMS, ids=str)


class StoreEnd:
    """The store as a sink, and what of it anybody can see."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"
        self.store = Store(str(self.path))
        with self.store.begin():
            pass  # An empty store, so that "nothing changed" has something to compare.

    def begin(self) -> AbstractContextManager[Transaction]:
        return self.store.begin()

    def seen(self) -> dict[str, bytes | None]:

        return stored(self.path)

    def blobs(self) -> set[str]:
        return {str(digest) for digest, _ in self.store.layout.stored_blobs()}

    def staged(self) -> list[str]:
        return os.listdir(self.path / "imgtar" / "staging")


class CheckEnd:
    """The measuring sink: it has nothing that could change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> AbstractContextManager[Transaction]:
        return nullcontext(Check())

    def seen(self) -> dict[str, bytes | None]:
        return {}


End = StoreEnd | CheckEnd


@pytest.fixture(params=[StoreEnd, CheckEnd], ids=["store", "check"])
def end(request: pytest.FixtureRequest, tmp_path: Path) -> End:
    made: End = request.param(tmp_path)
    return made


@pytest.fixture
def store_end(tmp_path: Path) -> StoreEnd:
    return StoreEnd(tmp_path)


def bring(end: End, source: Source, **options: Any) -> Transfer:
    with end.begin() as transaction:
        return transfer([source], transaction, Policy(), **options)


@contextmanager
def archive(folder: Path, files: build.Files | bytes) -> Iterator[Source]:
    path = folder / "incoming.tar"
    path.write_bytes(files if isinstance(files, bytes) else files.tar())
    source = open_archive(str(path))
    try:
        yield source
    finally:
        source.close()


# -- what comes in ---------------------------------------------------------------------------------------------------


@all_forms
def test_every_sink_gives_the_same_receipt(form: Form, tmp_path: Path) -> None:
    receipts = []
    for made in (StoreEnd, CheckEnd):
        folder = tmp_path / made.__name__
        folder.mkdir()
        with form.open(folder, family(form)) as source:
            receipts.append(bring(made(folder), source).receipt)
    assert receipts[0] == receipts[1]
    assert receipts[0].blobs_written > 0
    assert receipts[0].bytes_reused == receipts[0].blobs_reused == 0


@all_forms
def test_the_store_holds_the_very_bytes_that_came(form: Form, tmp_path: Path, store_end: StoreEnd) -> None:
    images = family(form)
    with form.open(tmp_path, images) as source:
        done = bring(store_end, source)
    assert store_end.blobs() == {str(write.digest) for write in done.plan.writes}
    for digest, size in store_end.store.layout.stored_blobs():
        raw = Path(store_end.store.layout.blob_path(digest)).read_bytes()
        assert build.sha256(raw) == str(digest)
        assert len(raw) == size
    assert {layer.digest for image in images for layer in image.layers} <= store_end.blobs()
    written = sum(size for _, size in store_end.store.layout.stored_blobs())
    assert (done.receipt.bytes_written, done.receipt.blobs_written) == (written, len(store_end.blobs()))
    assert store_end.staged() == []


@all_forms
def test_bringing_the_same_again_changes_nothing(form: Form, tmp_path: Path, store_end: StoreEnd) -> None:
    runs = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        with form.open(folder, family(form)) as source:
            runs.append((bring(store_end, source), store_end.seen()))
    (_, before), (done, after) = runs
    assert after == before
    assert (done.receipt.blobs_written, done.receipt.bytes_written) == (0, 0)
    assert all(image.state == "present" for image in done.plan.images)
    assert not any(move.moves for move in done.plan.tags)


@all_forms
def test_leaving_without_a_commit_leaves_nothing_behind(form: Form, tmp_path: Path, end: End) -> None:
    before = end.seen()
    with form.open(tmp_path, family(form)) as source, pytest.raises(ZeroDivisionError), end.begin() as transaction:
        transfer([source], _NoCommit(transaction), Policy())
    assert end.seen() == before


class _NoCommit:
    """A transaction that is abandoned at the last moment."""

    def __init__(self, inner: Transaction) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, plan: object) -> None:
        raise ZeroDivisionError


@all_forms
def test_a_dry_run_promises_what_the_load_then_does(form: Form, tmp_path: Path, end: End) -> None:
    with form.open(tmp_path, family(form)) as source:
        before = end.seen()
        promised = bring(end, source, dry_run=True)
        assert end.seen() == before
    folder = tmp_path / "again"
    folder.mkdir()
    with form.open(folder, family(form)) as source:
        done = bring(end, source)
    assert promised.receipt == done.receipt
    assert promised.to_json() == {**done.to_json(), "dry_run": True}


@pytest.mark.parametrize("second", [form for form in FORMS if form.ids and form.several], ids=str)
def test_what_one_form_brought_is_not_written_again_for_another(
    second: Form, tmp_path: Path, store_end: StoreEnd
) -> None:
    (tmp_path / "one").mkdir()
    with FORMS[0].open(tmp_path / "one", family(second)) as source:
        bring(store_end, source)
    (tmp_path / "two").mkdir()
    with second.open(tmp_path / "two", family(second)) as source:
        done = bring(store_end, source)
    assert done.receipt.blobs_written == 0
    assert {image.state for image in done.plan.images} == {"present"}


# -- what is refused -------------------------------------------------------------------------------------------------


def layer_name(files: build.Files, image: Image, place: int) -> str:
    return next(member.name for member in files.members if member.data == image.layers[place].blob)


def other_bytes(data: bytes) -> bytes:
    return data[:600] + bytes([data[600] ^ 1]) + data[601:]


LAYOUTS = {
    "docker": (build.docker_files, "E_DIFFID"),
    "oci": (build.oci_files, "E_DIGEST"),
    "hybrid": (build.hybrid_files, "E_DIGEST"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layer_of_other_bytes_is_refused_and_nothing_enters(kind: str, tmp_path: Path, end: End) -> None:
    lay_out, code = LAYOUTS[kind]
    image = make_image()
    files = lay_out([image])
    name = layer_name(files, image, 1)
    before = end.seen()
    with (
        archive(tmp_path, files.put(name, other_bytes(files[name]))) as source,
        pytest.raises(Refused) as caught,
    ):
        bring(end, source)
    assert caught.value.code == code
    assert "layer 2 of demo:1" in str(caught.value)
    assert caught.value.details["expected"] == image.layers[1].digest
    assert end.seen() == before


@pytest.mark.parametrize("change", [lambda data: data + b"\0", lambda data: data[:-1]], ids=["longer", "shorter"])
@pytest.mark.parametrize("kind", ["oci", "hybrid"])
def test_a_layer_of_another_size_is_refused_and_nothing_enters(
    kind: str, change: Any, tmp_path: Path, end: End
) -> None:
    image = make_image()
    files = LAYOUTS[kind][0]([image])
    name = layer_name(files, image, 2)
    before = end.seen()
    with archive(tmp_path, files.put(name, change(files[name]))) as source, pytest.raises(Refused) as caught:
        bring(end, source)
    assert caught.value.code == "E_SIZE"
    assert end.seen() == before


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layer_that_is_not_the_one_the_config_names_is_refused(
    kind: str, compression: str | None, tmp_path: Path, end: End
) -> None:
    def lie(config: Any) -> None:
        config["rootfs"]["diff_ids"][0] = build.sha256(b"another layer")

    image = make_image(compression=compression).with_config(lie)
    before = end.seen()
    with archive(tmp_path, LAYOUTS[kind][0]([image])) as source, pytest.raises(Refused) as caught:
        bring(end, source)
    assert caught.value.code == "E_DIFFID"
    assert end.seen() == before


def test_a_layer_that_is_held_already_is_not_believed_to_be_what_another_config_claims(
    tmp_path: Path, store_end: StoreEnd
) -> None:
    """The second image reuses stored layers, so none of its bytes pass: its claims must be proved all the same."""
    honest = make_image("honest:1", compression="gzip")

    def swap(config: Any) -> None:
        config["rootfs"]["diff_ids"].reverse()

    liar = honest.named("liar:1").with_config(swap)
    with archive(tmp_path, build.oci_files([honest])) as source:
        bring(store_end, source)
    before = store_end.seen()
    with archive(tmp_path, build.oci_files([liar])) as source, pytest.raises(Refused) as caught:
        bring(store_end, source)
    assert caught.value.code == "E_DIFFID"
    assert store_end.seen() == before


@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_what_is_missing_stops_everything(piped: bool, imgtar: Imgtar) -> None:
    whole, broken = make_image("whole:1", seed=1), make_image("broken:1", seed=2)
    files = build.oci_files([whole, broken])
    data = files.without(layer_name(files, broken, 0)).tar()
    imgtar.load(build.oci_archive([make_image("before:1", seed=3)])).ok()
    before = stored(imgtar.store)
    done = imgtar("load", stdin=data) if piped else imgtar.load(data)
    assert done.code == 4
    assert broken.layers[0].digest in done.errors
    assert stored(imgtar.store) == before


def test_a_plan_with_gaps_is_never_received(tmp_path: Path, end: End) -> None:
    image = make_image()
    files = build.oci_files([image])
    with (
        archive(tmp_path, files.without(layer_name(files, image, 0))) as source,
        pytest.raises(DependencyMissing) as caught,
    ):
        bring(end, source)
    assert [gap["digest"] for gap in caught.value.details["missing"]] == [image.layers[0].digest]


# -- what goes wrong -------------------------------------------------------------------------------------------------


class Failing:
    """A source whose medium gives up in the middle of one blob."""

    def __init__(self, inner: Source, victim: str, number: int = errno.EIO) -> None:
        self.inner, self.victim, self.number, self.label = inner, victim, number, inner.label

    def survey(self, dock: Dock) -> Catalog:
        return self.inner.survey(dock)

    def blob(self, digest: Digest) -> Blob | None:
        blob = self.inner.blob(digest)
        if blob is None or str(digest) != self.victim:
            return blob
        return Blob(blob.size, blob.where, open=lambda: self._open(blob))

    @contextmanager
    def _open(self, blob: Blob) -> Iterator[Readable]:
        assert blob.open is not None
        with blob.open() as stream:
            yield _Broken(stream, blob.size // 2, self.number)

    def close(self) -> None:
        self.inner.close()


class _Broken:
    def __init__(self, stream: Readable, left: int, number: int) -> None:
        self._stream, self._left, self._number = stream, left, number

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._left:
            raise OSError(self._number, os.strerror(self._number))
        count = self._stream.readinto(buffer[: self._left])
        self._left -= count
        return count


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_medium_that_gives_up_in_the_middle_of_a_blob_leaves_nothing(
    place: int, jobs: int, tmp_path: Path, end: End
) -> None:
    image = make_image()
    before = end.seen()
    with archive(tmp_path, build.oci_files([image])) as source, pytest.raises(OSError, match="Input/output"):
        bring(end, Failing(source, image.layers[place].digest), jobs=jobs)
    assert end.seen() == before


def test_a_source_that_ends_early_is_refused(tmp_path: Path, end: End) -> None:
    """Short reads without an error: the size tells."""
    image = make_image()

    class Short(Failing):
        @contextmanager
        def _open(self, blob: Blob) -> Iterator[Readable]:
            yield _Empty()

    with archive(tmp_path, build.oci_files([image])) as source, pytest.raises(Refused) as caught:
        bring(end, Short(source, image.layers[0].digest))
    assert caught.value.code == "E_SIZE"


class _Empty:
    def readinto(self, buffer: memoryview, /) -> int:
        return 0


def test_a_source_that_never_ends_is_refused_after_the_promised_size(tmp_path: Path, end: End) -> None:
    image = make_image()
    given = 0

    class Endless(Failing):
        @contextmanager
        def _open(self, blob: Blob) -> Iterator[Readable]:
            yield _Zeros()

    class _Zeros:
        def readinto(self, buffer: memoryview, /) -> int:
            nonlocal given
            given += len(buffer)
            return len(buffer)

    with archive(tmp_path, build.oci_files([image])) as source, pytest.raises(Refused) as caught:
        bring(end, Endless(source, image.layers[0].digest))
    assert caught.value.code == "E_SIZE"
    assert given <= len(image.layers[0].blob) + 1


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, "E_IO"), (errno.EACCES, "E_PERMISSION")])
def test_the_command_says_which_local_trouble_it_was(
    number: int, code: str, imgtar: Imgtar, monkeypatch: pytest.MonkeyPatch
) -> None:
    import imgtar.ops.load as module

    image = make_image()
    imgtar.load(build.docker_archive([make_image("before:1", seed=9)])).ok()
    before = stored(imgtar.store)
    real = module.opened_media

    @contextmanager
    def failing(*arguments: Any, **options: Any) -> Iterator[Any]:
        with real(*arguments, **options) as sources:
            yield [Failing(source, image.layers[1].digest, number) for source in sources]

    monkeypatch.setattr(module, "opened_media", failing)
    done = imgtar.load(build.docker_archive([image]))
    assert done.code == 6
    assert f"error[{code}]" in done.errors
    assert "Traceback" not in done.errors
    assert stored(imgtar.store) == before
    assert set(imgtar.names()) == {"before:1"}


def test_a_blob_is_staged_whole_and_measured(end: End) -> None:
    """What the dock says about passing content is what it is, in memory or on disk, claimed or not."""
    for size in (0, 1, 1000, 300_000, 3_000_000):
        data = (b'{"a": 1}' + bytes(range(248))) * (size // 256) + bytes(size % 256)
        with end.begin() as transaction:
            for claimed in (None, Digest.of(data), Digest.of(data, "sha512"), Digest.of(b"something else")):
                staged = transaction.stage(_Stream(data), size, where="here", claimed=claimed)
                algorithm = claimed.algorithm if claimed else "sha256"
                assert staged.measure.digest == Digest.of(data, algorithm)
                assert staged.measure.size == size
                kept = transaction.read_staged(staged, size)
                assert kept in (data, None)
                assert transaction.read_staged(staged, size - 1) is None
                if isinstance(end, StoreEnd):
                    assert kept == data


class _Stream:
    def __init__(self, data: bytes) -> None:
        self.left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


def test_the_memory_dock_of_this_suite_keeps_its_own_contract() -> None:
    dock = MemoryDock()
    staged = dock.stage(_Stream(b"abc"), 3, where="here")
    assert dock.read_staged(staged, 3) == b"abc"
    assert dock.read_staged(staged, 2) is None


def test_an_error_of_the_sink_is_an_imgtar_error_with_an_exit_code(tmp_path: Path) -> None:
    end = StoreEnd(tmp_path)
    (tmp_path / "store" / "index.json").write_bytes(b"{")
    with archive(tmp_path, build.oci_files([make_image()])) as source, pytest.raises(ImgtarError) as caught:
        bring(end, source)
    assert caught.value.exit_code == 7
