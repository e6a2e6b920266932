"""``imgtar images``."""

from __future__ import annotations

from typing import Annotated

import typer

from imgtar.cli import options
from imgtar.cli.console import console


def command(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("-a", "--all", help="Untagged images too.")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="Show digests.")] = False,
    no_trunc: Annotated[bool, typer.Option("--no-trunc", help="Show IDs and digests in full.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only image IDs.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """List the images in the store."""
    from imgtar.cli.render.images import show_list
    from imgtar.ops.upkeep import list_images

    out = console(store, as_json, quiet, "none", lock_timeout, context.obj)
    with out.reporting() as report:
        rows = list_images(out.store(report), everything=everything)
    out.result(
        "imgtar.images/1",
        {"images": rows},
        lambda: show_list(out, rows, digests=digests, no_trunc=no_trunc, only_ids=quiet),
    )
