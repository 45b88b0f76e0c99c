"""A second look at the neighbours: query expansion and re-ranking, by :mod:`tag_core.retrieval`."""

from __future__ import annotations

import numpy as np

from tag_core.retrieval import expand, re_rank
from tag_plugins_search.backend import Backend, Floats, Ints


def expanded(backend: Backend, queries: Floats, k: int, alpha: float) -> Floats:
    """Alpha query expansion by each query's k nearest entries, [Q, D] of unit length."""
    _, numbers = backend.search(queries, k)
    found = [
        expand(query[None], backend.vectors(row[row >= 0].tolist()), k, alpha)
        for query, row in zip(queries, numbers, strict=True)
    ]
    return np.concatenate([queries[:0], *found])


def re_ranked(backend: Backend, queries: Floats, candidates: int, k: int) -> tuple[Floats, Ints]:
    """k-reciprocal re-ranking of each query's nearest entries among themselves, whatever else is asked.

    Returns:
        Distances of re-ranking and numbers [Q, k]; inf and -1 where fewer are found.
    """
    _, numbers = backend.search(queries, candidates)
    distances = np.full((len(queries), k), np.inf, np.float32)
    ranked = np.full((len(queries), k), -1, np.int64)
    for place, (query, row) in enumerate(zip(queries, numbers, strict=True)):
        row = row[row >= 0]
        features = np.concatenate([query[None], backend.vectors(row.tolist())])
        found = next(re_rank(features, np.zeros(1, np.int64), np.arange(1, len(features))))[0]
        order = np.argsort(found, kind="stable")[:k]
        distances[place, : len(order)], ranked[place, : len(order)] = found[order], row[order]
    return distances, ranked
