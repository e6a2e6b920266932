"""The one transfer that load, dry run and verify are made of (see ports.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from imgtar.errors import DependencyMissing, Refused
from imgtar.events import Report, silent
from imgtar.frozen import frozen, replace
from imgtar.graph.catalog import Catalog
from imgtar.graph.plan import Missing, Plan, Write
from imgtar.graph.resolve import resolve
from imgtar.graph.select import Policy
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ports import Blob, Receipt, Source, Transaction, blob_finder
from imgtar.proof import prove, prove_beginning

__all__ = ["Transfer", "transfer"]


@frozen
class Transfer:
    """What a transfer planned and did."""

    catalogs: tuple[Catalog, ...]
    plan: Plan
    receipt: Receipt
    dry_run: bool = False

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Every gap, those of the images that a partial load left behind too."""
        behind = (gap for one in self.plan.left_behind for gap in one.missing)
        return tuple(dict.fromkeys((*self.plan.missing, *behind)))

    def to_json(self) -> dict[str, Any]:
        """The body of ``imgtar.load/1``."""
        return {
            "dry_run": self.dry_run,
            "images": [
                {
                    "names": list(image.names),
                    "image_id": str(image.image_id),
                    "digest": str(image.digest),
                    "platform": str(image.platform) if image.platform else None,
                    "state": image.state,
                }
                for image in self.plan.images
            ],
            "tags": [
                {
                    "name": move.reference.familiar,
                    "from": str(move.before) if move.before else None,
                    "to": str(move.after),
                }
                for move in self.plan.tags
            ],
            "bytes_written": self.receipt.bytes_written,
            "bytes_reused": self.receipt.bytes_reused,
            "blobs_written": self.receipt.blobs_written,
            "blobs_reused": self.receipt.blobs_reused,
            "missing": [gap.to_json() for gap in self.missing],
            "left_behind": [one.to_json() for one in self.plan.left_behind],
            "findings": [finding.to_json() for finding in self.plan.findings],
        }


def transfer(
    sources: Sequence[Source],
    transaction: Transaction,
    policy: Policy,
    *,
    jobs: int = 1,
    report: Report = silent,
    limits: Limits = DEFAULT_LIMITS,
    strict: bool = False,
    dry_run: bool = False,
) -> Transfer:
    """Bring the wanted images of ``sources`` through ``transaction``: survey, resolve, receive, commit.

    Raises :class:`DependencyMissing` with every gap before anything is received; with ``strict``, :class:`Refused` for
    the first warning. A dry run stops at the plan.
    """
    catalogs = tuple(source.survey(transaction) for source in sources)
    plan = resolve(catalogs, transaction.inventory, policy, limits)
    if strict:
        for finding in plan.findings:
            if finding.severity == "warning":
                hint = "load without --strict"
                if finding.exit_code == DependencyMissing.exit_code:
                    raise DependencyMissing(finding.message, where=finding.subject, hint=hint)
                raise Refused(finding.code, finding.message, where=finding.subject, hint=hint)
    if not dry_run:
        plan.require_complete()
        _prove_what_passed(plan, catalogs, sources)
        transaction.receive(plan, blob_finder(catalogs, sources), report, jobs)
        return Transfer(catalogs, plan, transaction.commit(plan))
    _prove_what_is_known(plan, blob_finder(catalogs, sources))
    receipt = Receipt(plan.bytes_to_write, plan.bytes_reused, len(plan.writes), len(plan.reused))
    return Transfer(catalogs, plan, receipt, dry_run=True)


def _prove_what_is_known(plan: Plan, fetch: Callable[[Write], Blob]) -> None:
    """Refuse in a dry run what the load would refuse, as far as that is known without reading blobs.

    What went through a pipe has been measured. Of a layer in a file the first bytes tell whether it is plain: then its
    digest must be its diff ID.
    """
    for write in plan.writes:
        if write.kept is not None or write.made_from is not None:
            continue
        blob = fetch(write)
        if blob.staged is not None:
            prove(write, blob.staged.measure, blob.where)
        elif write.kind == "layer" and blob.open is not None:
            with blob.open() as content:
                prove_beginning(write, content, blob.where)


def _prove_what_passed(plan: Plan, catalogs: Sequence[Catalog], sources: Sequence[Source]) -> None:
    """Refuse an archive whose bytes were seen to be wrong, although the receiver holds sound ones (H145).

    A seekable archive's bytes are not read again for what is held; what went through a pipe has been measured anyway.
    """
    for held in plan.relied_on:
        for catalog, source in zip(catalogs, sources, strict=True):
            blob = source.blob(held.digest)
            if blob is not None and blob.staged is not None:
                prove(replace(held, catalog=catalog), blob.staged.measure, blob.where)
