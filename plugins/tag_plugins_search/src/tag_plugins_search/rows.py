"""Vectors, ids and payload in files, one row an entry: written in one go, read where they are asked for.

- ``vectors``: a flat index of faiss (``faiss.read_index`` opens it): a header and float32 [N, D].
- ``ids``: .npy, int64 [N, 2]: 64-bit BLAKE2 digests of the entry's id and of its source.
- ``payload``: JSON Lines, the records without their embeddings; ``offsets``: .npy, int64 [N + 1], where lines start.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tag_core.errors import UserError
from tag_core.records import Record, finite
from tag_plugins_search.backend import Entries, Floats, Ints
from tag_plugins_search.entries import id_of

HEADER = struct.Struct("<4siqqqBiQ")
"""faiss, impl/index_write.cpp: "IxF2", dimension, count, two that are unused, trained, metric 1 (L2), floats."""
ROLES = ("vectors", "ids", "payload", "offsets")


def header(count: int, dimension: int) -> bytes:
    return HEADER.pack(b"IxF2", dimension, count, 1 << 20, 1 << 20, 1, 1, count * dimension)


def map_vectors(path: Path, count: int, dimension: int) -> Floats:
    """float32 [count, dimension], mapped."""
    return np.memmap(path, "<f4", "r", HEADER.size, (count, dimension))


def digests(texts: Sequence[str]) -> Ints:
    """int64 [N]."""
    found = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(found, "<i8")


class Rows:
    """The rows of an index, mapped.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """

    def __init__(self, paths: Mapping[str, Path], count: int, dimension: int) -> None:
        self.vectors = map_vectors(paths["vectors"], count, dimension)
        self.digests: Ints = np.load(paths["ids"], mmap_mode="r")
        self.offsets: Ints = np.load(paths["offsets"], mmap_mode="r")
        with open(paths["payload"], "rb") as file:
            self._payload = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        shapes = [(count, 2), (count + 1,)]
        if [self.digests.shape, self.offsets.shape] != shapes or self.offsets[-1] != len(self._payload):
            raise ValueError("its files do not belong together")

    def __len__(self) -> int:
        return len(self.vectors)

    def lines(self, start: int, end: int) -> bytes:
        """The payload of rows start to end."""
        return self._payload[int(self.offsets[start]) : int(self.offsets[end])]

    def payload(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines(number, number + 1))
        return found

    def id(self, number: int) -> str:
        return id_of(Record.from_dict(self.payload(number)))

    def find(self, texts: Sequence[str], column: int, among: npt.NDArray[np.bool_] | None) -> dict[str, list[int]]:
        """Text -> numbers of the rows whose id (column 0) or source (column 1) it is.

        Args:
            among: which rows are looked at; None for all.
        """
        wanted = {int(digest): text for digest, text in zip(digests(texts), texts, strict=True)}
        hits = np.isin(self.digests[:, column], list(wanted))
        found: dict[str, list[int]] = {}
        for number in np.flatnonzero(hits if among is None else hits & among).tolist():
            text = wanted[int(self.digests[number, column])]
            if (self.id(number) if column == 0 else self.payload(number)["source"]) == text:
                found.setdefault(text, []).append(number)
        return found


class RowsWriter:
    """Writes rows to ``paths``, beginning with a copy of ``old``; use it in a ``with`` statement, then ``close``."""

    def __init__(self, paths: Callable[[str], Path], dimension: int, old: Rows | None) -> None:
        self.paths = {role: paths(role) for role in ROLES}
        self.dimension, self.count = dimension, len(old) if old else 0
        self._digests: list[Ints] = [np.asarray(old.digests)] if old else []
        self._offsets: list[int] = old.offsets.tolist() if old else [0]
        self._old = old

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._vectors, self._payload = (
                stack.enter_context(open(self.paths[role], "wb")) for role in ("vectors", "payload")
            )
            self._vectors.write(header(0, self.dimension))
            if self._old:
                self._vectors.write(self._old.vectors.data)
                self._payload.write(self._old.lines(0, len(self._old)))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def add(self, entries: Entries) -> None:
        self._vectors.write(entries.vectors.data)
        for each in entries.payload:
            line = json.dumps(finite(each), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
            self._payload.write(line)
            self._offsets.append(self._offsets[-1] + len(line))
        sources = [each["source"] for each in entries.payload]
        self._digests.append(np.stack([digests(entries.ids), digests(sources)], axis=1))
        self.count += len(entries.ids)

    def close(self, gone: npt.NDArray[np.bool_] | None) -> Rows:
        """Finish the files and map them.

        Args:
            gone: which of the old rows are removed: their ids may come again.

        Raises:
            UserError: an id is there twice.
        """
        self._vectors.seek(0)
        self._vectors.write(header(self.count, self.dimension))
        self._opened.close()
        np.save(self.paths["ids"], np.concatenate(self._digests))
        np.save(self.paths["offsets"], np.array(self._offsets, "<i8"))
        rows = Rows(self.paths, self.count, self.dimension)
        _no_id_twice(rows, gone)
        return rows


def _no_id_twice(rows: Rows, gone: npt.NDArray[np.bool_] | None) -> None:
    alive = np.arange(len(rows))
    if gone is not None:
        alive = alive[np.append(~gone, np.ones(len(rows) - len(gone), bool))]
    order = alive[np.argsort(rows.digests[alive, 0], kind="stable")]
    sorted_digests = rows.digests[order, 0]
    same = np.flatnonzero(sorted_digests[1:] == sorted_digests[:-1])
    for place in same[np.argsort(order[same + 1])].tolist():
        first, second = (rows.id(int(number)) for number in order[place : place + 2])
        if first == second:
            hint = "remove the old one first, or give records an extra.id of their own"
            more = f", and {len(same) - 1} more like it" if len(same) > 1 else ""
            which = f"(entries {order[place]} and {order[place + 1]}{more})"
            raise UserError(f"{first}: the id is there twice {which}; {hint}")
