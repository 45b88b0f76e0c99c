"""Answers of an index as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tag_core.records import Record
from tag_plugins_search.entries import box_of, entries_of, id_of
from tag_plugins_search.store import IndexFolder

BLOCK = 256


def search(
    index: IndexFolder,
    queries: Iterable[Record],
    k: int = 10,
    *,
    expand: int = 0,
    alpha: float = 3.0,
    rerank: int = 0,
) -> Iterator[Record]:
    """Each query's record without its embedding, and in ``extra["neighbours"]`` its k nearest, nearest first.

    A neighbour has ``id``, ``distance`` (1 - cosine, or Euclidean), ``source``, and where they are known ``frame``,
    ``time``, ``box`` [x1, y1, x2, y2] and ``label``. A query with an ``error`` comes back as it is.

    Args:
        k, expand, alpha, rerank: see :meth:`tag_plugins_search.store.IndexFolder.search`.

    Raises:
        UserError: a query without an embedding, or with one that does not suit the index.
    """
    stream = iter(queries)
    options: dict[str, Any] = {"expand": expand, "alpha": alpha, "rerank": rerank}
    while block := list(islice(stream, BLOCK)):
        asked = [record for record in block if record.error is None]
        if asked:
            found = index.search(embeddings_of(asked, index.manifest.dimension), k, **options)
            for record, distances, numbers in zip(asked, found.distances, found.numbers, strict=True):
                near = zip(index.records(numbers.tolist()), distances.tolist(), strict=False)
                record.embedding = None
                record.extra = {**record.extra, "neighbours": [_neighbour(r, distance) for r, distance in near]}
        yield from block


def embeddings_of(records: Iterable[Record], dimension: int) -> np.ndarray:
    """[N, D]. Raises UserError naming the record that has none, or one of another dimension."""
    return np.concatenate([e.vectors for e in entries_of(records, "euclidean", dimension, {})])


def _neighbour(record: Record, distance: float) -> dict[str, Any]:
    known = {"frame": record.frame, "time": record.time, "box": box_of(record), "label": record.truth}
    told = {key: value for key, value in known.items() if value is not None}
    return {"id": id_of(record), "distance": distance, "source": record.source, **told}
