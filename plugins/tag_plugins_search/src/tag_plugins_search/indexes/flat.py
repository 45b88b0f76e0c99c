"""Exact search."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from tag_plugins_search.backend import Floats, Ints
from tag_plugins_search.indexes.base import FaissIndex, faiss, read


class Flat(FaissIndex):
    """Compares a query with every vector: exact, nothing to build, and the default up to 100,000 vectors.

    faiss finds the nearest by |q|^2 + |v|^2 - 2qv, whose rounding is large beside small distances; those that are
    found get their distances anew, as the sum of squared differences, and equal ones the order of their numbers.
    """

    needs_file: ClassVar[bool] = False

    def add(self, vectors: Floats) -> None:
        if self._index is None:
            self._index = faiss.IndexFlatL2(vectors.shape[1])
        self._add(vectors)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        _, numbers = super().search(queries, k)
        numbers = np.ascontiguousarray(np.sort(numbers, axis=1))
        distances = np.empty(numbers.shape, np.float32)
        pointers = (faiss.swig_ptr(array) for array in (queries, distances, numbers))
        x, found, rows = pointers
        self._index.compute_distance_subset(len(queries), x, k, found, rows)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(distances, order, 1), np.take_along_axis(numbers, order, 1)

    def save(self, path: Path) -> None: ...

    def load(self, path: Path, vectors: Path, writable: bool = False) -> None:
        self._index = read(vectors, writable)
