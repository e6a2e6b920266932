"""``imgtar tag``."""

from __future__ import annotations

from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console
from imgtar.cli.declare import Argument, Outer


def command(
    outer: Outer,
    source: Annotated[str, Argument("SRC", help="A name, an image ID or a digest.")],
    target: Annotated[str, Argument("DST", help="The new name.")],
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Give an image of the store another name."""
    from imgtar.ops.upkeep import tag

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    with out.reporting() as report:
        done = tag(out.store(report), source, target)
    if done["from"] and done["from"] != done["to"]:
        out.note(f"{done['name']} moved from {done['from']} to {done['to']}; the old image stays")
    out.result("imgtar.tag/1", {"tags": [done]}, lambda: None)
