"""The pickle format without the execution: opcodes to plain values, and nothing else.

``pickle.Unpickler`` with a ``find_class`` of its own would not do. It allocates what a file tells it to (a memo
of 2**28 places, an array of any shape), hashes nested keys in C until the stack overflows, lets numpy's own dtype be
told that bytes of the file are pointers to objects, and reads a whole file for one record. Here every opcode
that is understood is a line of the table below (Python's ``pickletools`` describes them); any other is
refused. A value takes at most about a hundred bytes for each byte of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tag_plugins_video.pickle_globals import Array, Buffer, DType, Global, Refused, find, key
from tag_plugins_video.pickle_reader import Reader

_MARK = object()


class Machine(Reader):
    """Runs one pickle, whose Python-2 strings become bytes.

    Args:
        data: the whole pickle.
        inline: strings longer than this many bytes become `Blob`; None reads all of them.
    """

    def __init__(self, data: Buffer, inline: int | None = None) -> None:
        super().__init__(data, inline)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle stands for; arrays are `Array`.

        Raises:
            Refused: what is not plain data.
            ArithmeticError, LookupError, TypeError, ValueError: a damaged pickle.
        """
        while (code := self.take(1)) != b".":
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise Refused(f"opcode {code!r} at byte {self.at - 1} stands for no plain data")
            operation(self)
        return self.pop(1)[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0 or any(value is _MARK for value in self.stack[start:]):
            raise Refused("its stack is too short")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def since_mark(self) -> list[Any]:
        """Everything above the last mark, which goes with it."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def top(self, kind: type | None = None) -> Any:
        value = self.stack[-1]
        if value is _MARK or (kind is not None and type(value) is not kind):
            raise Refused("its stack holds something else than it should")
        return value

    def append(self) -> None:
        value = self.pop(1)[0]
        self.top(list).append(value)

    def extend(self) -> None:
        values = self.since_mark()
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        self.top(dict).update(_table(values))

    def add_items(self) -> None:
        values = self.since_mark()
        self.top(set).update(map(key, values))

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise Refused("it calls what is no function")
        self.push(function.call(*arguments))

    def build(self) -> None:
        target, state = self.pop(2)
        if not isinstance(target, Array | DType):
            raise Refused(f"it sets the state of a {type(target).__name__}")
        target.set_state(state)
        self.push(target)

    def put(self, place: int) -> None:
        self.memo[place] = self.top()


def _table(values: list[Any]) -> dict[Any, Any]:
    return {key(name): value for name, value in zip(values[::2], values[1::2], strict=True)}


def _push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(make(machine))


_OPERATIONS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME: how to buffer the file, of no meaning here
    b"(": _push(lambda m: _MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": Machine.since_mark,
    b"2": _push(Machine.top),
    b"N": _push(lambda m: None),
    b"\x88": _push(lambda m: True),
    b"\x89": _push(lambda m: False),
    b"I": _push(Machine.decimal),
    b"L": _push(Machine.decimal),
    b"K": _push(lambda m: m.number("<B")),
    b"M": _push(lambda m: m.number("<H")),
    b"J": _push(lambda m: m.number("<i")),
    b"\x8a": _push(lambda m: m.long("<B")),
    b"\x8b": _push(lambda m: m.long("<I")),
    b"F": _push(lambda m: float(m.line())),
    b"G": _push(lambda m: m.number(">d")),
    b"S": _push(Machine.quoted),
    b"T": _push(lambda m: m.string("<i", "bytes")),
    b"U": _push(lambda m: m.string("<B", "bytes")),
    b"B": _push(lambda m: m.string("<I", "bytes")),
    b"C": _push(lambda m: m.string("<B", "bytes")),
    b"\x8e": _push(lambda m: m.string("<Q", "bytes")),
    b"\x96": _push(lambda m: m.string("<Q", "bytes")),  # BYTEARRAY8
    b"V": _push(lambda m: m.line().decode("raw-unicode-escape")),
    b"X": _push(lambda m: m.string("<I", "text")),
    b"\x8c": _push(lambda m: m.string("<B", "text")),
    b"\x8d": _push(lambda m: m.string("<Q", "text")),
    b"]": _push(lambda m: []),
    b"}": _push(lambda m: {}),
    b")": _push(lambda m: ()),
    b"\x8f": _push(lambda m: set()),
    b"l": _push(Machine.since_mark),
    b"d": _push(lambda m: _table(m.since_mark())),
    b"t": _push(lambda m: tuple(m.since_mark())),
    b"\x85": _push(lambda m: tuple(m.pop(1))),
    b"\x86": _push(lambda m: tuple(m.pop(2))),
    b"\x87": _push(lambda m: tuple(m.pop(3))),
    b"\x91": _push(lambda m: frozenset(map(key, m.since_mark()))),
    b"a": Machine.append,
    b"e": Machine.extend,
    b"s": lambda m: m.set_items(m.pop(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"\x90": Machine.add_items,
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"g": _push(lambda m: m.memo[int(m.line())]),
    b"h": _push(lambda m: m.memo[m.number("<B")]),
    b"j": _push(lambda m: m.memo[m.number("<I")]),
    b"c": _push(lambda m: find(m.line(), m.line())),
    b"\x93": _push(lambda m: find(*m.pop(2))),
    b"R": Machine.reduce,
    b"b": Machine.build,
}
