"""Images out: hybrid, docker and OCI tars, and layout directories. The same images give the same bytes, always."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from typing import Any, Literal

from imgtar.blob.compress import compressing
from imgtar.blob.compression import SNIFF_BYTES, Compression, sniff
from imgtar.blob.files import FileWriter, sync_directory, write_all
from imgtar.blob.stream import Peeked
from imgtar.blob.tar_writer import TarWriter
from imgtar.errors import LocalTrouble, NotFound, UsageError, local_trouble
from imgtar.events import Event, Report
from imgtar.frozen import frozen, replace
from imgtar.graph.choice import preferred
from imgtar.graph.plan import Plan, PlannedRoot, Write
from imgtar.graph.thin import FILE_NAME
from imgtar.graph.walk import Node
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.model.reference import Reference
from imgtar.ports import Blob
from imgtar.text import shown
from imgtar.transport.output import WORTH_ALIGNING, Output, copy_blob
from imgtar.transport.target import check_file_name, hidden, new_folder, temporary_beside

__all__ = [
    "Form",
    "Written",
    "check_target",
    "docker_images",
    "docker_plan",
    "write_directory",
    "write_tar",
]

Form = Literal["hybrid", "docker", "oci", "oci-dir"]
Fetch = Callable[[Write], Blob]

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@frozen
class Written:
    """What was written: bytes, SHA-256 of the file in hex (``None`` for a directory), number of blobs."""

    size: int
    sha256: str | None
    blobs: int


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _index(roots: Sequence[PlannedRoot], form: Form) -> bytes:
    """``index.json``: one entry for each name, as Docker and containerd write it, and one for what has no name."""
    entries: list[tuple[str, str, dict[str, Any]]] = []
    for root in roots:
        names: tuple[Reference | None, ...] = root.references or (None,)
        for name in names:
            annotations = dict(root.descriptor.annotations)
            if name is not None:
                annotations[mediatype.CONTAINERD_NAME] = name.full
                # Docker puts only the tag here; for skopeo and umoci, which pick by this text, the whole name is unique.
                annotations[mediatype.REF_NAME] = name.tag or "" if form == "hybrid" else name.familiar
            elif root.labels:
                annotations[mediatype.REF_NAME] = root.labels[0]
            descriptor = root.descriptor.with_annotations(annotations)
            entries.append((name.full if name else "~", str(descriptor.digest), descriptor.to_json()))
    entries.sort(key=lambda entry: entry[:2])
    body = {"schemaVersion": 2, "mediaType": mediatype.IMAGE_INDEX, "manifests": [entry for _, _, entry in entries]}
    return _json(body)


def docker_images(plan: Plan) -> list[tuple[PlannedRoot, Node]]:
    """The image of each root that ``manifest.json`` can show: of an index what engines take on linux/amd64, else its first."""
    coming = {image.digest for image in plan.images}
    result = []
    for root in plan.roots:
        shown = preferred(root.node, lambda node: node.descriptor.digest in coming)
        if shown is not None:
            result.append((root, shown))
    return result


def docker_plan(plan: Plan) -> Plan:
    """The part of a plan that a docker archive can carry: one image for each root, no manifests, no artifacts."""
    shown = docker_images(plan)
    kept: set[Digest] = set()
    for _, node in shown:
        assert node.manifest is not None
        kept |= {node.manifest.config.digest, *(layer.digest for layer in node.manifest.layers)}
    chosen = {node.descriptor.digest for _, node in shown}
    own = ("config", "layer")
    return replace(
        plan,
        roots=tuple(
            replace(root, parts=tuple(part for part in root.parts if part.owner is node and part.kind in own))
            for root, node in shown
        ),
        images=tuple(image for image in plan.images if image.digest in chosen),
        writes=tuple(write for write in plan.writes if write.digest in kept),
    )


def _listed(plan: Plan) -> list[tuple[PlannedRoot, Node]]:
    """The images that ``manifest.json`` lists: Docker refuses an archive that names a config it does not hold."""
    carried = {write.digest for write in plan.writes}
    return [
        (root, node) for root, node in docker_images(plan) if node.manifest and node.manifest.config.digest in carried
    ]


def _docker_manifest(plan: Plan, path: Callable[[Digest, str], str]) -> bytes:
    merged: dict[Digest, tuple[list[str], Node, PlannedRoot]] = {}
    for root, node in _listed(plan):
        assert node.manifest is not None
        names = [reference.full for reference in root.references]
        known = merged.setdefault(node.manifest.config.digest, ([], node, root))
        known[0].extend(name for name in names if name not in known[0])
    items = []
    for image_id, (names, node, root) in merged.items():
        assert node.manifest is not None
        item: dict[str, Any] = {
            "Config": path(image_id, "config"),
            "RepoTags": sorted(names) or None,
            "Layers": [path(layer.digest, layer.media_type) for layer in node.manifest.layers],
        }
        if root.parent is not None and _valid_parent(root.parent.image_id, node, merged):
            item["Parent"] = str(root.parent.image_id)
        items.append((item["RepoTags"] or ["~"], str(image_id), item))
    items.sort(key=lambda entry: entry[:2])
    return _json([item for _, _, item in items])


def _valid_parent(parent: Digest, child: Node, images: dict[Digest, tuple[list[str], Node, PlannedRoot]]) -> bool:
    """Whether Docker accepts the link; a wrong one aborts its load (moby tarexport/load.go checkValidParent)."""
    known = images.get(parent)
    if known is None or known[1].config is None or child.config is None:
        return False
    before, after = known[1].config.history, child.config.history
    if not before and not after:
        return True
    return len(after) - len(before) == 1 and after[: len(before)] == before


def _layout_path(digest: Digest, _kind: str) -> str:
    return f"blobs/{digest.path}"


def _docker_path(digest: Digest, kind: str) -> str:
    if kind == "config":
        return f"{digest.encoded}.json"
    suffix = {"gzip": ".tar.gz", "zstd": ".tar.zst"}.get(mediatype.layer_compression(kind) or "", ".tar")
    return f"{digest.encoded}{suffix}"


@frozen
class _File:
    name: str
    size: int
    body: bytes | None = None
    write: Write | None = None


def _contents(plan: Plan, form: Form, thin: bytes | None) -> tuple[list[str], list[_File]]:
    """Folders and files in the order of writing: small documents first, then every blob once, by digest.

    ``thin`` is the record of a thin archive: it stands before the blobs, so that a cut archive still tells what it leans on.
    """
    record = [_File(FILE_NAME, len(thin), thin)] if thin is not None else []
    documents = sorted((w for w in plan.writes if w.kind != "layer"), key=lambda w: str(w.digest))
    layers = sorted((w for w in plan.writes if w.kind == "layer"), key=lambda w: str(w.digest))
    files: list[_File] = []
    if form == "docker":
        manifest = _docker_manifest(plan, _docker_path)
        files += [_File("manifest.json", len(manifest), manifest), *record]
        wanted: dict[Digest, str] = {}
        for _, node in docker_images(plan):
            assert node.manifest is not None
            wanted[node.manifest.config.digest] = _docker_path(node.manifest.config.digest, "config")
            for layer in node.manifest.layers:
                wanted.setdefault(layer.digest, _docker_path(layer.digest, layer.media_type))
        files += [_File(wanted[w.digest], w.size, write=w) for w in (*documents, *layers) if w.digest in wanted]
        return [], files
    index = _index(plan.roots, form)
    files += [_File("oci-layout", len(_LAYOUT), _LAYOUT), _File("index.json", len(index), index)]
    if form == "hybrid" and _listed(plan):
        manifest = _docker_manifest(plan, _layout_path)
        files.append(_File("manifest.json", len(manifest), manifest))
    files += record
    algorithms = sorted({"sha256", *(w.digest.algorithm for w in plan.writes)})
    files += [_File(_layout_path(w.digest, ""), w.size, write=w) for w in (*documents, *layers)]
    return ["blobs", *(f"blobs/{algorithm}" for algorithm in algorithms)], files


def write_tar(
    plan: Plan,
    fetch: Fetch,
    fd: int,
    form: Form,
    compression: Compression,
    level: int | None,
    jobs: int,
    report: Report,
    thin: bytes | None = None,
) -> Written:
    """Write the plan's images as one tar to the descriptor ``fd``. Does not sync or close it.

    ``thin`` is the record of what a thin archive leaves out.
    """
    folders, files = _contents(plan, form, thin)
    if form == "docker":
        for file in files:
            if file.write is not None and file.write.kind == "layer":
                _require_readable(file.write, fetch)
    report(Event("start", "saving", total=sum(file.size for file in files)))
    output = Output(fd)
    compressor = None
    try:
        compressor = compressing(compression, level, output.write, jobs=jobs)
        tar = TarWriter(compressor.write)
        blobs = 0
        wrote_folders = False
        for file in files:
            if file.body is not None:
                tar.file(file.name, file.body)
                continue
            if not wrote_folders:
                for folder in folders:
                    tar.directory(folder)
                wrote_folders = True
            assert file.write is not None
            tar.start_file(file.name, file.size, aligned=file.size >= WORTH_ALIGNING)
            copy_blob(file.write, fetch, tar.write, report, output if compression is Compression.NONE else None)
            tar.end_file()
            blobs += 1
        if not wrote_folders:
            for folder in folders:
                tar.directory(folder)
        tar.finish()
        compressor.finish()
        digest = output.finish()
    except BaseException:
        if compressor is not None:
            compressor.abandon()
        output.abandon()
        raise
    report(Event("end"))
    return Written(output.size, digest, blobs)


_OR_FOLDER = ", or --format oci-dir"


def _require_readable(write: Write, fetch: Fetch) -> None:
    """Raise :class:`UsageError` for a layer that our own reader refuses in a docker archive, before anything is written."""
    blob = fetch(write)
    assert blob.open is not None
    with blob.open() as content:
        compression = sniff(Peeked(content, SNIFF_BYTES).head)
    if compression in (Compression.BZIP2, Compression.XZ):
        raise UsageError(
            f"{write.title} is {compression} compressed, which a docker archive cannot say",
            hint="--layers gzip (or none) makes it readable, and --format hybrid keeps it as it is",
        )


def check_target(path: str, form: Form) -> None:
    """Raise now what writing to ``path`` would raise at the end of the work: :class:`NotFound`, :class:`UsageError`."""
    check_file_name(path, more="" if form == "oci-dir" else _OR_FOLDER, folder=form == "oci-dir")
    target = os.path.abspath(path)
    try:
        mode = os.stat(os.path.dirname(target)).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        # Not "it is not there": the disk, or the permissions, do not let us know.
        raise local_trouble(error, f"looking at the folder of {shown(path)}") from None
    if stat.S_ISREG(mode):
        raise LocalTrouble(f"{shown(os.path.dirname(path))} is a file, not a folder", hint="give another path")
    if not stat.S_ISDIR(mode):
        raise NotFound(f"the folder of {shown(path)} is not there", hint="make it first, or check the mount")
    if form != "oci-dir":
        if os.path.isdir(path):
            raise UsageError(f"{shown(path)} is a directory", hint=f"give a file name{_OR_FOLDER}")
    elif os.path.lexists(target) and not (
        os.path.isdir(target) and not os.path.islink(target) and not os.listdir(target)
    ):
        raise UsageError(
            f"{shown(path)} exists already", hint="give a new directory: nothing is merged into an old one"
        )


def write_directory(plan: Plan, fetch: Fetch, path: str, report: Report, thin: bytes | None = None) -> Written:
    """Write an OCI layout directory that appears whole or not at all. Raises :class:`UsageError` when it exists."""
    target = os.path.abspath(path)
    check_target(path, "oci-dir")
    folders, files = _contents(plan, "oci-dir", thin)
    report(Event("start", "saving", total=sum(file.size for file in files)))
    stem = os.path.join(os.path.dirname(target), hidden(os.path.basename(target)))
    temporary, lock = temporary_beside(stem, path, new_folder)
    size = blobs = 0
    try:
        for folder in folders:
            os.mkdir(os.path.join(temporary, folder))
        for file in files:
            fd = os.open(os.path.join(temporary, file.name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if file.body is not None:
                    write_all(fd, file.body)
                else:
                    assert file.write is not None
                    _write_blob(file.write, fetch, fd, report)
                    blobs += 1
                os.fsync(fd)
            finally:
                os.close(fd)
            size += file.size
        for folder in (*reversed(folders), ""):
            sync_directory(os.path.join(temporary, folder))
        if os.path.isdir(target):
            os.rmdir(target)
        os.rename(temporary, target)
        sync_directory(os.path.dirname(target))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(lock)
    report(Event("end"))
    return Written(size, None, blobs)


def _write_blob(write: Write, fetch: Fetch, fd: int, report: Report) -> None:
    """One blob as a file of its own."""
    if write.size < WORTH_ALIGNING:
        copy_blob(write, fetch, FileWriter(fd).write, report, None)
        return
    output = Output(fd, hashed=False)
    try:
        copy_blob(write, fetch, output.write, report, output)
        output.finish()
    finally:
        output.abandon()
