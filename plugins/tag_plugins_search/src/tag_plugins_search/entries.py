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
        UserError: naming the record whose embedding is missing, of another dimension, not finite, or all zeros
            under cosine.
    """
    stream = iter(records)
    while block := list(islice(stream, BLOCK)):
        unreadable.update({record.source: record.error for record in block if record.error is not None})
        if found := [record for record in block if record.error is None]:
            ids = [id_of(record) for record in found]
            vectors = _vectors(found, ids, dimension)
            dimension = vectors.shape[1]
            payload = [replace(record, embedding=None).to_dict() for record in found]
            yield Entries(ids, checked(vectors, metric, dimension, ids), payload)


def checked(vectors: npt.ArrayLike, metric: Metric, dimension: int, names: Sequence[str] | None = None) -> Floats:
    """float32 [N, D], C-contiguous, of unit length for the cosine metric.

    Args:
        names: what each row is called in an error; "query 0", ... by default.

    Raises:
        UserError: not [N, dimension], not finite, or all zeros under cosine.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: said below
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise UserError(f"vectors of shape {list(rows.shape)}; this index takes [N, {dimension}]")
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    if bad := _first(~np.isfinite(lengths), names):
        raise UserError(f"{bad}: its embedding has numbers that are not finite in float32")
    if metric == "cosine":
        if bad := _first(lengths == 0, names):
            raise UserError(f"{bad}: its embedding is all zeros, which has no direction; take metric euclidean")
        rows = (rows / lengths[:, None]).astype(np.float32)
    return rows


def _vectors(records: Sequence[Record], ids: Sequence[str], dimension: int | None) -> npt.NDArray[np.generic]:
    """The embeddings, [N, dimension]."""
    for record, name in zip(records, ids, strict=True):
        if record.embedding is None:
            raise UserError(f"{name}: has no embedding; predict with output=embedding, or by a model that has them")
        dimension = len(record.embedding) if dimension is None else dimension
        if len(record.embedding) != dimension or dimension == 0:
            raise UserError(f"{name}: its embedding has {len(record.embedding)} numbers, not {dimension or 'any'}")
    try:
        return np.array([record.embedding for record in records], dtype=np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{ids[0]} or one soon after it: its embedding is not a list of numbers") from None


def _first(bad: npt.NDArray[np.bool_], names: Sequence[str] | None) -> str | None:
    if not bad.any():
        return None
    number = int(bad.argmax())
    return names[number] if names else f"query {number}"
