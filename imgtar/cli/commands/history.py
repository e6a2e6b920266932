"""``imgtar history``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer


def command(
    outer: Outer,
    what: Annotated[str, Argument("IMAGE|ARCHIVE", help="An image of the store, an archive, or -.")],
    no_trunc: Annotated[bool, Option("--no-trunc", help="Show everything in full.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Show the build steps of an image, the newest first, with the layer each one made."""
    from imgtar.cli.render.images import show_history
    from imgtar.ops.history import history

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    refuse_terminal([what])
    with ExitStack() as stack:
        with out.reporting() as report:
            images = history(what, out.store(report), stack)
        out.result("imgtar.history/1", {"images": images}, lambda: show_history(out, images, no_trunc=no_trunc))
