"""Inverted lists of product-quantised vectors."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from tag_core.errors import UserError
from tag_plugins_search.backend import Floats
from tag_plugins_search.indexes.base import FaissIndex, faiss, read, write

PER_CENTROID, FEW = 64, 39
"""Vectors to train each centroid on; below 39, faiss warns for every part of the codes anew."""
log = logging.getLogger("tag")


class IVFPQ(FaissIndex):
    """Looks through the lists nearest to the query, whose vectors are kept as short codes; then compares the best anew.

    Smallest in memory and fastest of the indexes, and the least exact. Centroids and codes are trained on a sample
    of the vectors first added; after many additions of another kind, ``compact`` trains anew.

    Args:
        lists: how many; 0 for four times the square root of the number of vectors.
        probes: lists that are looked through in a search.
        pq_size: codes of a vector, a divisor of its dimension; 0 for the largest up to a quarter of the dimension.
        pq_bits: of each code: 4 (searched fastest) or 8.
        rerank: candidates for each result that are compared anew by their exact vectors; 0 for none.
    """

    def __init__(self, lists: int = 0, probes: int = 64, pq_size: int = 0, pq_bits: int = 4, rerank: int = 10) -> None:
        super().__init__()
        if min(lists, pq_size, rerank) < 0 or probes < 1 or pq_bits not in (4, 8):
            raise ValueError("lists, pq_size and rerank are at least 0, probes at least 1, pq_bits 4 or 8")
        self.lists, self.probes, self.rerank = lists, probes, rerank
        self.pq_size, self.pq_bits = pq_size, pq_bits
        self._exact: Any = None

    def add(self, vectors: Floats) -> None:
        if self._index is None:
            self._train(vectors)
        self._add(vectors)

    def save(self, path: Path) -> None:
        write(self._index, path)

    def load(self, path: Path, vectors: Path, writable: bool = False) -> None:
        self._index = self._base = read(path, writable)
        if self.rerank and not writable:
            self._vectors = read(vectors)
            if self._index.ntotal != self._vectors.ntotal:
                raise ValueError("codes and vectors do not belong together")
            self._index = faiss.IndexRefine(self._base, self._vectors)

    def _parameters(self, k: int) -> Any:
        probes = faiss.SearchParametersIVF(nprobe=self.probes)
        if not isinstance(self._index, faiss.IndexRefine):
            return probes
        return faiss.IndexRefineSearchParameters(k_factor=self.rerank, base_index_params=probes)

    def _train(self, vectors: Floats) -> None:
        count, dimension = vectors.shape
        lists = self.lists or max(1, min(round(4 * math.sqrt(count)), count // PER_CENTROID))
        codes = 2**self.pq_bits
        if count < max(lists, codes):
            hint = "take search/flat, which needs no training"
            raise UserError(f"search/ivf-pq: {count} vectors cannot train {lists} lists and {codes} codes; {hint}")
        size = self.pq_size or next(n for n in range(max(1, dimension // 4), 0, -1) if dimension % n == 0)
        if dimension % size:
            raise UserError(f"search/ivf-pq: pq_size {size} does not divide the dimension {dimension}")
        if count < (enough := FEW * max(lists, codes)):
            hint = "search/flat needs no training, and is exact"
            log.warning("search/ivf-pq: %d vectors are few to train on, %d would be enough; %s", count, enough, hint)
        sample = np.random.default_rng(0).permutation(count)[: PER_CENTROID * max(lists, codes)]
        form = "fs" if self.pq_bits == 4 else "np"  # fast scan; without polysemous training, which is slow and not used
        self._index = faiss.index_factory(dimension, f"IVF{lists},PQ{size}x{self.pq_bits}{form}")
        self._index.cp.min_points_per_centroid = self._index.pq.cp.min_points_per_centroid = 1  # said above
        self._index.train(vectors[np.sort(sample)])
