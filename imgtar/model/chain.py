"""Chain IDs: one name for a stack of layers, by which engines find what they already have."""

from __future__ import annotations

from collections.abc import Sequence

from imgtar.model.digest import Digest

__all__ = ["chain_ids"]


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """Return the chain ID up to and including each layer, base layer first; nothing is raised.

    OCI image-spec, config.md, "Layer ChainID": the first is the diff ID itself, each next one is the sha256 of the
    chain ID below it, one space and its own diff ID, both written out with their algorithm.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
