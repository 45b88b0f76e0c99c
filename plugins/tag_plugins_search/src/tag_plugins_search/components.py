"""Index components: by name, by number of entries, and what they must be able to do to live in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from tag_core.catalog import catalog
from tag_core.config import build_component
from tag_core.errors import UserError
from tag_core.typed import signature
from tag_plugins_search.backend import Floats, Ints

FLAT_UP_TO = 100_000
"""Entries that "auto" searches exactly."""


class FileIndex(Protocol):
    """A component of kind index that an index folder keeps in a file.

    Vectors are float32 [N, D] and numbered from 0 in the order in which they are added; distances are squared
    Euclidean. Options are attributes of the same names.
    """

    needs_file: ClassVar[bool]
    """Whether it has anything to save beside the vectors."""

    def add(self, vectors: Floats) -> None:
        """Raises UserError where these are too few to make it."""

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """Distances and numbers, [Q, k] each, nearest first; where fewer are found, number -1."""

    def save(self, path: Path) -> None: ...
    def load(self, path: Path, vectors: Path, writable: bool = False) -> None:
        """Map what ``save`` wrote, or with ``writable`` read it, to be added to.

        Args:
            vectors: file of all vectors, which ``faiss.read_index`` reads.
        """


def component_of(table: Mapping[str, Any]) -> Any:
    """Raises UserError: no such component, or options that are wrong."""
    return build_component("index", table["name"], {key: value for key, value in table.items() if key != "name"})


def written_out(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with the component's full name and all its options. Raises as :func:`component_of` does."""
    component, entry = component_of(table), catalog().get("index", table["name"])
    return {"name": entry.name, **{name: getattr(component, name) for name in signature(entry.load(), entry)}}


def file_index(table: Mapping[str, Any]) -> FileIndex:
    """Raises UserError: the component cannot be kept in a file."""
    component = component_of(table)
    if lacking := [name for name in ("needs_file", "save", "load") if not hasattr(component, name)]:
        raise UserError(f"{table['name']} has no {', '.join(lacking)}: it cannot be kept in a folder")
    return cast(FileIndex, component)


def auto(count: int) -> dict[str, Any]:
    """The table of the component for so many entries."""
    return {"name": "search/flat" if count <= FLAT_UP_TO else "search/hnsw"}
