"""From a table of members to a catalog: which form this is, and what both views of a hybrid say together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imgtar.errors import Refused
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Catalog, Root
from imgtar.graph.choice import preferred
from imgtar.graph.finding import Finding
from imgtar.graph.library import Library
from imgtar.graph.thin import FILE_NAME, ThinRecord, parse_thin
from imgtar.graph.walk import Node, Walker, images_of, nodes_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import Manifest, digest_in_path, encode_manifest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.reference import Reference
from imgtar.text import shown
from imgtar.transport.detect import describe_content
from imgtar.transport.docker_view import DockerImage, LayerTable, draft_of, layer_descriptor, read_docker
from imgtar.transport.members import Members
from imgtar.transport.oci_view import BlobTable, layout_blobs, read_dir, read_layout

if TYPE_CHECKING:
    from imgtar.graph.v1 import V1Image
    from imgtar.transport.legacy_view import LegacyView

__all__ = ["Interpretation", "interpret"]


@frozen
class Interpretation:
    """A catalog, and where each of its blobs lies among the members."""

    catalog: Catalog
    names: dict[Digest, str]


def interpret(
    members: Members,
    compression: str,
    limits: Limits = DEFAULT_LIMITS,
    *,
    directory: bool = False,
    findings: Iterable[Finding] = (),
) -> Interpretation:
    """Say what the members are. Raises :class:`Refused` ``E_TYPE`` when they are no image archive of any known form."""
    names: dict[Digest, str] = {}
    v1: dict[str, V1Image] = {}
    library = Library([BlobTable(members, names).fetch], limits, members.budget)
    remarks = list(findings)
    has_index = "index.json" in members.files
    has_manifest = "manifest.json" in members.files
    for name in ("index.json", "manifest.json", "oci-layout", "repositories"):
        if name in members.links:
            raise Refused("E_LINK", f"{name} is a link", where=f"{members.label}: {name}")
    if "oci-layout" in members.files and not has_index:
        raise Refused("E_TYPE", "there is an oci-layout file but no index.json", where=members.label, hint=_AGAIN)
    if has_manifest and not has_index and _is_object(members, limits):
        root, found = read_dir(members, limits)
        names.update(found)
        form, roots = "dir", [root]
    elif has_index or has_manifest:
        form = "hybrid" if has_index and has_manifest else "oci" if has_index else "docker"
        roots = []
        names.update(layout_blobs(members))
        if has_index:
            roots, said = read_layout(members, limits)
            remarks += said
        if has_manifest:
            images, configs, said = read_docker(members, limits)
            remarks += said
            for image in images:
                if image.config is not None and image.parsed is not None:
                    library.know(image.config, image.parsed)
            lying = set(names.values())
            names.update({digest: name for digest, name in configs.items() if name not in lying})
            roots = _Views(members, library, names, limits, remarks, hybrid=has_index).merge(roots, images)
        if not roots:
            remarks.append(Finding("E_MISSING", "warning", members.label, "the archive lists no images at all", 4))
    elif (legacy := _legacy(members, library, limits)) is not None:
        form = "docker-legacy"
        remarks += legacy.findings
        names.update(legacy.names)
        v1 = legacy.images
        roots = [_settled(root, library) for root in legacy.roots]
    else:
        message, hint = describe_content(members.files, members.links)
        cut = message.startswith("the archive ends before")
        raise Refused("E_TRUNC" if cut else "E_TYPE", message, where=members.label, hint=hint)
    if directory and has_index:
        form = "oci-dir"
    _no_word_for_another(roots, members.label)
    thin = _thin_record(members, limits)
    if thin is not None:
        roots = [_with_promises(root, thin) for root in roots]
    offers = {digest: members.files[name] for digest, name in names.items()}
    catalog = Catalog(
        members.label,
        form,
        compression,
        tuple(roots),
        library,
        offers,
        tuple(remarks),
        names,
        thin,
        v1=v1,
    )
    return Interpretation(catalog, names)


def _legacy(members: Members, library: Library, limits: Limits) -> LegacyView | None:
    """The images of an archive from before Docker 1.10; ``None`` for anything else."""
    from imgtar.transport.legacy_view import is_legacy, read_legacy

    return read_legacy(members, library, limits) if is_legacy(members) else None


def _thin_record(members: Members, limits: Limits) -> ThinRecord | None:
    """What the archive says about what it leaves out; ``None`` when it says nothing."""
    if FILE_NAME in members.links:
        raise Refused("E_LINK", f"{FILE_NAME} is a link", where=f"{members.label}: {FILE_NAME}")
    if FILE_NAME not in members.files:
        return None
    return parse_thin(members.read(FILE_NAME, limits.document), f"{members.label}: {FILE_NAME}", limits)


def _with_promises(root: Root, thin: ThinRecord) -> Root:
    """Enter into an image of a docker archive which layers were left out of it."""
    draft = root.draft
    if draft is None or draft.complete:
        return root
    slots = (
        slot
        if slot.layer is not None
        else replace(slot, promised=thin.layer_of(draft.config.digest, place, slot.diff_id))
        for place, slot in enumerate(draft.slots)
    )
    return replace(root, draft=replace(draft, slots=tuple(slots)))


def _no_word_for_another(roots: Iterable[Root], where: str) -> None:
    """Refuse a bare word for one image that engines read as the name of another.

    podman and Docker take ``org.opencontainers.image.ref.name`` ``app`` for ``app:latest`` (found by trying).
    """
    named = {reference: root for root in roots for reference in root.references}
    for root in roots:
        for word in root.labels if not root.references else ():
            try:
                read = Reference.parse(word).tagged()
            except Refused:
                continue
            other = named.get(read)
            if other is not None and _identity(other) != _identity(root):
                message = f"podman and Docker read {shown(word)} as {read.familiar}, which is another image here"
                hint = "make the archive again, with a name and a tag for each image"
                raise Refused("E_NAME", message, where=where, hint=hint)


def _identity(root: Root) -> Digest | None:
    if root.draft is not None:
        return root.draft.config.digest
    return root.descriptor.digest if root.descriptor is not None else None


_AGAIN = "the archive was cut short when it was made, or something was left out: make it again"


def _is_object(members: Members, limits: Limits) -> bool:
    return members.read("manifest.json", limits.document).lstrip(b" \t\r\n").startswith(b"{")


def _settled(root: Root, library: Library) -> Root:
    """Write the manifest of an image that came without one, if all its layers are here."""
    draft = root.draft
    if draft is None or not draft.complete:
        return root
    raw = encode_manifest(draft.config, tuple(slot.layer for slot in draft.slots if slot.layer is not None))
    descriptor = Descriptor(mediatype.IMAGE_MANIFEST, Digest.of(raw), len(raw))
    library.add(descriptor.digest, raw)
    return replace(root, descriptor=descriptor)


class _Views:
    """Brings the OCI view and the Docker view of one archive together (rulings: hybrids)."""

    def __init__(
        self,
        members: Members,
        library: Library,
        names: dict[Digest, str],
        limits: Limits,
        findings: list[Finding],
        *,
        hybrid: bool,
    ) -> None:
        self._members = members
        self._library = library
        self._names = names
        self._limits = limits
        self._findings = findings
        self._hybrid = hybrid
        self._digests: dict[str, Digest] = {}
        self._inverted = 0
        self._homes: dict[Digest | str, tuple[int, Node]] = {}
        self._named: dict[Reference, list[int]] = {}
        self._configs: dict[tuple[int, ...], tuple[set[Digest], set[str], bool]] = {}
        self._spoken: set[Reference] = set()
        self._wholes: dict[int, bool] = {}
        self._shown: dict[int, Manifest | None] = {}
        self._slots: LayerTable = {}
        self._walker = Walker(library, limits)

    def merge(self, oci: Sequence[Root], docker: Sequence[DockerImage]) -> list[Root]:
        roots = list(oci)
        nodes: list[Node | None] = [self._walker.grow(root.descriptor) if root.descriptor else None for root in roots]
        self._enter(roots, nodes)
        if self._hybrid and not roots and docker:
            self._warn("E_MISSING", self._members.label, "index.json lists no images; manifest.json is believed")
        for image in docker:
            self._no_contradiction(image, nodes)
            place, node = self._find(image, nodes)
            if image.config is None:
                if place is None and not self._promised(image, roots):
                    labels = tuple(reference.familiar for reference in image.references)
                    roots.append(
                        Root(None, labels, image.references, image.parent, None, image.item.config, self._layers(image))
                    )
                    nodes.append(None)
                    self._spoken.update(image.references)
                elif place is None and self._whole(image, nodes):
                    self._warn("E_MISSING", self._title(image), self._lost(image.item.config))
                continue
            if place is None:
                if self._hybrid and roots:
                    self._warn("E_MISSING", self._title(image), "is listed in manifest.json but not in index.json")
                roots.append(self._from_docker(image))
                nodes.append(None)
                self._spoken.update(image.references)
            elif node is not None and not self._same_layers(image, node) and nodes[place] is node:
                message = "index.json and manifest.json list its layers differently; manifest.json is believed"
                self._warn("E_TYPE", self._title(image), message)
                roots[place] = replace(self._from_docker(image), labels=roots[place].labels)
                nodes[place] = None
            else:
                self._shows_another_platform(image, place, nodes[place])
                for path in self._lost_layers(image, node):
                    self._warn("E_MISSING", self._title(image), self._lost(path))
                roots[place] = self._with_names(roots[place], image)
        return _one_each([self._from_other_names(root) for root in roots], self._members.label, self._limits)

    def _enter(self, roots: Sequence[Root], nodes: Sequence[Node | None]) -> None:
        """Note where the OCI view has each name and each config: an archive may list a thousand images."""
        for place, (root, node) in enumerate(zip(roots, nodes, strict=True)):
            self._spoken.update(root.references)
            for reference in root.references:
                self._named.setdefault(reference, []).append(place)
            for each in images_of(node) if node is not None else ():
                if each.manifest is not None:
                    config = each.manifest.config.digest
                    self._homes.setdefault(config, (place, each))
                    if config in self._names:
                        self._homes.setdefault(self._names[config], (place, each))

    def _from_other_names(self, root: Root) -> Root:
        """Fill layers whose file is not there, when the same layer lies in the archive under another name."""
        draft = root.draft
        if draft is None or draft.complete:
            return root
        slots = []
        for slot in draft.slots:
            layer = slot.layer
            if layer is None and slot.diff_id in self._names:
                layer = Descriptor(mediatype.LAYER, slot.diff_id, self._members.files[self._names[slot.diff_id]])
                self._warn("E_MISSING", root.title, f"{slot.expected_in} is not there, but the same layer is elsewhere")
            slots.append(replace(slot, layer=layer))
        return _settled(replace(root, draft=replace(draft, slots=tuple(slots))), self._library)

    def _warn(self, code: str, subject: str, message: str) -> None:
        self._findings.append(Finding(code, "warning", subject, message))

    def _title(self, image: DockerImage) -> str:
        return image.references[0].familiar if image.references else image.item.config

    def _from_docker(self, image: DockerImage) -> Root:
        labels = tuple(reference.familiar for reference in image.references)
        draft = draft_of(image, self._members, self._names, self._slots)
        return _settled(Root(None, labels, image.references, image.parent, draft), self._library)

    def _layers(self, image: DockerImage) -> tuple[tuple[str, Descriptor | None], ...]:
        """The layers of an image whose config is not here, by their bytes: another archive may have the config."""
        layers: list[tuple[str, Descriptor | None]] = []
        for path, name in zip(image.item.layers, image.layer_names, strict=True):
            layer = layer_descriptor(self._members, name, None) if name is not None else None
            if layer is not None and name is not None:
                self._names.setdefault(layer.digest, name)
            layers.append((f"{self._members.label}: {path}", layer))
        return tuple(layers)

    def _find(self, image: DockerImage, nodes: Sequence[Node | None]) -> tuple[int | None, Node | None]:
        """The image of the OCI view with the config of ``image``: the views may name one file by two algorithms."""
        if image.config is None:
            return None, None
        found = self._homes.get(image.config.digest) or self._homes.get(image.config_name)
        if found is None:
            return None, None
        place, node = found
        return place, node if nodes[place] is not None else None

    def _promised(self, image: DockerImage, roots: Sequence[Root]) -> bool:
        """Whether the OCI view speaks of an image whose config the archive lacks, so that it will report the gap."""
        return not self._spoken.isdisjoint(image.references) if image.references else bool(roots)

    def _whole(self, image: DockerImage, nodes: Sequence[Node | None]) -> bool:
        """Whether the OCI view has all of what it says under the names of ``image``, as one image.

        Of an index some platforms may be absent on purpose, and ``manifest.json`` may speak of one of those.
        """
        if image.references:
            places = {place for name in image.references for place in self._named.get(name, ())}
        else:
            places = set(range(len(nodes)))
        for place in places:
            # Asked once for each: an archive may list a thousand images that have no config and no name.
            if place not in self._wholes:
                node = nodes[place]
                self._wholes[place] = (
                    node is not None
                    and node.manifest is not None
                    and all(each.digest in self._names for each in (node.manifest.config, *node.manifest.layers))
                )
        return all(self._wholes[place] for place in places)

    def _lost_layers(self, image: DockerImage, node: Node | None) -> list[str]:
        """The files that ``manifest.json`` names for layers, and that are not there though the layers are."""
        if node is None or node.manifest is None:
            return []
        places = zip(image.item.layers, image.layer_names, node.manifest.layers, strict=False)
        return [path for path, name, layer in places if path and name is None and layer.digest in self._names]

    def _shows_another_platform(self, image: DockerImage, place: int, root: Node | None) -> None:
        """Docker with the containerd store shows the platform of the machine on which it saved."""
        if root is not None and root.index is not None and image.config is not None:
            # An archive may list one of its images a thousand times.
            if place not in self._shown:
                shown = preferred(root)
                self._shown[place] = shown.manifest if shown is not None else None
            first = self._shown[place]
            if first is not None and first.config.digest != image.config.digest:
                message = (
                    f"manifest.json shows {image.config.digest} of it, which Docker's classic store loads; others take "
                    "the one for their machine"
                )
                self._findings.append(Finding("E_TYPE", "info", self._title(image), message))

    def _lost(self, path: str) -> str:
        return f"manifest.json names {shown(path)}, which is not there; index.json is whole and is believed"

    def _no_contradiction(self, image: DockerImage, nodes: Sequence[Node | None]) -> None:
        """Refuse one name for two images (H43), also when ``manifest.json`` only says which config it means.

        The name may stand for several platforms. Where the OCI view lacks a document itself, it may be that one's.
        """
        said = image.config.digest if image.config is not None else digest_in_path(image.item.config)
        if said is None:
            return
        for name in image.references:
            known, files, whole = self._below(tuple(self._named.get(name, ())), nodes)
            agreed = said in known or (image.config is not None and image.config_name in files)
            if known and whole and not agreed:
                some = ", ".join(sorted(map(str, known))[:3])
                raise Refused(
                    "E_TYPE",
                    f"two different images under one tag: {name.familiar} is {said} in manifest.json and {some} in index.json",
                    where=self._members.label,
                    hint="Docker and containerd would load different images from this archive: make it again",
                )

    def _below(self, places: tuple[int, ...], nodes: Sequence[Node | None]) -> tuple[set[Digest], set[str], bool]:
        """The configs of the images at some places, their files, and whether that is all of them."""
        if places not in self._configs:
            below = [_configs_below(nodes[place]) for place in places]
            known = {digest for configs, _ in below for digest in configs}
            files = {self._names[digest] for digest in known if digest in self._names}
            self._configs[places] = known, files, all(complete for _, complete in below)
        return self._configs[places]

    def _same_layers(self, image: DockerImage, node: Node) -> bool:
        assert node.manifest is not None
        if self._inverted != len(self._names):
            self._inverted = len(self._names)
            self._digests = {name: digest for digest, name in self._names.items()}
        said = [self._digests.get(name) if name is not None else None for name in image.layer_names]
        listed = [layer.digest for layer in node.manifest.layers]
        if len(said) != len(listed):
            return False
        # An absent file, or one that is no blob of the layout, cannot contradict.
        return all(one is None or one == other for one, other in zip(said, listed, strict=True))

    def _with_names(self, root: Root, image: DockerImage) -> Root:
        if root.references and image.references and not set(root.references) & set(image.references):
            message = f"index.json calls it {root.references[0].familiar}; both names are understood"
            self._warn("E_NAME", self._title(image), message)
        # What index.json gives to another entry is that one's name: an index may list the image of another entry.
        extra = [one for one in image.references if one not in root.references and one not in self._named]
        labels = root.labels or tuple(reference.familiar for reference in extra)
        parent = root.parent or image.parent
        return replace(root, labels=labels, references=(*root.references, *extra), parent=parent)


def _configs_below(node: Node | None) -> tuple[set[Digest], bool]:
    """Every config of the images of a root, and whether all its documents are here."""
    if node is None:
        return set(), True
    every = list(nodes_of(node))
    return {each.manifest.config.digest for each in every if each.manifest is not None}, not any(
        each.absent for each in every
    )


def _one_each(roots: Sequence[Root], where: str, limits: Limits) -> list[Root]:
    """Join roots of one digest: a docker archive may list one image twice, or a thousand times."""
    groups: dict[Digest | int, list[Root]] = {}
    for place, root in enumerate(roots):
        groups.setdefault(root.descriptor.digest if root.descriptor is not None else place, []).append(root)
    result = []
    for first, *others in groups.values():
        if others:
            every = (first, *others)
            labels = tuple(dict.fromkeys(label for root in every for label in root.labels))
            references = tuple(dict.fromkeys(reference for root in every for reference in root.references))
            if len(references) > limits.names_per_image:
                message = f"one image has {len(references)} names, the limit is {limits.names_per_image}"
                raise Refused("E_LIMIT", message, where=where)
            parent = next((root.parent for root in every if root.parent), None)
            first = replace(first, labels=labels, references=references, parent=parent)
        result.append(first)
    return result
