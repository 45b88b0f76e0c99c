"""Search among rows of which some are removed, in an index that cannot remove."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tag_plugins_search.backend import Floats, Ints


def search_around(
    search: Callable[[Floats, int], tuple[Floats, Ints]], queries: Floats, k: int, gone: npt.NDArray[np.bool_] | None
) -> tuple[Floats, Ints]:
    """The k nearest rows that are not gone: queries that removed rows leave short are asked again, for twice as many.

    Args:
        search: from (queries, k) to distances and row numbers [Q, k]; number -1 where fewer are found.
        gone: bool [number of rows]; None where no row is.

    Returns:
        Distances and numbers [Q, k]; inf and -1 where fewer are found.
    """
    if gone is None:
        found, numbers = search(queries, k)
        return np.where(numbers >= 0, found, np.float32(np.inf)), numbers
    distances = np.full((len(queries), k), np.inf, np.float32)
    numbers = np.full((len(queries), k), -1, np.int64)
    ask, todo = k, np.arange(len(queries))
    while len(todo):
        ask = min(2 * ask, len(gone))
        found, rows = search(queries[todo], ask)
        hidden = (rows < 0) | gone[rows]
        first = np.argsort(hidden, axis=1, kind="stable")[:, :k]
        dead = np.take_along_axis(hidden, first, 1)
        distances[todo] = np.where(dead, np.float32(np.inf), np.take_along_axis(found, first, 1))
        numbers[todo] = np.where(dead, -1, np.take_along_axis(rows, first, 1))
        exhausted = (rows[:, -1] < 0) | (ask == len(gone))
        todo = todo[dead[:, -1] & ~exhausted]
    return distances, numbers
