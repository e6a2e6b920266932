"""From a root down: which documents and blobs belong to it, and what each is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from imgtar.errors import Refused
from imgtar.frozen import field, frozen
from imgtar.graph.library import Library
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import EMPTY_JSON, Digest
from imgtar.model.documents import ImageConfig, Index, Manifest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.model.platform import Platform

__all__ = [
    "BlobKind",
    "Node",
    "Part",
    "Walker",
    "images_of",
    "is_called_attestation",
    "nodes_of",
    "parts_of",
    "platform_of",
]

BlobKind = Literal["manifest", "index", "config", "layer", "blob"]


@frozen
class Node:
    """A descriptor with what stands behind it.

    ``index`` or ``manifest`` is set when the document is here; ``config`` when it is an image whose config is here.
    ``absent`` means that the document itself is not here; ``fault`` that it contradicts itself, and why. ``lookalike``
    means an artifact with the config of an image: engines that do not look at media types would run it, if its layers
    were archives.
    """

    descriptor: Descriptor
    index: Index | None = None
    manifest: Manifest | None = None
    config: ImageConfig | None = None
    children: tuple[Node, ...] = ()
    absent: bool = False
    opaque: bool = False
    fault: Refused | None = None
    lookalike: bool = False

    @property
    def is_image(self) -> bool:
        """Whether this is one image that can run, whatever is written on it: not an index, not an artifact."""
        return self.manifest is not None and (self.manifest.is_image or self.config is not None)

    @property
    def is_attestation(self) -> bool:
        """Whether this is about an image: marked so, and nothing that could run; of an absent one the marks are known."""
        return self.index is None and not self.is_image and is_marked(self.descriptor, self.manifest)

    @property
    def diff_ids(self) -> tuple[Digest, ...] | None:
        """The diff IDs of the layers, when they can be told: the config is here and counts as many as the manifest."""
        if self.manifest is None or self.config is None or not self.is_image:
            return None
        return self.config.diff_ids


@frozen
class Part:
    """One blob that belongs to a root: its role, and for a layer of an image its diff ID and position (from 1)."""

    descriptor: Descriptor
    kind: BlobKind
    owner: Node
    diff_id: Digest | None = None
    position: int = 0
    foreign: bool = field(default=False)
    inert: bool = field(default=False)
    """A layer of another kind below the config of an image: it must not be an archive, or the manifest could run."""


def is_called_attestation(descriptor: Descriptor, manifest: Manifest | None = None) -> bool:
    """Whether it is called an attestation in so many words (moby/buildkit docs/attestations/attestation-storage.md)."""
    types = (descriptor.artifact_type, manifest.artifact_type if manifest is not None else "")
    return bool(descriptor.annotations.get(mediatype.DOCKER_REFERENCE_TYPE)) or (
        mediatype.ATTESTATION_ARTIFACT_TYPE in types
    )


def is_marked(descriptor: Descriptor, manifest: Manifest | None = None) -> bool:
    """Whether something says that this is an attestation: a name for it, an unknown platform, in-toto layers."""
    if is_called_attestation(descriptor, manifest):
        return True
    if descriptor.platform is not None and descriptor.platform.is_unknown:
        return True
    if manifest is None or not manifest.layers:
        return False
    return all(mediatype.is_attestation_layer(layer.media_type) for layer in manifest.layers)


class Walker:
    """Grows nodes from descriptors. Each digest is looked at once, whatever refers to it how often."""

    def __init__(self, library: Library, limits: Limits = DEFAULT_LIMITS) -> None:
        self._library = library
        self._limits = limits
        self._done: dict[tuple[Digest, str, Platform | None, bool], Node] = {}
        self._roles: dict[Digest, str] = {}
        self._sizes: dict[Digest, int] = {}
        self._visited = 0

    def grow(self, descriptor: Descriptor, depth: int = 0) -> Node:
        """Return the node of ``descriptor`` and all below it.

        Raises :class:`Refused`: ``E_LIMIT`` (too deep or too wide), ``E_TYPE`` (a digest in two roles, an image that is
        called an attestation), ``E_SIZE`` (a digest with two sizes), ``E_DIFFID`` (layer count differs from the
        config's), or what a document objects to.
        """
        if depth > self._limits.index_depth:
            message = f"indexes are nested deeper than {self._limits.index_depth} levels"
            raise Refused("E_LIMIT", message, where=str(descriptor.digest))
        kind = self._library.kind(descriptor)
        role = "index" if mediatype.is_index(kind) else "manifest" if mediatype.is_manifest(kind) else "blob"
        self._note(descriptor, role)
        # The same manifest may stand under two platforms; what a node is depends on the marks of its descriptor, and a media
        # type that the document denies is wrong whoever was asked first.
        key = (descriptor.digest, descriptor.media_type, descriptor.platform, is_called_attestation(descriptor))
        node = self._done.get(key)
        if node is None:
            node = self._grow(descriptor, role, depth)
            self._done[key] = node
        return node

    def _grow(self, descriptor: Descriptor, role: str, depth: int) -> Node:
        if role == "blob":
            return Node(descriptor, opaque=True)
        if role == "index":
            if is_called_attestation(descriptor):
                message = "is called an attestation, but it is an index of images: some engines would hide them"
                raise Refused("E_TYPE", message, where=str(descriptor.digest), hint=_AGAIN)
            index = self._library.index(descriptor)
            if index is None:
                return Node(descriptor, absent=True)
            return Node(
                descriptor, index=index, children=tuple(self.grow(child, depth + 1) for child in index.manifests)
            )
        manifest = self._library.manifest(descriptor)
        if manifest is None:
            return Node(descriptor, absent=True)
        self._note(manifest.config, "config")
        for layer in manifest.layers:
            self._note(layer, "layer")
        node = self._as_image(descriptor, manifest)
        if node.is_image and is_called_attestation(descriptor, manifest):
            message = (
                "is called an attestation, but it is an image that runs: some engines would load it and others not"
            )
            raise Refused("E_TYPE", message, where=str(descriptor.digest), hint=_AGAIN)
        return node

    def _as_image(self, descriptor: Descriptor, manifest: Manifest) -> Node:
        """The node of a manifest with its config when that makes an image of it.

        Found by trying: containerd looks at no media type of a config, only at its content, and podman at none of a layer,
        only at its bytes. Both take what has no media type, and podman every config below a manifest of Docker's. So below the config of an image layers of another kind must not
        be archives, and below another config layers make an image if that has the content of a config.
        """
        count, kind = len(manifest.layers), manifest.config.media_type
        # Of Docker's own manifests podman takes every config for that of an image.
        named = mediatype.is_image_config(kind) or not kind or manifest.media_type == mediatype.DOCKER_MANIFEST
        if not all(_is_taken_for_layer(layer) for layer in manifest.layers):
            if not named:
                return Node(descriptor, manifest=manifest)  # No engine runs layers of another kind below that.
            if mediatype.is_image_config(kind) and manifest.mixed:
                config = self._library.config(manifest.config)
                if config is not None and len(config.diff_ids) != count:
                    raise _miscounted(descriptor, config, count)
            return Node(descriptor, manifest=manifest, lookalike=True)
        if mediatype.is_image_config(kind) or (named and count):
            config = self._library.config(manifest.config, typed=False)
        else:
            config = self._library.unnamed_config(manifest.config) if count else None
        if config is not None and len(config.diff_ids) != count:
            raise _miscounted(descriptor, config, count)
        return Node(descriptor, manifest=manifest, config=config)

    def _note(self, descriptor: Descriptor, role: str) -> None:
        self._visited += 1
        if self._visited > self._limits.descriptors:
            raise Refused("E_LIMIT", f"more than {self._limits.descriptors} descriptors", where=str(descriptor.digest))
        known = self._sizes.setdefault(descriptor.digest, descriptor.size)
        if known != descriptor.size:
            message = f"one descriptor says {known} bytes, another {descriptor.size}"
            raise Refused("E_SIZE", message, where=str(descriptor.digest))
        # The two bytes "{}" serve as config and as layer of artifacts (image-spec manifest.md, empty descriptor).
        if descriptor.digest == EMPTY_JSON:
            return
        other = self._roles.setdefault(descriptor.digest, role)
        if other != role and {other, role} & {"manifest", "index"}:
            message = f"is called a {other} by one descriptor and a {role} by another"
            raise Refused("E_TYPE", message, where=str(descriptor.digest))


def _miscounted(descriptor: Descriptor, config: ImageConfig, count: int) -> Refused:
    message = f"the manifest has {count} layers, its config {len(config.diff_ids)} diff IDs"
    return Refused("E_DIFFID", message, where=str(descriptor.digest))


def _is_taken_for_layer(layer: Descriptor) -> bool:
    return not layer.media_type or mediatype.is_layer(layer.media_type)


_AGAIN = "make the archive again from its source, and do not trust this one"


def platform_of(node: Node) -> Platform | None:
    """The platform of an image: what its descriptor says, else its config (Docker leaves it out of ``index.json``).

    A descriptor that names only half of it, or calls it unknown, counts when there is no config to ask.
    """
    said = node.descriptor.platform
    if said is not None and said.architecture and said.os and not (said.is_unknown and node.config is not None):
        return said
    if node.config is not None and (node.config.platform.os or node.config.platform.architecture):
        return node.config.platform
    return said if said is not None and said.architecture else None


def images_of(node: Node) -> Iterator[Node]:
    """Every image at or below ``node``, in index order, each once."""
    seen: set[Digest] = set()
    for each in nodes_of(node):
        if each.is_image and each.descriptor.digest not in seen:
            seen.add(each.descriptor.digest)
            yield each


def nodes_of(node: Node, wanted: Callable[[Node], bool] = lambda _node: True) -> Iterator[Node]:
    """``node`` and everything below it, each once however many ways lead to it; ``wanted`` prunes child nodes."""
    stack = [node]
    seen: set[int] = set()
    while stack:
        each = stack.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        stack.extend(child for child in reversed(each.children) if wanted(child))


def parts_of(node: Node, wanted: Callable[[Node], bool] = lambda _node: True) -> Iterator[Part]:
    """Every blob at or below ``node``, children before parents; ``wanted`` prunes child nodes.

    Each digest comes once, but for a layer for which several diff IDs are claimed: then once for each claim.
    """
    seen: set[tuple[Digest, Digest | None]] = set()
    visited: set[int] = set()
    # Post-order without recursion: a node is emitted when it is met the second time, after everything below it.
    stack: list[tuple[Node, bool]] = [(node, False)]
    while stack:
        each, below_done = stack.pop()
        if below_done:
            for part in _own_parts(each):
                key = (part.descriptor.digest, part.diff_id)
                if key not in seen:
                    seen.add(key)
                    yield part
        elif id(each) not in visited:
            visited.add(id(each))
            stack.append((each, True))
            stack.extend((child, False) for child in reversed(each.children) if wanted(child))


def _own_parts(node: Node) -> Iterable[Part]:
    parts: list[Part] = []
    if node.manifest is not None:
        diff_ids: Sequence[Digest | None] = node.diff_ids or [None] * len(node.manifest.layers)
        for position, (layer, diff_id) in enumerate(zip(node.manifest.layers, diff_ids, strict=True), 1):
            foreign = mediatype.is_foreign_layer(layer.media_type)
            inert = node.lookalike and not _is_taken_for_layer(layer)
            parts.append(Part(layer, "layer", node, diff_id, position, foreign, inert))
        parts.append(Part(node.manifest.config, "config", node))
    kind: BlobKind = "index" if node.index is not None else "blob" if node.opaque else "manifest"
    if node.absent and mediatype.is_index(node.descriptor.media_type):
        kind = "index"
    parts.append(Part(node.descriptor, kind, node))
    return parts
