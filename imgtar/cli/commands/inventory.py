"""``imgtar inventory`` and ``imgtar inventory diff``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from imgtar.cli import options
from imgtar.cli.console import Console, console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.errors import UsageError
from imgtar.text import human_size, plural, printable


def command(
    outer: Outer,
    output: Annotated[
        str,
        Option("-o", "--output", metavar="FILE", help="Where to write; .zst at the end compresses it."),
    ] = "-",
    of: Annotated[
        str,
        Option("--of", metavar="WHERE", help="A store's folder, an archive, or an image; default: the store."),
    ] = "store",
    redact: Annotated[bool, Option("--redact", help="Leave out the names of the images.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """List what a receiver holds: the file to give to save --base, save --for and verify --against."""
    from imgtar.ops.inventory import listing_json, make_inventory

    out = console(store, as_json, quiet, "none", lock_timeout, outer)
    refuse_terminal([of])
    target = output if output != "-" else None
    for ending in (".gz", ".xz", ".bz2"):
        if output.endswith(ending):
            raise UsageError(f"an inventory is not written as {ending}", hint="a name that ends in .zst compresses it")
    with out.reporting() as report:
        listing = make_inventory(of, out.store(report), target=target, redact=redact, report=report)

    def show() -> None:
        if target is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(listing.encode())
            return
        incomplete = sum(1 for image in listing.images if not image.complete)
        lack = f", {incomplete} of them incomplete" if incomplete else ""
        size = human_size(sum(blob.size for blob in listing.blobs.values()))
        out.note(
            f"{printable(target)}: {plural(len(listing.images), 'image')}{lack}, "
            f"{plural(len(listing.blobs), 'blob')} ({size}), root {listing.root}"
        )

    out.result("imgtar.inventory/1", listing_json(listing), show)


def before(
    outer: Outer,
    *,
    output: str,
    of: str,
    redact: bool,
    store: str | None,
    as_json: bool,
    quiet: bool,
    lock_timeout: float,
) -> Outer:
    """What is said before a subcommand, put together with what is said before ``inventory``."""
    if output != "-" or of != "store" or redact:
        raise UsageError("-o, --of and --redact do not go with diff", hint="imgtar inventory diff A B")
    return Outer(store if store is not None else outer.store, as_json, quiet, lock_timeout)


def diff(
    outer: Outer,
    first: Annotated[str, Argument("A", help="An inventory file, an archive, a store or an image.")],
    second: Annotated[str, Argument("B", help="What to compare it with.")],
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: Annotated[
        float | None,
        Option("--lock-timeout", metavar="SECONDS", help="How long to wait for another imgtar; default 300."),
    ] = None,
) -> None:
    """Show what B holds more and less than A: blobs by digest, and names that moved."""
    from imgtar.ops.inventory import inventory_diff

    timeout = lock_timeout if lock_timeout is not None else outer.lock_timeout
    out = console(store, as_json or outer.as_json, quiet or outer.quiet, "none", timeout, outer)
    if first == second == "-":
        raise UsageError("standard input cannot be both sides", hint="give a file for one of them")
    refuse_terminal([first, second])
    with out.reporting() as report:
        done = inventory_diff(first, second, out.store(report), report=report)
    out.result("imgtar.inventory-diff/1", done.to_json(), lambda: _show(out, done))


SUBCOMMANDS = {"diff": diff}
"""What may stand behind ``inventory``; app.py looks for these two names."""
SUBCOMMAND_METAVAR = "[diff A B]"


def _show(out: Console, done: Any) -> None:
    for tag in done.tags:
        old, new = tag.to_json()["from"], tag.to_json()["to"]
        out.line(
            f"+ {tag.name}  {new}"
            if old is None
            else f"- {tag.name}  {old}"
            if new is None
            else f"~ {tag.name}  {old} -> {new}"
        )
    for sign, blobs in (("+", done.added), ("-", done.removed)):
        for blob in blobs:
            out.line(f"{sign} {blob.kind:8} {blob.digest}  {human_size(blob.size)}")
    for title in done.completed:
        out.line(f"now complete: {title}")
    for title in done.broken:
        out.line(f"no longer complete: {title}")
    more, less = (human_size(sum(blob.size for blob in blobs)) for blobs in (done.added, done.removed))
    out.line(
        "they hold the same"
        if done.same
        else f"{len(done.added)} blobs more ({more}), {len(done.removed)} less ({less})"
    )
