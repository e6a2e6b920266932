"""What below an index comes along: the platforms that are wanted and were shipped, and the attestations about them."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.graph.catalog import Catalog
from imgtar.graph.finding import Finding
from imgtar.graph.gaps import Gaps, needed_by
from imgtar.graph.inventory import Inventory
from imgtar.graph.platforms import attested_by
from imgtar.graph.select import Candidate, Policy
from imgtar.graph.walk import Node, nodes_of, platform_of
from imgtar.model.descriptor import Descriptor
from imgtar.model.digest import Digest
from imgtar.text import printable

__all__ = ["Shipping"]


class Shipping:
    """Tells a platform that was never shipped, which is normal, from one that is missing."""

    def __init__(self, catalogs: Sequence[Catalog], held: Inventory, policy: Policy, gaps: Gaps) -> None:
        self._catalogs = catalogs
        self._held = held
        self._policy = policy
        self._gaps = gaps

    def left_out(self, candidate: Candidate, place: int) -> tuple[set[int], list[Finding]]:
        """The nodes below the root (by ``id``) that do not come along, and what is worth a remark.

        ``place`` is where the candidate stands: a platform that was asked for and not shipped is a gap of it.
        """
        left: set[int] = set()
        remarks: list[Finding] = []
        for node in nodes_of(candidate.node):
            if node.index is not None:
                left |= self._of_index(node, candidate, place, remarks)
        return left, remarks

    def _of_index(self, node: Node, candidate: Candidate, place: int, remarks: list[Finding]) -> set[int]:
        left: set[int] = set()
        kept_digests: set[Digest] = set()
        absent: list[Node] = []
        wanted = self._policy.platforms
        for child in node.children:
            platform = platform_of(child)
            if child.is_attestation:
                continue
            if wanted and not (platform is not None and any(platform.matches(one) for one in wanted)):
                if child.index is None:
                    left.add(id(child))
                continue
            if self._not_shipped(child):
                left.add(id(child))
                absent.append(child)
            else:
                kept_digests.add(child.descriptor.digest)
        for child in node.children:
            if child.is_attestation:
                subject = attested_by(child)
                orphan = subject is not None and subject not in kept_digests
                lost = child.absent and self._gaps.promised(child.descriptor.digest) is None
                if lost or orphan or (wanted and subject is None):
                    left.add(id(child))
        title = needed_by(candidate) or (candidate.root.title,)
        for child in absent:
            if wanted or not kept_digests:
                self._gaps.platform(child, candidate, place)
            else:
                name = printable(str(platform_of(child) or child.descriptor.digest))
                message = f"platform {name} of {printable(title[0])} is not in the archive"
                remarks.append(Finding("E_MISSING", "warning", str(child.descriptor.digest), message, 4))
        return left

    def _not_shipped(self, child: Node) -> bool:
        if self._gaps.promised(child.descriptor.digest) is not None:
            return False  # The archive leaves it out because the receiver has it: where that is not so, it is a gap.
        if child.absent:
            return True
        # Docker keeps the manifest of a platform whose content it does not have (moby image_exporter.go).
        if child.manifest is None or not child.is_image or child.config is not None:
            return False
        return not self._available(child.manifest.config)

    def _available(self, descriptor: Descriptor) -> bool:
        if any(descriptor.digest in catalog.offers for catalog in self._catalogs):
            return True
        holding = self._held.holding(descriptor.digest)
        return (holding is not None and holding.sound) or self._gaps.promised(descriptor.digest) is not None
