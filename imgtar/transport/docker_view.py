"""The Docker view of an archive: ``manifest.json`` (moby image/tarexport), turned into drafts at the rim."""

from __future__ import annotations

import posixpath

from imgtar.blob.compression import Compression, sniff
from imgtar.errors import Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import DeclaredParent, Draft, Slot
from imgtar.graph.finding import Finding
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import (
    DockerItem,
    ImageConfig,
    digest_in_path,
    parse_config,
    parse_docker_manifest,
    parse_repositories,
)
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.text import shown
from imgtar.transport.members import Members

__all__ = ["DockerImage", "LayerTable", "draft_of", "layer_descriptor", "locate", "read_docker"]


@frozen
class DockerImage:
    """One entry of ``manifest.json``. ``config`` is ``None`` when the archive does not hold the config it names."""

    item: DockerItem
    references: tuple[Reference, ...]
    config_name: str
    config: Descriptor | None
    parsed: ImageConfig | None
    layer_names: tuple[str | None, ...]
    parent: DeclaredParent | None


def read_docker(
    members: Members, limits: Limits = DEFAULT_LIMITS
) -> tuple[list[DockerImage], dict[Digest, str], list[Finding]]:
    """Return the images of ``manifest.json``, the configs by digest, and what is worth a remark."""
    where = f"{members.label}: manifest.json"
    findings: list[Finding] = []
    images = []
    configs: dict[Digest, str] = {}
    known: dict[str, tuple[Descriptor, ImageConfig]] = {}
    for item in parse_docker_manifest(members.read("manifest.json", limits.document), where, limits):
        references = tuple(_tag(text, where, findings) for text in item.repo_tags)
        config_name = locate(item.config, members, where)
        names = tuple(locate(path, members, where, layer=True) for path in item.layers)
        config = parsed = None
        if config_name is not None:
            place = f"{members.label}: {config_name}"
            if config_name not in known:  # A thousand images may name one config.
                known[config_name] = _config(members, config_name, place, limits)
            config, parsed = known[config_name]
            configs[config.digest] = config_name
            if len(parsed.diff_ids) != len(item.layers):
                message = f"the image has {len(item.layers)} layers in manifest.json, its config {len(parsed.diff_ids)} diff IDs"
                raise Refused("E_DIFFID", message, where=place)
            _one_layer_one_diff_id(names, parsed, where)
        parent = None
        if item.parent:
            parent = DeclaredParent(Digest.parse(item.parent), "Parent in manifest.json")
        images.append(DockerImage(item, references, config_name or item.config, config, parsed, names, parent))
    if "repositories" in members.files:
        _compare_repositories(members, images, findings, limits)
    return images, configs, findings


def _config(members: Members, name: str, place: str, limits: Limits) -> tuple[Descriptor, ImageConfig]:
    raw = members.read(name, limits.config)
    config = Descriptor(mediatype.IMAGE_CONFIG, Digest.of(raw), len(raw))
    _check_config_name(name, config.digest, place)
    parsed = parse_config(raw, place, limits, brief=True)
    members.budget.keep(parsed, place)
    return config, parsed


def _compare_repositories(members: Members, images: list[DockerImage], findings: list[Finding], limits: Limits) -> None:
    """The old map of names must not say more than ``manifest.json``: engines before 1.10 would believe it (H44)."""
    where = f"{members.label}: repositories"
    known = {reference for image in images for reference in image.references}
    for repository, tags in parse_repositories(members.read("repositories", limits.document), where, limits).items():
        for tag in tags:
            name = f"{repository}:{tag}"
            try:
                agreed = Reference.parse(name) in known
            except Refused:
                agreed = False
            if not agreed:
                findings.append(
                    Finding("E_TYPE", "warning", where, f"{shown(name)} is not in manifest.json, which is believed")
                )


def _tag(text: str, where: str, findings: list[Finding]) -> Reference:
    try:
        reference = Reference.parse(text)
    except Refused as error:
        raise error.within(where) from None
    if reference.tag is None:
        message = f"the name {shown(text)} has no tag, latest is understood; Docker refuses such an archive"
        findings.append(Finding("E_NAME", "warning", where, message))
    if reference.digest is not None:
        message = f"the name {shown(text)} carries a digest, which is dropped; containerd keeps it"
        findings.append(Finding("E_NAME", "warning", where, message))
    return replace(reference.tagged() if reference.digest is None else reference, digest=None).tagged()


def locate(path: str, members: Members, where: str, *, layer: bool = False) -> str | None:
    """Return the member that a path in ``manifest.json`` means, looked up in the archive's own table only.

    Raises ``E_PATH`` for a path that leaves the archive, ``E_LINK`` for a config that is a link.
    """
    if not path:
        return None  # Buildpacks write "" for layers the receiver is said to have (podman#8132).
    if path.startswith("/") or "\\" in path or ".." in path.split("/") or "\0" in path:
        raise Refused("E_PATH", f"{shown(path)} points outside the archive", where=where)
    name = posixpath.normpath(path)
    if name in members.files:
        return name
    target = members.links.get(name)
    if target is not None and not layer:
        raise Refused("E_LINK", f"the config {shown(path)} is a link", where=where)
    return target


def _check_config_name(name: str, actual: Digest, where: str) -> None:
    # The image ID is computed, never believed; a name that claims another one is refused (CVE-2014-9358).
    claimed = digest_in_path(name)
    if claimed is not None and claimed.encoded != actual.encoded:
        raise Refused(
            "E_DIGEST",
            f"digest mismatch: expected {claimed}, actual {actual}",
            where=where,
            hint="the config is damaged or was changed: make the archive again, or copy it again from its source",
            details={"expected": str(claimed), "actual": str(actual)},
        )


def _one_layer_one_diff_id(names: tuple[str | None, ...], config: ImageConfig, where: str) -> None:
    claimed: dict[str, Digest] = {}
    for name, diff_id in zip(names, config.diff_ids, strict=True):
        if name is not None and claimed.setdefault(name, diff_id) != diff_id:
            message = f"the layer file {shown(name)} is used for two diff IDs: {claimed[name]} and {diff_id}"
            raise Refused("E_DIFFID", message, where=where)


def layer_descriptor(members: Members, name: str, diff_id: Digest | None) -> Descriptor:
    """Describe a layer file by its bytes: its name says nothing, rules_oci calls plain tars ``.tar.gz``.

    A plain layer is its own diff ID, which is all that is known before it is read; a compressed one is read now.
    """
    size = members.files[name]
    known = members.known(name)
    if known is None and diff_id is not None and sniff(members.head(name)) is Compression.NONE:
        return Descriptor(mediatype.LAYER, diff_id, size)
    measured = known or members.measured(name)
    if measured.compression is Compression.NONE:
        return Descriptor(mediatype.LAYER, diff_id or measured.digest, size)
    if measured.compression not in (Compression.GZIP, Compression.ZSTD):
        raise Refused(
            "E_COMPRESS",
            f"the layer is {measured.compression} compressed, which no image manifest can say",
            where=f"{members.label}: {name}",
            hint="save the image again with a current tool",
        )
    return Descriptor(mediatype.layer_media_type(measured.compression), measured.digest, size)


LayerTable = dict[tuple[str, Digest], Descriptor]
"""Layers by file and diff ID, as they were described: a thousand images may list one file a thousand times each."""


def draft_of(image: DockerImage, members: Members, names: dict[Digest, str], known: LayerTable) -> Draft:
    """Make the draft of an image whose config is here, entering its layers into ``names`` and ``known``."""
    assert image.config is not None
    assert image.parsed is not None
    slots = []
    for path, name, diff_id in zip(image.item.layers, image.layer_names, image.parsed.diff_ids, strict=True):
        layer = None
        if name is not None:
            layer = known.get((name, diff_id))
            if layer is None:
                layer = known[name, diff_id] = layer_descriptor(members, name, diff_id)
                names.setdefault(layer.digest, name)
        slots.append(Slot(diff_id, layer, f"{members.label}: {path}"))
    return Draft(image.config, image.parsed, tuple(slots))
