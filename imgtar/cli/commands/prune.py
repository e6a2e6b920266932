"""``imgtar prune``."""

from __future__ import annotations

from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console
from imgtar.cli.declare import Option, Outer
from imgtar.text import human_size


def command(
    outer: Outer,
    untagged: Annotated[bool, Option("--untagged", help="Images without a name too.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would go and delete nothing.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Delete the blobs that no image in the store needs."""
    from imgtar.ops.upkeep import prune

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    with out.reporting() as report:
        done = prune(out.store(report), untagged=untagged, dry_run=dry_run)

    def show() -> None:
        for image in done.images:
            out.line(f"{'Would delete' if dry_run else 'Deleted'}: {image}")
        out.line(f"{'would free' if dry_run else 'freed'} {human_size(done.size)} in {done.blobs} blobs")
        if done.kept_untagged:
            out.note(f"{done.kept_untagged} untagged images stay; --untagged deletes them")

    out.result("imgtar.prune/1", {"dry_run": dry_run, **done.to_json()}, show)
