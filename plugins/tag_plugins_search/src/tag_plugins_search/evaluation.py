"""How good an index's answers are: against labels, and against exact search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tag_core.records import Record
from tag_plugins_search.answers import askable
from tag_plugins_search.backend import Floats, Ints
from tag_plugins_search.entries import id_of, scaled
from tag_plugins_search.store import IndexFolder

AT = (1, 5, 10)
QUERIES, SLICE, ALL = 512, 8192, 10_000


def evaluate(
    index: IndexFolder,
    queries: Iterable[Record],
    k: int = 0,
    *,
    expand: int = 0,
    alpha: float = 3.0,
    rerank: int = 0,
    unreadable: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Recall and mean average precision of labelled queries, and the share of the exact nearest that is found.

    A query whose id is in the index is not its own answer. ``labelled`` queries are those with a label that another
    entry has; of these ``recall@k`` is the share with a right one among the k nearest, and ``mAP`` the mean over the
    right entries of the precision at each, 0 for one that is not among the ``k`` nearest: where these are not all
    entries it is called ``mAP@k``. ``exact@k`` is the share of the index's k nearest that are as near as the k nearest
    of exact search; expansion and re-ranking have no part in it.

    Args:
        k: how deep to look for ``mAP``; 0 is all entries up to 10,000, and else 1,000.
        expand, alpha, rerank: see :meth:`tag_plugins_search.store.IndexFolder.search`.
        unreadable: takes id -> reason of the queries that are left out: those with an ``error``, and those whose
            embedding has one of :func:`tag_plugins_search.entries.faults`.

    Raises:
        UserError: a query without an embedding, or with one of another dimension.
    """
    labels = Labels(index)
    count = len(labels.entries)
    depth = min(k or (count if count <= ALL else 1000), count)
    hits: dict[int, list[bool]] = {at: [] for at in AT}
    exact: dict[int, list[float]] = {at: [] for at in AT if at <= count}
    precisions: list[float] = []
    total, left_out = 0, {} if unreadable is None else unreadable
    for block, vectors in askable(queries, index, QUERIES):
        left_out |= {id_of(record): record.error for record in block if record.error is not None}
        if not len(vectors):
            continue
        total += len(vectors)
        answers = index.search(vectors, max(depth, AT[-1]) + 1, expand=expand, alpha=alpha, rerank=rerank).numbers
        for record, numbers in zip((r for r in block if r.error is None), answers, strict=True):
            if wanted := labels.wanted(record):
                right = labels.right(record, numbers)
                precisions.append(_average_precision(right[:depth], wanted))
                for at in AT:
                    hits[at].append(bool(right[:at].any()))
        scaled_vectors = scaled(vectors, index.manifest.metric)
        for at, shares in _exactness(index, labels.entries, scaled_vectors, max(exact, default=0)).items():
            exact[at] += shares
    mean = {f"recall@{at}": _mean(found) for at, found in hits.items()}
    mean["mAP" if depth == count else f"mAP@{depth}"] = _mean(precisions)
    mean |= {f"exact@{at}": _mean(shares) for at, shares in exact.items()}
    return {"queries": total, "labelled": len(precisions), **mean}


class Labels:
    """Which entries are right answers to a query: those that have its label, itself left out. Reads all payload.

    Attributes:
        entries: numbers of all, ascending.
    """

    def __init__(self, index: IndexFolder) -> None:
        self.entries = index.numbers()
        self._places: dict[str, int] = {}
        self._codes: dict[str | None, int] = {}
        self._labels = np.full(len(self.entries), -1, np.int64)
        for start in range(0, len(self.entries), SLICE):
            for place, record in enumerate(index.records(self.entries[start : start + SLICE].tolist()), start):
                self._places[id_of(record)] = place
                if record.truth is not None:
                    self._labels[place] = self._codes.setdefault(record.truth, len(self._codes))
        self._counts = np.bincount(self._labels[self._labels >= 0], minlength=len(self._codes))

    def wanted(self, query: Record) -> int:
        """How many are right."""
        code, own = self._of(query)
        return int(self._counts[code]) - (own >= 0 and self._labels[own] == code) if code >= 0 else 0

    def right(self, query: Record, numbers: Ints) -> npt.NDArray[np.bool_]:
        """Of each of the numbers that are found, -1 and the query itself left out, whether it is."""
        code, own = self._of(query)
        places = np.searchsorted(self.entries, numbers[numbers >= 0])
        found: npt.NDArray[np.bool_] = self._labels[places[places != own]] == code
        return found

    def _of(self, query: Record) -> tuple[int, int]:
        """The number of its label, and its own place among the entries; -1 for none."""
        return self._codes.get(query.truth, -1), self._places.get(id_of(query), -1)


def _average_precision(right: np.ndarray, wanted: int) -> float:
    places = np.flatnonzero(right)
    return float((np.arange(1, len(places) + 1) / (places + 1)).sum() / wanted)


def _exactness(index: IndexFolder, entries: Ints, queries: Floats, k: int) -> dict[int, list[float]]:
    """For each depth of AT up to k: of each query, the share of its answers that are as near as the exact ones.

    All in float64, and compared as the sum of squared differences, whatever the index does.
    """
    if k == 0:
        return {}
    asked = queries.astype(np.float64)
    best = np.full((len(queries), k), np.inf)
    for start in range(0, len(entries), SLICE):
        rows = index.vectors(entries[start : start + SLICE].tolist()).astype(np.float64)
        rough = np.einsum("nd,nd->n", rows, rows) - 2 * (asked @ rows.T)
        near = np.argpartition(rough, min(k, len(rows)) - 1)[:, :k]
        best = np.sort(np.concatenate([best, _squared(asked, rows[near])], axis=1), axis=1)[:, :k]
    numbers = index.search(queries, k).numbers
    vectors = index.vectors(np.maximum(numbers, entries[0]).ravel().tolist()).reshape(*numbers.shape, -1)
    distances = np.where(numbers < 0, np.inf, _squared(asked, vectors))
    limits = best * 1.0001  # an index's own float32 orders those within it as it likes
    return {at: (distances[:, :at] <= limits[:, at - 1 : at]).mean(1).tolist() for at in AT if at <= k}


def _squared(queries: npt.NDArray[np.float64], vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Distances [Q, k] of queries [Q, D] to k vectors each, [Q, k, D]."""
    found: npt.NDArray[np.float64] = np.square(vectors - queries[:, None]).sum(-1)
    return found


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None
