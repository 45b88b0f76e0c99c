"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) of long byte strings, vectorised with numpy.

A CRC without its inversions is linear over GF(2): the string is cut into columns of equal width, all
columns go through the byte table side by side, and neighbours are then joined pair by pair:
crc(a + b) = zeros(crc(a), len(b)) ^ crc(b), where zeros is the linear map of that many zero bytes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
_POLYNOMIAL = 0x82F63B78
_WIDTH = 512
"""Bytes per column"""
_SHORT = 2048
"""Up to this many bytes a loop over the bytes is faster"""


def crc32c(data: bytes) -> int:
    """The checksum as commonly written: crc32c(b"123456789") == 0xE3069283."""
    if len(data) <= _SHORT:
        return _bytewise(data)
    columns = 1 << (-(-len(data) // _WIDTH) - 1).bit_length()
    padded = np.zeros(columns * _WIDTH, np.uint8)  # zeros in front change nothing
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    padded[-len(data) : 4 - len(data)] ^= 0xFF  # the initial inversion
    table, state = _table(), np.zeros(columns, np.uint32)
    for step in np.ascontiguousarray(padded.reshape(columns, _WIDTH).T):
        state = table.take((state ^ step) & 0xFF) ^ (state >> 8)
    for level in range(columns.bit_length() - 1):
        state = _apply(_zeros(level), state[0::2]) ^ state[1::2]
    return int(state[0]) ^ 0xFFFFFFFF


def _bytewise(data: bytes) -> int:
    table, state = _table_list(), 0xFFFFFFFF
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@cache
def _table() -> Words:
    table: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


@cache
def _table_list() -> list[int]:
    numbers: list[int] = _table().tolist()
    return numbers


@cache
def _zeros(level: int) -> Words:
    """Where each of the 32 bits goes after ``_WIDTH * 2**level`` zero bytes, uint32 [32]."""
    if level:
        half = _zeros(level - 1)
        return _apply(half, half)
    bits: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_WIDTH):
        bits = _table()[bits & 0xFF] ^ (bits >> 8)
    return bits


def _apply(images: Words, state: Words) -> Words:
    """The linear map with these images of the bits, of every word."""
    bits = state[:, None] >> np.arange(32, dtype=np.uint32) & 1
    moved: Words = np.bitwise_xor.reduce(images * bits, axis=1)
    return moved
