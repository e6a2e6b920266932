"""``imgtar rmi``."""

from __future__ import annotations

from typing import Annotated

import typer

from imgtar.cli import options
from imgtar.cli.console import console
from imgtar.text import human_size


def command(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Names, image IDs or digests.")],
    force: Annotated[
        bool, typer.Option("-f", "--force", help="All names of an ID; images that are named as a parent too.")
    ] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Remove names, and each image with its last name."""
    from imgtar.ops.upkeep import remove

    out = console(store, as_json, quiet, "none", lock_timeout, context.obj)
    with out.reporting() as report:
        done = remove(out.store(report), images, force=force)

    def show() -> None:
        for name in done.untagged:
            out.line(f"Untagged: {name}")
        for image in done.images:
            out.line(f"Deleted: {image}")
        out.note(f"{done.blobs} blobs deleted, {human_size(done.size)} freed")

    out.result("imgtar.rmi/1", done.to_json(), show)
