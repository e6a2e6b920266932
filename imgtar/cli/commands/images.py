"""``imgtar images``."""

from __future__ import annotations

from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console
from imgtar.cli.declare import Option, Outer


def command(
    outer: Outer,
    everything: Annotated[bool, Option("-a", "--all", help="Untagged images too.")] = False,
    digests: Annotated[bool, Option("--digests", help="Show digests.")] = False,
    no_trunc: Annotated[bool, Option("--no-trunc", help="Show IDs and digests in full.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only image IDs.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """List the images in the store."""
    from imgtar.cli.render.images import show_list
    from imgtar.ops.upkeep import list_images

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    with out.reporting() as report:
        rows = list_images(out.store(report), everything=everything)
    out.result(
        "imgtar.images/1",
        {"images": rows},
        lambda: show_list(out, rows, digests=digests, no_trunc=no_trunc, only_ids=quiet),
    )
