"""Honest and hostile roots in one store, in random order: what hostile ones say of honest blobs hurts only themselves (H273)."""

from __future__ import annotations

import base64
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builders.images import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Document,
    Image,
    attestation,
    docker_archive,
    dumps,
    hybrid_archive,
    make_image,
    make_index,
    oci_archive,
    sha256,
)
from tests.builders.liars import LIES, THING, artifact, index_of, left_out
from tests.campaigns.conftest import Campaign
from tests.conftest import Imgtar, Result

BASE = make_image("base:1", 2, seed=1, compression="gzip")
IMAGES = [
    BASE,
    make_image("plain:1", 2, seed=2),
    make_image("app:1", 1, seed=3, base=BASE),
    make_image("app:2", 1, seed=4, base=BASE, compression="gzip"),
    make_image("arm:1", 1, seed=5, platform="linux/arm64", compression="zstd"),
]
MULTI = make_index(IMAGES[2], IMAGES[4], attestation(IMAGES[2]))
FORMS: list[Callable[[Sequence[Image]], bytes]] = [docker_archive, hybrid_archive, oci_archive]
TYPES = [
    OCI_MANIFEST,
    OCI_INDEX,
    OCI_CONFIG,
    OCI_LAYER,
    THING,
    "",
    "application/vnd.docker.distribution.manifest.v2+json",
]

Json = dict[str, Any]


class Hostile:
    """Makes roots that lie, each time another one."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0

    def _target(self) -> Image:
        return self._chance.choice(IMAGES)

    def _blob(self, image: Image) -> tuple[str, bytes]:
        pool = {image.digest: image.manifest, image.image_id: image.config}
        pool |= {layer.digest: layer.blob for layer in image.layers}
        return self._chance.choice(sorted(pool.items()))

    def _size(self, size: int) -> int:
        return self._chance.choice([size, size, size + 1, size - 1, 0, size * 2, 1 << 20])

    def _pointer(self) -> Json:
        """Something about a blob of an honest image, some of it true."""
        chance, image = self._chance, self._target()
        digest, data = self._blob(image) if chance.random() < 0.4 else (image.digest, image.manifest)
        entry: Json = {
            "mediaType": chance.choice([OCI_MANIFEST, *TYPES]),
            "digest": digest,
            "size": self._size(len(data)),
        }
        if entry["size"] == len(data) and chance.random() < 0.3:
            entry["data"] = base64.b64encode(data).decode()
        where = chance.choice([None, "linux/amd64", "linux/s390x", "unknown/unknown"])
        if where is not None:
            entry["platform"] = dict(zip(("os", "architecture"), where.split("/"), strict=True))
        if chance.random() < 0.2:
            entry["annotations"] = {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": self._target().digest,
            }
        return entry

    def _left_out(self) -> tuple[Json, dict[str, bytes]]:
        """A platform that was never shipped: a manifest over blobs of honest images."""
        chance, image = self._chance, self._target()
        config: Json = {"mediaType": OCI_CONFIG, "digest": sha256(b"nowhere"), "size": 700}
        if chance.random() < 0.4:
            config = {"mediaType": OCI_CONFIG, "digest": image.image_id, "size": self._size(len(image.config))}
        layers = [layer.descriptor() for layer in self._target().layers]
        chance.shuffle(layers)
        for layer in layers:
            layer["size"] = self._size(layer["size"]) if chance.random() < 0.3 else layer["size"]
        if chance.random() < 0.2:
            layers.append({"mediaType": OCI_LAYER, "digest": image.digest, "size": len(image.manifest)})
        entry, below = left_out(config, layers)
        if chance.random() < 0.5:
            del entry["data"]
        return entry, below

    def _index(self) -> Document:
        chance = self._chance
        entries: list[Json] = []
        below: dict[str, bytes] = {}
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.5:
                entries.append(self._pointer())
            else:
                entry, more = self._left_out()
                entries.append(entry)
                below |= more
        own = make_image((), 1, platform=f"linux/own{self._count}", seed=1000 + self._count)
        made = index_of(*entries, below=below, own=own, first=chance.random() < 0.5)
        return index_of(made.descriptor(), below=made.blobs(), own=own) if chance.random() < 0.2 else made

    def _about(self, document: Document, image: Image) -> Document:
        """The same with a subject, which may be another than it says."""
        subject = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": self._size(len(image.manifest))}
        raw = dumps({**json.loads(document.raw), "subject": subject})
        return Document(raw, document.media_type, None, {}, document.below)

    def _image(self) -> Document:
        """An image of layers of honest ones, with all that it needs, but the wrong ones, or under a wrong config."""
        chance, image = self._chance, self._target()
        layers = [layer.descriptor() for layer in self._target().layers]
        chance.shuffle(layers)
        config = {"mediaType": OCI_CONFIG, "digest": image.image_id, "size": len(image.config)}
        raw = dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
        blobs = {image.image_id: image.config}
        for each in IMAGES:
            blobs |= {layer.digest: layer.blob for layer in each.layers}
        wanted = {image.image_id, *(layer["digest"] for layer in layers)}
        return Document(raw, OCI_MANIFEST, "linux/amd64", {}, {digest: blobs[digest] for digest in wanted})

    def make(self) -> tuple[Document, list[str], Image | None]:
        """A root, its names, and the image that it is about, if it is about one."""
        chance = self._chance
        self._count += 1
        kind = chance.random()
        subject = self._target() if chance.random() < 0.25 else None
        if kind < 0.3:
            document = LIES[chance.choice(sorted(LIES))][0](self._target())
        elif kind < 0.75:
            document = self._index()
        elif kind < 0.85:
            document = self._image()
        else:
            document = artifact(*(self._blob(self._target())[1] for _ in range(chance.randint(1, 2))))
        if subject is not None:
            document = self._about(document, subject)
        names = chance.choice(
            [[f"liar:{self._count}"], [f"liar:{self._count}"], [], ["app:1"], ["liar:1", f"l:{self._count}"]]
        )
        return document, names, subject


class Store:
    """A store, what was honestly loaded into it, and where each honest image can be had alone."""

    def __init__(self, home: Path, clean: dict[tuple[str, str], bytes]) -> None:
        self.imgtar = Imgtar(home)
        self.honest: dict[str, Document] = {}
        self.referred: set[str] = set()
        self._clean = clean

    def load(self, *archives: bytes) -> Result:
        paths = []
        for number, archive in enumerate(archives):
            path = self.imgtar.home / f"{number}.tar"
            path.write_bytes(archive)
            paths += ["-i", path]
        return self.imgtar("load", *paths, "--json")

    def saved_alone(self, image: Document, form: str) -> bytes:
        """What a store that holds nothing else makes of it."""
        key = (sha256(image.raw), form)
        if key not in self._clean:
            store = self.imgtar.home / "clean"
            self.imgtar.load(oci_archive([(image, [])]), store=store).ok()
            self._clean[key] = self.imgtar("save", "--format", form, sha256(image.raw), store=store).ok().out
            shutil.rmtree(store)
        return self._clean[key]

    def examine(self) -> None:
        """Every honest image is whole for every command, and saved as from a clean store."""
        done = self.imgtar("verify", "--json")
        assert done.code in (0, 7), done
        ids = {row["image_id"] for row in done.json()["archives"][0]["images"] if row["ok"]}
        lost = {digest for digest, image in self.honest.items() if image.media_type == OCI_MANIFEST}
        lost = {digest for digest in lost if json.loads(self.honest[digest].raw)["config"]["digest"] not in ids}
        assert not lost, (lost, done.errors)
        for digest, image in self.honest.items():
            for form in ("docker", "hybrid"):
                saved = self.imgtar("save", "--format", form, digest).ok()
                if not self.referred & {digest, *image.below}:
                    assert saved.out == self.saved_alone(image, form), (digest, form, saved.errors)
                    continue
                # What is truly about it comes along, whoever made that; what is falsely so does not.
                self.imgtar.load(saved.out, store=self.imgtar.home / "elsewhere").ok()
                self.imgtar("verify", store=self.imgtar.home / "elsewhere").ok()
                shutil.rmtree(self.imgtar.home / "elsewhere")
            for command in ("inspect", "history", "deps"):
                self.imgtar(command, digest).ok()
        self.imgtar("inventory", "--json").ok()
        self.imgtar("prune", "--dry-run").ok()
        listed = {row["digest"] for row in self.imgtar.images() if not row.get("problem")}
        assert set(self.honest) <= listed

    def liars(self) -> list[str]:
        return sorted(self.roots() - set(self.honest))

    def roots(self) -> set[str]:
        """Every root, artifacts too."""
        return {entry["digest"] for entry in json.loads((self.imgtar.store / "index.json").read_bytes())["manifests"]}

    def blobs(self) -> set[str]:
        return {path.name for path in (self.imgtar.store / "blobs").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def clean() -> dict[tuple[str, str], bytes]:
    return {}


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="imgtar-poison-") as path:
        yield Path(path)


def _honest(store: Store, chance: random.Random) -> tuple[bytes, list[Document]]:
    """An honest archive, and the roots that it brings."""
    if chance.random() < 0.2:
        return oci_archive([(MULTI, ["multi:1"])]), [MULTI]
    images = chance.sample(IMAGES, chance.randint(1, 2))
    return chance.choice(FORMS)(images), [image.document for image in images]


def _entered(store: Store, documents: Sequence[Document]) -> None:
    """Honest roots are known by what the store says, for a docker archive brings no manifest of its own."""
    here = store.roots()
    for document in documents:
        digest = sha256(document.raw)
        if digest in here:
            store.honest[digest] = document


def _step(store: Store, hostile: Hostile, chance: random.Random, campaign: Campaign) -> None:
    what = chance.choices(
        ["honest", "liar", "both", "rmi honest", "rmi liar", "prune", "repair", "verify", "tag"],
        [5, 8, 3, 2, 2, 1, 1, 1, 1],
    )[0]
    if what == "honest":
        archive, documents = _honest(store, chance)
        done = store.load(archive)
        assert done.code == 0, ("an honest image is refused", done)
        _entered(store, documents)
        campaign.count("honest loads")
    elif what in ("liar", "both"):
        document, names, subject = hostile.make()
        archives = [oci_archive([(document, names)])]
        documents = []
        if what == "both":
            archive, documents = _honest(store, chance)
            archives.insert(chance.randint(0, 1), archive)
        before = store.blobs()
        done = store.load(*archives)
        assert done.code in (0, 4, 5), done
        if done.code == 0:
            campaign.count("hostile roots accepted")
            _entered(store, documents)
            if subject is not None:
                store.referred.add(subject.digest)
        else:
            campaign.count("hostile roots refused")
            assert store.blobs() == before
    elif what == "rmi honest" and store.honest:
        digest = chance.choice(sorted(store.honest))
        store.imgtar("rmi", "-f", digest).ok()
        store.honest.pop(digest)
        campaign.count("honest images removed")
    elif what == "rmi liar" and store.imgtar.store.exists() and store.liars():
        store.imgtar("rmi", "-f", chance.choice(store.liars())).ok()
        campaign.count("hostile roots removed")
    elif what == "tag" and store.honest:
        store.imgtar("tag", chance.choice(sorted(store.honest)), f"mine:{chance.randint(1, 3)}").ok()
    elif what in ("prune", "repair", "verify") and store.imgtar.store.exists():
        done = store.imgtar(what)
        assert done.code == 0 or (done.code == 7 and what != "prune"), done
        campaign.count(f"{what} runs")


def test_h273_honest_and_hostile_roots_in_any_order(
    campaign: Campaign, home: Path, clean: dict[tuple[str, str], bytes]
) -> None:
    for number in range(campaign.pick(10, 600)):
        chance = campaign.random(str(number))
        folder = home / str(number)
        folder.mkdir()
        store, hostile = Store(folder, clean), Hostile(chance)
        try:
            for _ in range(chance.randint(4, 14)):
                _step(store, hostile, chance, campaign)
            if store.imgtar.store.exists():
                _end(store, chance, campaign)
        except AssertionError as error:
            raise AssertionError(f"round {number} of seed {campaign.seed}: {error}") from error
        campaign.count("stores")
        shutil.rmtree(folder)


def _end(store: Store, chance: random.Random, campaign: Campaign) -> None:
    """Honest ones work beside the liars; without these the store is clean; without all it is empty."""
    store.examine()
    liars = store.liars()
    campaign.count("hostile roots at the end", len(liars))
    campaign.count("of them objected to", sum(1 for row in store.imgtar.images() if row.get("problem")))
    chance.shuffle(liars)
    for digest in liars:
        store.imgtar("rmi", "-f", digest)  # It may have gone with one before.
    assert store.liars() == []
    store.imgtar("verify", "--strict").ok()
    store.referred.clear()
    store.examine()
    campaign.count("honest images at the end", len(store.honest))
    for digest in sorted(store.honest):
        store.imgtar("rmi", "-f", digest).ok()
    store.imgtar("prune").ok()
    assert store.roots() == set()
    assert store.blobs() == set()
