"""An index over embeddings: built from records, opened by memory mapping, searched, added to, removed from.

::

    index = IndexFolder.build(Path("products.index"), read_records("predictions.jsonl"), "search/hnsw")
    index = IndexFolder.open(Path("products.index"))
    found = index.search(vectors, k=10)               # distances [Q, 10], numbers [Q, 10]
    index.records(found.numbers[0])                   # the records, without their embeddings
    index.add(records); index.remove(["a.jpg"]); index.compact(); index.verify(); len(index)

An index is a folder. ``manifest.json`` says what it is (:class:`~tag_plugins_search.manifest.Manifest`); where the
vectors lie is the business of a :class:`~tag_plugins_search.backend.Backend`: files of the folder
(:mod:`tag_plugins_search.file_backend`), or a database.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search.backend import Backend, Entries, Floats, Ints
from tag_plugins_search.components import auto, component_of, written_out
from tag_plugins_search.entries import checked, entries_of
from tag_plugins_search.file_backend import FileBackend
from tag_plugins_search.manifest import NAME, Manifest, Metric
from tag_plugins_search.refine import expanded, re_ranked


@dataclass(frozen=True)
class Found:
    """Answers, nearest first.

    Args:
        distances: float32 [Q, k]: 1 - cosine (0 to 2), or Euclidean; inf where fewer were found.
        numbers: int64 [Q, k], of entries, for ``records`` and ``vectors``; -1 where fewer were found.
    """

    distances: Floats
    numbers: Ints


class IndexFolder:
    """An index that is open for reading; every writing method takes a lock while it works, and is all or nothing.

    Attributes:
        path: the folder.
        manifest: what the index is: dimension, metric, index component with its options, embedding.
        unreadable: source -> reason, of the records given to ``build`` or ``add`` that carry an error.
    """

    def __init__(self, path: Path, backend: Backend) -> None:
        self.path, self._backend = path, backend
        self.unreadable: dict[str, str] = {}

    @property
    def manifest(self) -> Manifest:
        return self._backend.manifest

    @classmethod
    def build(
        cls,
        path: str | Path,
        records: Iterable[Record],
        index: str | Mapping[str, Any] = "auto",
        *,
        metric: Metric = "cosine",
        embedding: Mapping[str, Any] = {},
        replace: bool = False,
    ) -> Self:
        """Make an index of the records' embeddings.

        Args:
            path: its folder, new or empty; with ``replace`` it may hold an index, which stays until the new one is
                whole.
            records: each with ``embedding`` (a list or a float array [D]). Those with ``error`` go to ``unreadable``.
            index: name of a component of kind index, or a table of ``name`` and options; "auto" is ``search/flat``
                up to 100,000 entries and ``search/hnsw`` above.
            metric: "cosine" or "euclidean".
            embedding: how the embeddings were made, kept in the manifest: ``fingerprint`` (compared by
                ``check_fingerprint``) and whatever is needed to make more of them. Strict JSON.

        Raises:
            UserError: no records; a record without an embedding, of another dimension, not finite, or all zeros
                under cosine; an id twice; too few vectors for the index; a folder that holds something else, or is
                being written to.
            RunFolderError: it cannot be written.
        """
        folder = Path(path)
        table = {"name": index} if isinstance(index, str) else dict(index)
        is_auto = table == {"name": "auto"}
        table = written_out(auto(0) if is_auto else table)
        if (folder / NAME).exists() and not replace:
            raise UserError(f"{folder}: holds an index already; add to it, name another folder, or replace it")
        unreadable: dict[str, str] = {}
        entries = entries_of(records, metric, None, unreadable)
        if (first := next(entries, None)) is None:
            told = f"; none of {len(unreadable)} sources could be read" if unreadable else ""
            raise UserError(f"{folder}: no records to build an index of{told}")
        dimension = first.vectors.shape[1]
        model = dict(embedding)
        about = Manifest(
            dimension=dimension, metric=metric, index=table, auto=is_auto, embedding=model, folder=os.getcwd()
        )
        built = cls(folder, _backend_of(folder, about))
        built._backend.build(chain([first], entries))
        built.unreadable = unreadable
        return built

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map an index; the vectors are read when searched.

        Raises:
            UserError: no index there, one of a newer version, or files that are missing or of the wrong size.
        """
        folder = Path(path)
        while True:
            manifest = Manifest.read(folder)
            try:
                return cls(folder, _backend_of(folder, manifest))
            except UserError:
                if Manifest.read(folder).generation == manifest.generation:
                    raise  # else a writer has just replaced the files

    def add(self, records: Iterable[Record]) -> int:
        """Add the records' embeddings; returns how many. Raises as ``build`` does, and nothing is added then."""
        added = 0

        def counted(entries: Iterable[Entries]) -> Iterator[Entries]:
            nonlocal added
            for block in entries:
                added += len(block.ids)
                yield block

        about = self.manifest
        entries = entries_of(records, about.metric, about.dimension, self.unreadable)
        if (first := next(entries, None)) is not None:
            self._backend.add(counted(chain([first], entries)))
        return added

    def remove(self, names: Sequence[str]) -> int:
        """Remove entries by id, or all entries of a source; returns how many.

        Raises:
            UserError: a name that is neither; nothing is removed then.
        """
        ids, sources = self._backend.find(names), self._backend.of_sources(names)
        if unknown := [n for n, number in zip(names, ids.tolist(), strict=True) if number < 0 and n not in sources]:
            raise UserError(f"{self.path}: no entry or source {unknown[0]!r} there; nothing was removed")
        numbers = np.unique(np.concatenate([ids[ids >= 0], *(np.array(s, np.int64) for s in sources.values())]))
        if len(numbers):
            self._backend.remove(numbers)
        return len(numbers)

    def compact(self) -> int:
        """Rebuild without the removed entries, and return how many those were; "auto" chooses again."""
        removed = self.manifest.removed
        self._backend.compact()
        return removed

    def verify(self) -> list[str]:
        """Compare every file with its checksum; a line for each thing that is wrong."""
        return self._backend.verify()

    def __len__(self) -> int:
        return len(self._backend)

    def search(
        self, queries: npt.ArrayLike, k: int = 10, *, expand: int = 0, alpha: float = 3.0, rerank: int = 0
    ) -> Found:
        """The k nearest entries of each query, removed ones left out.

        Args:
            queries: [Q, D].
            k: how many, at least 1; the columns are the smaller of k and the number of entries.
            expand: alpha query expansion: search again with the weighted mean of the query and this many neighbours.
            alpha: the power of the cosine that weighs a neighbour.
            rerank: k-reciprocal re-ranking of this many neighbours; the distances are then those of re-ranking.

        Raises:
            UserError: another dimension, not finite, all zeros under cosine, k < 1, expansion without cosine.
        """
        about = self.manifest
        if k < 1 or expand < 0 or rerank < 0:
            raise UserError(f"k is {k}, expand {expand}, rerank {rerank}; k must be at least 1, the others 0")
        if expand and about.metric != "cosine":
            raise UserError(f"{self.path}: query expansion weighs by cosine; this index is {about.metric}")
        vectors, count = checked(queries, about.metric, about.dimension), len(self)
        if (k := min(k, count)) == 0:
            return Found(np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64))
        if expand:
            vectors = expanded(self._backend, vectors, min(expand, count), alpha)
        if rerank:
            return Found(*re_ranked(self._backend, vectors, min(max(rerank, k), count), k))
        distances, numbers = self._backend.search(vectors, k)
        found: Floats = distances / np.float32(2) if about.metric == "cosine" else np.sqrt(distances)
        return Found(found, numbers)

    def check_fingerprint(self, fingerprint: str | None) -> None:
        """Raises UserError where both the index and the query know their embedding's fingerprint and they differ."""
        own = self.manifest.embedding.get("fingerprint")
        if own is not None and fingerprint is not None and own != fingerprint:
            hint = "embed with the index's own model, or build an index of this one"
            raise UserError(f"{self.path}: its embeddings were made by another recipe or other weights; {hint}")

    def numbers(self) -> Ints:
        """Of all entries, ascending."""
        return self._backend.numbers()

    def records(self, numbers: Iterable[int]) -> list[Record]:
        """Records of entries by number, without their embeddings; -1 are left out."""
        return [Record.from_dict(each) for each in self._backend.payload([n for n in numbers if n >= 0])]

    def vectors(self, numbers: Sequence[int]) -> Floats:
        """[len(numbers), D], of unit length under cosine."""
        return self._backend.vectors(numbers)


def _backend_of(folder: Path, manifest: Manifest) -> Backend:
    component = component_of(manifest.index)
    backend: Backend = (
        component.backend(folder, manifest) if hasattr(component, "backend") else FileBackend(folder, manifest)
    )
    return backend
