"""The few functions that a pickle may name: what numpy arrays and byte strings are pickled with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal

import numpy as np

Buffer = bytes | mmap
PLAIN_DTYPE = re.compile(r"\??|b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,4}|[bBhHiIlLqQefdFD]")


class Refused(ValueError):
    """Not a pickle, or one that holds more than plain data."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A long string that stays in the file: ``length`` bytes from ``offset`` on.

    ``latin1`` is how Python 3 writes bytes for Python 2: as text whose characters are the bytes.
    """

    offset: int
    length: int
    form: Literal["bytes", "text", "latin1"]

    def read(self, data: Buffer) -> bytes | str:
        raw = data[self.offset : self.offset + self.length]
        if self.form == "bytes":
            return raw
        text = raw.decode("utf-8", "surrogatepass")
        return text if self.form == "text" else text.encode("latin-1")


@dataclass(slots=True, eq=False)
class DType:
    """A numpy dtype while it is put together: its code, then its byte order."""

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "=", "|") or any(field is not None for field in state[2:5]):
            raise Refused("an array of structured or unknown type")
        self.order = order

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


@dataclass(slots=True, eq=False)
class Array:
    """A numpy array as the pickle describes it; `read` makes it."""

    dtype: DType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes | Blob = b""

    def set_state(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        self.fill(shape, dtype, fortran, data)

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> Array:
        if not isinstance(dtype, DType) or type(shape) is not tuple or len(shape) > 32:
            raise Refused("an array without a plain type and shape")
        if any(type(side) is not int or side < 0 for side in shape):
            raise Refused(f"an array of shape {shape}")
        if not isinstance(data, bytes | Blob) or (isinstance(data, Blob) and data.form == "text"):
            raise Refused("an array of objects, not of numbers")
        exact = isinstance(data, bytes) or data.form == "bytes"
        size, length = math.prod(shape) * dtype.dtype().itemsize, len(data) if isinstance(data, bytes) else data.length
        if (exact and size != length) or not size <= length <= 2 * size:  # a character takes one byte or two
            raise Refused(f"an array of shape {shape} with {length} bytes")
        self.dtype, self.shape, self.fortran, self.data = dtype, shape, bool(fortran), data
        return self

    def read(self, data: Buffer) -> np.ndarray:
        if self.dtype is None:
            raise Refused("an array without contents")
        raw = self.data if isinstance(self.data, bytes) else self.data.read(data)
        if not isinstance(raw, bytes) or len(raw) != math.prod(self.shape) * self.dtype.dtype().itemsize:
            raise Refused(f"an array of shape {self.shape} with {len(raw)} bytes")
        flat = np.frombuffer(bytearray(raw), self.dtype.dtype())
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


@dataclass(frozen=True, slots=True)
class Global:
    """An allowed name, and what stands for a call of it."""

    name: str
    call: Callable[..., Any]


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    if kind is not NDARRAY:
        raise Refused("an array of another class")
    return Array()


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, DType) or not isinstance(data, bytes) or len(data) != dtype.dtype().itemsize:
        raise Refused("a number without a plain type")
    return np.frombuffer(data, dtype.dtype())[0].item()


def _dtype(code: Any, align: Any = False, copy: Any = True) -> DType:
    code = _text(code)
    if not code or not PLAIN_DTYPE.fullmatch(code):
        raise Refused(f"an array of type {code[:20]!r}, which is not one of numbers or text")
    return DType(code)


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    data = bytes(data) if isinstance(data, bytearray) else data
    return Array().fill(shape, dtype, _text(order) == "F", data)


def _encode(text: Any, encoding: Any) -> bytes | Blob:
    if _text(encoding) not in ("latin1", "latin-1"):
        raise Refused("text in another encoding than Latin-1")
    if isinstance(text, Blob) and text.form == "text":
        return Blob(text.offset, text.length, "latin1")
    if not isinstance(text, str):
        raise Refused("it encodes what is no text")
    return text.encode("latin-1")


def _set(values: Any = ()) -> set[Any]:
    return set(map(key, values))


def _bytes() -> bytes:
    return b""


def _no_call(*arguments: Any) -> Any:
    raise Refused("it makes an array of unknown contents")


NDARRAY = Global("numpy.ndarray", _no_call)
_ALLOWED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.set": _set,
    "builtins.frozenset": lambda values=(): frozenset(_set(values)),
}
_ALLOWED_GLOBALS = {name: Global(name, call) for name, call in _ALLOWED.items()} | {NDARRAY.name: NDARRAY}


def find(module: Any, name: Any) -> Global:
    """The allowed global of that name; nothing is imported.

    Raises:
        Refused: any other name.
    """
    module, name = _text(module), _text(name)
    module = {"__builtin__": "builtins"}.get(module, module.replace("numpy._core.", "numpy.core."))
    full = f"{module}.{name}"
    if full not in _ALLOWED_GLOBALS:
        raise Refused(f"it names {full[:80]!r}; only plain data is read, since any other name can run code")
    return _ALLOWED_GLOBALS[full]


def key(value: Any) -> Any:
    """A key or member of a set. Only plain ones: hashing a deeply nested tuple overflows the C stack."""
    if value is not None and not isinstance(value, str | bytes | int | float):
        raise Refused(f"a {type(value).__name__} as a key")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise Refused(f"a {type(value).__name__} where a name should be")
    return value if isinstance(value, str) else value.decode("latin-1")
