"""Would these archives load there? Worked out by the plan that the load there would follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgtar.errors import ImgtarError
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Catalog
from imgtar.graph.explain import describe_missing
from imgtar.graph.finding import Finding
from imgtar.graph.inventory import Inventory
from imgtar.graph.plan import Missing
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.text import printable

__all__ = ["Place", "would_load"]


@frozen
class Place:
    """A receiver, and what a load of all the archives there would do: lack something, or write so many bytes."""

    where: str
    missing: tuple[Missing, ...] = ()
    bytes_to_write: int | None = None
    bytes_reused: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Its entry in ``imgtar.verify/1``."""
        return {
            "where": self.where,
            "missing": [gap.to_json() for gap in self.missing],
            "bytes_to_write": self.bytes_to_write,
            "bytes_reused": self.bytes_reused,
        }


def would_load(
    where: str,
    catalogs: Sequence[Catalog | None],
    inventory: Inventory,
    policy: Policy,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[Place, list[Finding]]:
    """Return what a load of all the archives would do at one receiver, and what there is to say about it.

    A catalog is ``None`` for an archive that could not be read: a load would be refused for that alone.
    """
    label = printable(where, limit=None)
    known = [catalog for catalog in catalogs if catalog is not None]
    if len(known) < len(catalogs):
        message = "not worked out: an archive could not be read, so a load there would be refused"
        return Place(where), [Finding("E_MISSING", "info", label, message, 4)]
    try:
        plan = resolve(known, inventory, policy, limits)
    except ImgtarError as error:
        if error.exit_code == 6:
            raise
        finding = Finding.of(error)
        return Place(where), [replace(finding, subject=f"{label}: {finding.subject}" if finding.subject else label)]
    found = list(plan.findings)
    found += [
        Finding("E_MISSING", "error", label, describe_missing(gap, place="there"), 4, gap.hint) for gap in plan.missing
    ]
    return Place(where, plan.missing, plan.bytes_to_write, plan.bytes_reused), found
