"""Any sequence of loads, tags, removals and prunes, against a model of two lines: names to images, and images."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.builders.images import Image, docker_archive, hybrid_archive, make_image, oci_archive
from tests.conftest import Imgtar

BASE = make_image((), 1, seed=1)
POOL = [make_image((), n % 3, seed=n, base=BASE, compression="gzip" if n % 2 else None) for n in range(2, 6)]
NAMES = ["app:1", "app:2", "base:latest", "registry.example:5000/team/app:1"]


def _image(number: int) -> Image:
    return POOL[number]


images = st.integers(0, len(POOL) - 1).map(_image)
names = st.sampled_from(NAMES)
forms = st.sampled_from([docker_archive, oci_archive, hybrid_archive])


class StoreMachine(RuleBasedStateMachine):
    """The store, and beside it what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.imgtar = Imgtar(self.folder)
        self.names: dict[str, str] = {}
        self.held: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def of(self, image_id: str) -> Image:
        return next(image for image in POOL if image.image_id == image_id)

    def tagged(self, image_id: str) -> list[str]:
        return [name for name, identity in self.names.items() if identity == image_id]

    @rule(content=st.dictionaries(names, images, max_size=3), bare=st.lists(images, max_size=1), form=forms)
    def load(self, content: dict[str, Image], bare: list[Image], form: object) -> None:
        brought = {image.image_id: image for image in (*content.values(), *bare)}
        if not brought:
            return
        archive = [
            image.named(*(name for name, other in content.items() if other is image)) for image in brought.values()
        ]
        assert callable(form)
        done = self.imgtar.load(form(archive)).ok()
        for name in content:
            assert f"Loaded image: {name}\n" in done.text
        self.names |= {name: image.image_id for name, image in content.items()}
        self.held |= set(brought)

    @rule(image=images, name=names)
    def load_one_under_a_new_name(self, image: Image, name: str) -> None:
        self.imgtar.load(oci_archive([image.named("incoming:1")]), "--tag", f"incoming:1={name}").ok()
        self.names[name] = image.image_id
        self.held.add(image.image_id)

    @rule(image=images, name=names)
    def load_without_moving_a_tag(self, image: Image, name: str) -> None:
        done = self.imgtar.load(docker_archive([image.named(name)]), "--no-clobber")
        if self.names.get(name, image.image_id) != image.image_id:
            assert done.code == 9
            return
        done.ok()
        self.names[name] = image.image_id
        self.held.add(image.image_id)

    @rule(source=names, new=names)
    def tag(self, source: str, new: str) -> None:
        done = self.imgtar("tag", source, new)
        if source not in self.names:
            assert done.code == 3
            return
        done.ok()
        self.names[new] = self.names[source]

    @rule(image=images, new=names)
    def tag_by_id(self, image: Image, new: str) -> None:
        done = self.imgtar("tag", image.image_id, new)
        if image.image_id not in self.held:
            assert done.code == 3
            return
        done.ok()
        self.names[new] = image.image_id

    @rule(name=names)
    def remove_a_name(self, name: str) -> None:
        done = self.imgtar("rmi", name)
        if name not in self.names:
            assert done.code == 3
            return
        done.ok()
        image_id = self.names.pop(name)
        if not self.tagged(image_id):
            self.held.remove(image_id)

    @rule(image=images, force=st.booleans())
    def remove_by_id(self, image: Image, force: bool) -> None:
        done = self.imgtar("rmi", *(["-f"] if force else []), image.image_id)
        if image.image_id not in self.held:
            assert done.code == 3
        elif len(self.tagged(image.image_id)) > 1 and not force:
            assert done.code == 9
        else:
            done.ok()
            self.held.remove(image.image_id)
            self.names = {name: identity for name, identity in self.names.items() if identity != image.image_id}

    @rule(untagged=st.booleans())
    def prune(self, untagged: bool) -> None:
        done = self.imgtar("prune", *(["--untagged"] if untagged else []))
        if not (self.imgtar.store / "oci-layout").exists():
            assert done.code == 3
            return
        done.ok()
        if untagged:
            self.held = set(self.names.values())

    @rule(name=names)
    def save_and_load_elsewhere(self, name: str) -> None:
        if name not in self.names:
            return
        archive = self.imgtar("save", name).ok().out
        elsewhere = self.folder / "elsewhere"
        self.imgtar.load(archive, store=elsewhere).ok()
        assert self.imgtar.names(store=elsewhere) == {name: self.names[name]}
        shutil.rmtree(elsewhere)

    @rule(image=images)
    def a_refused_load_changes_nothing(self, image: Image) -> None:
        assert self.imgtar.load(oci_archive([image.named("broken:1")])[:-1024]).code == 5

    @invariant()
    def images_are_those_of_the_model(self) -> None:
        rows = self.imgtar.images()
        assert {row["name"]: row["image_id"] for row in rows if row["name"]} == self.names
        assert {row["image_id"] for row in rows} == self.held
        nameless = [row["image_id"] for row in rows if row["name"] is None]
        assert sorted(nameless) == sorted(self.held - set(self.names.values()))

    @invariant()
    def the_store_is_whole_and_holds_no_more_than_its_images(self) -> None:
        if not (self.imgtar.store / "oci-layout").exists():
            return
        (verdict,) = self.imgtar("verify", "--json").ok().json()["archives"]
        wanted = {digest for identity in self.held for digest in self.of(identity).document.blobs()}
        assert verdict["unreferenced_blobs"] == 0
        assert verdict["blobs_checked"] == len(wanted)


StoreMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
test_the_store_agrees_with_its_model = StoreMachine.TestCase
