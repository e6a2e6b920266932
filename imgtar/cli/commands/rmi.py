"""``imgtar rmi``."""

from __future__ import annotations

from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.text import human_size


def command(
    outer: Outer,
    images: Annotated[list[str], Argument("IMAGE...", help="Names, image IDs or digests.")],
    force: Annotated[
        bool, Option("-f", "--force", help="All names of an ID; images that are named as a parent too.")
    ] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Remove names, and each image with its last name."""
    from imgtar.ops.upkeep import remove

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    with out.reporting() as report:
        done = remove(out.store(report), images, force=force)

    def show() -> None:
        for name in done.untagged:
            out.line(f"Untagged: {name}")
        for image in done.images:
            out.line(f"Deleted: {image}")
        out.note(f"{done.blobs} blobs deleted, {human_size(done.size)} freed")

    out.result("imgtar.rmi/1", done.to_json(), show)
