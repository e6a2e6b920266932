"""Campaigns: one idea tried thousands of times. Each has a quick form, which every test run takes, and a long one.

The long form is ``make campaign-NAME``; ``IMGTAR_SEED`` chooses other random cases than those of last time. What was
tried and what came of it is counted with :meth:`Campaign.count` and shown at the end of the run: these are the figures
of docs/reliability.md.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.campaigns.crash import Place, needs, place_in

__all__ = ["Campaign"]

T = TypeVar("T")


class Campaign:
    """How much to try, with which seed, and the counts of what was tried."""

    def __init__(self, name: str, *, long: bool, seed: int) -> None:
        self.name = name
        self.long = long
        self.seed = seed
        self.counts: Counter[str] = Counter()

    def pick(self, quick: T, long: T) -> T:
        """The one for this form of the campaign."""
        return long if self.long else quick

    def random(self, purpose: str = "") -> random.Random:
        """A generator that gives the same cases for the same seed."""
        return random.Random(f"{self.name} {purpose} {self.seed}")

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure, for example ``inputs`` or ``refused``."""
        self.counts[what] += number


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where commands are made to crash."""
    yield from place_in(tmp_path_factory.mktemp("crash"))


@pytest.fixture(scope="module")
def strace() -> None:
    """Needed by tests that stop or fail single system calls."""
    needs("strace")


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """The campaign of this test. Its counts are printed even if the test fails."""
    name = request.module.__name__.rpartition("test_")[2]
    long = os.environ.get("IMGTAR_CAMPAIGN") == "long"
    one = Campaign(name, long=long, seed=int(os.environ.get("IMGTAR_SEED", "1")))
    yield one
    form = "long" if long else "quick"
    request.node.user_properties.append(("campaign", (name, form, one.seed, request.node.name, dict(one.counts))))
