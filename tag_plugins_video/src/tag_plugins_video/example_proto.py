"""Example and SequenceExample messages, without TensorFlow or protobuf.

The wire format of tensorflow/core/example/example.proto and feature.proto, whose few fields are decoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tag_core.errors import UnreadableInput

Feature = list[bytes] | list[int] | list[float]
_EMPTY = memoryview(b"")


@dataclass
class Sequence:
    """``context``: values by name. ``frames``: the values of each step by name (SequenceExample only)."""

    context: dict[str, Feature] = field(default_factory=dict)
    frames: dict[str, list[Feature]] = field(default_factory=dict)


def parse(data: bytes | memoryview, path: str = "record", context_only: bool = False) -> Sequence:
    """Decode an Example or SequenceExample.

    Args:
        data: the message.
        path: what an error names.
        context_only: stop at the end of the context, which comes first: no frame is looked at.

    Raises:
        UnreadableInput: no such message.
    """
    found = Sequence()
    try:
        for number, value in _fields(memoryview(data)):
            if number == 1:
                found.context.update((name, _feature(part)) for name, part in _map(_message(value)))
                if context_only:
                    break
            elif number == 2:
                for name, part in _map(_message(value)):
                    found.frames[name] = [_feature(_message(step)) for n, step in _fields(part) if n == 1]
    except (ValueError, IndexError, struct.error) as error:
        raise UnreadableInput(path, f"no SequenceExample: {error}") from error
    return found


def frame_matrix(frames: Mapping[str, list[Feature]], name: str, path: str) -> np.ndarray:
    """uint8 [T, D] of a feature list whose steps hold one byte string each.

    Raises:
        UnreadableInput: there is no such list, or its steps are of another type or of several lengths.
    """
    steps = [step[0] if len(step) == 1 and isinstance(step[0], bytes) else None for step in frames.get(name, [])]
    rows = [step for step in steps if step is not None]
    if not rows or len(rows) < len(steps) or len({len(row) for row in rows}) > 1:
        raise UnreadableInput(path, f"feature list {name!r} is missing or does not hold one byte string per frame")
    return np.frombuffer(bytearray(b"".join(rows)), np.uint8).reshape(len(rows), -1)


def _map(message: memoryview) -> Iterator[tuple[str, memoryview]]:
    """Entries of ``map<string, message> = 1``."""
    for number, entry in _fields(message):
        if number == 1:
            parts = dict(_fields(_message(entry)))
            yield bytes(_message(parts.get(1, _EMPTY))).decode(), _message(parts.get(2, _EMPTY))


def _feature(message: memoryview) -> Feature:
    """``oneof``: bytes_list = 1, float_list = 2, int64_list = 3, each ``repeated value = 1``, packed or not."""
    feature: Feature = []
    for kind, values in _fields(message):
        entries = [value for number, value in _fields(_message(values)) if number == 1]
        if kind == 1:
            feature = [bytes(_message(value)) for value in entries]
        elif kind == 2:
            packed = b"".join(bytes(_message(value)) for value in entries)
            feature = np.frombuffer(packed, "<f4").astype(float).tolist()
        elif kind == 3:
            feature = [number for value in entries for number in _integers(value)]
    return feature


def _integers(value: int | memoryview) -> Iterator[int]:
    at = 0
    while isinstance(value, memoryview) and at < len(value):
        number, at = _varint(value, at)
        yield _signed(number)
    if isinstance(value, int):
        yield _signed(value)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, a varint or the bytes of anything longer), in the order of the wire."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        length, at = _varint(data, at) if wire == 2 else (8 if wire == 1 else 4, at)
        if at + length > len(data):
            raise ValueError("a field goes beyond the end")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at, number, shift = at + 1, number | (byte & 127) << shift, shift + 7
        if byte < 128:
            return number & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than 10 bytes")
