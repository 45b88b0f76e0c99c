"""A navigable graph of neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tag_plugins_search.backend import Floats
from tag_plugins_search.indexes.base import FaissIndex, faiss, read, write


class HNSW(FaissIndex):
    """Walks a layered graph of neighbours towards the query: fast, nearly exact, slow to build.

    Its file holds the graph alone; distances are computed from the file of all vectors. Building and adding hold
    all vectors in memory.

    Args:
        m: neighbours of a vector in the graph; twice as many on the lowest layer.
        ef_construction: candidates that are weighed when a vector is added.
        ef_search: candidates that are weighed in a search, at least k: more find more, and take longer.
    """

    def __init__(self, m: int = 32, ef_construction: int = 40, ef_search: int = 64) -> None:
        super().__init__()
        if m < 2 or ef_construction < 1 or ef_search < 1:
            raise ValueError(f"m = {m} must be at least 2, ef_construction and ef_search at least 1")
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search

    def add(self, vectors: Floats) -> None:
        if self._index is None:
            self._index = faiss.IndexHNSWFlat(vectors.shape[1], self.m)
        self._index.hnsw.efConstruction = self.ef_construction
        self._add(vectors)

    def save(self, path: Path) -> None:
        write(self._index, path, faiss.IO_FLAG_SKIP_STORAGE)

    def load(self, path: Path, vectors: Path, writable: bool = False) -> None:
        self._index, self._vectors = read(path, writable), read(vectors, writable)
        if self._index.ntotal != self._vectors.ntotal:
            raise ValueError("graph and vectors do not belong together")
        self._index.storage, self._index.own_fields = self._vectors, False

    def _parameters(self, k: int) -> Any:
        return faiss.SearchParametersHNSW(efSearch=max(self.ef_search, k))
