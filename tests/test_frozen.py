"""Value classes without dataclasses behave as dataclasses do."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from dataclasses import replace as dataclass_replace
from functools import cached_property
from typing import Any

import pytest

from imgtar.frozen import field, frozen, record, replace


@frozen
class Point:
    """A value."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)
    secret: str = field(default="s", repr=False)
    note: str = field(default="", compare=False)

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def origin(cls) -> Point:
        return cls(0, 0)


@dataclass(frozen=True, slots=True)
class Twin:
    """The same, as a dataclass."""

    x: int
    y: int = 2
    tags: list[str] = dataclass_field(default_factory=list)
    secret: str = dataclass_field(default="s", repr=False)
    note: str = dataclass_field(default="", compare=False)


@frozen
class Pair:
    first: str
    second: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TwinPair:
    first: str
    second: tuple[int, ...] = ()


@frozen
class One:
    only: int


@frozen
class Empty:
    pass


@record
class Count:
    start: int
    seen: list[int] = field(default_factory=list)
    last: int = field(init=False)
    total: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        self.last = self.start


@dataclass(slots=True)
class TwinCount:
    start: int
    seen: list[int] = dataclass_field(default_factory=list)
    last: int = dataclass_field(init=False)
    total: int = dataclass_field(default=7, init=False)

    def __post_init__(self) -> None:
        self.last = self.start


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, 3), {}),
    ((), {"x": 1, "tags": ["a"]}),
    ((1, 2, ["b"], "t", "n"), {}),
    ((1,), {"secret": "u", "note": "m"}),
    ((), {}),
    ((1, 2, [], "", "", 6), {}),
    ((1,), {"x": 2}),
    ((1,), {"z": 2}),
]


def outcome(make: Callable[[], Any]) -> Any:
    """What something gives, or the error it raises, without the name of the class."""
    try:
        made = make()
    except TypeError as error:
        return str(error).replace("Twin", "").replace("Point", "")
    return [getattr(made, name) for name in ("x", "y", "tags", "secret", "note")], repr(made).partition("(")[2]


@pytest.mark.parametrize(("positional", "named"), ARGUMENTS)
def test_it_is_made_and_shown_as_a_dataclass_is(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    assert outcome(lambda: Point(*positional, **named)) == outcome(lambda: Twin(*positional, **named))


def test_equality_and_hash_are_those_of_a_dataclass() -> None:
    values = [("a",), ("a", ()), ("a", (1,)), ("b",), ("b", (1,))]
    for one in values:
        assert hash(Pair(*one)) == hash(TwinPair(*one))
        for other in values:
            assert (Pair(*one) == Pair(*other)) is (TwinPair(*one) == TwinPair(*other))
            assert (Pair(*one) != Pair(*other)) is (TwinPair(*one) != TwinPair(*other))
    assert Pair("a") != TwinPair("a")
    assert Pair("a") != ("a", ())
    assert Pair("a").__eq__(5) is NotImplemented
    assert One(5) != One(6)
    assert hash(One(5)) == hash((5,))
    assert Empty() == Empty()
    assert {Pair("a"): 1}[Pair("a")] == 1


def test_a_field_may_stay_out_of_the_comparison_and_out_of_the_text() -> None:
    assert Point(1, note="a") == Point(1, note="b")
    assert Point(1, secret="a") != Point(1, secret="b")
    assert repr(Point(1, secret="hidden")) == "Point(x=1, y=2, tags=[], note='')"


def test_a_default_is_made_anew_for_each() -> None:
    assert Point(1).tags is not Point(1).tags
    given: list[str] = []
    assert Point(1, tags=given).tags is given


def test_a_value_does_not_change_and_has_no_room_for_more() -> None:
    value = Point(1)
    with pytest.raises(AttributeError, match="Point does not change: 'x'"):
        value.x = 5  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point does not change: 'new'"):
        value.new = 5  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="Point does not change: 'x'"):
        del value.x
    assert value.x == 1
    assert not hasattr(value, "__dict__")


def test_its_methods_stay() -> None:
    assert Point.origin() == Point(0, 0)
    assert Point(3).sum == 5
    assert Point.__doc__ == "A value."
    assert (Point.__qualname__, Point.__module__) == ("Point", __name__)
    match Point(4, 5):
        case Point(x, y):
            assert (x, y) == (4, 5)
        case _:
            raise AssertionError


def test_a_copy_with_other_fields() -> None:
    value = Point(1, 2, ["a"], "u", "n")
    changed = replace(value, y=9)
    assert repr(changed) == repr(dataclass_replace(Twin(1, 2, ["a"], "u", "n"), y=9)).replace("Twin", "Point")
    assert (changed.secret, changed.note, value.y) == ("u", "n", 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        replace(value, z=1)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_it_can_be_copied(again: Callable[[Any], Any]) -> None:
    for value in (Point(1, 2, ["a"], note="n"), Count(4), Empty()):
        copied = again(value)
        assert copied == value
        assert copied is not value
        assert repr(copied) == repr(value)


def test_a_record_changes_and_has_no_hash() -> None:
    one, twin = Count(4), TwinCount(4)
    assert repr(one) == repr(twin).replace("Twin", "") == "Count(start=4, seen=[], last=4, total=7)"
    one.last, one.total = 5, 6
    one.seen.append(1)
    assert (replace(one).start, replace(one).seen, replace(one).last) == (4, [1], 4)
    assert one != Count(4)
    with pytest.raises(TypeError, match="unhashable type"):
        hash(one)
    with pytest.raises(AttributeError):
        one.other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unexpected keyword argument 'last'"):
        Count(4, last=3)  # type: ignore[call-arg]


def test_what_a_class_defines_itself_is_left_alone() -> None:
    @frozen
    class Own:
        x: int

        __eq__ = object.__eq__
        __hash__ = object.__hash__

        def __repr__(self) -> str:
            return "mine"

    one = Own(1)
    assert one != Own(1)
    assert one == one
    assert len({one, Own(1)}) == 2
    assert repr(one) == "mine"


def test_a_class_may_ask_for_room() -> None:
    @frozen
    class Room:
        __slots__ = ("__dict__",)
        x: int

        @cached_property
        def double(self) -> list[int]:
            return [self.x] * 2

    value = Room(3)
    assert value.double is value.double
    with pytest.raises(AttributeError):
        value.x = 4  # type: ignore[misc]


def test_a_value_class_inherits_from_nothing() -> None:
    with pytest.raises(AssertionError, match="inherits from nothing"):

        @frozen
        class Below(Point):
            z: int = 1


def test_it_needs_no_dataclasses() -> None:
    program = "import sys, imgtar.frozen; print([name for name in ('dataclasses', 'inspect') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
