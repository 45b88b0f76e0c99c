"""Formats for records. Each file takes its name when the sink is closed, whole or not at all."""

from __future__ import annotations

import csv
import json
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from tag_core.errors import UserError
from tag_core.files import atomic
from tag_core.records import Record

ROW_GROUP = 1000
"""Records in memory before they go into a Parquet file."""


class _File(ABC):
    """A file being written. One that is never closed, or meets an error, leaves nothing behind."""

    mode: Literal["w", "wb"] = "w"

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        self.file: IO[Any] = self._stack.enter_context(atomic(path, self.mode))

    def write(self, record: Record) -> None:
        """Raises RunFolderError, as close does: the disk is full or the like; the file is given up."""
        with self._giving_up():
            self.add(record)

    def close(self) -> None:
        if not self.file.closed:
            with self._giving_up():
                self.finish()
        self._stack.close()

    @abstractmethod
    def add(self, record: Record) -> None: ...

    def finish(self) -> None:
        return

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._stack.__exit__(*sys.exc_info())  # removes the temporary file, names an OSError
            raise


class JSONLines(_File):
    """JSON Lines: one record a line, nothing left out; ``tag_core.records.read_records`` reads it."""

    def add(self, record: Record) -> None:
        self.file.write(record.to_json() + "\n")


class CSV(_File):
    """A flat table: a row per box where there are boxes, otherwise a row per record.

    Columns: source, frame, time and end (seconds), label, score, label2, score2, ... (best first),
    x1, y1, x2, y2 (pixels), track, truth, damage, error. What is not known is empty. Embeddings,
    keypoints, masks and extras do not fit in a table: use jsonl or parquet.

    Args:
        top: how many labels and scores a row has.
    """

    def __init__(self, path: Path, top: int = 5) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1, not {top}")
        super().__init__(path)
        ranks = ["", *map(str, range(2, top + 1))]
        ranked = [f"{name}{rank}" for rank in ranks for name in ("label", "score")]
        columns = ["source", "frame", "time", "end", *ranked, "x1", "y1", "x2", "y2", "track"]
        self.top = top
        self.rows = csv.DictWriter(self.file, [*columns, "truth", "damage", "error"], lineterminator="\n")
        self.rows.writeheader()

    def add(self, record: Record) -> None:
        time = record.time if isinstance(record.time, list) else [record.time]
        row: dict[str, Any] = dict(zip(("time", "end"), time, strict=False))
        row |= {name: getattr(record, name) for name in ("source", "frame", "truth", "damage", "error")}
        labels, scores = record.labels or [], record.scores or []
        if not record.boxes:
            for rank in range(min(self.top, max(len(labels), len(scores)))):
                suffix = str(rank + 1) if rank else ""
                row[f"label{suffix}"], row[f"score{suffix}"] = _at(labels, rank), _at(scores, rank)
            self.rows.writerow(row)
        for i, box in enumerate(record.boxes or ()):
            found = {"label": _at(labels, i), "score": _at(scores, i), "track": _at(record.track, i)}
            self.rows.writerow(row | found | dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)))


class Parquet(_File):
    """Parquet: a column per field; masks and extra as JSON text, time as a list of 1 or 2 seconds."""

    mode = "wb"

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError("parquet needs pyarrow: pip install 'tag-core[parquet]'") from error
        super().__init__(path)
        text, number, numbers = pa.string(), pa.int64(), pa.list_(pa.float64())
        types = {"source": text, "frame": number, "time": numbers, "labels": pa.list_(text)}
        types |= {"scores": numbers, "boxes": pa.list_(numbers), "keypoints": pa.list_(pa.list_(numbers))}
        types |= {"masks": text, "embedding": pa.list_(pa.float32()), "track": pa.list_(number)}
        types |= {"truth": text, "damage": text, "error": text, "extra": text, "version": number}
        self.schema, self.buffer = pa.schema(types.items()), list[dict[str, Any]]()
        self.writer = pq.ParquetWriter(self.file, self.schema)

    def add(self, record: Record) -> None:
        row = record.to_dict()
        row |= {key: json.dumps(row[key]) for key in ("masks", "extra") if key in row}
        if record.time is not None and not isinstance(record.time, list):
            row["time"] = [record.time]
        self.buffer.append({k: _utf8(v) if isinstance(v, str) else v for k, v in row.items()})
        if len(self.buffer) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self.writer.write_table(pa.Table.from_pylist(self.buffer, self.schema))
        self.buffer = []

    def finish(self) -> None:
        if self.buffer:
            self._flush()
        self.writer.close()

    def __del__(self) -> None:
        if hasattr(self, "writer"):
            self.writer.is_open = False  # given up: pyarrow would still write to the file that is gone


class Pickle(_File):
    """A pickled list of plain dicts, for programs that want one. Held in memory until the end.

    Write only: reading a pickle runs whatever code it holds, so Tag never reads one back.
    """

    mode = "wb"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.records: list[dict[str, Any]] = []

    def add(self, record: Record) -> None:
        self.records.append(record.to_dict())

    def finish(self) -> None:
        pickle.dump(self.records, self.file)


def _at(values: list[Any] | None, index: int) -> Any:
    return values[index] if values and index < len(values) else None


def _utf8(text: str) -> str:
    """A file name's stray bytes written out, as :func:`tag_core.files.atomic` does in text files."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
