"""From records to what an index keeps: an id, a checked vector, and the record without its embedding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search.backend import Entries, Floats
from tag_plugins_search.manifest import Metric

BLOCK = 4096
LONGEST = float(np.sqrt(np.finfo(np.float32).max) / 2)
"""Squared distances of vectors up to this length are float32 numbers."""


def id_of(record: Record) -> str:
    """``extra["id"]`` where a record has one, else its source with frame, time and box, like ``a.mp4#frame=3``."""
    if isinstance(given := record.extra.get("id"), str):
        return given
    parts = [f"frame={record.frame}"] if record.frame is not None else []
    if record.time is not None:
        times = record.time if isinstance(record.time, list) else [record.time]
        parts.append(f"t={','.join(f'{time:.12g}' for time in times)}")
    if (box := box_of(record)) is not None:
        parts.append(f"box={','.join(f'{side:.12g}' for side in box)}")
    return record.source + ("#" + "&".join(parts) if parts else "")


def box_of(record: Record) -> list[float] | None:
    """[x1, y1, x2, y2] of a record that is about one box."""
    return record.boxes[0] if record.boxes is not None and len(record.boxes) == 1 else None


def entries_of(
    records: Iterable[Record], metric: Metric, dimension: int | None, unreadable: dict[str, str]
) -> Iterator[Entries]:
    """Blocks of entries, read as they are asked for.

    Args:
        records: those with ``error`` are put into ``unreadable``.
        dimension: what the vectors must have; None for that of the first.

    Raises:
        UserError: naming the record whose embedding is missing, of another dimension, or has one of :func:`faults`.
    """
    stream = iter(records)
    while block := list(islice(stream, BLOCK)):
        unreadable.update({record.source: record.error for record in block if record.error is not None})
        if found := [record for record in block if record.error is None]:
            ids = [id_of(record) for record in found]
            vectors = vectors_of(found, dimension)
            dimension = vectors.shape[1]
            for row, fault in faults(vectors, metric).items():
                other = f", or take metric {'euclidean' if metric == 'cosine' else 'cosine'}"
                raise UserError(f"{ids[row]}: {fault}; leave it out{other if np.isfinite(vectors[row]).all() else ''}")
            payload = [replace(record, embedding=None).to_dict() for record in found]
            yield Entries(ids, scaled(vectors, metric), payload)


def vectors_of(records: Sequence[Record], dimension: int | None) -> Floats:
    """The embeddings, float32 [N, dimension], C-contiguous.

    Raises:
        UserError: naming the record that has none, or one of another dimension.
    """
    try:
        for record in records:
            if record.embedding is None:
                hint = "predict with output=embedding, or by a model that has them"
                raise UserError(f"{id_of(record)}: has no embedding; {hint}")
            found = len(record.embedding)
            dimension = found if dimension is None else dimension
            if found != dimension or dimension == 0:
                raise UserError(f"{id_of(record)}: its embedding has {found} numbers, not {dimension or 'any'}")
        rows = np.array([record.embedding for record in records], dtype=np.float64)
        if rows.shape != (len(records), dimension) and records:
            raise ValueError
    except (ValueError, TypeError):
        name = id_of(records[0])
        raise UserError(f"{name} or one soon after it: its embedding is not a list of numbers") from None
    return single(rows.reshape(len(records), dimension or 0))


def single(rows: npt.ArrayLike) -> Floats:
    """float32, C-contiguous; infinite beyond its range."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def faults(rows: Floats, metric: Metric) -> dict[int, str]:
    """Row -> why it has no distances: not finite, all zeros under cosine, or too long for Euclidean distances."""
    lengths, found = _lengths(rows), dict[int, str]()
    for row in np.flatnonzero(~np.isfinite(lengths) | (lengths == 0 if metric == "cosine" else lengths > LONGEST)):
        if not np.isfinite(lengths[row]):
            found[int(row)] = "its embedding has numbers that are not finite in float32"
        elif metric == "cosine":
            found[int(row)] = "its embedding is all zeros, which has no direction: cosine compares nothing with it"
        else:
            found[int(row)] = f"its embedding is {lengths[row]:.1e} long: squared Euclidean distances leave float32"
    return found


def scaled(rows: Floats, metric: Metric) -> Floats:
    """Of unit length for the cosine metric."""
    return rows if metric == "euclidean" else (rows / _lengths(rows)[:, None]).astype(np.float32)


def checked(vectors: npt.ArrayLike, metric: Metric, dimension: int) -> Floats:
    """Queries: float32 [Q, D], C-contiguous, of unit length for the cosine metric.

    Raises:
        UserError: not [Q, dimension], or a row that has one of :func:`faults`.
    """
    rows = single(vectors)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise UserError(f"vectors of shape {list(rows.shape)}; this index takes [N, {dimension}]")
    for row, fault in faults(rows, metric).items():
        raise UserError(f"query {row}: {fault}")
    return scaled(rows, metric)


def _lengths(rows: Floats) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        found: npt.NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    return found
