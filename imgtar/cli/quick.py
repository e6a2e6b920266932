"""The quick way in: plain command lines, read without typer, which takes far longer to import than most commands run.

Whatever is not understood to the last letter is none of this module's business: help, mistakes, abbreviations, several
letters behind one dash, values that look like options. typer is asked then, and has the last word. So nothing here may
understand a line differently than typer does; tests/cli/test_quick.py holds the two against each other.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from imgtar.cli.commands import COMMANDS
from imgtar.cli.declare import Argument, Call, Option, Outer, Parameter, parameters
from imgtar.cli.options import STORE

__all__ = ["understood"]

_INTEGER = re.compile("[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class _NotPlainError(Exception):
    """This line is for typer."""


def understood(arguments: list[str]) -> Call | None:
    """What the command line asks for, or ``None`` when typer is to be asked."""
    try:
        words = iter(arguments)
        store, name = _outer(words)
        module = importlib.import_module(f"imgtar.cli.commands.{name}")
        return Call(module.command, Outer(store), _values(words, parameters(module.command)))
    except _NotPlainError:
        return None


def _outer(words: Iterator[str]) -> tuple[str | None, str]:
    """What stands before the command, and its name."""
    store = None
    for word in words:
        if word in COMMANDS:
            return store, word
        flag, value = _option(word, words)
        if flag not in STORE.flags or store is not None:
            raise _NotPlainError
        store = value
    raise _NotPlainError


def _option(word: str, words: Iterator[str]) -> tuple[str, str]:
    """An option and its value, which may be the next word."""
    flag, equals, value = word.partition("=")
    if not equals:
        value = next(words, "-?")
    elif not flag.startswith("--"):
        raise _NotPlainError
    if value.startswith("-") and value != "-":
        raise _NotPlainError
    return flag, value


def _values(words: Iterator[str], declared: list[Parameter]) -> dict[str, Any]:
    """Every parameter of the command with its value."""
    named = {flag: each for each in declared if isinstance(each.said, Option) for flag in each.said.flags}
    values: dict[str, Any] = {}
    placed: list[str] = []
    for word in words:
        if not word.startswith("-") or word == "-":
            placed.append(word)
            continue
        parameter = named.get(word.partition("=")[0])
        if parameter is None:
            raise _NotPlainError
        if parameter.kind == "flag":
            if "=" in word:
                raise _NotPlainError
            value: Any = True
        else:
            value = _converted(_option(word, words)[1], parameter)
        if parameter.many:
            values.setdefault(parameter.name, []).append(value)
        elif parameter.name in values:
            raise _NotPlainError
        else:
            values[parameter.name] = value
    _place(placed, [each for each in declared if isinstance(each.said, Argument)], values)
    return {each.name: values.get(each.name, each.default) for each in declared}


def _place(placed: list[str], expected: list[Parameter], values: dict[str, Any]) -> None:
    """Give the words that are no options to the parameters that go by their place; one that takes many is the last."""
    for each in expected:
        if placed:
            values[each.name] = placed if each.many else placed[0]
            placed = [] if each.many else placed[1:]
        elif each.required:
            raise _NotPlainError
    if placed:
        raise _NotPlainError


def _converted(text: str, parameter: Parameter) -> Any:
    """The value that a text stands for."""
    if parameter.type is str:
        return text
    if (_INTEGER if parameter.type is int else _DECIMAL).fullmatch(text) is None:
        raise _NotPlainError
    number = int(text) if parameter.type is int else float(text)
    said = parameter.said
    low, high = (said.min, said.max) if isinstance(said, Option) else (None, None)
    if (low is not None and number < low) or (high is not None and number > high):
        raise _NotPlainError
    return number
