"""What holds an index's vectors, numbers and payload: the files of its folder, or a database.

:class:`~tag_plugins_search.store.IndexFolder` checks what comes in, makes vectors of unit length for the cosine
metric and turns distances into the metric's; a backend keeps and finds. A component of kind ``index`` that keeps
vectors by itself has a method ``backend(folder, manifest) -> Backend``; any other is kept in files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tag_plugins_search.manifest import Manifest

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Entries:
    """Some thousand entries of an index, checked: finite, one dimension, no id twice among all that are given.

    Args:
        ids: a text each, unique in the index; see :func:`tag_plugins_search.entries.id_of`.
        vectors: float32 [N, D], C-contiguous; of unit length for the cosine metric.
        payload: each record as a dict, without its embedding.
    """

    ids: list[str]
    vectors: Floats
    payload: list[dict[str, Any]]


class Backend(Protocol):
    """Holds one index. Entries have numbers, which stay the same until ``compact``.

    Every method that changes something is all or nothing, whenever the process is killed.

    Attributes:
        manifest: of the index, as it is now; ``build`` writes it to the folder, last of all.
    """

    @property
    def manifest(self) -> Manifest: ...

    def build(self, entries: Iterable[Entries]) -> None:
        """Make the index, in place of what is there.

        Raises:
            UserError: too few vectors for this index, or another process is writing.
        """

    def add(self, entries: Iterable[Entries]) -> None:
        """Raises UserError naming an id that the index has already; nothing is added then."""

    def remove(self, numbers: Ints) -> None:
        """Entries that are there, each once."""

    def compact(self) -> None:
        """Give back the room of removed entries; numbers change."""

    def __len__(self) -> int:
        """Entries that are not removed."""

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """The k nearest entries that are not removed, nearest first.

        Args:
            queries: [Q, D], C-contiguous, of unit length for the cosine metric.
            k: 1 to len(self).

        Returns:
            Squared Euclidean distances [Q, k] and numbers [Q, k]; inf and -1 where fewer are found.
        """

    def numbers(self) -> Ints:
        """Of all entries, removed ones left out, ascending."""

    def find(self, ids: Sequence[str]) -> Ints:
        """Number of each id; -1 where there is none."""

    def of_sources(self, sources: Sequence[str]) -> Mapping[str, list[int]]:
        """Numbers of the entries that come from each source; a source without any is left out."""

    def payload(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """What was kept of each entry's record."""

    def vectors(self, numbers: Sequence[int]) -> Floats:
        """[len(numbers), D], as they were given to ``build`` and ``add``."""

    def verify(self) -> list[str]:
        """Read everything; a line for each thing that is wrong."""
