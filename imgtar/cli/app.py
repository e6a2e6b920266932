"""The command table."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from imgtar import __version__
from imgtar.cli.options import Store

__all__ = ["app"]

COMMANDS = "load save verify inspect deps images history tag rmi prune repair inventory".split()
"""In the order in which --help lists them. Each is a module of ``imgtar.cli.commands``."""
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _Commands(typer.core.TyperGroup):
    """Makes a command when it is asked for: typer takes 3 ms for each, which every start would pay twelve times."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, for the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command. For a name that is none all are made, so that typer can suggest what was meant."""
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = _command(name)
        return self.commands.get(cmd_name)


def _command(name: str) -> Any:
    module = importlib.import_module(f"imgtar.cli.commands.{name}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    one = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    one.command(name)(module.command)
    return typer.main.get_command(one)


app = typer.Typer(
    name="imgtar",
    cls=_Commands,
    help="Carry container images to hosts without a network: load, save, verify and inspect image archives.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
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
