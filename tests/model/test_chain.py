"""Chain IDs, against values computed by hand from the specification."""

from __future__ import annotations

import hashlib

import pytest

from imgtar.model.chain import chain_ids
from imgtar.model.digest import Digest

A = Digest.parse("sha256:589f0d58b9053a4ff7329b8fdb4f9dd120e29354c086ad0b3b10733f6cfd6de3")
B = Digest.parse("sha256:55fea2a37a9fc5963f1beccd0d162b856e6bd05ca07cdd3726847846ab740f0d")
C = Digest.parse("sha256:e6c65c655ca8172ab7a2b634dab3220a45472dd6571b6efd956ccc05e229a201")
A_B = Digest.parse("sha256:267c5fd16af60e52927fabf0a36a31f3b5a2069347f7f00c7bd7f93f6ebc01f4")
A_B_C = Digest.parse("sha256:82c0ed5f6c15be9b9180a8c04b9f2c676d74af6db13c711f5bb47a0fa43b56df")


@pytest.mark.parametrize(
    ("diff_ids", "expected"),
    [([], ()), ([A], (A,)), ([A, B], (A, A_B)), ([A, B, C], (A, A_B, A_B_C))],
    ids=["none", "one", "two", "three"],
)
def test_chain_ids_are_those_of_the_specification(diff_ids: list[Digest], expected: tuple[Digest, ...]) -> None:
    assert chain_ids(diff_ids) == expected


def test_the_order_of_layers_changes_every_chain_id_above_the_swap() -> None:
    assert set(chain_ids([A, B, C])[1:]).isdisjoint(chain_ids([B, A, C])[1:])


def test_the_same_layer_twice_has_two_chain_ids() -> None:
    assert len(set(chain_ids([A, A]))) == 2


def test_a_sha512_diff_id_goes_into_a_sha256_chain_with_its_own_name() -> None:
    top = Digest.of(b"layer", "sha512")
    expected = hashlib.sha256(f"{A} {top}".encode()).hexdigest()
    assert chain_ids([A, top]) == (A, Digest("sha256", expected))
