"""k-reciprocal re-ranking of Market-1501's size, against its dense form in the same run.

    python benchmarks/re_ranking.py [NUMBER]

Both re-rank the same random embeddings of 512 numbers, 25 of an identity, and start from them. The dense form keeps all
NUMBER x NUMBER distances, ranks and weights, as the authors' code does: more than 7 GB for the 19,281 pictures of
Market-1501, so that where 12 GB are not free 12,000 are compared, at which the distances, which cost either form the
same, weigh more, and nothing is asked of the ratio. The results must be equal within 1e-6. CPU time is compared; one
thread. Exit code 1 if Tag's form is not 10 times as fast, or takes more than 1.5 GB above the embeddings.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from time import process_time

import numpy as np
import psutil

from tag_core.retrieval import re_rank, unit

FEWER, MARKET, DIM, QUERIES = 12_000, 19_281, 512, 3_368 / 19_281
K1, K2, WEIGHT = 20, 6, 0.3
FASTER, MEMORY, EQUAL, FREE = 10, 1536, 1e-6, 12


def make_embeddings(number: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = 0.4 * generator.standard_normal((number // 25 + 1, DIM), np.float32)
    return unit(centres[np.arange(number) % len(centres)] + generator.standard_normal((number, DIM), np.float32))


def dense_re_rank(features: np.ndarray, queries: int) -> np.ndarray:
    """The steps of the authors' code on whole matrices; the first ``queries`` features against the others."""
    number, squares = len(features), np.einsum("ij,ij->i", features, features)
    d = (-2 * features) @ features.T
    d += squares
    d += squares[:, None]
    d = (d / d.max(axis=0)).T
    ranked = np.argsort(d, axis=1, kind="stable").astype(np.int32)
    v = np.zeros((number, number), np.float32)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = ranked[i, :k]
        return forward[(ranked[forward, :k] == i).any(axis=1)]

    for i in range(number):
        first = expanded = reciprocal(i, K1 + 1)
        for candidate in first:
            others = reciprocal(candidate, round(K1 / 2) + 1)
            if 3 * len(np.intersect1d(others, first)) > 2 * len(others):
                expanded = np.append(expanded, others)
        expanded = np.unique(expanded)
        weights = np.exp(-d[i, expanded])
        v[i, expanded] = weights / weights.sum()
    v = np.stack([v[ranked[i, :K2]].mean(axis=0) for i in range(number)])
    having = [np.flatnonzero(v[:, j]) for j in range(number)]
    jaccard = np.empty((queries, number), np.float32)
    for i in range(queries):
        shared = np.zeros(number, np.float32)
        for j in np.flatnonzero(v[i]):
            shared[having[j]] += np.minimum(v[i, j], v[having[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    return ((1 - WEIGHT) * jaccard + WEIGHT * d[:queries])[:, queries:]


def resident(field: str) -> float:
    """MB of this process, from Linux' own count; nan elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), float("nan"))


def sparse_re_rank(number: int) -> tuple[np.ndarray, float, float]:
    """Distances of the queries, CPU seconds, and MB at most above the embeddings and the distances."""
    features, queries = make_embeddings(number), int(number * QUERIES)
    found = np.zeros((queries, number - queries), np.float32)
    found += 1  # its memory is taken now
    before, start, began = resident("VmRSS"), 0, process_time()
    for block in re_rank(features, np.arange(queries), np.arange(queries, number), K1, K2, WEIGHT):
        found[start : start + len(block)] = block
        start += len(block)
    return found, process_time() - began, resident("VmHWM") - before


def dense_seconds(number: int) -> tuple[np.ndarray, float]:
    features, began = make_embeddings(number), process_time()
    return dense_re_rank(features, int(number * QUERIES)), process_time() - began


def main(arguments: list[str]) -> int:
    enough = psutil.virtual_memory().available > FREE * 2**30
    number = int(arguments[0]) if arguments else MARKET if enough else FEWER
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        _, _, memory = pool.apply(sparse_re_rank, (MARKET,))
        found, sparse, _ = pool.apply(sparse_re_rank, (number,))
        expected, dense = pool.apply(dense_seconds, (number,))
    apart = float(np.abs(found - expected).max())
    bar = f"bar {FASTER}" if number >= MARKET else f"no bar below {MARKET:,}"
    print(f"{MARKET:,} pictures: {memory:.0f} MB at most above the embeddings (bar {MEMORY})")
    print(f"{number:,} pictures: dense {dense:.1f} CPU s, Tag {sparse:.2f}; {apart:.1e} apart at most (bar {EQUAL})")
    print(f"Tag is {dense / sparse:.1f} times as fast as the dense form ({bar})")
    slow = number >= MARKET and dense / sparse < FASTER
    return int(slow or memory > MEMORY or apart > EQUAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
