"""Which candidates have the platforms that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.errors import NotFound, Refused
from imgtar.graph.select import Candidate, Policy, subject_of
from imgtar.graph.walk import Node, platform_of
from imgtar.model import mediatype
from imgtar.model.digest import Digest
from imgtar.text import printable

__all__ = ["attested_by", "for_platforms"]


def for_platforms(candidates: Sequence[Candidate], policy: Policy) -> list[Candidate]:
    """The candidates that have a wanted platform. Raises :class:`NotFound` for a platform that nothing here has, and
    for an image that was asked for by name but lacks them all."""
    platforms = policy.platforms
    if not platforms:
        return list(candidates)

    def fits(node: Node) -> bool:
        platform = platform_of(node)
        return platform is not None and any(platform.matches(wanted) for wanted in platforms)

    def all_of(one: Candidate) -> list[Node]:
        return [
            node
            for node in (one.node, *one.node.children)
            if node.index is None and not node.is_attestation and (node.is_image or node.absent)
        ]

    kept = []
    for one in candidates:
        if any(fits(node) for node in all_of(one)):
            kept.append(one)
        elif all_of(one) and (policy.select or policy.every_name):
            there = ", ".join(sorted({str(platform_of(node)) for node in all_of(one)}))
            wanted = ", ".join(map(str, platforms))
            raise NotFound(f"{printable(one.root.title)} has no platform {wanted}", hint=f"it has: {printable(there)}")
    found = [platform_of(node) for one in kept for node in all_of(one)]
    for wanted_one in platforms:
        if not any(platform is not None and platform.matches(wanted_one) for platform in found):
            there = ", ".join(sorted({str(platform_of(node)) for one in candidates for node in all_of(one)}))
            raise NotFound(f"no image for platform {wanted_one}", hint=f"there is: {printable(there) or 'no image'}")
    reachable = {node.descriptor.digest for one in kept for node in (one.node, *one.node.children)}
    return kept + [one for one in candidates if one not in kept and subject_of(one) in reachable]


def attested_by(node: Node) -> Digest | None:
    """The manifest that an attestation is about, by annotation or subject; ``None`` for anything else."""
    text = node.descriptor.annotations.get(mediatype.DOCKER_REFERENCE_DIGEST)
    if text is None:
        return node.manifest.subject.digest if node.manifest is not None and node.manifest.subject else None
    try:
        return Digest.parse(text)
    except Refused:
        return None  # Free text in an annotation: it attests nothing that we know.
