"""``imgtar deps``."""

from __future__ import annotations

from typing import Annotated

from imgtar.cli import options
from imgtar.cli.console import console, refuse_terminal
from imgtar.cli.declare import Argument, Option, Outer


def command(
    outer: Outer,
    what: Annotated[
        str | None,
        Argument(
            "[ARCHIVE|IMAGE]",
            help="An archive, - for standard input, or an image of the store; default: the whole store.",
        ),
    ] = None,
    no_trunc: Annotated[bool, Option("--no-trunc", help="Show IDs in full.")] = False,
    store: options.Store = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
    lock_timeout: options.LockTimeout = 300.0,
) -> None:
    """Draw which image stands on which, and the layers they share: of the store, an image of it, or an archive."""
    from imgtar.cli.render.deps import show_deps
    from imgtar.ops.deps import deps_archive, deps_store
    from imgtar.ops.inspect import is_archive

    out = console(store, as_json, quiet, progress, lock_timeout, outer)
    refuse_terminal([what] if what is not None else [])
    with out.reporting() as report:
        if what is not None and is_archive(what):
            done = deps_archive(what, report=report)
        else:
            done = deps_store(out.store(report), what)
    body = done.to_json() if as_json else {}
    out.result("imgtar.deps/1", body, lambda: show_deps(out, done, no_trunc=no_trunc, shares=what is not None))
