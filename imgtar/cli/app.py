"""The command table, for typer: it has the last word on every command line, and writes all help."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from imgtar import __version__
from imgtar.cli.commands import COMMANDS
from imgtar.cli.declare import Argument, Call, Command, Outer, Parameter, parameters
from imgtar.cli.options import STORE

__all__ = ["app"]

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
    if hasattr(module, "SUBCOMMANDS"):
        return _group(module)
    one = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    one.command(name)(_for_typer(module.command))
    return typer.main.get_command(one)


def _group(module: Any) -> Any:
    """A command that also has subcommands: it runs when none of them is named, and else has the options before it."""
    group = typer.Typer(
        invoke_without_command=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        subcommand_metavar=module.SUBCOMMAND_METAVAR,
        help=module.command.__doc__,
    )

    def call(context: typer.Context, values: dict[str, Any]) -> int | None:
        if context.invoked_subcommand is None:
            return Call(module.command, context.obj, values).run()
        context.obj = module.before(context.obj, **values)
        return None

    group.callback()(_for_typer(module.command, call))
    for name, command in module.SUBCOMMANDS.items():
        group.command(name)(_for_typer(command))
    return typer.main.get_command(group)


def _for_typer(
    command: Command, call: Callable[[typer.Context, dict[str, Any]], int | None] | None = None
) -> Callable[..., int | None]:
    """A function whose signature says to typer what ours says; ``call`` does something else than calling it."""

    def function(context: typer.Context, **values: Any) -> int | None:
        return call(context, values) if call is not None else Call(command, context.obj, values).run()

    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken = [inspect.Parameter("context", either, annotation=typer.Context)]
    for each in parameters(command):
        default = inspect.Parameter.empty if each.required else each.default
        hint: Any = each.hint
        annotation: Any = Annotated[hint, _typers(each)]
        taken.append(inspect.Parameter(each.name, either, default=default, annotation=annotation))
    # As a decorator would leave it behind: typer reads both.
    function.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in taken}
    function.__doc__ = command.__doc__
    return function


def _typers(each: Parameter) -> Any:
    said = each.said
    if isinstance(said, Argument):
        return typer.Argument(metavar=said.metavar, help=said.help)
    return typer.Option(*said.flags, metavar=said.metavar, help=said.help, min=said.min, max=said.max)


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
    store: Annotated[str | None, typer.Option(*STORE.flags, metavar=STORE.metavar, help=STORE.help)] = None,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Carry container images to hosts without a network: load, save, verify and inspect image archives."""
    assert not version  # Its callback has ended the program.
    context.obj = Outer(store)
