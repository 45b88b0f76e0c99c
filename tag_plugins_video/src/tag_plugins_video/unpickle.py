"""Pickles of other people, read as data: containers, strings, bytes, numbers, numpy arrays.

``pickle.load`` runs whatever a file tells it to. Nothing in a file is run here: opcodes are interpreted
by :mod:`tag_plugins_video.pickle_machine`, and a name that is not in the short list of
:mod:`tag_plugins_video.pickle_globals` refuses the whole file. Bombs are refused too: lengths beyond the
file, deep nesting, structures that contain themselves, and small ones that unfold to huge ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from typing import Any

from tag_core.errors import UnreadableInput
from tag_plugins_video.pickle_globals import Array, Blob, Buffer, DType, Global, Refused
from tag_plugins_video.pickle_machine import Machine

MAX_DEPTH = 64
MAX_ITEMS = 10_000_000
GZIP = b"\x1f\x8b\x08"
PACKED = "compressed with gzip, so no record can be read without all before it; unpack it with gunzip"
_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError)


def loads(data: bytes, source: str = "pickle") -> Any:
    """The value of a pickle. Python-2 strings are bytes, as with ``encoding="bytes"``; sets and arrays
    are their own, writable; numpy's numbers become Python's.

    Raises:
        UnreadableInput: not a pickle, a damaged one, or one that holds more than plain data.
    """
    with _explained(source):
        tree = Machine(data).run()
        _check_size(tree)
        return materialize(tree, data)


def load(path: str | os.PathLike[str]) -> Any:
    """The same of a file."""
    with PickleFile(path) as file:
        return file.read(file.tree)


class PickleFile:
    """A pickle whose long strings and arrays stay in the file until they are asked for.

    Finding the structure costs a few microseconds per value, whatever its length, so one record of a large
    file is read without the others.

    Attributes:
        tree: the value, with `Blob` and `Array` for what was left in the file; `read` gets parts of it.

    Args:
        path: the file.
        inline: strings of up to this many bytes are read at once.

    Raises:
        UnreadableInput: as for `loads`, or the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], inline: int = 1024) -> None:
        self.path, self.tree = os.fspath(path), None
        self.data = map_file(self.path)
        try:
            if self.data[: len(GZIP)] == GZIP:
                raise UnreadableInput(self.path, PACKED)
            with _explained(self.path):
                self.tree = Machine(self.data, inline).run()
                _check_size(self.tree)
        except UnreadableInput:
            self.close()
            raise

    def read(self, part: Any) -> Any:
        """A part of the tree with everything in it."""
        with _explained(self.path):
            return materialize(part, self.data)

    def close(self) -> None:
        if isinstance(self.data, mmap):
            self.data.close()

    def __enter__(self) -> PickleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def map_file(path: str) -> mmap | bytes:
    """A file's bytes without reading them.

    Raises:
        UnreadableInput: it cannot be opened, or is empty.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise UnreadableInput(path, "an empty file")
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UnreadableInput(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def materialize(value: Any, data: Buffer) -> Any:
    """Plain values for `Blob` and `Array`, all the way down."""
    if isinstance(value, Array | Blob):
        return value.read(data)
    if isinstance(value, list):
        return [materialize(item, data) for item in value]
    if isinstance(value, tuple):
        return tuple(materialize(item, data) for item in value)
    if isinstance(value, dict):
        return {key: materialize(item, data) for key, item in value.items()}
    if isinstance(value, Global | DType):
        raise Refused("a function where data should be")
    return value


def _check_size(root: Any) -> None:
    """Bound the depth and the number of values, those that are met twice counted twice."""
    known: dict[int, tuple[int, int]] = {}
    open_: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting[-1]
        children = [c for c in _children(value) if isinstance(c, list | tuple | dict)]
        if id(value) in open_ or id(value) in known:
            waiting.pop()
            if id(value) in open_:
                open_.remove(id(value))
                known[id(value)] = _measure(value, children, known)
            continue
        open_.add(id(value))
        if any(id(child) in open_ for child in children):
            raise Refused("a container that contains itself")
        waiting += children


def _measure(value: Any, children: list[Any], known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """(values, depth) of one whose children are measured."""
    found = [known[id(child)] for child in children]
    items = len(_children(value)) - len(found) + sum(items for items, _ in found) + 1
    depth = 1 + max((depth for _, depth in found), default=0)
    if depth > MAX_DEPTH or items > MAX_ITEMS:
        raise Refused(f"containers {MAX_DEPTH} deep" if depth > MAX_DEPTH else f"more than {MAX_ITEMS:,} values")
    return items, depth


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise UnreadableInput(source, f"not a pickle of plain data: {error}") from error
    except _DAMAGE as error:
        raise UnreadableInput(source, f"a damaged pickle: {type(error).__name__}: {error}") from error
