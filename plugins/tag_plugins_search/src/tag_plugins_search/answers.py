"""Answers of an index as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tag_core.records import Record
from tag_plugins_search.backend import Floats
from tag_plugins_search.entries import box_of, faults, id_of, vectors_of
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
    ``time``, ``box`` [x1, y1, x2, y2] and ``label``. A query with an ``error`` comes back as it is, and one whose
    embedding has one of :func:`tag_plugins_search.entries.faults` comes back with that as its ``error``.

    Args:
        k, expand, alpha, rerank: see :meth:`tag_plugins_search.store.IndexFolder.search`.

    Raises:
        UserError: a query without an embedding, or with one of another dimension.
    """
    options: dict[str, Any] = {"expand": expand, "alpha": alpha, "rerank": rerank}
    for block, vectors in askable(queries, index, BLOCK):
        if asked := [record for record in block if record.error is None]:
            found = index.search(vectors, k, **options)
            for record, distances, numbers in zip(asked, found.distances, found.numbers, strict=True):
                near = zip(index.records(numbers.tolist()), distances.tolist(), strict=False)
                record.embedding = None
                record.extra = {**record.extra, "neighbours": [_neighbour(r, distance) for r, distance in near]}
        yield from block


def askable(queries: Iterable[Record], index: IndexFolder, size: int) -> Iterator[tuple[list[Record], Floats]]:
    """Blocks of queries, and the embeddings of those without an ``error``; a fault of an embedding becomes one.

    Raises:
        UserError: naming the query that has no embedding, or one of another dimension.
    """
    stream = iter(queries)
    while block := list(islice(stream, size)):
        asked = [record for record in block if record.error is None]
        vectors = vectors_of(asked, index.manifest.dimension)
        for row, fault in faults(vectors, index.manifest.metric).items():
            asked[row].error, asked[row].embedding = fault, None
        yield block, vectors[[record.error is None for record in asked]]


def _neighbour(record: Record, distance: float) -> dict[str, Any]:
    known = {"frame": record.frame, "time": record.time, "box": box_of(record), "label": record.truth}
    told = {key: value for key, value in known.items() if value is not None}
    return {"id": id_of(record), "distance": distance, "source": record.source, **told}
