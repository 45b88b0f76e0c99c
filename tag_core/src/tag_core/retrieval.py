"""Exact nearest neighbours, query expansion and re-ranking of embeddings, in blocks: never all distances at once.

Embeddings are finite numbers [N, D] of any float type, memory-mapped if you like: the gallery is converted to float32
slice by slice. Of equal distances the lower gallery index is the nearer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distance = Literal["cosine", "euclidean"]
_BLOCK, _SLICE, _PAIRS = 1 << 23, 1 << 14, 1 << 13


def unit(features: npt.ArrayLike) -> Floats:
    """Rows of length 1, [N, D]; a row of zeros stays one."""
    rows = np.array(features, np.float32)
    largest = np.abs(rows).max(axis=1, initial=0)
    extreme = (largest > 0) & ((largest < 1e-15) | (largest > 1e15))  # their squares may leave float32's range
    rows[extreme] /= largest[extreme, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.where(lengths > 0, lengths, np.float32(1))[:, None]
    return rows


def distances(queries: Floats, gallery: Floats, distance: Distance = "euclidean") -> Iterator[Floats]:
    """Distances [n, G] of the next n queries to the whole gallery, block after block, 32 MB each; yours to overwrite.

    ``euclidean`` is the squared Euclidean distance; ``cosine`` is -cos, of rows that have length 1: it orders as
    1 - cos does, and rounds less. Equal rows of the gallery are at equal distances.
    """
    step = max(_BLOCK // max(len(gallery), 1), 1)
    first_equal = _first_equal(gallery)
    repeated = np.flatnonzero(first_equal != np.arange(len(gallery)))
    for start in range(0, len(queries), step):
        part = np.asarray(queries[start : start + step], np.float32)
        block = np.empty((len(part), len(gallery)), np.float32)
        for first in range(0, len(gallery), _SLICE):
            piece = np.asarray(gallery[first : first + _SLICE], np.float32)
            columns = block[:, first : first + _SLICE]
            if distance == "cosine":
                np.matmul(-part, piece.T, out=columns)
            else:
                np.matmul(-2 * part, piece.T, out=columns)
                columns += np.einsum("ij,ij->i", piece, piece)
                columns += np.einsum("ij,ij->i", part, part)[:, None]
                np.maximum(columns, 0, out=columns)
        block[:, repeated] = block[:, first_equal[repeated]]  # the product rounds equal columns differently
        yield block


def _first_equal(rows: Floats) -> Indices:
    """The index of the first row that has the same values, for each, [N]."""
    keys: list[int] = []
    for start in range(0, len(rows), _SLICE):
        piece = np.asarray(rows[start : start + _SLICE], np.float32) + np.float32(0)  # -0 becomes 0
        keys += [hash(row.tobytes()) for row in piece]
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    found: Indices = first[group]
    return found


def smallest(values: npt.NDArray[np.floating], k: int) -> Indices:
    """Indices of the k smallest values (all, if there are fewer), ascending; of equal ones the lower index first."""
    if (k := min(k, len(values))) < 1:
        return np.zeros(0, np.int64)
    # The k smallest are at most the k-th smallest of the minima of 4 k groups: few others are.
    size = max(len(values) // (4 * k), 1)
    minima = values[: len(values) // size * size].reshape(-1, size).min(axis=1)
    found = np.flatnonzero(values <= np.partition(minima, k - 1)[k - 1])
    return found[values[found].argsort(kind="stable")[:k]]


def nearest(
    queries: Floats, gallery: Floats, k: int, distance: Distance = "euclidean", own: Indices | None = None
) -> tuple[Floats, Indices]:
    """:func:`distances` and gallery indices of each query's k nearest, ascending, [Q, min(k, G)] each.

    Args:
        own: each query's own place in the gallery, [Q], -1 for none; it comes last, at distance infinity.
    """
    k, start = min(k, len(gallery)), 0
    values, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for block in distances(queries, gallery, distance):
        if own is not None:
            places = own[start : start + len(block)]
            block[np.flatnonzero(places >= 0), places[places >= 0]] = np.inf
        for number, line in enumerate(block, start):
            indices[number] = smallest(line, k)
            values[number] = line[indices[number]]
        start += len(block)
    return values, indices


def expand(queries: Floats, gallery: Floats, k: int, alpha: float = 3.0, own: Indices | None = None) -> Floats:
    """Alpha query expansion: unit vectors along q + sum over its k nearest g of max(cos(q, g), 0)^alpha g, [Q, D].

    Database-side augmentation is ``expand(gallery, gallery, k, alpha, own=np.arange(len(gallery)))``. Done first, the
    queries can then be expanded with what it gives, as naver/deep-image-retrieval does (``test_dir.py``); there
    negative cosines are not cut off. Source: Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human
    Annotation, TPAMI 2018.

    Args:
        own: as in :func:`nearest`; a picture is no neighbour of its own.
    """
    queries, gallery = unit(queries), unit(gallery)
    values, indices = nearest(queries, gallery, k, "cosine", own)
    weights = np.where(values < 0, np.abs(values) ** np.float32(alpha), 0)
    expanded = queries.copy()
    for weight, index in zip(weights.T, indices.T, strict=True):
        expanded += weight[:, None] * gallery[index]
    return unit(expanded)


def re_rank(
    features: npt.ArrayLike,
    queries: Indices,
    gallery: Indices,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Iterator[Floats]:
    """k-reciprocal re-ranking: distances [n, G] of the next n queries to the gallery, block after block.

    (1 - lambda) x Jaccard distance + lambda x d, where d is the squared Euclidean distance divided by the query's
    largest to any of ``features``. Neighbours are among all ``features``, each picture being its own first; ``k2`` = 1
    leaves out the local query expansion. Everything is sparse: memory grows as N x k1 x k2.
    Source: Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.

    Args:
        features: [N, D] of queries and gallery, each picture once; :func:`unit` makes d the cosine distance.
        queries: which of the features are queries, [Q].
        gallery: which of them are gallery, [G]; may overlap.
    """
    features = np.asarray(features, np.float32)
    width, start = min(max(k1 + 1, k2), len(features)), 0
    ranked, farthest = np.empty((len(features), width), np.int64), np.empty(len(features), np.float32)
    for block in distances(features, features):
        ranked[start : start + len(block)] = [smallest(line, width) for line in block]
        farthest[start : start + len(block)] = block.max(axis=1)
        start += len(block)
    farthest = np.maximum(farthest, np.finfo(np.float32).tiny)
    encoded = _encode(features, farthest, ranked, k1)
    if k2 > 1:
        encoded = _graph(ranked, k2) @ encoded / min(k2, width)
    inverted, start = encoded[gallery].T.tocsr(), 0
    for block in distances(features[queries], features[gallery]):
        for line, query in zip(block, queries[start : start + len(block)], strict=True):
            own = slice(encoded.indptr[query], encoded.indptr[query + 1])
            others = inverted[encoded.indices[own]]
            least = np.minimum(others.data, np.repeat(encoded.data[own], np.diff(others.indptr)))
            shared = np.minimum(np.bincount(others.indices, least, minlength=len(gallery)), 1)
            line *= lambda_value / farthest[query]
            line += (1 - lambda_value) * (1 - shared / (2 - shared))
        start += len(block)
        yield block


def _encode(features: Floats, farthest: Floats, ranked: Indices, k1: int) -> sparse.csr_array:
    """Weights exp(-d) of each picture's expanded k-reciprocal neighbours, summing to 1, [N, N]."""
    reciprocal, half = _reciprocal(ranked, k1 + 1), _reciprocal(ranked, round(k1 / 2) + 1)
    # A neighbour's own, closer neighbours join if more than two thirds of them are there already.
    joining = (reciprocal @ half.T).multiply(reciprocal).tocsr()
    joining.data = (3 * joining.data > 2 * half.sum(axis=1)[joining.indices]).astype(np.float32)
    joining.eliminate_zeros()
    encoded = (reciprocal + joining @ half).tocsr()
    rows = np.repeat(np.arange(len(features)), np.diff(encoded.indptr))
    squares = np.einsum("ij,ij->i", features, features)
    for start in range(0, len(rows), _PAIRS):
        pairs = slice(start, start + _PAIRS)
        a, b = rows[pairs], encoded.indices[pairs]
        apart = squares[a] + squares[b] - 2 * np.einsum("ij,ij->i", features[a], features[b])
        encoded.data[pairs] = np.exp(-np.maximum(apart, 0) / farthest[a])
    encoded.data /= np.bincount(rows, encoded.data, minlength=len(features))[rows]
    return encoded


def _reciprocal(ranked: Indices, k: int) -> sparse.csr_array:
    """1 where two pictures are each among the other's k nearest."""
    forward = _graph(ranked, k)
    return forward.multiply(forward.T).tocsr()


def _graph(ranked: Indices, k: int) -> sparse.csr_array:
    """1 where a picture (column) is among the k nearest of another (row), [N, N]."""
    number, k = len(ranked), min(k, ranked.shape[1])
    ones = np.ones(number * k, np.float32)
    return sparse.csr_array((ones, ranked[:, :k].ravel(), np.arange(number + 1) * k), shape=(number, number))
