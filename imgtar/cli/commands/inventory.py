"""``imgtar inventory`` and ``imgtar inventory diff``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from imgtar.cli import options
from imgtar.cli.console import Console, console, refuse_terminal
from imgtar.errors import UsageError
from imgtar.text import human_size, plural, printable

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    subcommand_metavar="[diff A B]",
    help="List what a receiver holds: the file to give to save --base, save --for and verify --against.",
)


@app.callback()
def command(
    context: typer.Context,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="FILE", help="Where to write; .zst at the end compresses it."),
    ] = "-",
    of: Annotated[
        str,
        typer.Option("--of", metavar="WHERE", help="A store's folder, an archive, or an image; default: the store."),
    ] = "store",
    redact: Annotated[bool, typer.Option("--redact", help="Leave out the names of the images.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """List what a receiver holds: the file to give to save --base, save --for and verify --against."""
    if context.invoked_subcommand is not None:
        if output != "-" or of != "store" or redact:
            raise UsageError("-o, --of and --redact do not go with diff", hint="imgtar inventory diff A B")
        said = {"json": as_json, "quiet": quiet, "lock_timeout": lock_timeout}
        context.obj = {**(context.obj or {}), **({"store": store} if store is not None else {}), **said}
        return
    from imgtar.ops.inventory import listing_json, make_inventory

    out = console(store, as_json, quiet, "none", lock_timeout, context.obj)
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


@app.command("diff")
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="An inventory file, an archive, a store or an image.")],
    second: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    lock_timeout: Annotated[
        float | None,
        typer.Option("--lock-timeout", metavar="SECONDS", help="How long to wait for another imgtar; default 300."),
    ] = None,
) -> None:
    """Show what B holds more and less than A: blobs by digest, and names that moved."""
    from imgtar.ops.inventory import inventory_diff

    before = context.obj or {}  # options may stand before the word diff as well
    timeout = lock_timeout if lock_timeout is not None else before.get("lock_timeout", 300.0)
    out = console(
        store, as_json or before.get("json", False), quiet or before.get("quiet", False), "none", timeout, before
    )
    if first == second == "-":
        raise UsageError("standard input cannot be both sides", hint="give a file for one of them")
    refuse_terminal([first, second])
    with out.reporting() as report:
        done = inventory_diff(first, second, out.store(report), report=report)
    out.result("imgtar.inventory-diff/1", done.to_json(), lambda: _show(out, done))


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
