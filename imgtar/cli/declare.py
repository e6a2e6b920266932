"""How a command says what may stand on its line: functions whose parameters are annotated with what they are.

::

    def command(outer: Outer, what: Annotated[str, Argument("ARCHIVE")], raw: Annotated[bool, Option("--raw")] = False)

app.py makes typer's options of it, quick.py reads plain lines by it. The result of a command is its exit status, or
``None`` when all went well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from imgtar.frozen import frozen

__all__ = ["Argument", "Call", "Command", "Option", "Outer", "Parameter", "parameters"]

Command = Callable[..., int | None]
"""A command as it stands in its module. Its first parameter is an :class:`Outer`."""


@frozen
class Outer:
    """What was said before the name of the command, or, for ``inventory diff``, before the word ``diff``."""

    store: str | None = None
    as_json: bool = False
    quiet: bool = False
    lock_timeout: float = 300.0


class Option:
    """A parameter with a name on the line. ``min`` and ``max`` bound a number."""

    __slots__ = ("flags", "help", "max", "metavar", "min")

    def __init__(
        self, *flags: str, metavar: str | None = None, help: str, min: int | None = None, max: int | None = None
    ) -> None:
        self.flags = flags
        self.metavar = metavar
        self.help = help
        self.min = min
        self.max = max


class Argument:
    """A parameter that is known by its place on the line."""

    __slots__ = ("help", "metavar")

    def __init__(self, metavar: str, help: str) -> None:
        self.metavar = metavar
        self.help = help


@frozen
class Parameter:
    """One parameter of a command. ``type`` is one value's; ``many``: it is a list of those."""

    name: str
    said: Option | Argument
    hint: Any
    type: type[str] | type[bool] | type[int] | type[float]
    many: bool
    default: Any
    required: bool

    @property
    def kind(self) -> Literal["argument", "flag", "option"]:
        """How it is given: by its place, by its name alone, by its name and a value."""
        if isinstance(self.said, Argument):
            return "argument"
        return "flag" if self.type is bool else "option"


def parameters(command: Command) -> list[Parameter]:
    """What a command declares, without the outer options; ``inspect`` would take longer to import than all of this."""
    code, defaults = command.__code__, command.__defaults__ or ()
    hints = get_type_hints(command, include_extras=True)
    names = code.co_varnames[1 : code.co_argcount]
    first = len(names) - len(defaults)
    found = []
    for place, name in enumerate(names):
        hint, said = get_args(hints[name])
        one, many = _plain(hint)
        default = defaults[place - first] if place >= first else None
        found.append(Parameter(name, said, hint, one, many, default, place < first))
    return found


def _plain(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    if type(None) in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    return (get_args(hint)[0], True) if get_origin(hint) is list else (hint, False)


@frozen
class Call:
    """A command, and everything that it is to be called with."""

    command: Command
    outer: Outer
    values: Mapping[str, Any]

    def run(self) -> int:
        """Run it; return the exit status."""
        return self.command(self.outer, **self.values) or 0
