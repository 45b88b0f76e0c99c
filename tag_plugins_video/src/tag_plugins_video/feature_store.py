"""Tag's own feature store: one matrix for all videos of a folder, memory-mapped, and an index of it.

::

    features.json     settings, what the features were made with, whether every input is in
    features.npy      float16 or float32 [positions of all videos, D]
    index.jsonl       for each video: source, offset and length in the matrix, and label and damage if any
    unreadable.jsonl  source and reason of each video that gave nothing

Videos are appended. Rows are on the disk before the line that counts them: of a killed run everything up to
the last line counts, what lies behind it is written over, and the files are a store at every instant.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tag_core.errors import UnreadableInput

VERSION = 1
NOTE, MATRIX, INDEX, UNREADABLE = "features.json", "features.npy", "index.jsonl", "unreadable.jsonl"
DTYPES = ("float16", "float32")
HEADER_BYTES = 128  # numpy leaves room in it for the number of rows to grow
DAMAGE = (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """Where a video's features are: rows ``offset`` to ``offset + length`` of the matrix."""

    source: str
    offset: int
    length: int
    label: str | None = None
    damage: str | None = None

    def __post_init__(self) -> None:
        texts = (self.source, self.label or "", self.damage or "")
        if not all(isinstance(text, str) for text in texts) or not type(self.offset) is type(self.length) is int:
            raise TypeError("not a line of an index")
        if self.offset < 0 or self.length < 1:
            raise ValueError("no such rows")


class FeatureStore:
    """A finished store, to read; it pickles, and maps the matrix where it is used.

    Attributes:
        path: the folder.
        about: what ``features.json`` says.
        modality: what the features are called in a sample.
        dim: D.
        videos: in the order in which they were extracted.

    Raises:
        UnreadableInput: no such folder, not a store, damaged, or unfinished.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not is_store(path):
            raise UnreadableInput(path, f"no features of 'tag-run features': no {NOTE} in it")
        try:
            self.about = read_note(Path(path))
            if not self.about["complete"]:
                raise UnreadableInput(path, "unfinished; give the same 'tag-run features' command again")
            self.modality, self.dim, self.dtype = self.about["modality"], self.about["dim"], self.about["dtype"]
            texts = (self.modality, self.about["fingerprint"])
            if not all(isinstance(text, str) for text in texts) or self.dtype not in DTYPES or not self.dim > 0:
                raise ValueError(f"{NOTE} does not say what they are")
            self.videos = list(_read_index(Path(path), self.features.shape[0]))
        except DAMAGE as error:
            raise UnreadableInput(path, f"damaged, or no features of 'tag-run features' ({error})") from error

    @cached_property
    def features(self) -> np.ndarray:
        """All rows [positions of all videos, D], memory-mapped."""
        path, dtype = os.path.join(self.path, MATRIX), np.dtype(self.dtype)
        rows = (os.path.getsize(path) - HEADER_BYTES) // (self.dim * dtype.itemsize)
        with open(path, "rb") as file:  # compared, not parsed: numpy's parser fails in many ways
            if file.read(HEADER_BYTES) != header(rows, self.dim, dtype):
                raise ValueError(f"{MATRIX} is no {self.dtype} [{rows}, {self.dim}]")
        return np.memmap(path, dtype, "r", HEADER_BYTES, (rows, self.dim))

    def read(self, video: StoredVideo) -> np.ndarray:
        """A copy of one video's features, [length, D].

        Raises:
            UnreadableInput: naming the video.
        """
        try:
            rows = np.array(self.features[video.offset : video.offset + video.length])
        except DAMAGE as error:
            raise UnreadableInput(video.source, f"its features in {self.path} cannot be read: {error}") from error
        if len(rows) < video.length or not np.isfinite(rows).all():
            raise UnreadableInput(video.source, f"its features in {self.path} are damaged")
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "features"}


def is_store(path: str) -> bool:
    """Whether it is a folder of ``tag-run features``."""
    return os.path.isfile(os.path.join(path, NOTE))


def read_note(folder: Path) -> dict[str, Any]:
    """``features.json``; raises one of DAMAGE."""
    with open(folder / NOTE, encoding="utf-8") as file:
        note = json.load(file)
    if not isinstance(note, dict) or note.get("version") != VERSION:
        raise ValueError(f"{NOTE} is of no version that this release reads")
    return note


def _read_index(folder: Path, rows: int) -> Iterator[StoredVideo]:
    with open(folder / INDEX, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                video = StoredVideo(**json.loads(line))
                if video.offset + video.length > rows:
                    raise ValueError(f"rows beyond the {rows} of {MATRIX}")
            except DAMAGE as error:
                raise ValueError(f"{INDEX}, line {number}: {error}") from error
            yield video


def header(rows: int, dim: int, dtype: np.dtype[Any]) -> bytes:
    """Of the matrix, as numpy writes it."""
    file = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, about)
    written = file.getvalue()
    if len(written) != HEADER_BYTES:
        raise RuntimeError(f"a header of {len(written)} bytes, not {HEADER_BYTES}")
    return written
