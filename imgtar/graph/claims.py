"""What roots say of blobs: held against each other, and against what a receiver has proved.

Whoever lists a digest claims its size and what it is for. Nobody can be hurt by a claim of somebody else's: within one
archive, and among what arrives together, a contradiction is refused; in a store every root is judged by itself, by what
is held and was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from imgtar.errors import Refused
from imgtar.frozen import frozen
from imgtar.graph.inventory import Holding, Inventory
from imgtar.graph.walk import Node, nodes_of
from imgtar.model import mediatype
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import EMPTY_JSON, Digest
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import shown

__all__ = ["OBJECTED", "Claim", "Ledger", "Witness", "claims_of", "false_diff_id", "hold_against", "objection"]


class Witness(Protocol):
    """A store, asked about its own roots."""

    def size_of(self, digest: Digest) -> int | None:
        """The size of what lies there under a digest, whole or not; cheap."""
        ...

    def holding(self, digest: Digest) -> Holding | None:
        """See :class:`imgtar.graph.inventory.Inventory`."""
        ...

    def other_diff_id(self, digest: Digest, claimed: Digest) -> Digest | None:
        """The diff ID of a blob where that is known to be another one than ``claimed``; measured before it is said."""
        ...

    def measured_diff_id(self, digest: Digest) -> Digest | None:
        """The diff ID of a blob, read now."""
        ...


@frozen
class Claim:
    """What one document says of one blob. ``role`` is one of those of :class:`imgtar.graph.walk.Part`."""

    descriptor: Descriptor
    role: str
    diff_id: Digest | None = None


def claims_of(node: Node) -> Iterator[Claim]:
    """Everything that is claimed at or below ``node``, also of what was never shipped.

    A subject is only referred to: nobody reads it through the one who names it.
    """
    for each in nodes_of(node):
        media_type = each.descriptor.media_type
        if each.absent:
            yield Claim(each.descriptor, "index" if mediatype.is_index(media_type) else "manifest")
        else:
            yield Claim(each.descriptor, "index" if each.index else "manifest" if each.manifest else "blob")
        if each.manifest is not None:
            yield Claim(each.manifest.config, "config")
            diff_ids = each.diff_ids
            for place, layer in enumerate(each.manifest.layers):
                yield Claim(layer, "layer", diff_ids[place] if diff_ids is not None else None)


class Ledger:
    """Claims of roots that go together: in what arrives, and in what is written, a digest is one thing."""

    def __init__(self) -> None:
        self._sizes: dict[Digest, int] = {}
        self._roles: dict[Digest, str] = {}

    def enter(self, node: Node) -> None:
        """Take in what ``node`` claims. Raises :class:`Refused` (``E_SIZE``, ``E_TYPE``), and takes in nothing then."""
        claims = list(claims_of(node))
        for claim in claims:
            digest, size = claim.descriptor.digest, claim.descriptor.size
            known = self._sizes.get(digest, size)
            if known != size:
                raise Refused("E_SIZE", f"one says {known} bytes, another {size}", where=str(digest), hint=_APART)
            other = self._roles.get(digest, claim.role)
            if other != claim.role and {other, claim.role} & _DOCUMENTS and digest != EMPTY_JSON:
                message = f"is called a {other} by one, a {claim.role} by another"
                raise Refused("E_TYPE", message, where=str(digest), hint=_APART)
        for claim in claims:
            self._sizes[claim.descriptor.digest] = claim.descriptor.size
            self._roles.setdefault(claim.descriptor.digest, claim.role)


_DOCUMENTS = {"manifest", "index"}
_APART = "they contradict each other, so one of them is wrong: each by itself shows which"
_LIAR = "what is held was proved, so it is this archive that is wrong: make it again from its source"


def hold_against(held: Inventory, node: Node, left_out: set[int], limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise :class:`Refused` when something that arrives claims of a blob what the receiver knows to be false.

    That is also asked of what does not come along (``left_out``, by ``id``): nobody would prove it later. What comes is
    proved by whoever plans it.
    """
    for claim in claims_of(node):
        digest, size = claim.descriptor.digest, claim.descriptor.size
        holding = held.holding(digest) if digest.supported else None
        if holding is None or not holding.sound:
            continue
        if holding.size != size:
            message = f"a descriptor says {size} bytes, the receiver holds {holding.size}"
            raise Refused("E_SIZE", message, where=str(digest), hint=_LIAR)
        # Documents that come along were read, and so was what they call themselves.
        if claim.role in _DOCUMENTS or size > limits.document or digest == EMPTY_JSON:
            continue
        actual = held.document_type(digest)
        if actual is not None and held.has_image(digest):
            message = f"is called a {claim.role}, the receiver holds it as {shown(actual)}"
            raise Refused("E_TYPE", message, where=str(digest), hint=_LIAR)
    if not left_out:
        return
    coming = {id(each) for each in nodes_of(node, lambda child: id(child) not in left_out)}
    for each in nodes_of(node):
        if id(each) not in coming and each.manifest is not None and each.diff_ids is not None:
            for layer, diff_id in zip(each.manifest.layers, each.diff_ids, strict=True):
                _hold_diff_id(held, layer.digest, diff_id)


def _hold_diff_id(held: Inventory, digest: Digest, claimed: Digest) -> None:
    holding = held.holding(digest) if digest.supported and claimed.supported else None
    actual = held.diff_id_of(digest, claimed) if holding is not None and holding.sound else None
    if actual is not None and actual != claimed:
        message = f"is said to have the diff ID {claimed}, its content has {actual}"
        raise Refused("E_DIFFID", message, where=str(digest), hint=_LIAR)


OBJECTED = "it contradicts itself or what the store holds, so it cannot be used: imgtar rmi removes it"


def objection(node: Node, store: Witness) -> Refused | None:
    """What a store has to say against one of its own roots, by what it holds; ``None`` when it is nothing.

    A blob of another size than claimed may be damaged: then that is said elsewhere, and not held against the root.
    """
    unproved = node.index is not None
    for claim in claims_of(node):
        digest, size = claim.descriptor.digest, claim.descriptor.size
        if not digest.supported:
            continue
        lies = store.size_of(digest)
        if lies is None:
            continue
        if lies != size:
            holding = store.holding(digest)
            if holding is not None and holding.sound:
                message = f"it says {size} bytes for what has {holding.size}"
                return Refused("E_SIZE", message, where=str(digest), hint=OBJECTED)
        elif unproved and claim.diff_id is not None and claim.diff_id.supported:
            # Whatever is a root by itself was proved when it came; a platform that was left out was not.
            actual = store.other_diff_id(digest, claim.diff_id)
            if actual is not None:
                return false_diff_id(digest, claim.diff_id, actual)
    return None


def false_diff_id(digest: Digest, claimed: Digest, actual: Digest) -> Refused:
    """The objection against a root whose config names another diff ID than the layer has."""
    message = f"it says that the diff ID is {claimed}, the content has {actual}"
    return Refused("E_DIFFID", message, where=str(digest), hint=OBJECTED)
