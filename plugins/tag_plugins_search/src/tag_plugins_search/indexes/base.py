"""What the faiss indexes share: numbering, and the flat file of all vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import faiss as untyped

from tag_plugins_search.backend import Floats, Ints

faiss: Any = untyped
"""Its type stubs lack much of it."""
BLOCK = 65536


class FaissIndex:
    """A :class:`~tag_plugins_search.components.FileIndex` around an index of faiss with squared Euclidean distances."""

    needs_file: ClassVar[bool] = True

    def __init__(self) -> None:
        self._index: Any = None

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        distances, numbers = self._index.search(queries, k, params=self._parameters(k))
        return distances, numbers

    def _parameters(self, k: int) -> Any:
        """Of faiss, for a search of k."""
        return None

    def _add(self, vectors: Floats) -> None:
        for start in range(0, len(vectors), BLOCK):
            self._index.add(vectors[start : start + BLOCK])


def read(path: Path, writable: bool = False) -> Any:
    """An index of faiss from its file, mapped (a plain IO_FLAG_MMAP reads flat and HNSW ones whole)."""
    return faiss.read_index(str(path), 0 if writable else faiss.IO_FLAG_MMAP_IFC)


def write(index: Any, path: Path, flags: int = 0) -> None:
    """Raises OSError."""
    try:
        faiss.write_index(index, str(path), flags)
    except RuntimeError as error:
        raise OSError(f"faiss: {error}") from error
