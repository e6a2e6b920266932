"""Images made by the real Docker engine, and independent readers of what the tools write.

Nothing here imports imgtar: what a test compares against must not come out of the code under test.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECOND_NAME = "registry.example.test:5000/team/app:1.0"


class NoDebianError(Exception):
    """No Debian root file system can be made here."""


def storage_driver(directory: Path) -> str:
    """overlay2 where an overlay can be mounted on ``directory``, vfs elsewhere."""
    probe = directory / "probe"
    for name in ("lower", "upper", "work", "merged"):
        (probe / name).mkdir(parents=True)
    options = ",".join(f"{name}dir={probe / name}" for name in ("lower", "upper", "work"))
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(probe / "merged")]
    works = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    if works:
        subprocess.run(["umount", str(probe / "merged")], check=False, capture_output=True)
    shutil.rmtree(probe, ignore_errors=True)
    return "overlay2" if works else "vfs"


def familiar(name: str) -> str:
    """``app:1`` for each of the full names that the tools give to it."""
    for prefix in ("docker.io/library/", "localhost/", "docker.io/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# --- tars -------------------------------------------------------------------------------------------------------------


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files and, for names that end in ``/``, directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(name)
        assert stream is not None
        return stream.read()


def member_names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def docker_view(archive: Path) -> dict[str, str]:
    """Names and image IDs by ``manifest.json`` and the bytes of the config files."""
    entries = json.loads(member(archive, "manifest.json"))
    return {
        familiar(name): sha256(member(archive, entry["Config"]))
        for entry in entries
        for name in entry["RepoTags"] or []
    }


def layout_view(directory: Path) -> dict[str, str]:
    """Names (the full one if there is one) and image IDs of an OCI layout directory with single-platform images."""
    index = json.loads((directory / "index.json").read_bytes())
    view = {}
    for descriptor in index["manifests"]:
        notes = descriptor.get("annotations", {})
        name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name", "")
        manifest = json.loads(layout_blob(directory, descriptor["digest"]))
        view[familiar(name)] = sha256(layout_blob(directory, manifest["config"]["digest"]))
    return view


def layout_blob(directory: Path, digest: str) -> bytes:
    data = (directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert sha256(data) == digest
    return data


def tar_of_directory(directory: Path, target: Path) -> Path:
    """The directory as GNU tar packs it, each name with ``./`` before it."""
    subprocess.run(["tar", "-C", str(directory), "-cf", str(target), "."], check=True)
    return target


def untar(archive: Path, directory: Path) -> Path:
    directory.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(directory), "-xf", str(archive)], check=True)
    return directory


# --- the small family -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Image IDs of the small family. ``app:1`` is also ``SECOND_NAME``; ``untagged`` has no name at all."""

    base: str
    runtime: str
    app1: str
    app2: str
    untagged: str

    def named(self, *names: str) -> dict[str, str]:
        everything = {
            "base:1": self.base,
            "runtime:1": self.runtime,
            "app:1": self.app1,
            "app:2": self.app2,
            SECOND_NAME: self.app1,
        }
        return {name: everything[name] for name in names}


def build(engine: Any, directory: Path, dockerfile: str, tag: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile, "utf-8")
    engine.run("build", "--network=none", "--quiet", "--tag", tag, directory)
    return engine.image_id(tag)


def commit(engine: Any, source: str, files: Mapping[str, bytes], *options: str, name: str | None = None) -> str:
    """``docker commit`` of a container that was never started, with ``files`` copied into it."""
    container = engine.run("create", "--network", "none", source, "/bin/true").stdout.strip()
    try:
        engine.run("cp", "-", f"{container}:/", input=tar_bytes(files))
        return engine.run("commit", *options, container, *([name] if name else [])).stdout.strip()
    finally:
        engine.run("rm", "--force", container)


def build_family(engine: Any, work: Path) -> Family:
    """base by ``docker import``, runtime by a classic build, app by ``docker commit``."""
    base_tar = work / "base.tar"
    long_name = "etc/" + "/".join(["a-directory-with-a-rather-long-name"] * 8) + "/file"
    base_tar.write_bytes(tar_bytes({"etc/": b"", "etc/base": b"base\n", long_name: b"deep\n", "bin/": b""}))
    engine.run("import", "--change", 'CMD ["/bin/true"]', "--message", "imported <base>", base_tar, "base:1")

    context = work / "runtime"
    context.mkdir()
    (context / "library").write_bytes(b"library\n" * 512)
    dockerfile = (
        "FROM base:1\n"
        "COPY library /usr/lib/library\n"
        'LABEL note="<less> & more" place="Zürich ☃"\n'
        "ENV LANG=C.UTF-8 EMPTY=\n"
        "WORKDIR /srv\n"
        "EXPOSE 8080/tcp\n"
        'CMD ["/bin/run", "<a>&<b>"]\n'
    )
    build(engine, context, dockerfile, "runtime:1")
    one = {"srv/": b"", "srv/app": b"app one\n", "srv/daten-ü": b"\x00\xff" * 100}
    two = {"srv/": b"", "srv/app": b"app two\n"}
    app1 = commit(engine, "runtime:1", one, "--author", "A <a@example.test>", "--message", "app one", name="app:1")
    app2 = commit(engine, "app:1", two, "--change", "ENV VERSION=2", name="app:2")
    untagged = commit(engine, "runtime:1", {"srv/": b"", "srv/nobody": b"no name\n"})
    engine.run("tag", "app:1", SECOND_NAME)
    return Family(engine.image_id("base:1"), engine.image_id("runtime:1"), app1, app2, untagged)


# --- a real Debian image ----------------------------------------------------------------------------------------------

DEBIAN_NAME = "debian-python:1"
DEBIAN_PACKAGES = ("python3", "python3-numpy")


def cache_directory() -> Path:
    return Path(os.environ.get("IMGTAR_INTEROP_CACHE", "/tmp/imgtar-interop-cache"))


def suite() -> str:
    with open("/etc/os-release", encoding="utf-8") as lines:
        facts = dict(line.rstrip("\n").split("=", 1) for line in lines if "=" in line)
    return facts.get("VERSION_CODENAME", "stable").strip('"')


def debian_parts() -> Path:
    """A directory with ``rootfs.tar`` (a minimal Debian) and ``*.deb`` (Python for it), made once and then kept."""
    cache = cache_directory()
    ready = cache / f"debian-{suite()}-1"
    if ready.is_dir():
        return ready
    cache.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
    making.chmod(0o755)  # apt fetches as a user of its own
    try:
        (making / "archives" / "partial").mkdir(parents=True)
        fetch = (
            'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --no-install-recommends --download-only '
            f"-oDir::Cache::Archives={making}/archives/ install {' '.join(DEBIAN_PACKAGES)}"
        )
        made = subprocess.run(
            ["mmdebstrap", "--variant=minbase", f"--customize-hook={fetch}", suite(), str(making / "rootfs.tar")],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if made.returncode:
            raise NoDebianError(f"mmdebstrap failed: {made.stderr[-1500:]}")
        for package in (making / "archives").glob("*.deb"):
            package.rename(making / package.name)
        shutil.rmtree(making / "archives")
        try:
            making.rename(ready)
        except OSError:  # another run was faster
            if not ready.is_dir():
                raise
        return ready
    finally:
        shutil.rmtree(making, ignore_errors=True)


def real_debian_image(engine: Any) -> str:
    """A real Debian with Python installed by apt inside the engine: about 290 MB, three layers, whiteouts included."""
    parts = debian_parts()
    engine.run("import", parts / "rootfs.tar", "debian:minbase")
    dockerfile = (
        "FROM debian:minbase\n"
        "ENV LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive\n"
        "COPY *.deb /var/cache/debs/\n"
        "RUN apt-get install --yes --no-install-recommends /var/cache/debs/*.deb && rm -rf /var/cache/debs\n"
        'CMD ["python3"]\n'
    )
    with tempfile.TemporaryDirectory(dir=cache_directory()) as context:
        for package in parts.glob("*.deb"):
            os.link(package, Path(context) / package.name)
        build(engine, Path(context), dockerfile, DEBIAN_NAME)
    return DEBIAN_NAME


# --- archives as Docker before 1.10 wrote them ------------------------------------------------------------------------


def to_pre_1_10(archive: Path, target: Path) -> Path:
    """The same images without what Docker 1.10 added: no ``manifest.json``, no config named by its digest."""
    with tarfile.open(archive) as old, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as new:
        names = set(old.getnames())
        for info in old.getmembers():
            if info.name == "manifest.json" or ("/" not in info.name and info.name.endswith(".json")):
                continue
            if info.issym():  # a layer written once and linked from elsewhere: 1.9 knew no links
                source = os.path.normpath(os.path.join(os.path.dirname(info.name), info.linkname))
                assert source in names
                real = old.getmember(source)
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", real.size
                new.addfile(info, old.extractfile(real))
            else:
                new.addfile(info, old.extractfile(info) if info.isfile() else None)
    return target


@dataclass(frozen=True)
class V1Image:
    """One image of a pre-1.10 archive: its ``json`` to the byte and the files of its layer."""

    name: str
    document: str | bytes
    files: Mapping[str, bytes]

    @property
    def v1_id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def v1_archive(target: Path, images: Iterable[V1Image], tags: Mapping[str, str]) -> Path:
    """A pre-1.10 archive with ``tags`` (name with tag -> ``V1Image.name``).

    ``@ID@`` in a document stands for the image's own v1 ID, ``@ID:other@`` for that of another image.
    """
    images = list(images)
    ids = {image.name: image.v1_id for image in images}
    files: dict[str, bytes] = {}
    for image in images:
        document = image.document.encode() if isinstance(image.document, str) else image.document
        document = document.replace(b"@ID@", image.v1_id.encode())
        for name, v1_id in ids.items():
            document = document.replace(f"@ID:{name}@".encode(), v1_id.encode())
        files |= {
            f"{image.v1_id}/": b"",
            f"{image.v1_id}/VERSION": b"1.0",
            f"{image.v1_id}/json": document,
            f"{image.v1_id}/layer.tar": tar_bytes(image.files),
        }
    repositories: dict[str, dict[str, str]] = {}
    for name, image_name in tags.items():
        repository, _, tag = name.rpartition(":")
        repositories.setdefault(repository, {})[tag] = ids[image_name]
    files["repositories"] = json.dumps(repositories, separators=(",", ":")).encode()
    target.write_bytes(tar_bytes(files))
    return target
