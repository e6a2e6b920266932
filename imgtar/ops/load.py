"""Load: archives into the store, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imgtar.blob.workers import default_jobs
from imgtar.events import Event, Report, silent
from imgtar.graph.inventory import EmptyInventory
from imgtar.graph.select import Policy
from imgtar.model.limits import DEFAULT_LIMITS, Limits
from imgtar.ops.transfer import Transfer, transfer
from imgtar.store.store import Store
from imgtar.transport.check import Check
from imgtar.transport.location import ArchiveSource, close_all, medium_paths, open_archive, passed_over

__all__ = ["load", "opened_media"]


@contextmanager
def opened_media(
    paths: Sequence[str], report: Report, limits: Limits = DEFAULT_LIMITS
) -> Iterator[list[ArchiveSource]]:
    """Open every archive of ``paths`` (files, ``-``, layout directories, folders of archives); close them at the end."""
    sources: list[ArchiveSource] = []
    try:
        for path in paths:
            archives, skipped = medium_paths(path)
            sources += [open_archive(archive, limits=limits, found=archive != path) for archive in archives]
            if skipped:
                report(Event("notice", passed_over(path, skipped)))
        yield sources
    finally:
        close_all(sources)


def load(
    paths: Sequence[str],
    store: Store,
    policy: Policy,
    *,
    dry_run: bool = False,
    strict: bool = False,
    jobs: int | None = None,
    report: Report = silent,
    limits: Limits = DEFAULT_LIMITS,
) -> Transfer:
    """Load the images of all archives in ``paths`` as one transaction.

    The archives complete each other in any order. A dry run reads as much as is needed for the plan and writes
    nothing. Raises what the transfer raises; the store is untouched then.
    """
    jobs = jobs or default_jobs()
    if not dry_run:
        store.layout.check_writable()
    with opened_media(paths, report, limits) as sources:
        if not dry_run:
            with store.begin(limits) as transaction:
                return transfer(sources, transaction, policy, jobs=jobs, report=report, limits=limits, strict=strict)
        if not store.layout.exists:
            check = Check(EmptyInventory(), report=report, limits=limits)
            return transfer(sources, check, policy, report=report, limits=limits, strict=strict, dry_run=True)
        with store.reading() as inventory:
            check = Check(inventory, report=report, limits=limits)
            return transfer(sources, check, policy, report=report, limits=limits, strict=strict, dry_run=True)
