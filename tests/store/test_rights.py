"""Who may use a store: several users, whatever their umask, and root (rows H222 and H223)."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imgtar.store.rights import new_file, settle
from tests.builders.images import docker_archive, make_image
from tests.campaigns.crew import Crew, Run
from tests.conftest import Imgtar, stored

GROUP = 2345
IMAGES = {name: make_image(name, 2, seed=seed) for seed, name in enumerate(["one:1", "two:1", "three:1"], 1)}
READING = [
    ["images"],
    ["inspect", "one:1"],
    ["history", "one:1"],
    ["deps", "one:1"],
    ["verify"],
    ["inventory"],
    ["save", "-o", "saved.tar", "one:1"],
    ["save", "--layers", "gzip", "-o", "saved.tar", "one:1"],
    ["load", "--dry-run", "-i", "../two.tar"],
    ["prune", "--dry-run"],
]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as other users")


@dataclass(frozen=True)
class User:
    """Somebody who runs imgtar in a home of his own."""

    uid: int
    umask: int
    commons: Path
    crew: Crew
    group: int = GROUP

    def __call__(self, *words: str, store: Path, feed: Path | None = None) -> Run:
        home = self.commons / f"home{self.uid}"
        if not home.exists():
            home.mkdir(mode=0o700)
            os.chown(home, self.uid, self.group)
        more = ("--store", store)
        return self.crew.run_as(self.uid, self.group, *words, *more, umask=self.umask, cwd=home, feed=feed)

    def ok(self, *words: str, store: Path) -> Run:
        done = self(*words, store=store)
        assert done.status == 0, (self.uid, done)
        return done

    def with_umask(self, umask: int) -> User:
        return replace(self, umask=umask)


@pytest.fixture
def commons() -> Iterator[Path]:
    """A folder that everybody can get at, with three archives."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for name, image in IMAGES.items():
            path = folder / f"{name.partition(':')[0]}.tar"
            path.write_bytes(docker_archive([image]))
            path.chmod(0o644)
        yield folder


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    one = Crew(tmp_path_factory.mktemp("crew"))
    yield one
    one.close()


@pytest.fixture
def ann(commons: Path, crew: Crew) -> User:
    return User(1234, 0o022, commons, crew)


@pytest.fixture
def bob(commons: Path, crew: Crew) -> User:
    return User(1235, 0o022, commons, crew)


def folder_of(user: User, mode: int) -> Path:
    """An empty folder of that user."""
    folder = user.commons / "store"
    folder.mkdir()
    os.chown(folder, user.uid, user.group)
    folder.chmod(mode)  # After the change of owner, which may clear bits.
    return folder


def everything_in(store: Path) -> list[tuple[Path, os.stat_result]]:
    return [(path, path.lstat()) for path in [store, *store.rglob("*")]]


@pytest.mark.interop
@needs_root
def test_h222_who_may_only_read_reads_and_is_told_at_once_that_he_may_not_write(ann: User, bob: User) -> None:
    store = folder_of(ann, 0o755)
    ann.ok("load", "-i", "../one.tar", store=store)
    before = stored(store)
    for words in READING:
        bob.ok(*words, store=store)
    for words in (["load", "-i", "../two.tar"], ["tag", "one:1", "more:1"], ["rmi", "one:1"], ["prune"]):
        done = bob(*words, store=store)
        assert done.status == 6, done
        assert "E_PERMISSION" in done.stderr
        assert str(store) in done.stderr
    assert stored(store) == before


@pytest.mark.interop
@needs_root
def test_h222_a_load_that_may_not_write_reads_no_archive_first(ann: User, bob: User) -> None:
    store = folder_of(ann, 0o755)
    ann.ok("load", "-i", "../one.tar", store=store)
    fifo = ann.commons / "fifo"
    os.mkfifo(fifo)
    pipe = os.open(fifo, os.O_RDWR)
    os.write(pipe, (ann.commons / "two.tar").read_bytes()[:2048])  # It stays open: who wants more waits for ever.
    done = bob("load", store=store, feed=fifo)
    os.close(pipe)
    assert done.status == 6, done
    assert "E_PERMISSION" in done.stderr


@pytest.mark.interop
@needs_root
def test_h222_a_store_of_somebody_with_a_strict_umask_is_refused_to_others_by_its_path(ann: User, bob: User) -> None:
    store = ann.commons / "home1234" / "store"
    ann.with_umask(0o077).ok("load", "-i", "../one.tar", store=store)
    store.parent.chmod(0o755)
    for words in ([*READING[0]], ["verify"], ["load", "-i", "../two.tar"]):
        done = bob(*words, store=store)
        assert done.status == 6, done
        assert str(store) in done.stderr


@pytest.mark.interop
@needs_root
@pytest.mark.parametrize("umasks", [(0o002, 0o002), (0o022, 0o077), (0o077, 0o000)])
def test_h222_a_folder_of_a_group_makes_a_store_of_the_group_whatever_the_umasks(
    umasks: tuple[int, int], ann: User, bob: User
) -> None:
    store = folder_of(ann, 0o2770)
    ann, bob = ann.with_umask(umasks[0]), bob.with_umask(umasks[1])
    use_together(ann, bob, store)
    for path, status in everything_in(store):
        assert status.st_gid == GROUP, path
        assert status.st_mode & 0o002 == 0, path
        wanted = 0o2770 if stat.S_ISDIR(status.st_mode) else 0o660
        assert status.st_mode & wanted == wanted, (path, oct(status.st_mode))


@pytest.mark.interop
@needs_root
def test_h222_a_store_becomes_that_of_a_group_by_chmod(ann: User, bob: User) -> None:
    store = folder_of(ann, 0o755)
    ann.ok("load", "-i", "../three.tar", store=store)
    ann.ok("rmi", "three:1", store=store)
    subprocess.run(["chmod", "-R", "g+rwX", store], check=True)
    subprocess.run(["find", store, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"], check=True)
    use_together(ann, bob, store)


def use_together(ann: User, bob: User, store: Path) -> None:
    ann.ok("load", "-i", "../one.tar", store=store)
    # What Ann's process may have left when it was killed.
    left = store / "imgtar" / "index.json.new"
    left.write_bytes(b"{")
    os.chown(left, ann.uid, GROUP)
    left.chmod(0o600)
    staging = store / "imgtar" / "staging" / "0123456789abcdef"
    staging.mkdir()
    os.chown(staging, ann.uid, GROUP)
    staging.chmod(0o2775)
    (staging / "1").touch(mode=0o600)
    os.chown(staging / "1", ann.uid, GROUP)
    bob.ok("load", "-i", "../two.tar", store=store)
    assert not staging.exists()
    ann.ok("load", "-i", "../three.tar", "--tag", "three:1=two:1", store=store)
    bob.ok("tag", "one:1", "of-bob:1", store=store)
    bob.ok("rmi", "one:1", store=store)
    ann.ok("prune", "--untagged", store=store)
    ann.ok("load", "-i", "../two.tar", store=store)
    bob.ok("rmi", "two:1", store=store)
    bob.ok("prune", store=store)
    for user in (ann, bob):
        user.ok("verify", store=store)
        user.ok("save", "-o", "saved.tar", "--layers", "gzip", "of-bob:1", store=store)
        assert "of-bob" in user.ok("images", store=store).stdout


@pytest.mark.interop
@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_h223_what_root_puts_into_the_store_of_a_user_belongs_to_the_user(umask: int, ann: User, commons: Path) -> None:
    store = folder_of(ann, 0o755)
    root = User(0, umask, commons, ann.crew, 0)
    root.ok("load", "-i", "../one.tar", store=store)  # It is root who makes the store.
    ann.ok("load", "-i", "../two.tar", store=store)
    root.ok("load", "-i", "../three.tar", store=store)
    root.ok("tag", "two:1", "of-root:1", store=store)
    root.ok("verify", store=store)
    for path, status in everything_in(store):
        assert (status.st_uid, status.st_gid) == (ann.uid, GROUP), path
    ann.ok("rmi", "of-root:1", "three:1", store=store)
    ann.ok("load", "-i", "../three.tar", store=store)
    ann.ok("prune", store=store)
    ann.ok("verify", store=store)


@needs_root
def test_h223_root_gives_nothing_away_that_somebody_linked_into_his_store(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "imgtar"
    precious.write_text("content")
    folder.mkdir()
    os.chown(folder, 1234, GROUP)
    os.link(precious, folder / "images")
    with open(folder / "images", "rb") as file:
        settle(file.fileno(), str(folder / "images"))
    assert precious.stat().st_uid == 0
    fd = new_file(str(folder / "images"))
    os.close(fd)
    assert precious.read_text() == "content"
    assert precious.stat().st_uid == 0
    assert (folder / "images").stat().st_uid == 1234


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_h222_without_any_umask_nothing_in_a_store_is_writable_for_the_world(imgtar: Imgtar, umask: None) -> None:
    for name, image in IMAGES.items():
        imgtar.load(docker_archive([image])).ok()
        imgtar("tag", name, f"more-{name}").ok()
    imgtar("verify").ok()
    imgtar("rmi", "one:1", "more-one:1").ok()
    imgtar("prune").ok()
    for path, status in everything_in(imgtar.store):
        assert status.st_mode & 0o002 == 0, (path, oct(status.st_mode))


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077])
def test_what_a_user_asks_for_with_o_follows_his_umask(mask: int, imgtar: Imgtar, umask: None) -> None:
    imgtar.load(docker_archive([IMAGES["one:1"]])).ok()
    os.umask(mask)
    home = imgtar.home
    imgtar("save", "-o", home / "saved.tar", "one:1").ok()
    imgtar("save", "-o", home / "layout", "--format", "oci-dir", "one:1").ok()
    imgtar("inventory", "-o", home / "inventory").ok()
    imgtar("verify", "--report", home / "report").ok()
    for name in ("saved.tar", "inventory", "report", "layout/index.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o666 & ~mask, name
    assert stat.S_IMODE((home / "layout").stat().st_mode) == 0o777 & ~mask
