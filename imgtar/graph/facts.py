"""What the documents say of each image here, whichever way it came: a manifest, an index, a docker archive's draft."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Root
from imgtar.graph.parents import WEIGHTS, Link, links_of
from imgtar.graph.select import Candidate
from imgtar.graph.thin import ThinImage, ThinRecord
from imgtar.graph.walk import Node, images_of, nodes_of, platform_of
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.platform import Platform
from imgtar.model.reference import Reference

__all__ = ["Facts", "Present", "facts_of"]

Present = Callable[[Digest], bool]
"""Whether the blob with a digest is here."""


@frozen
class Facts:
    """One image. ``key`` tells it from every other: its manifest's digest, or its ID where no manifest can be made.

    ``digest`` is ``None`` for an image of a docker archive, which has no manifest of its own. A layer is ``None`` when
    only its diff ID is known; ``diff_ids`` is ``None`` when the config is not here. ``links`` are the images that it says
    it stands on, the strongest word first.
    """

    key: Digest
    image_id: Digest
    digest: Digest | None
    names: tuple[str, ...]
    references: tuple[Reference, ...]
    platform: Platform | None
    config_size: int
    layers: tuple[Descriptor | None, ...]
    diff_ids: tuple[Digest, ...] | None
    links: tuple[Link, ...]

    @property
    def rank(self) -> tuple[bool, str, str, str, str]:
        """The order in which images are shown and preferred: those with a name first."""
        name = self.names[0] if self.names else ""
        return (not self.names, name, str(self.platform or ""), str(self.image_id), str(self.key))


def facts_of(
    candidates: Iterable[Candidate], lost: Iterable[Root], present: Present, thin: ThinRecord | None = None
) -> tuple[list[Facts], Mapping[Digest, Sequence[Digest]]]:
    """Return every image once, in order of rank, and for each index the keys of the images below it.

    ``lost`` are roots without a node: of a draft the config is known all the same. A platform that an index names but
    of which nothing is here is no image here.
    """
    found: dict[Digest, Facts] = {}
    indexes: dict[Digest, Sequence[Digest]] = {}
    for one in candidates:
        for node in images_of(one.node):
            if one.node.index is None or _shipped(node, present):
                _take(found, _of_node(node, one.root))
        said = thin.image(one.node.descriptor.digest) if thin is not None and one.node.absent else None
        if said is not None and thin is not None and said.image_id is not None:
            _take(found, _of_record(said, said.image_id, one.root, thin))
        for node in nodes_of(one.node):
            if node.index is not None:
                indexes[node.descriptor.digest] = [image.descriptor.digest for image in images_of(node)]
    brought = _layers_by_diff_id(found.values())
    for root in lost:
        if root.draft is not None:
            _take(found, _of_draft(root, brought))
    return sorted(found.values(), key=lambda image: image.rank), indexes


def _take(found: dict[Digest, Facts], image: Facts) -> None:
    """Add an image; of one that is here already, its further names."""
    known = found.setdefault(image.key, image)
    if known is not image:
        found[image.key] = replace(
            known,
            names=tuple(dict.fromkeys((*known.names, *image.names))),
            references=tuple(dict.fromkeys((*known.references, *image.references))),
            links=tuple(
                sorted({*known.links, *image.links}, key=lambda link: (WEIGHTS.index(link.weight), link.title))
            ),
        )


def _shipped(node: Node, present: Present) -> bool:
    # Docker keeps the manifest of a platform whose content it does not have (moby image_exporter.go).
    layers = node.manifest.layers if node.manifest is not None else ()
    return node.config is not None or any(present(layer.digest) for layer in layers)


def _of_node(node: Node, root: Root) -> Facts:
    manifest = node.manifest
    assert manifest is not None
    key = node.descriptor.digest
    return Facts(
        key,
        manifest.config.digest,
        key if root.draft is None else None,
        root.labels,
        root.references,
        platform_of(node),
        manifest.config.size,
        manifest.layers,
        node.diff_ids,
        links_of(root.parent, manifest, node.config),
    )


def _of_record(said: ThinImage, image_id: Digest, root: Root, thin: ThinRecord) -> Facts:
    """An image that a thin archive leaves out altogether, by the word of its record."""
    layers = [thin.requires[digest] for digest in said.layers if digest is not None]
    diff_ids = tuple(one.diff_id for one in layers if one.diff_id is not None)
    config = thin.requires.get(image_id)
    return Facts(
        said.digest,
        image_id,
        said.digest,
        root.labels,
        root.references,
        said.platform,
        config.descriptor.size if config is not None else 0,
        tuple(one.descriptor for one in layers),
        diff_ids if len(diff_ids) == len(layers) else None,
        links_of(root.parent, None, None),
    )


def _of_draft(root: Root, brought: Mapping[Digest, Descriptor]) -> Facts:
    draft = root.draft
    assert draft is not None
    return Facts(
        draft.config.digest,
        draft.config.digest,
        None,
        root.labels,
        root.references,
        draft.parsed.platform if draft.parsed.platform.architecture else None,
        draft.config.size,
        tuple(slot.layer or brought.get(slot.diff_id) for slot in draft.slots),
        tuple(slot.diff_id for slot in draft.slots),
        links_of(root.parent, None, draft.parsed),
    )


def _layers_by_diff_id(images: Iterable[Facts]) -> dict[Digest, Descriptor]:
    layers: dict[Digest, Descriptor] = {}
    for image in images:
        for layer, diff_id in zip(image.layers, image.diff_ids or (), strict=False):
            if layer is not None:
                layers.setdefault(diff_id, layer)
    return layers
