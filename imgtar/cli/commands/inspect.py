"""``imgtar inspect``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer
from imgtar.errors import UsageError
from imgtar.text import shown


def command(
    outer: Outer,
    what: Annotated[str, Argument("ARCHIVE|IMAGE", help="An archive, - for standard input, or an image of the store.")],
    raw: Annotated[
        str | None,
        Option("--raw", metavar="manifest|config|index", help="Print the exact bytes of that document."),
    ] = None,
    platform: options.Platforms = None,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Show what is in an archive or an image: names, platforms, IDs, digests, layers, history. Extracts nothing."""
    from imgtar.cli.render.images import show_inspection
    from imgtar.model.platform import parse_platforms
    from imgtar.ops.inspect import RawRequest, inspect_archive, inspect_store, is_archive

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    refuse_terminal([what])
    request = None
    wanted = parse_platforms(platform or ())
    if raw is not None and as_json:
        raise UsageError("--raw prints a document as it is, which is not what --json promises", hint="leave one out")
    if raw is not None:
        if raw not in ("manifest", "config", "index"):
            raise UsageError(f"--raw {shown(raw)} is not known", hint="one of manifest, config, index")
        request = RawRequest(raw, wanted[0] if wanted else None)
    with ExitStack() as stack:
        with out.reporting() as report:
            if is_archive(what):
                done = inspect_archive(what, request, wanted, report=report, stack=stack)
            else:
                done = inspect_store(what, out.store(report), request, wanted)
        if done.raw is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(done.raw)
            return
        out.result("imgtar.inspect/1", done.document, lambda: show_inspection(out, done.document))
