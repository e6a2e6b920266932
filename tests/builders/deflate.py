"""Deflate streams made by hand, block by block, sound and unsound (RFC 1951).

No compressor writes what these can say: tables with codes that mean nothing, or with more codes than there is room for.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from zlib import compressobj, crc32

__all__ = ["END", "SOUND", "UNSOUND", "Deflate", "gzip_of", "random_stream", "with_table"]

END = 256
"""The symbol that ends a block."""
Copy = tuple[int, int, int, int]
"""Symbol and extra bits of a length, symbol and extra bits of a distance."""

_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_EXTRA_OF_RUN = {16: 2, 17: 3, 18: 7}
_FIXED = ([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, [5] * 32)
_FLAT = {symbol: 4 if symbol < 13 else 5 for symbol in range(19)}
"""A complete code for the lengths of codes: any length and any run can be told with it."""


def gzip_of(raw: bytes, data: bytes) -> bytes:
    """A gzip member around a deflate stream, with the checksum and the length of ``data``."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + raw + struct.pack("<II", crc32(data), len(data))


def _complete(chance: random.Random, symbols: Sequence[int], longest: int = 15) -> dict[int, int]:
    """Lengths of a code in which every bit pattern means something. A symbol alone gets one bit, as the RFC wants it."""
    depths = [0]
    while len(depths) < len(symbols):
        place = chance.choice([place for place, depth in enumerate(depths) if depth < longest])
        depths[place] += 1
        depths.append(depths[place])
    chance.shuffle(depths)
    return {symbol: depth or 1 for symbol, depth in zip(symbols, depths, strict=True)}


def _canonical(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The code of each symbol (RFC 1951, 3.2.2). Where there are too many, the highest bits of the last ones are lost."""
    codes, code = {}, 0
    for length in range(1, 16):
        for symbol, its in enumerate(lengths):
            if its == length:
                codes[symbol] = (code, length)
                code += 1
        code <<= 1
    return codes


def _length(symbol: int) -> tuple[int, int]:
    """Smallest length of a symbol, and its count of extra bits."""
    if symbol < 265:
        return symbol - 254, 0
    if symbol > 284:
        return 258, 0
    extra = (symbol - 261) // 4
    return (4 + (symbol - 261) % 4 << extra) + 3, extra


def _distance(symbol: int) -> tuple[int, int]:
    """Smallest distance of a symbol, and its count of extra bits."""
    if symbol < 4:
        return symbol + 1, 0
    extra = symbol // 2 - 1
    return (2 + symbol % 2 << extra) + 1, min(extra, 13)


class Deflate:
    """A stream that grows by blocks, and what a decoder that forgives everything would make of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._value = 0
        self._count = 0

    def put(self, value: int, count: int) -> None:
        """Add a number of ``count`` bits."""
        self._value |= (value & (1 << count) - 1) << self._count
        self._count += count

    def raw(self) -> bytes:
        """All bytes; the rest of the last one is zeros."""
        return self._value.to_bytes(-(-self._count // 8), "little")

    def gzip(self) -> bytes:
        """The stream as a gzip member."""
        return gzip_of(self.raw(), bytes(self.data))

    def stored(self, data: bytes, *, last: bool = True, wrong: int = 0) -> None:
        """A stored block; ``wrong`` bits of the second length are turned over."""
        self.put(last, 3)
        self._count = -(-self._count // 8) * 8
        self.put(len(data), 16)
        self.put(~len(data) ^ wrong, 16)
        self.put(int.from_bytes(data, "little"), 8 * len(data))
        self.data += data

    def fixed(self, items: Sequence[int | Copy], *, last: bool = True) -> None:
        """A block with the fixed tables."""
        self.put(last, 1)
        self.put(1, 2)
        self._items(items, *_FIXED)

    def dynamic(
        self,
        literals: Sequence[int],
        distances: Sequence[int],
        items: Sequence[int | Copy],
        *,
        told: Sequence[int | tuple[int, int]] | None = None,
        code: dict[int, int] = _FLAT,
        last: bool = True,
    ) -> None:
        """A block with tables of its own, given as the length of each code.

        ``told`` is how the header tells the lengths: a length, or a run with its extra bits. ``code`` is the code for that.
        """
        self.put(last, 1)
        self.put(2, 2)
        self.put(len(literals) - 257, 5)
        self.put(len(distances) - 1, 5)
        self.put(15, 4)
        for symbol in _ORDER:
            self.put(code.get(symbol, 0), 3)
        codes = _canonical([code.get(symbol, 0) for symbol in range(19)])
        for one in (*literals, *distances) if told is None else told:
            symbol, extra = one if isinstance(one, tuple) else (one, 0)
            self._code(codes, symbol)
            self.put(extra, _EXTRA_OF_RUN.get(symbol, 0))
        self._items(items, literals, distances)

    def _code(self, codes: dict[int, tuple[int, int]], symbol: int) -> None:
        value, count = codes.get(symbol, (0, 1))
        for bit in reversed(range(count)):
            self.put(value >> bit, 1)

    def _items(self, items: Sequence[int | Copy], literals: Sequence[int], distances: Sequence[int]) -> None:
        ours, theirs = _canonical(literals), _canonical(distances)
        for item in items:
            if isinstance(item, int):
                self._code(ours, item)
                if item < END:
                    self.data.append(item)
                continue
            length, far = _length(item[0]), _distance(item[2])
            self._code(ours, item[0])
            self.put(item[1], length[1])
            self._code(theirs, item[2])
            self.put(item[3], far[1])
            back = far[0] + (item[3] & (1 << far[1]) - 1)
            for _ in range(length[0] + (item[1] & (1 << length[1]) - 1)):
                self.data.append(self.data[-back] if back <= len(self.data) else 0)


def _table(**lengths: int) -> list[int]:
    """A table for literals with these lengths; ``end``, ``copy`` and the letters."""
    symbols = {"end": END, "copy": END + 1}
    codes = {symbols.get(name) or ord(name): length for name, length in lengths.items()}
    return [codes.get(symbol, 0) for symbol in range(max(codes) + 1)]


_SOUND = _table(a=2, b=2, end=2, copy=2)
_Table = tuple[Sequence[int], Sequence[int], dict[int, int], Sequence[int | tuple[int, int]] | None]

SOUND: dict[str, _Table] = {
    "two distances": (_SOUND, [1, 1], _FLAT, None),
    "one distance of one bit": (_SOUND, [1], _FLAT, None),
    "no distance": (_SOUND, [0], _FLAT, None),
    "the end alone in one bit": (_table(end=1), [0], _FLAT, None),
    "most symbols that may be": ([8] * 226 + [9] * 60, [5] * 28 + [4] * 2, _FLAT, None),
}
"""Tables that look odd and are right: those for literals and for distances, the code of the header, what it tells."""

UNSOUND: dict[str, _Table] = {
    "a literal too few": (_table(a=2, end=2, copy=2), [1, 1], _FLAT, None),
    "a literal too many": (_table(a=2, b=2, c=2, end=2, copy=2), [1, 1], _FLAT, None),
    "the end alone in two bits": (_table(end=2), [1, 1], _FLAT, None),
    "literals that are too long": (_table(a=3, b=4, end=2), [0], _FLAT, None),
    "a distance too few": (_SOUND, [2, 2, 2], _FLAT, None),
    "a distance too many": (_SOUND, [1, 1, 1], _FLAT, None),
    "one distance of two bits": (_SOUND, [2], _FLAT, None),
    "distances of fifteen bits": (_SOUND, [15] * 30, _FLAT, None),
    "a header code too few": (
        _SOUND,
        [1, 1],
        {symbol: length for symbol, length in _FLAT.items() if symbol != 15},
        None,
    ),
    "a header code too many": (_SOUND, [1, 1], _FLAT | {15: 4}, None),
    "a run of nothing before it": (_SOUND, [0], _FLAT, [(16, 0), *_SOUND[3:], 0]),
    "a run past the tables": (_SOUND, [0], _FLAT, [*_SOUND, (17, 0)]),
    "a run past the tables that fills them": (_SOUND, [1, 1], _FLAT, [*_SOUND, 1, (16, 0)]),
    "287 literals": (_SOUND + [0] * 29, [1, 1], _FLAT, None),
    "31 distances": (_SOUND, [1, 1] + [0] * 29, _FLAT, None),
}
"""Tables that zlib refuses, and Go with it. Decoders that trust the sender can decode a block with most of them."""


def with_table(table: _Table, data: bytes) -> Deflate:
    """A stream that holds ``data``, behind a block with this table in which nothing but the end stands."""
    literals, distances, code, told = table
    stream = Deflate()
    stream.dynamic(literals, distances, [END], code=code, told=told, last=False)
    stream.stored(b"", last=False)  # The rest must begin on a byte.
    packer = compressobj(wbits=-15)
    raw = packer.compress(data) + packer.flush()
    stream.put(int.from_bytes(raw, "little"), 8 * len(raw))
    stream.data += data
    return stream


def _lengths(code: dict[int, int], count: int) -> list[int]:
    return [code.get(symbol, 0) for symbol in range(max(count, *code, 0) + 1)]


def _one_longer(chance: random.Random, code: dict[int, int], longest: int) -> None:
    symbol = chance.choice(list(code))
    code[symbol] = min(longest, code[symbol] + chance.randint(1, 3))


def _one_shorter(chance: random.Random, code: dict[int, int], longest: int) -> None:
    symbol = chance.choice(list(code))
    code[symbol] = max(1, code[symbol] - chance.randint(1, 3))


def _one_gone(chance: random.Random, code: dict[int, int], longest: int) -> None:
    code.pop(chance.choice(list(code)))


def _one_more(chance: random.Random, code: dict[int, int], longest: int) -> None:
    code[chance.randrange(19 if longest == 7 else 30)] = chance.randint(1, longest)


def _alone(chance: random.Random, code: dict[int, int], longest: int) -> None:
    symbol = chance.choice(list(code))
    code.clear()
    code[symbol] = chance.choice([1, 1, 2, longest])


def _empty(chance: random.Random, code: dict[int, int], longest: int) -> None:
    code.clear()


_FAULTS = {
    "incomplete": _one_longer,
    "over-subscribed": _one_shorter,
    "one gone": _one_gone,
    "one more": _one_more,
    "one alone": _alone,
    "empty": _empty,
}
"""What may be wrong with a table."""
_TABLES = ("literals", "distances", "header")


def _runs(chance: random.Random, lengths: list[int]) -> list[int | tuple[int, int]]:
    """Tell ``lengths`` with runs where there are some, as compressors do."""
    told: list[int | tuple[int, int]] = []
    at = 0
    while at < len(lengths):
        same = at
        while same < len(lengths) and lengths[same] == lengths[at]:
            same += 1
        count, repeat = same - at, at > 0 and lengths[at - 1] == lengths[at]
        if lengths[at] == 0 and count >= 11 and chance.random() < 0.9:
            count = min(count, 138)
            told.append((18, count - 11))
        elif lengths[at] == 0 and count >= 3 and chance.random() < 0.9:
            count = min(count, 10)
            told.append((17, count - 3))
        elif repeat and count >= 3 and chance.random() < 0.9:
            count = min(count, 6)
            told.append((16, count - 3))
        else:
            count = 1
            told.append(lengths[at])
        at += count
    return told


def _random_items(chance: random.Random, literals: list[int], distances: list[int], held: int) -> list[int | Copy]:
    """Symbols that the tables have, and copies that mostly do not reach too far back."""
    plain = [symbol for symbol in literals if symbol < END]
    lengths = [symbol for symbol in literals if symbol > END]
    items: list[int | Copy] = []
    for _ in range(chance.randrange(30)):
        near = [symbol for symbol in distances if symbol < 30 and _distance(symbol)[0] <= held]
        if lengths and distances and chance.random() < 0.3 and (near or chance.random() < 0.02):
            length = chance.choice(lengths)
            far = chance.choice(near if near and chance.random() < 0.98 else distances)
            room = held - _distance(far)[0] if far < 30 else 0
            extra = chance.randint(0, max(0, min(room, (1 << _distance(far)[1]) - 1)))
            copy = (length, chance.randrange(1 << _length(length)[1]), far, extra)
            held += _length(length)[0] + copy[1]
            items.append(copy)
        elif plain:
            items.append(chance.choice(plain))
            held += 1
    return items


def _random_dynamic(chance: random.Random, stream: Deflate, fault: str, *, last: bool) -> None:
    pool = [*range(END), *range(257, 286)]
    many = chance.choice([1, 2, 5, 20, 100])
    used = sorted({*chance.sample(pool, many), *chance.sample(range(257, 286), chance.randrange(3))})
    tables = {
        "literals": _complete(chance, [*used, END]),
        "distances": _complete(chance, sorted(chance.sample(range(30), chance.choice([1, 1, 2, 4, 10, 30])))),
    }
    if chance.random() < 0.1:
        tables["distances"] = {}
    where, _, how = fault.partition(": ")
    if how and where != "header":
        _FAULTS[how](chance, tables[where] or {0: 1}, chance.choice([4, 7, 15]))
    if fault == "no end":
        tables["literals"].pop(END, None)
    if fault == "symbol 286":
        tables["literals"] = _complete(chance, [*used, END, chance.choice([286, 287])])
    if fault == "symbol 30":
        tables["distances"] = _complete(chance, [0, 3, chance.choice([30, 31])])
    literals, distances = _lengths(tables["literals"], 256), _lengths(tables["distances"], 0)
    if fault == "counts":
        literals += [0] * (chance.choice([287, 288]) - len(literals))
        distances += [0] * (chance.choice([len(distances), 31, 32]) - len(distances))
    told = _runs(chance, literals + distances)
    if fault == "runs":
        place = chance.choice([0, len(told) - 1, chance.randrange(len(told))])
        told[place] = chance.choice([(16, 0), (16, 3), (17, 7), (18, 127), (18, 0)])
    code = _complete(chance, sorted({one[0] if isinstance(one, tuple) else one for one in told}), 7)
    if len(code) == 1:
        code = _complete(chance, [*code, (next(iter(code)) + 1) % 19], 7)
    if where == "header" and how:
        _FAULTS[how](chance, code, 7)
    items = _random_items(chance, list(tables["literals"]), list(tables["distances"]), len(stream.data))
    stream.dynamic(literals, distances, [*items, END], told=told, code=code, last=last)


def random_stream(chance: random.Random) -> tuple[str, bytes, bytes]:
    """What is wrong with it, a deflate stream, and what a decoder that forgives would make of it."""
    stream = Deflate()
    fault = chance.choice(
        [f"{table}: {how}" for table in _TABLES for how in _FAULTS]
        + ["nothing", "counts", "runs", "no end", "symbol 286", "symbol 30", "stored", "reserved", "too far"]
    )
    count = chance.choice([1, 1, 2, 3])
    at = chance.randrange(count)
    for number in range(count):
        last, bad = number == count - 1, fault if number == at else ""
        if bad == "stored":
            stream.stored(chance.randbytes(chance.randrange(20)), last=last, wrong=1 << chance.randrange(16))
        elif bad == "reserved":
            stream.put(6 | last, 3)
        elif bad == "too far":
            stream.fixed([97, 98, (257, 0, 3, 0), END], last=last)
        elif bad not in ("", "nothing") or chance.random() < 0.4:
            _random_dynamic(chance, stream, bad, last=last)
        elif chance.random() < 0.5:
            stream.stored(chance.randbytes(chance.randrange(20)), last=last)
        else:
            symbols = range(280 if chance.random() < 0.05 else 143)
            items = _random_items(chance, list(symbols), [0, 1, 2, 3, 4, 5, 8, 11], len(stream.data))
            stream.fixed([*items, END], last=last)
    return fault, stream.raw(), bytes(stream.data)
