"""Value classes as dataclasses make them, without writing and compiling the code of every class at every start.

A dataclass takes 0.75 ms to make, and a command makes sixty. Here a class takes a twentieth of that: its comparison, hash
and text are shared functions, and its constructor is compiled when the first object is made. Fields have slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

__all__ = ["field", "frozen", "record", "replace"]

_T = TypeVar("_T")
_NOTHING: Any = object()


class _Field:
    """What is said about a field besides its name and type."""

    __slots__ = ("compare", "default", "factory", "init", "repr")

    def __init__(self, default: Any, factory: Callable[[], Any] | None, init: bool, repr: bool, compare: bool) -> None:
        self.default, self.factory, self.init, self.repr, self.compare = default, factory, init, repr, compare


@overload
def field(*, default: _T, init: bool = True, repr: bool = True, compare: bool = True) -> _T: ...
@overload
def field(*, default_factory: Callable[[], _T], init: bool = True, repr: bool = True, compare: bool = True) -> _T: ...
@overload
def field(*, init: bool = True, repr: bool = True, compare: bool = True) -> Any: ...
def field(
    *, default: Any = _NOTHING, default_factory: Any = None, init: bool = True, repr: bool = True, compare: bool = True
) -> Any:
    """Say more about a field than a default; as in dataclasses."""
    return _Field(default, default_factory, init, repr, compare)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """Make a class of values that do not change: equal when their fields are, with a hash. Not to be inherited from."""
    made: type[_T] = _made(cls, ("__init__", "__eq__", "__hash__"), {"__setattr__": _refuse, "__delattr__": _refuse})
    return made


@dataclass_transform(field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """Make a class of objects whose fields may change: comparable, but without a hash."""
    made: type[_T] = _made(cls, ("__init__", "__eq__"), {"__hash__": None})
    return made


def replace(value: _T, /, **changes: Any) -> _T:
    """A copy of a value with other fields, made by its constructor."""
    fields: dict[str, _Field] = type(value)._fields  # type: ignore[attr-defined]
    return type(value)(**{name: getattr(value, name) for name in fields if fields[name].init} | changes)


def _made(cls: Any, late: tuple[str, ...], common: dict[str, Any]) -> Any:
    """The class once more, with slots, and with what it does not define itself."""
    assert cls.__bases__ == (object,), "a value class inherits from nothing"
    own = {key: each for key, each in cls.__dict__.items() if key not in ("__dict__", "__weakref__")}
    fields: dict[str, _Field] = {}
    for name in cls.__annotations__:
        said = own.pop(name, _NOTHING)
        fields[name] = said if isinstance(said, _Field) else _Field(said, None, True, True, True)
    slots = (*fields, *own.pop("__slots__", ()))
    matched = tuple(name for name, each in fields.items() if each.init)
    methods = {**common, "__match_args__": matched, "__repr__": _text, "__getstate__": _state, "__setstate__": _restore}
    made: Any = type(cls)(cls.__name__, (), {**methods, **own, "__slots__": slots, "_fields": fields})
    for name in late:
        if name not in own:
            setattr(made, name, _late(made, name))
    return made


def _late(cls: Any, name: str) -> Callable[..., Any]:
    """A method that is compiled, and takes its own place, when it is first called."""

    def first(*arguments: Any, **named: Any) -> Any:
        method = _compiled(cls, name)
        setattr(cls, name, method)
        return method(*arguments, **named)

    return first


def _compiled(cls: Any, name: str) -> Any:
    names: dict[str, Any] = {"_NOTHING": _NOTHING}
    if name == "__init__":
        code = _constructor(cls, names)
    else:
        compared = [name for name, each in cls._fields.items() if each.compare]
        mine, others = (f"({''.join(f'{whose}.{name}, ' for name in compared)})" for whose in ("self", "other"))
        code = f"def __hash__(self):\n return hash({mine})"
        if name == "__eq__":
            code = (
                f"def __eq__(self, other):\n return {mine} == {others} if type(self) is type(other) else NotImplemented"
            )
    exec(code, names)
    names[name].__qualname__ = f"{cls.__qualname__}.{name}"
    return names[name]


def _constructor(cls: Any, names: dict[str, Any]) -> str:
    """The code of ``__init__``; what it needs goes into ``names``. Slots are set past the class, which may refuse."""
    taken, lines = ["self"], []
    for name, each in cls._fields.items():
        value = name if each.init else f"_default_{name}"
        default = _NOTHING if each.factory else each.default
        names |= {f"_set_{name}": cls.__dict__[name].__set__, f"_default_{name}": default, f"_new_{name}": each.factory}
        may_lack = each.factory is not None or default is not _NOTHING
        if each.init:
            taken.append(f"{name}=_default_{name}" if may_lack else name)
        if each.factory is not None:
            value = f"_new_{name}() if {value} is _NOTHING else {value}"
        if each.init or may_lack:
            lines.append(f" _set_{name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    return f"def __init__({', '.join(taken)}):\n" + "\n".join(lines or [" pass"])


def _refuse(self: Any, name: str, _value: object = None) -> NoReturn:
    raise AttributeError(f"{type(self).__name__} does not change: {name!r} cannot be set or deleted")


def _text(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name, each in self._fields.items() if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self._fields]


def _restore(self: Any, values: list[Any]) -> None:
    for name, value in zip(self._fields, values, strict=True):
        type(self).__dict__[name].__set__(self, value)
