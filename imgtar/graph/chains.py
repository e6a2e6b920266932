"""Parent chains of pre-1.10 archives over all archives of one load: completed from each other, else told as gaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog, Draft, Root, Slot
from imgtar.graph.plan import Missing
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import parse_config
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

if TYPE_CHECKING:  # Few archives are that old.
    from imgtar.graph.v1 import Step, V1Image

__all__ = ["check_height", "complete_chains", "draft_of_chain"]

_LONGEST_WAY = 100


def check_height(tops: Iterable[Step], limits: Limits) -> None:
    """Refuse chains that are too long together: many images may share one chain, but each gets all layers of it."""
    height = 0
    for top in tops:
        height += top.height
        if height > limits.descriptors:
            message = f"the parent chains have more than {limits.descriptors} layers in all"
            raise Refused("E_LIMIT", message, where=top.image.label)


def draft_of_chain(top: Step, limits: Limits = DEFAULT_LIMITS) -> tuple[Draft, bytes]:
    """The image at the ``top`` of a whole chain as an image of today, and the bytes of its config."""
    from imgtar.graph.v1 import convert

    assert top.whole
    raw = convert(top)
    config = Descriptor(mediatype.IMAGE_CONFIG, Digest.of(raw), len(raw))
    parsed = parse_config(raw, f"{top.image.label}: {top.image.identity}", limits, brief=True)
    slots = []
    for step in top.down():
        image = step.image
        assert image.diff_id is not None
        slots.append(Slot(image.diff_id, image.layer, f"{image.label}: {image.identity}/layer.tar"))
    return Draft(config, parsed, tuple(slots[::-1])), raw


def complete_chains(
    catalogs: Sequence[Catalog], limits: Limits = DEFAULT_LIMITS
) -> list[list[tuple[Root, list[Missing]]]]:
    """The roots of each catalog, those whose chain is cut there completed from all; with each what it still lacks.

    What comes out is what one archive with everything would have given: an image without a name that turns out to be
    the parent of another is no root. Raises ``E_GRAPH`` for a loop over several archives, and for two archives that
    give one ID different content.
    """
    if not any(root.cut for catalog in catalogs for root in catalog.roots):
        return [[(root, []) for root in catalog.roots] for catalog in catalogs]
    from imgtar.graph.v1 import Chains

    table = _Table(catalogs)
    chains = Chains(table.find, limits)
    tops: dict[str, Step] = {}
    for root in (root for catalog in catalogs for root in catalog.roots if root.cut):
        image = table.find(root.v1_id)
        assert image is not None
        tops[root.v1_id] = chains.up_to(image)
    check_height(tops.values(), limits)
    inside_whole = _inside(top for top in tops.values() if top.whole)
    inside_cut = _inside(top for top in tops.values() if not top.whole)
    gaps = _Gaps()
    result = []
    for catalog in catalogs:
        roots: list[tuple[Root, list[Missing]]] = []
        for root in catalog.roots:
            still_cut = root.cut and not tops[root.v1_id].whole
            if not root.references and (root.v1_id in inside_whole or (still_cut and root.v1_id in inside_cut)):
                continue
            if still_cut:
                roots.append((root, gaps.of(tops[root.v1_id], root)))
                continue
            if root.cut:
                draft, raw = draft_of_chain(tops[root.v1_id], limits)
                catalog.library.add(draft.config.digest, raw)
                root = replace(root, draft=draft)
            roots.append((root, []))
        result.append(roots)
    return result


def _inside(tops: Iterable[Step]) -> set[str]:
    """The IDs of all images on which one of ``tops`` stands."""
    found: set[str] = set()
    for top in tops:
        for step in top.below.down() if top.below is not None else ():
            if step.image.identity in found:
                break
            found.add(step.image.identity)
    return found


class _Table:
    """Images by ID in all catalogs. One ID must be one image, whichever archive is asked first."""

    def __init__(self, catalogs: Sequence[Catalog]) -> None:
        self._tables = [catalog.v1 for catalog in catalogs if catalog.v1]

    def find(self, identity: str) -> V1Image | None:
        copies = [table[identity] for table in self._tables if identity in table]
        if not copies:
            return None
        first, *others = copies
        layers = [copy for copy in copies if copy.layer is not None]
        for other in others:
            if other.raw != first.raw:
                raise _contradiction("json", first, other)
        for other in layers[1:]:
            if other.diff_id != layers[0].diff_id:
                raise _contradiction("layer.tar", layers[0], other)
        # One layer in two compressions: plain, as Docker wrote it, whatever the order of the archives.
        return min(layers, key=_plain_first) if layers else first


def _plain_first(image: V1Image) -> tuple[bool, str]:
    assert image.layer is not None
    return image.layer.media_type != mediatype.LAYER, str(image.layer.digest)


def _contradiction(what: str, one: V1Image, other: V1Image) -> Refused:
    return Refused(
        "E_GRAPH",
        f"is needed to complete a parent chain, but has other content in {one.label}",
        where=f"{other.label}: {other.identity[:64]}/{what}",
        hint="the archives do not belong together: load them one by one, or save the image again where it is whole",
    )


class _Gaps:
    """What chains lack; an image that several lack is one gap, expected where it was first looked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Missing] = {}

    def of(self, top: Step, root: Root) -> list[Missing]:
        needed = tuple(reference.familiar for reference in root.references) or (printable(root.v1_id),)
        found = []
        way = [needed[0]]
        for step in top.down():
            image = step.image
            if len(way) < _LONGEST_WAY:
                way.append(printable(image.identity[:12]))
            if image.layer is None:
                found.append((self._layer(image), (*way, "layer.tar")))
            if step.below is None and image.parent:
                found.append((self._parent(image), (*way, printable(image.parent[:12]))))
        return [replace(gap, needed_by=needed, through=(way,)) for gap, way in found[::-1]]

    def _parent(self, child: V1Image) -> Missing:
        identity = child.parent
        known = self._known.get(("parent", identity))
        if known is None:
            known = Missing(
                kind="parent",
                digest=None,  # The ID was drawn by lot: it is the digest of nothing.
                diff_id=None,
                size=None,
                needed_by=(),
                expected_in=f"{child.label}: {identity[:255]}/json",
                gap_class="absent",
                hint=_PARENT_HINT,
            )
            self._known["parent", identity] = known
        return known

    def _layer(self, image: V1Image) -> Missing:
        known = self._known.get(("layer", image.identity))
        if known is None:
            known = Missing(
                kind="layer",
                digest=None,
                diff_id=None,
                size=None,
                needed_by=(),
                expected_in=f"{image.label}: {image.identity}/layer.tar",
                gap_class="absent",
                hint=_LAYER_HINT,
            )
            self._known["layer", image.identity] = known
        return known


_PARENT_HINT = (
    "bring the archive that holds the lower part of the image and give both to one load (-i ONE -i OTHER), or docker "
    "save the whole image again (a store does not keep these IDs); the layers of the parent are not here, so --parents warn or ignore cannot help"
)
_LAYER_HINT = (
    "bring another archive that holds this layer and give both to one load (-i ONE -i OTHER), or docker save the whole "
    "image again; --parents warn or ignore cannot help, the layer is a part of the image itself"
)
