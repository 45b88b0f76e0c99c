"""An index in the files of its folder: rows, what the index component saves, and which rows are removed.

A write makes the next generation of the files that change; the others are kept. The manifest is renamed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search.backend import Entries, Floats, Ints
from tag_plugins_search.components import auto, file_index, written_out
from tag_plugins_search.entries import BLOCK, id_of
from tag_plugins_search.generation import (
    commit,
    described,
    last_generation,
    path_of,
    writing,
    wrong_checksums,
    wrong_sizes,
)
from tag_plugins_search.hidden import search_around
from tag_plugins_search.manifest import Manifest
from tag_plugins_search.rows import ROLES, Rows, RowsWriter


class FileBackend:
    """See :class:`tag_plugins_search.backend.Backend`, whose methods these are.

    Args:
        folder: of the index.
        manifest: the one in the folder, or one without files, for ``build``.

    Raises:
        UserError: files that are missing or of the wrong size.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        if manifest.files:
            self._open()

    def build(self, entries: Iterable[Entries]) -> None:
        with writing(self.folder):
            self.manifest = replace(self.manifest, generation=last_generation(self.folder))
            self._write(entries)

    def add(self, entries: Iterable[Entries]) -> None:
        with writing(self.folder):
            self._latest()
            self._write(entries, old=self._rows)

    def remove(self, numbers: Ints) -> None:
        with writing(self.folder):
            generation = self.manifest.generation
            self._latest()
            if self.manifest.generation != generation:
                raise UserError(f"{self.folder}: another process has changed it meanwhile; give the command again")
            removed = np.union1d(self._removed, numbers)
            path = path_of(self.folder, "removed", generation + 1)
            np.save(path, removed)
            files = {**self.manifest.files, "removed": described(path)}
            self._commit(replace(self.manifest, removed=len(removed), files=files))

    def compact(self) -> None:
        with writing(self.folder):
            self._latest()
            if len(self) == 0:
                raise UserError(f"{self.folder}: all of its entries are removed; add others first, or delete it")
            self._write(self._entries())

    def __len__(self) -> int:
        return self.manifest.count - self.manifest.removed

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        return search_around(self._index.search, queries, k, self._gone)

    def numbers(self) -> Ints:
        return np.arange(len(self._rows)) if self._gone is None else np.flatnonzero(~self._gone)

    def find(self, ids: Sequence[str]) -> Ints:
        found = self._rows.find(ids, 0, self._alive)
        return np.array([found.get(each, [-1])[0] for each in ids], np.int64)

    def of_sources(self, sources: Sequence[str]) -> Mapping[str, list[int]]:
        return self._rows.find(sources, 1, self._alive)

    def payload(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [self._rows.payload(int(number)) for number in numbers]

    def vectors(self, numbers: Sequence[int]) -> Floats:
        return np.array(self._rows.vectors[np.asarray(numbers, np.int64)])

    def verify(self) -> list[str]:
        return wrong_checksums(self.folder, self.manifest.files)

    @property
    def _alive(self) -> npt.NDArray[np.bool_] | None:
        return None if self._gone is None else ~self._gone

    def _open(self) -> None:
        about = self.manifest
        problems = wrong_sizes(self.folder, about.files)
        try:
            if not problems:
                paths = {role: self.folder / file["name"] for role, file in about.files.items()}
                self._rows = Rows(paths, about.count, about.dimension)
                self._removed: Ints = np.load(paths["removed"]) if "removed" in paths else np.empty(0, np.int64)
                self._gone = np.isin(np.arange(about.count), self._removed) if len(self._removed) else None
                self._index = file_index(about.index)
                self._index.load(paths.get("index", paths["vectors"]), paths["vectors"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            problems = [str(error)]
        self._refuse(problems)

    def _refuse(self, problems: Sequence[str]) -> None:
        """Raises UserError where there are any."""
        if problems:
            raise UserError(f"{self.folder}: the index is damaged ({'; '.join(problems)}); build it again")

    def _latest(self) -> None:
        """Another process may have written since this index was opened."""
        found = Manifest.read(self.folder)
        if found.generation != self.manifest.generation:
            self.manifest = found
            self._open()

    def _write(self, entries: Iterable[Entries], old: Rows | None = None) -> None:
        """The next generation of all files: the old rows and these; removed ones stay so where rows are kept."""
        about, gone = self.manifest, self._gone if old else None
        if old:
            self._refuse(self.verify())  # a fresh checksum must not hide old damage
        name = partial(path_of, self.folder, generation=about.generation + 1)
        with RowsWriter(name, about.dimension, old) as writer:
            for block in entries:
                writer.add(block)
            rows = writer.close(gone)
        table = written_out(auto(len(rows))) if about.auto and not old else about.index
        files: dict[str, Mapping[str, Any]] = {role: described(name(role)) for role in ROLES}
        index = file_index(table)
        if index.needs_file:
            if old:
                kept = {role: self.folder / file["name"] for role, file in about.files.items()}
                index.load(kept["index"], kept["vectors"], writable=True)
            index.add(rows.vectors[len(old) if old else 0 :])
            index.save(name("index"))
            files["index"] = described(name("index"))
        if gone is not None:
            files["removed"] = about.files["removed"]
        about = replace(about, index=table, files=files, count=len(rows), removed=about.removed if old else 0)
        self._commit(about)

    def _commit(self, about: Manifest) -> None:
        manifest = replace(about, generation=about.generation + 1)
        commit(self.folder, manifest)
        self.manifest = manifest
        self._open()

    def _entries(self) -> Iterator[Entries]:
        """Those that are not removed, from files that are sound."""
        self._refuse(self.verify())
        numbers = self.numbers()
        for start in range(0, len(numbers), BLOCK):
            part = numbers[start : start + BLOCK].tolist()
            payload = self.payload(part)
            yield Entries([id_of(Record.from_dict(each)) for each in payload], self.vectors(part), payload)
