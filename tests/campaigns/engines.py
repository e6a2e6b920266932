"""Real engines as one kind of thing: given archives, they say which images they then have.

Each runs privately. docker and podman are talked to through their own sockets, which is much faster than a command for each question, and goes
the same way as their commands do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import zstandard

from tests.campaigns.independent import plain, sha256
from tests.interop.conftest import (
    Containerd,
    Tool,
    clean_environment,
    daemon,
    need,
    need_root,
    short_directory,
    start_containerd,
    start_docker,
)

SECONDS = 120

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else "/tmp"
"""Where engines keep what they have: they sync every file, and nothing here is to outlast the run."""


@dataclass(frozen=True)
class Shown:
    """One image as an engine shows it. ``name`` is empty for an image without one."""

    name: str
    image_id: str
    diff_ids: tuple[str, ...]


class Engine(Protocol):
    """What every engine can do. ``load`` says whether it took the archive, ``shown`` what it has, ``wipe`` removes it all."""

    name: str

    def load(self, archive: Path) -> bool: ...

    def shown(self) -> list[Shown]: ...

    def wipe(self) -> None: ...


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Api:
    """HTTP through a socket of this machine."""

    socket: str
    prefix: str = ""

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, bytes]:
        connection = _Connection(self.socket)
        try:
            words = f"{self.prefix}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
            connection.request(method, words, body, {"Content-Type": "application/x-tar"} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, **query: str) -> Any:
        status, body = self(method, path, **query)
        assert status < 300, f"{method} {path}: {status} {body[:500]!r}"
        return json.loads(body)

    def answers(self, path: str) -> bool:
        try:
            return self("GET", path)[0] < 300
        except OSError:
            return False


@dataclass
class Docker:
    """dockerd with its classic store."""

    name: str
    api: Api
    said: str = ""

    def load(self, archive: Path) -> bool:
        try:
            with open(archive, "rb") as file:
                status, body = self.api("POST", "/images/load", file, quiet="1")
        except http.client.RemoteDisconnected:
            return False  # Some documents make it panic. It lives on.
        self.said = body.decode("utf-8", "replace")
        return status < 300 and '"error' not in self.said

    def shown(self) -> list[Shown]:
        found = []
        # Not the parents of images, which it makes of every layer of an archive from before Docker 1.10.
        for row in self.api.json("GET", "/images/json"):
            about = self.api.json("GET", f"/images/{row['Id']}/json")
            layers = tuple(about["RootFS"].get("Layers") or ())
            names = [name for name in row["RepoTags"] or () if name != "<none>:<none>"]
            found += [Shown(name, row["Id"], layers) for name in names or [""]]
        return found

    def wipe(self) -> None:
        while rows := self.api.json("GET", "/images/json", all="1"):
            for row in rows:
                self.api("DELETE", f"/images/{row['Id']}", force="1")


_LABEL = re.compile(r"containerd\.io/gc\.ref\.(content|snapshot)[^=,]*=(sha256:[0-9a-f]{64})")


@dataclass
class Containers:
    """What a containerd has, by its own labels: they say what each document refers to, and which config was unpacked to which chain."""

    ctr: Containerd
    root: Path

    def blob(self, digest: str) -> bytes:
        return (self.root / "io.containerd.content.v1.content/blobs" / digest.replace(":", "/")).read_bytes()

    def targets(self) -> dict[str, str]:
        return self.ctr.images()

    def configs(self) -> dict[str, list[tuple[str, bool]]]:
        """Digests of documents, to the configs below each, and whether they were unpacked."""
        below: dict[str, list[str]] = {}
        unpacked = set()
        for line in self.ctr.run("content", "ls").stdout.splitlines()[1:]:
            digest = line.split()[0]
            for kind, other in _LABEL.findall(line):
                if kind == "content":
                    below.setdefault(digest, []).append(other)
                else:
                    unpacked.add(digest)

        def walk(digest: str, seen: frozenset[str]) -> Iterator[str]:
            yield digest
            for child in below.get(digest, ()):
                if child not in seen:
                    yield from walk(child, seen | {child})

        return {digest: [(one, one in unpacked) for one in walk(digest, frozenset({digest}))] for digest in below}


def go(data: bytes) -> Any:
    """A document as Go reads it: keys that fold to one are one, the last one counts."""

    def fold(key: str) -> str:
        return key.replace("\u017f", "s").replace("\u212a", "k").lower()

    return json.loads(data, object_pairs_hook=lambda pairs: {fold(key): value for key, value in pairs})


def diff_ids(config: bytes) -> tuple[str, ...]:
    """The diff IDs of a config as Go reads them."""
    try:
        return tuple(go(config)["rootfs"]["diff_ids"] or ())
    except (ValueError, KeyError, TypeError):
        return ()


@dataclass
class Ctr:
    """containerd with ``ctr images import``, which unpacks what fits the machine."""

    name: str
    containers: Containers
    said: str = ""

    def load(self, archive: Path) -> bool:
        done = self.containers.ctr.run("images", "import", "--snapshotter", "native", archive, check=False)
        self.said = done.stdout + done.stderr
        return done.returncode == 0

    def shown(self) -> list[Shown]:
        return list(_picked(self.containers))

    def wipe(self) -> None:
        if names := list(self.containers.targets()):
            self.containers.ctr.run("images", "rm", "--sync", *names)


def _picked(containers: Containers) -> Iterator[Shown]:
    configs = containers.configs()
    for name, target in containers.targets().items():
        for digest, unpacked in configs.get(target, ()):
            if unpacked:
                yield Shown(name, digest, diff_ids(containers.blob(digest)))


@dataclass
class DockerOnContainerd(Docker):
    """dockerd with the containerd store: it shows the digest of a manifest or an index as an image's ID."""

    containers: Containers = field(kw_only=True)

    def shown(self) -> list[Shown]:
        found = []
        configs = self.containers.configs()
        status, body = self.api("GET", "/images/json")
        if status >= 300:
            return []  # One config that it cannot read, and it shows nothing at all.
        for row in json.loads(body):
            names = [name for name in row["RepoTags"] or () if name != "<none>:<none>"]
            for name in names or [""]:
                status, body = self.api("GET", f"/images/{urllib.parse.quote(name or row['Id'], safe='')}/json")
                if status >= 300:
                    continue
                about = json.loads(body)
                layers = tuple(about["RootFS"].get("Layers") or ())
                below = configs.get(about["Id"], ())
                fit = {one for one, unpacked in below if unpacked and diff_ids(self.containers.blob(one)) == layers}
                found += [Shown(name, one, layers) for one in fit]  # What was not unpacked does not run.
        return found

    def wipe(self) -> None:
        # The engine does not remove what it cannot name.
        if names := list(self.containers.targets()):
            self.containers.ctr.run("images", "rm", "--sync", *names)


@dataclass
class Podman:
    """podman through its service."""

    name: str
    api: Api
    said: str = ""

    def load(self, archive: Path) -> bool:
        with open(archive, "rb") as file:
            status, body = self.api("POST", "/libpod/images/load", file)
        self.said = body.decode("utf-8", "replace")
        return status < 300

    def shown(self) -> list[Shown]:
        found = []
        for row in self.api.json("GET", "/libpod/images/json", all="true") or ():
            about = self.api.json("GET", f"/libpod/images/{row['Id']}/json")
            layers = tuple(about["RootFS"].get("Layers") or ())
            found += [Shown(name, f"sha256:{row['Id']}", layers) for name in about["RepoTags"] or [""]]
        return found

    def wipe(self) -> None:
        self.api.json("DELETE", "/libpod/images/remove", all="true", force="true")


@dataclass
class Skopeo:
    """skopeo is asked for one image at a time, and copies it to a folder."""

    tool: Tool
    out: Path

    def image(self, transport: str, archive: Path, reference: str) -> tuple[str, tuple[str, ...]] | None:
        """The image ID and the diff IDs of the bytes that came; ``None`` when skopeo refuses."""
        out = self.out / transport
        shutil.rmtree(out, ignore_errors=True)
        source = f"{transport}:{archive}" + (f":{reference}" if reference else "")
        done = self.tool.run("copy", "--quiet", source, f"dir:{out}", check=False)
        self.said = done.stderr
        if done.returncode:
            return None
        manifest = go((out / "manifest.json").read_bytes())
        if "config" not in manifest:
            return None

        def blob(descriptor: Any) -> bytes:
            return (out / descriptor["digest"].partition(":")[2]).read_bytes()

        config = blob(manifest["config"])
        claimed = diff_ids(config)
        blobs = [blob(layer) for layer in manifest.get("layers") or ()]
        # Out of a docker archive skopeo hands layers uncompressed. One that was packed twice looks compressed still.
        try:
            found = tuple(digest if (digest := sha256(one)) in claimed else sha256(plain(one)) for one in blobs)
        except (OSError, EOFError, zlib.error, zstandard.ZstdError):
            return None
        # A copy proves no diff ID. No engine takes an image whose layers are not those of its config.
        return (sha256(config), found) if found == claimed else None


@contextlib.contextmanager
def docker_classic() -> Iterator[Docker]:
    with start_docker(MEMORY) as engine:
        yield Docker("docker", Api(f"{engine.directory}/docker.sock"))


@contextlib.contextmanager
def containerd() -> Iterator[Ctr]:
    with start_containerd(MEMORY) as (ctr, directory):
        yield Ctr("ctr", Containers(ctr, directory / "root"))


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    need_root("podman with the vfs driver")
    program = need("podman")
    with short_directory(MEMORY) as directory:
        api = Api(f"{directory}/s", "/v4.0.0")
        words = [program, "--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs"]
        command = ["env", f"TMPDIR={directory}", *words, "system", "service", "--time=0", f"unix://{directory}/s"]
        with daemon(directory, command, lambda: api.answers("/libpod/_ping")):
            yield Podman("podman", api)


@contextlib.contextmanager
def skopeo() -> Iterator[Skopeo]:
    with short_directory(MEMORY) as directory:
        environment = clean_environment(directory / "home", TMPDIR=str(directory))
        (out := directory / "out").mkdir()
        yield Skopeo(Tool([need("skopeo"), "--insecure-policy"], environment), out)


_IN_ROOT = """set -e
mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs tmpfs run
mount --bind "$2" x
shift 2; exec chroot . "$@"
"""


def in_root(root: Path, directory: Path, *words: str) -> list[str]:
    """A command line that runs ``words`` in a root of its own, where ``directory`` is ``/x``; its mounts end with it."""
    os.makedirs(root / "x", exist_ok=True)
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", _IN_ROOT, "sh", str(root), str(directory), *words]


@contextlib.contextmanager
def docker_on_containerd(root: Path) -> Iterator[DockerOnContainerd]:
    with short_directory(MEMORY) as directory:
        (directory / "daemon.json").write_text('{"features":{"containerd-snapshotter":true}}')
        api = Api(f"{directory}/s")
        options = "--config-file=/x/daemon.json --iptables=false --ip6tables=false --bridge=none --data-root=/x/data --exec-root=/x/exec --pidfile=/x/pid --host=unix:///x/s"
        with daemon(directory, in_root(root, directory, "dockerd", *options.split()), lambda: api.answers("/_ping")):
            said = api.json("GET", "/info")
            assert ["driver-type", "io.containerd.snapshotter.v1"] in said["DriverStatus"], said["DriverStatus"]
            address = f"{directory}/exec/containerd/containerd.sock"
            ctr = Containerd(
                [need("ctr"), "--address", address, "--namespace", "moby"], clean_environment(directory / "home")
            )
            yield DockerOnContainerd(
                "docker (containerd store)", api, containers=Containers(ctr, directory / "data/containerd/daemon")
            )


@contextlib.contextmanager
def newer_podman(root: Path) -> Iterator[Podman]:
    with short_directory(MEMORY) as directory:
        api = Api(f"{directory}/s", "/v5.0.0")
        words = "env TMPDIR=/x podman --root /x/root --runroot /x/run --storage-driver vfs system service --time=0 unix:///x/s".split()
        with daemon(directory, in_root(root, directory, *words), lambda: api.answers("/libpod/_ping")):
            yield Podman("podman 5", api)
