"""CMC, mean average precision and mINP of a retrieval, by counting instead of sorting.

Only the right pictures of a query need a rank: the number of gallery pictures ahead of them. Pictures at equal
distances are ranked by gallery index. Removed from a query's ranking are pictures of its identity from its own camera
and the query itself; junk is left out of the gallery beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_SORT_FROM = 256
"""Right pictures from which one sort is cheaper than a count for each."""


@dataclass(frozen=True)
class Pictures:
    """Identity, camera (-1: unknown, as good as no other) and a number of its own for each picture, [N] each."""

    identities: Indices
    cameras: Indices
    numbers: Indices


@dataclass(frozen=True)
class Scores:
    """What each query gets, [Q] each; 0 for all but ``first`` where nothing in the gallery is right.

    ``first`` is the rank, from 0, of the first right picture, or -1. With r_i the ranks, from 0, of n right pictures,
    in order, i = 0 .. n-1: ``common`` = mean of p_i = (i+1) / (r_i+1), average precision as Market-1501 is mostly
    evaluated; ``trapezoid`` = mean of (o_i + p_i) / 2 with o_i = i / r_i (1 at r_i = 0), as the authors' Matlab code
    has it; ``inverse_penalty`` = n / (r_{n-1}+1), INP of arXiv 2001.04193.
    """

    first: Indices
    common: Floats
    trapezoid: Floats
    inverse_penalty: Floats


def score(blocks: Iterable[npt.NDArray[np.floating]], queries: Pictures, gallery: Pictures) -> Scores:
    """Scores of the queries.

    Args:
        blocks: distances [n, G] of the next n queries to the whole gallery, block after block, finite; overwritten.
        queries: the queries, in the order of the blocks' rows.
        gallery: the gallery, in the order of the blocks' columns, without junk.
    """
    order = gallery.identities.argsort(kind="stable")
    known = gallery.identities[order]
    first, last = known.searchsorted(queries.identities), known.searchsorted(queries.identities, "right")
    parts, start = [_score(*(np.zeros(0, np.int64),) * 2, 0)], 0
    for block in blocks:
        now = slice(start, start := start + len(block))
        counts = last[now] - first[now]
        rows = np.repeat(np.arange(len(block)), counts)
        columns = order[np.arange(len(rows)) - np.repeat(counts.cumsum() - counts - first[now], counts)]
        camera = queries.cameras[now][rows]
        removed = (camera == gallery.cameras[columns]) & (camera >= 0)
        removed |= queries.numbers[now][rows] == gallery.numbers[columns]
        block[rows[removed], columns[removed]] = np.inf
        rows, columns = rows[~removed], columns[~removed]
        parts.append(_score(rows, _ranks(block, rows, columns), len(block)))
    return Scores(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Scores)))


def _ranks(block: npt.NDArray[np.floating], rows: Indices, columns: Indices) -> Indices:
    """How many of each row are ahead of the given columns; rows ascend."""
    ranks = np.empty(len(rows), np.int64)
    ends = rows.searchsorted(np.arange(len(block) + 1))
    for line, start, stop in zip(block, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        ranks[start:stop] = places(line, columns[start:stop])
    return ranks


def places(line: npt.NDArray[np.floating], columns: Indices) -> Indices:
    """Place of each column, from 0, when the line is sorted by value, then column."""
    if len(columns) >= _SORT_FROM:
        found = np.empty(len(line), np.int64)
        found[line.argsort(kind="stable")] = np.arange(len(line))
        return found[columns]
    pairs = zip(line[columns], columns.tolist(), strict=True)
    ahead = [np.count_nonzero(line[:at] <= value) + np.count_nonzero(line[at:] < value) for value, at in pairs]
    return np.array(ahead, np.int64)


def _score(rows: Indices, ranks: Indices, number: int) -> Scores:
    """Scores of ``number`` queries from the ranks of their right pictures; ``rows`` ascend."""
    ranks = ranks[np.lexsort((ranks, rows))]
    counts = np.bincount(rows, minlength=number)
    ends = counts.cumsum()
    hits = np.arange(len(rows)) - np.repeat(ends - counts, counts)
    precision = (hits + 1) / (ranks + 1)
    before = np.divide(hits, ranks, out=np.ones(len(hits)), where=ranks > 0)
    any_right, total = counts > 0, np.maximum(counts, 1)
    first, last = np.full(number, -1), np.zeros(number, np.int64)
    first[any_right], last[any_right] = ranks[(ends - counts)[any_right]], ranks[ends[any_right] - 1]
    common = np.bincount(rows, precision, minlength=number) / total
    trapezoid = np.bincount(rows, (before + precision) / 2, minlength=number) / total
    return Scores(first, common, trapezoid, np.where(any_right, counts / (last + 1), 0.0))


def summary(scores: Scores, ap: Literal["common", "trapezoid"], ranks: Iterable[int]) -> dict[str, float]:
    """``rank<k>``, ``map``, ``minp`` and ``queries_without_match``; nan where there is no query to average over.

    Args:
        scores: of each query.
        ap: ``common`` averages over the queries with a right picture in the gallery; ``trapezoid`` over all of them.
        ranks: the k of rank-k, the share of queries with a right picture among the k nearest.
    """
    right = scores.first >= 0
    total = np.count_nonzero(right) if ap == "common" else len(right)

    def mean(values: npt.NDArray[np.generic]) -> float:
        return float(values.sum() / total) if total else float("nan")

    shares = {f"rank{k}": mean(right & (scores.first < k)) for k in ranks}
    means = {"map": mean(getattr(scores, ap)), "minp": mean(scores.inverse_penalty)}
    return {**shares, **means, "queries_without_match": int(np.count_nonzero(~right))}
