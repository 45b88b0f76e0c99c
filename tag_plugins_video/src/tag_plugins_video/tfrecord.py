"""TFRecord files, without TensorFlow; what is in the records is read by `tag_plugins_video.example_proto`.

A record is: length (uint64, little endian), masked CRC of these 8 bytes, data, masked CRC of the data
(tensorflow/core/lib/io/record_writer.h). Compressed files are refused: no record of theirs can be read without all
before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap

from tag_core.errors import UnreadableInput
from tag_plugins_video.crc32c import crc32c
from tag_plugins_video.unpickle import GZIP, PACKED, map_file

Piece = tuple[int, int]
"""(offset, length) of a record's data in the file"""
_HEADER = struct.Struct("<QI")


class TFRecordFile:
    """A TFRecord file, any record of which can be read.

    Attributes:
        pieces: where the records are that the file holds whole, found without reading them.
        damage: what ends the file too early, None for a sound one.

    Raises:
        UnreadableInput: the file cannot be opened, is empty, or does not begin with a record.
    """

    def __init__(self, path: str) -> None:
        self.path, self.data = path, map_file(path)
        self.pieces: list[Piece] = []
        self.damage = self._scan()
        if self.damage and not self.pieces:
            packed = self.data[: len(GZIP)] == GZIP
            self.close()
            raise UnreadableInput(path, PACKED if packed else f"no TFRecord file: {self.damage}")

    def _scan(self) -> str | None:
        at, end = 0, len(self.data)
        while at < end:
            if at + _HEADER.size > end:
                return f"cut off within the header of record {len(self.pieces)}"
            header = self.data[at : at + _HEADER.size]
            length, check = _HEADER.unpack(header)
            if check != masked(header[:8]):
                return f"record {len(self.pieces)}, byte {at}: the length has a wrong checksum"
            if at + _HEADER.size + length + 4 > end:
                return f"cut off within record {len(self.pieces)}"
            self.pieces.append((at + _HEADER.size, length))
            at += _HEADER.size + length + 4
        return None

    def raw(self, index: int) -> bytes:
        """The data of one record.

        Raises:
            UnreadableInput: its checksum is wrong.
        """
        return read_piece(self.path, self.data, self.pieces[index], index)

    def close(self) -> None:
        if isinstance(self.data, mmap):
            self.data.close()


def read_records(path: str) -> Iterator[bytes]:
    """The data of one record after the other.

    Raises:
        UnreadableInput: at the first that is damaged, or after the last that a cut-off file holds.
    """
    file = TFRecordFile(path)
    try:
        for index in range(len(file.pieces)):
            yield file.raw(index)
        if file.damage:
            raise UnreadableInput(path, file.damage)
    finally:
        file.close()


def read_piece(path: str, data: bytes | mmap, piece: Piece, index: int) -> bytes:
    """One record's data, its checksum compared."""
    offset, length = piece
    record = data[offset : offset + length]
    if masked(record) != int.from_bytes(data[offset + length : offset + length + 4], "little"):
        raise UnreadableInput(path, f"record {index}, byte {offset}: the data has a wrong checksum")
    return record


def masked(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated and shifted, so that a CRC of CRCs stays one."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
