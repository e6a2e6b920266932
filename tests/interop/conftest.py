"""Real peers for the interop tests: each engine runs privately, in a temporary directory, and is stopped by its pid.

A missing tool skips the tests that need it; with ``IMGTAR_INTEROP=required`` it fails them, so that a CI job which
promises to run them cannot pass by running nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import family as families

COMMAND_SECONDS = 300
START_SECONDS = 60
STOP_SECONDS = 30


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where the interop tests are required to run."""
    if os.environ.get("IMGTAR_INTEROP") == "required":
        pytest.fail(f"interop is required, but {reason}", pytrace=False)
    pytest.skip(reason)


def need(tool: str, *preferred: str) -> str:
    """The path of ``tool``; ``preferred`` paths are taken first (a newer client may not talk to an older engine)."""
    for path in preferred:
        if os.access(path, os.X_OK):
            return path
    path = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        unavailable(f"{tool} is not installed")
    return path


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        unavailable(f"{what} needs root")


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment without settings that would point a tool at another engine or another cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "CONTAINERD_", "IMGTAR_", "XDG_"))}
    home.mkdir(parents=True, exist_ok=True)
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", **more}


def explain(result: subprocess.CompletedProcess[Any]) -> str:
    def text(stream: Any) -> str:
        return stream.decode("utf-8", "replace") if isinstance(stream, bytes) else stream or ""

    return (
        f"{' '.join(map(str, result.args))}\nexit {result.returncode}\n"
        f"--- stdout\n{text(result.stdout)[-3000:]}\n--- stderr\n{text(result.stderr)[-3000:]}"
    )


@dataclass
class Tool:
    """A command line tool with its own fixed first words and its own HOME."""

    words: list[str]
    environment: Mapping[str, str]

    def run(self, *args: Any, input: Any = None, check: bool = True) -> subprocess.CompletedProcess[Any]:
        """Run the tool. Output is text; it is bytes when ``input`` is bytes."""
        result = subprocess.run(
            [*self.words, *map(str, args)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=not isinstance(input, bytes),
            env=dict(self.environment),
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check:
            assert result.returncode == 0, explain(result)
        return result

    __call__ = run


# --- the engines ------------------------------------------------------------------------------------------------------


@dataclass
class DockerEngine(Tool):
    """A private dockerd and the client that talks to it."""

    directory: Path = field(default_factory=Path)

    def image_id(self, name: str) -> str:
        return self.run("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()

    def images(self) -> dict[str, str]:
        """Names (familiar, with tag) and image IDs of everything tagged."""
        lines = self.run("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines]
        return {name: image for name, image in pairs if "<none>" not in name}

    def image_ids(self) -> set[str]:
        """The IDs of all images, tagged or not, intermediate ones too."""
        return set(self.run("images", "--all", "--no-trunc", "--quiet").stdout.split())

    def wipe(self) -> None:
        """Remove every container and image, and make sure that they are gone."""
        if containers := self.run("ps", "--all", "--quiet").stdout.split():
            self.run("rm", "--force", *containers)
        while images := self.image_ids():
            self.run("rmi", "--force", *images, check=False)
            assert self.image_ids() < images, "the engine keeps its images"
        layers = self.directory / "data" / "image"
        assert not list(layers.glob("*/layerdb/sha256/*")), "the engine keeps its layers"


def unmount_below(directory: Path) -> None:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        points = [line.split()[1].encode().decode("unicode_escape") for line in mounts]
    for point in sorted((p for p in points if p.startswith(f"{directory}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=60)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def daemon(directory: Path, command: list[str], answers: Callable[[], bool]) -> Iterator[None]:
    """Run ``command`` until the block ends; ``answers`` says when it is ready. A daemon that never answers skips."""
    log = directory / "daemon.log"
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=clean_environment(directory / "home"),
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text("utf-8", "replace")[-2000:]
                unavailable(f"{command[0]} does not start here:\n{tail}")
            time.sleep(0.1)
        yield
    finally:
        stop(process)
        unmount_below(directory)


@contextlib.contextmanager
def short_directory(where: str = "/tmp") -> Iterator[Path]:
    """A temporary directory with a short name: a socket path has 107 bytes at most."""
    directory = Path(tempfile.mkdtemp(prefix="imgtar-", dir=where)).resolve()
    try:
        yield directory
    finally:
        unmount_below(directory)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def start_docker(where: str = "/tmp") -> Iterator[DockerEngine]:
    client = need("docker", "/usr/bin/docker")
    server = need("dockerd", "/usr/sbin/dockerd", "/usr/bin/dockerd")
    need_root("dockerd")
    with short_directory(where) as directory:
        socket = f"unix://{directory}/docker.sock"
        environment = clean_environment(directory / "home", DOCKER_BUILDKIT="0", DOCKER_CLI_HINTS="false")
        engine = DockerEngine([client, "--host", socket], environment, directory)
        command = [
            server,
            "--iptables=false",
            "--bridge=none",
            f"--storage-driver={families.storage_driver(directory)}",
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
            f"--host={socket}",
        ]

        def answers() -> bool:
            if engine.run("version", check=False).returncode == 0:
                return True
            # A client newer than its engine offers an API version that the engine does not have: it names its own.
            refusal = engine.run("version", check=False).stderr
            if "Maximum supported API version is " in refusal:
                version = refusal.split("Maximum supported API version is ")[1].split()[0]
                engine.environment = {**engine.environment, "DOCKER_API_VERSION": version}
            return False

        with daemon(directory, command, answers):
            yield engine


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """The engine of the builder: it makes the images and keeps them for the whole session."""
    with start_docker() as engine:
        yield engine


@pytest.fixture(scope="session")
def second_engine() -> Iterator[DockerEngine]:
    with start_docker() as engine:
        yield engine


@pytest.fixture
def receiver(second_engine: DockerEngine) -> DockerEngine:
    """Another engine, proved empty: what it has afterwards came out of the archive."""
    second_engine.wipe()
    return second_engine


@dataclass
class Containerd(Tool):
    """A private containerd and the ctr that talks to it."""

    ctr = Tool.run

    def images(self) -> dict[str, str]:
        """Full names and manifest digests."""
        rows = [line.split() for line in self.run("images", "ls").stdout.splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    def config_digest(self, digest: str) -> str:
        """The image ID behind a manifest digest, from the content store itself."""
        return json.loads(self.run("content", "get", digest).stdout)["config"]["digest"]

    def image_ids(self) -> dict[str, str]:
        """Familiar names and image IDs."""
        return {families.familiar(name): self.config_digest(digest) for name, digest in self.images().items()}

    def content(self) -> set[str]:
        return set(self.run("content", "ls", "--quiet").stdout.split())

    def wipe(self) -> None:
        if names := list(self.images()):
            self.run("images", "rm", "--sync", *names)
        assert not self.images()
        assert not self.content(), "containerd keeps content without an image"


@contextlib.contextmanager
def start_containerd(where: str = "/tmp") -> Iterator[tuple[Containerd, Path]]:
    """A containerd and the directory that it works in."""
    server, client = need("containerd"), need("ctr")
    need_root("containerd")
    with short_directory(where) as directory:
        socket = directory / "containerd.sock"
        config = directory / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
        )
        ctr = Containerd([client, "--address", str(socket)], clean_environment(directory / "home"))
        command = [server, "--config", str(config)]
        with daemon(directory, command, lambda: ctr.run("version", check=False).returncode == 0):
            yield ctr, directory


@pytest.fixture(scope="session")
def containerd_daemon() -> Iterator[Containerd]:
    with start_containerd() as (ctr, _):
        yield ctr


@pytest.fixture
def containerd(containerd_daemon: Containerd) -> Containerd:
    """containerd without images and without content."""
    containerd_daemon.wipe()
    return containerd_daemon


# --- tools without a daemon -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tool_home() -> Iterator[Path]:
    """A fresh HOME and fresh container storage for the session: no blob-info cache from earlier runs."""
    with short_directory() as directory:
        yield directory


def storage_tool(name: str, home: Path) -> Tool:
    need_root(f"{name} with the vfs driver")
    words = [need(name), "--root", f"{home}/{name}", "--runroot", f"{home}/{name}-run", "--storage-driver", "vfs"]
    return Tool(words, clean_environment(home / "home", TMPDIR=str(home)))


@dataclass
class Podman(Tool):
    def images(self) -> dict[str, str]:
        """Names as podman says them and image IDs of everything tagged."""
        table = self.run("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
        pairs = [line.rsplit(" ", 1) for line in table.splitlines()]
        return {name: image for name, image in pairs if "<none>" not in name}

    def image_ids(self) -> set[str]:
        return set(self.run("images", "--all", "--no-trunc", "--quiet").stdout.split())

    def wipe(self) -> None:
        self.run("rmi", "--all", "--force")
        assert not self.image_ids()


@pytest.fixture(scope="session")
def podman_tool(tool_home: Path) -> Podman:
    plain = storage_tool("podman", tool_home)
    return Podman(plain.words, plain.environment)


@pytest.fixture
def podman(podman_tool: Podman) -> Podman:
    """podman with its own storage, without images."""
    podman_tool.wipe()
    return podman_tool


@pytest.fixture(scope="session")
def buildah(tool_home: Path) -> Tool:
    return storage_tool("buildah", tool_home)


@pytest.fixture(scope="session")
def skopeo(tool_home: Path) -> Tool:
    environment = clean_environment(tool_home / "home", TMPDIR=str(tool_home))
    return Tool([need("skopeo"), "--insecure-policy"], environment)


@pytest.fixture(scope="session")
def umoci(tool_home: Path) -> Tool:
    return Tool([need("umoci")], clean_environment(tool_home / "home"))


# --- the images -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def family(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> families.Family:
    """base, runtime and app, made by the real engine."""
    return families.build_family(docker_engine, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def debian_image(docker_engine: DockerEngine) -> str:
    """The name of a real Debian image with Python on it."""
    need("mmdebstrap")
    try:
        return families.real_debian_image(docker_engine)
    except families.NoDebianError as error:
        unavailable(str(error))


# --- imgtar -----------------------------------------------------------------------------------------------------------


@dataclass
class Imgtar:
    """The installed ``imgtar``, called as a user calls it. Its output is bytes; ``json`` gives the one document."""

    words: list[str]
    environment: Mapping[str, str]
    store: Path

    def __call__(
        self, *args: Any, store: Path | None = None, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        result = subprocess.run(
            [*self.words, *map(str, args)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env={**self.environment, "IMGTAR_STORE": str(store or self.store)},
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert b"Traceback (most recent call last)" not in result.stderr, explain(result)
        if check:
            assert result.returncode == 0, explain(result)
        return result

    def json(self, *args: Any, store: Path | None = None, input: bytes | None = None) -> dict[str, Any]:
        result = self(*args, "--json", store=store, input=input)
        document = json.loads(result.stdout)
        assert document["schema"] == f"imgtar.{args[0]}/1"
        return document

    def images(self, store: Path | None = None) -> dict[str, str]:
        """Names and image IDs of everything tagged in the store."""
        rows = self.json("images", store=store)["images"]
        return {row["name"]: row["image_id"] for row in rows if row["name"]}

    def image_ids(self, store: Path | None = None) -> set[str]:
        """The IDs of all images in the store, tagged or not."""
        return {row["image_id"] for row in self.json("images", "--all", store=store)["images"]}

    def loads(self, archive: Path) -> dict[str, str]:
        """Prove an archive good, load it, and give the names and image IDs that the store then has."""
        proof = self.json("verify", archive)
        assert proof["ok"] is True, proof["findings"]
        assert [f for f in proof["findings"] if f["severity"] == "error"] == []
        self("load", "-i", archive)
        store_proof = self.json("verify")
        assert store_proof["ok"] is True, store_proof["findings"]
        return self.images()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Room for large files, given back after the test (pytest keeps ``tmp_path`` of the last three runs)."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
def imgtar(tmp_path: Path) -> Imgtar:
    """The command, with a store of its own for each test."""
    script = Path(sys.executable).with_name("imgtar")
    words = [str(script)] if script.exists() else [sys.executable, "-m", "imgtar"]
    return Imgtar(words, clean_environment(tmp_path / "home"), tmp_path / "store")
