"""From catalogs to candidates: each root with its node, images without a manifest completed where that can be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from imgtar.errors import Refused
from imgtar.frozen import replace
from imgtar.graph.catalog import Catalog, Draft, Root, Slot
from imgtar.graph.chains import complete_chains
from imgtar.graph.choice import one_image_for_each_platform
from imgtar.graph.claims import OBJECTED, Witness, false_diff_id, objection
from imgtar.graph.inventory import Inventory
from imgtar.graph.library import Library
from imgtar.graph.plan import Missing
from imgtar.graph.select import Candidate
from imgtar.graph.walk import Node, Walker, images_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.model.documents import digest_in_path, encode_manifest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

__all__ = ["brought_layers", "grow_candidates", "judged", "lost_digest", "settle"]


def settle(
    draft: Draft,
    brought: Mapping[Digest, Descriptor],
    held: Inventory,
    offered: Callable[[Digest], bool] = lambda _digest: False,
) -> Draft:
    """Fill the open slots of ``draft`` by diff ID with layers that are ``brought`` by another image or held.

    What a thin archive promises for a slot is taken where it is held, ``offered``, or can be made: so the image gets the
    manifest that it had. Nobody having anything, the promise stands, and will be the gap.
    """
    if draft.complete:
        return draft

    def filled(slot: Slot) -> Descriptor | None:
        if slot.layer is not None:
            return slot.layer
        found = brought.get(slot.diff_id) or held.layer_for(slot.diff_id)
        promised = slot.promised
        if promised is None or (found is not None and found.digest == promised.digest):
            return found
        holding = held.holding(promised.digest)
        kept = holding is not None and holding.sound and holding.size == promised.size
        as_it_was = kept or offered(promised.digest) or promised.digest == slot.diff_id
        return promised if as_it_was or found is None else found

    return replace(draft, slots=tuple(replace(slot, layer=filled(slot)) for slot in draft.slots))


def brought_layers(
    catalogs: Sequence[Catalog], candidates: Sequence[Candidate]
) -> dict[Digest, tuple[Descriptor, Catalog]]:
    """Layers on offer by the diff ID that some config claims for them, each with who offers it."""
    layers: dict[Digest, tuple[Descriptor, Catalog]] = {}
    for candidate in candidates:
        for node in images_of(candidate.node):
            pairs = zip(node.manifest.layers if node.manifest else (), node.diff_ids or (), strict=False)
            for layer, diff_id in pairs:
                for catalog in catalogs:
                    if diff_id not in layers and catalog.offers.get(layer.digest) == layer.size:
                        layers[diff_id] = (layer, catalog)
    return layers


Grow = Callable[[Descriptor], Node]


def _growth(catalog: Catalog, library: Library, limits: Limits) -> Grow:
    """How the roots of a catalog are grown.

    What one archive says of a digest is one word, and must agree. The roots of a store came from many: each is judged by
    itself, and one that is wrong (``fault``) must not keep people from the others they have.
    """
    if catalog.form != "store":
        return Walker(library, limits).grow
    grown: dict[Digest, Node] = {}

    def grow(descriptor: Descriptor) -> Node:
        if descriptor.digest not in grown:
            grown[descriptor.digest] = judged(descriptor, library, catalog.witness, limits)
        return grown[descriptor.digest]

    return grow


def _brought(catalogs: Sequence[Catalog], growth: Sequence[Grow]) -> dict[Digest, Descriptor]:
    """Layers on offer by the diff ID that some config claims for them; the claim is proved when they are received."""
    layers: dict[Digest, Descriptor] = {}

    def take(diff_id: Digest, layer: Descriptor) -> None:
        # Of several forms the plain one, else the one with the smallest digest: the order of the archives must not count.
        known = layers.get(diff_id)
        if known is None or (layer.digest != diff_id, layer.digest) < (known.digest != diff_id, known.digest):
            layers[diff_id] = layer

    for catalog, grow in zip(catalogs, growth, strict=True):
        for root in catalog.roots:
            if root.draft is not None:
                for slot in root.draft.slots:
                    if slot.layer is not None:
                        take(slot.diff_id, slot.layer)
            elif root.descriptor is not None:
                for node in images_of(grow(root.descriptor)):
                    pairs = zip(node.manifest.layers if node.manifest else (), node.diff_ids or (), strict=False)
                    for layer, diff_id in pairs:
                        if any(layer.digest in one.offers for one in catalogs):
                            take(diff_id, layer)
        for image in catalog.v1.values():
            if image.layer is not None and image.diff_id is not None:
                take(image.diff_id, image.layer)
    return layers


def grow_candidates(
    catalogs: Sequence[Catalog], held: Inventory, limits: Limits = DEFAULT_LIMITS
) -> tuple[list[Candidate], list[tuple[Root, list[Missing]]]]:
    """Return every root with its node, and the gaps of images whose layers nobody has, so that they have no node."""
    candidates: list[Candidate] = []
    lost: list[tuple[Root, list[Missing]]] = []
    libraries = _libraries(catalogs, held)
    growth = [_growth(catalog, library, limits) for catalog, library in zip(catalogs, libraries, strict=True)]
    completed = complete_chains(catalogs, limits)
    incomplete = any(
        bool(root.lost_config) or (root.draft is not None and not root.draft.complete)
        for each in catalogs
        for root in each.roots
    )
    brought = _brought(catalogs, growth) if incomplete else {}

    def offered(digest: Digest) -> bool:
        return any(digest in catalog.offers for catalog in catalogs)

    for position, catalog in enumerate(catalogs):
        for root, gaps in completed[position]:
            descriptor = root.descriptor
            if gaps:
                lost.append((root, gaps))
                continue
            if root.lost_config:
                found = _with_config(root, catalogs, held, libraries[position])
                if found is None:
                    lost.append((root, [_config_gap(root, catalog), *_lost_layer_gaps(root)]))
                    continue
                root = found
            if descriptor is None:
                assert root.draft is not None
                draft = settle(root.draft, brought, held, offered)
                if not draft.complete:
                    lost.append((root, _draft_gaps(root, draft, catalog)))
                    continue
                layers = tuple(slot.layer for slot in draft.slots if slot.layer is not None)
                raw = encode_manifest(draft.config, layers)
                descriptor = Descriptor(mediatype.IMAGE_MANIFEST, Digest.of(raw), len(raw))
                catalog.library.add(descriptor.digest, raw)
                root = replace(root, descriptor=descriptor, draft=draft)
            node = growth[position](descriptor)
            if catalog.form != "store":  # There each root was judged as it was grown.
                one_image_for_each_platform(node)
            candidates.append(Candidate(root, node, position))
        if catalog.witness is not None:
            candidates = _agreed(candidates, position, catalog.witness)
    return candidates, lost


def judged(descriptor: Descriptor, library: Library, witness: Witness | None, limits: Limits) -> Node:
    """The node of a root of a store; one with a ``fault`` and nothing else for what cannot be believed."""
    try:
        node = Walker(library, limits).grow(descriptor)
        one_image_for_each_platform(node)
        error = objection(node, witness) if witness is not None else None
    except Refused as refused:
        error = refused
    if error is None:
        return node
    error.hint = OBJECTED
    return Node(descriptor, absent=True, fault=error)


def _agreed(candidates: list[Candidate], position: int, witness: Witness) -> list[Candidate]:
    """The candidates, those at fault that name another diff ID for a layer than others do, and than it has."""
    claimed: dict[Digest, dict[Digest, list[int]]] = {}
    for place, one in enumerate(candidates):
        for image in images_of(one.node) if one.position == position else ():
            for layer, diff_id in zip(
                image.manifest.layers if image.manifest else (), image.diff_ids or (), strict=False
            ):
                claimed.setdefault(layer.digest, {}).setdefault(diff_id, []).append(place)
    faults: dict[int, Refused] = {}
    for digest, claims in claimed.items():
        actual = witness.measured_diff_id(digest) if len(claims) > 1 and digest.supported else None
        if actual is not None:
            for diff_id in claims.keys() - {actual}:
                faults.update(dict.fromkeys(claims[diff_id], false_diff_id(digest, diff_id, actual)))
    return [
        replace(one, node=Node(one.node.descriptor, absent=True, fault=faults[place])) if place in faults else one
        for place, one in enumerate(candidates)
    ]


def _libraries(catalogs: Sequence[Catalog], held: Inventory) -> list[Library]:
    # Documents may be in another archive of the same load, or with the receiver (an OCI layout may lack blobs).
    libraries = []
    for position, catalog in enumerate(catalogs):
        others = [other.library for place, other in enumerate(catalogs) if place != position]
        libraries.append(catalog.library.then(*others, held.library))
    return libraries


def lost_digest(root: Root) -> Digest | None:
    """The image ID in the path of a config that is not in its archive."""
    return digest_in_path(root.lost_config)


def _with_config(root: Root, catalogs: Sequence[Catalog], held: Inventory, library: Library) -> Root | None:
    """The image of a docker archive that lacks its config, completed by one that is elsewhere."""
    digest = lost_digest(root)
    if digest is None:
        return None
    sizes = [size for catalog in catalogs if (size := catalog.offers.get(digest)) is not None]
    holding = held.holding(digest)
    if holding is not None and holding.sound:
        sizes.append(holding.size)
    if not sizes:
        return None
    config = Descriptor(mediatype.IMAGE_CONFIG, digest, sizes[0])
    parsed = library.config(config)
    if parsed is None:
        return None
    if len(parsed.diff_ids) != len(root.lost_layers):
        message = (
            f"the image has {len(root.lost_layers)} layers in manifest.json, its config {len(parsed.diff_ids)} diff IDs"
        )
        raise Refused("E_DIFFID", message, where=str(digest))
    slots = tuple(
        Slot(diff_id, layer, path) for diff_id, (path, layer) in zip(parsed.diff_ids, root.lost_layers, strict=True)
    )
    return replace(root, draft=Draft(config, parsed, slots), lost_config="", lost_layers=())


def _lost_layer_gaps(root: Root) -> list[Missing]:
    """The layer files that are not there either; without the config not even their diff IDs are known."""
    needed = tuple(reference.familiar for reference in root.references) or (printable(root.title),)
    hint = f"save {printable(root.title)} again where it is whole"
    return [
        Missing("layer", None, None, None, needed, path, "absent", hint, ((needed[0], f"layer {place}"),))
        for place, (path, layer) in enumerate(root.lost_layers, 1)
        if layer is None
    ]


def _config_gap(root: Root, catalog: Catalog) -> Missing:
    digest = lost_digest(root)
    needed = tuple(reference.familiar for reference in root.references) or (printable(root.title),)
    hint = f"the archive names the config but does not hold it: save {printable(root.title)} again where it is whole"
    through = ((needed[0], "config"),)
    return Missing(
        "config", digest, None, None, needed, f"{catalog.label}: {root.lost_config}", "absent", hint, through
    )


def _draft_gaps(root: Root, draft: Draft, catalog: Catalog) -> list[Missing]:
    needed = tuple(reference.familiar for reference in root.references) or (str(draft.config.digest),)
    hint = f"bring the archive that has the layers of {root.title}, or save it again in full"
    return [
        Missing(
            "layer",
            None,
            slot.diff_id,
            None,
            needed,
            slot.expected_in or catalog.label,
            "absent",
            hint,
            ((needed[0], f"layer {place}"),),
        )
        for place, slot in enumerate(draft.slots, 1)
        if slot.layer is None
    ]
