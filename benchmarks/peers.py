"""The same work by other programs: skopeo, containerd and Docker, as far as they are installed.

Daemons are started here, in private folders, and stopped by the id of the process. Their data lies in the scratch
folder, on the same disk as everything else; their sockets lie in a folder with a short name, because the path of a
socket has 107 bytes at most.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench import Bench, Measured
from cases import FEW, SOME, Case, times
from processes import Run, run

START_SECONDS = 60
STOP_SECONDS = 30


class AbsentError(RuntimeError):
    """A peer is not installed, or does not start here."""


def find(*programs: str) -> str:
    """The path of the first of these that there is."""
    for program in programs:
        if found := shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
            return found
    raise AbsentError(f"{Path(programs[-1]).name} is not installed")


def unmount_below(folder: Path) -> None:
    """Undo what a daemon mounted and left."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        points = [line.split()[1].encode().decode("unicode_escape") for line in mounts]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


class Peer:
    """One program. It works between ``__enter__`` and ``__exit__``; its rows may be made before."""

    name = ""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.data = bench.scratch / self.name
        self.sockets = Path()
        self.words: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            self._stack.callback(shutil.rmtree, self.data, ignore_errors=True)
            self._stack.callback(unmount_below, self.data)
            self.sockets = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")))
            self._stack.callback(unmount_below, self.sockets)
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Find the programs, and start what is to run beside."""
        raise NotImplementedError

    def cases(self) -> list[Case]:
        """The rows."""
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        """Without settings that point at another engine, and with private places for caches and temporary files."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "CONTAINERD_"))}
        return {**kept, "HOME": str(self.data), "TMPDIR": str(self.data), "XDG_RUNTIME_DIR": str(self.sockets)}

    def command(self, *arguments: str) -> Measured:
        """One command of the peer; what comes before its arguments is known when it runs."""
        return lambda: run([*self.words, *arguments], environment=self.environment)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command that is not measured."""
        return subprocess.run(
            [*self.words, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )

    def serve(self, command: Sequence[str], answers: Callable[[], bool], more: Mapping[str, str] | None = None) -> None:
        """Run a daemon until the peer is done with; ``answers`` says when it is ready."""
        if os.geteuid() != 0:
            raise AbsentError(f"{self.name} needs root")
        log = self.data / "daemon.log"
        with open(log, "wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**self.environment, **(more or {})},
                start_new_session=True,
            )
        self._stack.callback(stop, process)
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
                raise AbsentError(f"{self.name} does not start here: {tail}")
            time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a daemon."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Skopeo(Peer):
    """skopeo, which has no daemon. It may not sync what it writes."""

    name = "skopeo"

    def start(self) -> None:
        self.words = [find("skopeo"), "--insecure-policy"]

    def cases(self) -> list[Case]:
        bench = self.bench
        folder, target = f"dir:{bench.target}", f"docker-archive:{bench.target}"

        def copy(*arguments: str) -> Measured:
            return self.command("copy", "-q", *arguments)

        loads = [
            ("docker archive, one plain layer", "one.tar", "skopeo to dir:", ["docker-archive"], 0.5, SOME),
            ("docker archive, eight plain layers", "eight.tar", "skopeo to dir:", ["docker-archive"], None, FEW),
            (
                "OCI archive, eight gzip layers",
                "gzip-oci.tar",
                "skopeo to dir:, no diff IDs",
                ["oci-archive"],
                None,
                FEW,
            ),
            # It has to inflate here and hash what comes out, as a load does to prove the diff IDs. It writes it, too.
            (
                "OCI archive, eight gzip layers",
                "gzip-oci.tar",
                "skopeo to dir:, inflating",
                ["oci-archive", "--dest-decompress"],
                0.5,
                FEW,
            ),
        ]
        return [
            *[
                Case(
                    f"load, {what}",
                    against,
                    bench.load(name),
                    copy(*more, f"{form}:{bench.archive(name)}", folder),
                    (times(goal),) if goal else (),
                    (name,),
                    writes=True,
                    rounds=rounds,
                )
                for what, name, against, (form, *more), goal, rounds in loads
            ],
            Case(
                "save, eight plain layers",
                "skopeo oci: to docker-archive:",
                bench.of_full("save", "-o", str(bench.target), "bench/eight:1"),
                copy(f"oci:{bench.full}:bench/eight:1", target),
                stored=("eight.tar",),
                writes=True,
                rounds=FEW,
            ),
        ]


class Containerd(Peer):
    """containerd and ctr."""

    name = "containerd"
    IMAGE = "docker.io/bench/one:1"

    def start(self) -> None:
        server, client = find("containerd"), find("ctr")
        socket = self.sockets / "containerd.sock"
        config = self.data / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.data}/root"\nstate = "{self.sockets}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
        )
        self.words = [client, "--address", str(socket)]
        self.serve([server, "--config", str(config)], lambda: self.ask("version").returncode == 0)

    @property
    def _import(self) -> list[str]:
        return ["images", "import", "--no-unpack", "--platform", "linux/amd64", self.bench.archive("one.tar")]

    def forget(self) -> None:
        """No images, and no content."""
        if names := self.ask("images", "ls", "-q").stdout.split():
            self.ask("images", "rm", "--sync", *names)
        if self.ask("content", "ls", "-q").stdout.split():
            raise RuntimeError("containerd keeps content without an image")

    def hold(self) -> None:
        """The image that is exported."""
        if self.IMAGE not in self.ask("images", "ls", "-q").stdout.split():
            run([*self.words, *self._import], environment=self.environment)

    def cases(self) -> list[Case]:
        bench = self.bench
        export = ["images", "export", "--platform", "linux/amd64", str(bench.target), self.IMAGE]
        return [
            Case(
                "load, docker archive, one plain layer",
                "ctr images import --no-unpack",
                bench.load("one.tar"),
                self.command(*self._import),
                (times(0.15),),
                ("one.tar",),
                writes=True,
                rounds=FEW,
                prepare=self.forget,
            ),
            Case(
                "save, one plain layer",
                "ctr images export",
                bench.of_full("save", "-o", str(bench.target), "bench/one:1"),
                self.command(*export),
                (times(0.2),),
                stored=("one.tar",),
                writes=True,
                rounds=FEW,
                prepare=self.hold,
            ),
        ]


class Docker(Peer):
    """Docker Engine. Its load unpacks, its save packs again."""

    name = "docker"
    IMAGE = "bench/one:1"

    def start(self) -> None:
        # The engine's own client first: a newer one, put into another place, may not talk to it.
        server = find("dockerd")
        client = find(str(Path(server).parents[1] / "bin" / "docker"), "docker")
        socket = f"unix://{self.sockets}/docker.sock"
        self.words = [client, "--host", socket]
        self.version: dict[str, str] = {}
        command = [
            *[server, "--iptables=false", "--bridge=none", f"--storage-driver={self.storage_driver()}"],
            *[f"--data-root={self.data}/data", f"--exec-root={self.sockets}/exec", f"--pidfile={self.sockets}/pid"],
            f"--host={socket}",
        ]
        self.serve(command, self.answers)

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **self.version}

    def answers(self) -> bool:
        """A client newer than its engine offers an API version that the engine does not have: it names its own."""
        asked = self.ask("version")
        _, refused, version = asked.stderr.partition("Maximum supported API version is ")
        if refused:
            self.version = {"DOCKER_API_VERSION": version.split()[0]}
        return asked.returncode == 0

    def storage_driver(self) -> str:
        """overlay2 where an overlay can be mounted, vfs elsewhere."""
        probe = self.data / "probe"
        for name in ("lower", "upper", "work", "merged"):
            (probe / name).mkdir(parents=True)
        options = ",".join(f"{name}dir={probe / name}" for name in ("lower", "upper", "work"))
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(probe / "merged")]
        works = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        unmount_below(probe)
        shutil.rmtree(probe, ignore_errors=True)
        return "overlay2" if works else "vfs"

    def forget(self) -> None:
        """No images."""
        if images := self.ask("images", "--all", "--quiet", "--no-trunc").stdout.split():
            self.ask("rmi", "--force", *images)
        if self.ask("images", "--all", "--quiet").stdout.split():
            raise RuntimeError("docker keeps its images")

    def hold(self) -> None:
        """The image that is saved."""
        if self.ask("image", "inspect", self.IMAGE).returncode:
            self.load()

    def load(self) -> Run:
        """Load the image. Engines have been seen to report success without having it, so that is looked at."""
        done = self.command("load", "-q", "-i", self.bench.archive("one.tar"))()
        if self.ask("image", "inspect", self.IMAGE).returncode:
            raise RuntimeError("docker loaded nothing")
        return done

    def cases(self) -> list[Case]:
        bench = self.bench
        return [
            Case(
                "load, docker archive, one plain layer",
                "docker load",
                bench.load("one.tar"),
                self.load,
                (times(0.05),),
                ("one.tar",),
                writes=True,
                rounds=1,
                prepare=self.forget,
            ),
            Case(
                "save, one plain layer",
                "docker save",
                bench.of_full("save", "-o", str(bench.target), "bench/one:1"),
                self.command("save", "-o", str(bench.target), self.IMAGE),
                (times(0.1),),
                stored=("one.tar",),
                writes=True,
                rounds=1,
                prepare=self.hold,
            ),
        ]


PEERS: tuple[type[Peer], ...] = (Skopeo, Containerd, Docker)
