"""The command table."""

from __future__ import annotations

from typing import Annotated

import typer

from imgtar import __version__
from imgtar.cli.commands import deps, history, images, inspect, inventory, load, prune, repair, rmi, save, tag, verify
from imgtar.cli.options import Store

__all__ = ["app"]

app = typer.Typer(
    name="imgtar",
    help="Carry container images to hosts without a network: load, save, verify and inspect image archives.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgtar {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    store: Store = None,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Carry container images to hosts without a network: load, save, verify and inspect image archives."""
    assert not version  # Its callback has ended the program.
    context.obj = {"store": store}


for module in (load, save, verify, inspect, deps, images, history, tag, rmi, prune, repair):
    app.command(module.NAME)(module.command)
app.add_typer(inventory.app, name=inventory.NAME)
