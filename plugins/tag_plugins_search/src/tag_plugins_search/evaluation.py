"""How good an index's answers are: against labels, and against exact search."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from tag_core.records import Record
from tag_core.retrieval import nearest
from tag_plugins_search.answers import embeddings_of
from tag_plugins_search.backend import Floats, Ints
from tag_plugins_search.entries import checked, id_of
from tag_plugins_search.store import IndexFolder

AT = (1, 5, 10)
QUERIES, SLICE, ALL = 512, 16384, 10_000


def evaluate(
    index: IndexFolder, queries: Iterable[Record], k: int = 0, *, expand: int = 0, alpha: float = 3.0, rerank: int = 0
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

    Raises:
        UserError: a query without an embedding, or with one that does not suit the index.
    """
    entries, about = index.numbers(), index.manifest
    depth = min(k or (len(entries) if len(entries) <= ALL else 1000), len(entries))
    ids, codes, labels = _known(index, entries)
    hits: dict[int, list[bool]] = {at: [] for at in AT}
    exact: dict[int, list[float]] = {at: [] for at in AT if at <= len(entries)}
    precisions: list[float] = []
    total, stream = 0, (record for record in queries if record.error is None)
    while block := list(islice(stream, QUERIES)):
        total += len(block)
        vectors = checked(embeddings_of(block, about.dimension), about.metric, about.dimension)
        answers = index.search(vectors, max(depth, AT[-1]) + 1, expand=expand, alpha=alpha, rerank=rerank).numbers
        for record, numbers in zip(block, answers, strict=True):
            code, own = codes.get(record.truth or "", -1), ids.get(id_of(record), -1)
            places = np.searchsorted(entries, numbers[numbers >= 0])
            places = places[places != own]
            wanted = int((labels == code).sum()) - (own >= 0 and labels[own] == code)
            if code >= 0 and wanted:
                right = labels[places] == code
                precisions.append(_average_precision(right[:depth], wanted))
                for at in AT:
                    hits[at].append(bool(right[:at].any()))
        for at, shares in _exactness(index, entries, vectors, max(exact, default=0)).items():
            exact[at] += shares
    mean = {f"recall@{at}": _mean(found) for at, found in hits.items()}
    mean["mAP" if depth == len(entries) else f"mAP@{depth}"] = _mean(precisions)
    mean |= {f"exact@{at}": _mean(shares) for at, shares in exact.items()}
    return {"queries": total, "labelled": len(precisions), **mean}


def _known(index: IndexFolder, entries: Ints) -> tuple[dict[str, int], dict[str, int], Ints]:
    """Id -> place among the entries; label -> its number; the label's number of each entry, -1 for none."""
    ids: dict[str, int] = {}
    codes: dict[str, int] = {}
    labels = np.full(len(entries), -1, np.int64)
    for start in range(0, len(entries), SLICE):
        for place, record in enumerate(index.records(entries[start : start + SLICE].tolist()), start):
            ids[id_of(record)] = place
            if record.truth is not None:
                labels[place] = codes.setdefault(record.truth, len(codes))
    return ids, codes, labels


def _average_precision(right: np.ndarray, wanted: int) -> float:
    places = np.flatnonzero(right)
    return float((np.arange(1, len(places) + 1) / (places + 1)).sum() / wanted)


def _exactness(index: IndexFolder, entries: Ints, queries: Floats, k: int) -> dict[int, list[float]]:
    """For each depth of AT up to k: of each query, the share of its answers that are as near as the exact ones."""
    if k == 0:
        return {}
    best = np.full((len(queries), k), np.inf, np.float32)
    for start in range(0, len(entries), SLICE):
        found, _ = nearest(queries, index.vectors(entries[start : start + SLICE].tolist()), k)
        best = np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :k]
    numbers = index.search(queries, k).numbers
    vectors = index.vectors(np.maximum(numbers, entries[0]).ravel().tolist()).reshape(*numbers.shape, -1)
    distances = np.square(vectors - queries[:, None]).sum(-1)
    distances[numbers < 0] = np.inf
    limits = best * 1.0001 + 1e-5  # both are rounded
    return {at: (distances[:, :at] <= limits[:, at - 1 : at]).mean(1).tolist() for at in AT if at <= k}


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None
