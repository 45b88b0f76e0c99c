"""Formats for records. Each file takes its name when the sink is closed, whole or not at all."""

from __future__ import annotations

import csv
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import suppress
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from tag_core.errors import UserError
from tag_core.files import atomic
from tag_core.records import Record

ROW_GROUP = 1000
"""Records in memory before they go into a Parquet file."""
CSV_COLUMNS = (
    *("source", "frame", "time", "end", "label", "score", "x1", "y1", "x2", "y2"),
    *("track", "truth", "damage", "error"),
)

Writing = Generator[None, Record | None, None]


class _File(ABC):
    """Written by a coroutine, whose open files are closed, and removed if they are half written, however it ends."""

    def __init__(self, path: Path) -> None:
        self._writing = self.writing(path)
        next(self._writing)

    @abstractmethod
    def writing(self, path: Path) -> Writing:
        """Is sent the records, and None at the end."""

    def write(self, record: Record) -> None:
        """Raises RunFolderError, as close does: the disk is full or the like; the file is given up."""
        self._writing.send(record)

    def close(self) -> None:
        with suppress(StopIteration):
            self._writing.send(None)


class JSONLines(_File):
    """JSON Lines: one record a line, nothing left out; ``tag_core.records.read_records`` reads it."""

    def writing(self, path: Path) -> Writing:
        with atomic(path) as file:
            while record := (yield):
                file.write(record.to_json() + "\n")


class CSV(_File):
    """A flat table: a row for each box of a record, or one with the best label where there are no boxes.

    Times are in seconds, boxes in pixels. What does not fit in a table is left out: use jsonl or parquet for it.
    """

    def writing(self, path: Path) -> Writing:
        with atomic(path) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(CSV_COLUMNS)
            while record := (yield):
                time, end = record.time if isinstance(record.time, list) else (record.time, None)
                boxes: list[Any] = record.boxes or [[None] * 4]
                found = zip_longest(record.labels or (), record.scores or (), boxes, record.track or ())
                for label, score, box, track in islice(found, len(boxes)):
                    row = [record.source, record.frame, time, end, label, score, *box, track]
                    table.writerow([*row, record.truth, record.damage, record.error])


class Parquet(_File):
    """Parquet: a column per field; masks and extra as JSON text, time as a list of 1 or 2 seconds."""

    def writing(self, path: Path) -> Writing:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise UserError("parquet needs pyarrow: pip install 'tag-core[parquet]'") from error
        text, number, numbers = pa.string(), pa.int64(), pa.list_(pa.float64())
        types = {"source": text, "frame": number, "time": numbers, "labels": pa.list_(text)}
        types |= {"scores": numbers, "boxes": pa.list_(numbers), "keypoints": pa.list_(pa.list_(numbers))}
        types |= {"masks": text, "embedding": pa.list_(pa.float32()), "track": pa.list_(number)}
        types |= {"truth": text, "damage": text, "error": text, "extra": text, "version": number}
        schema, rows = pa.schema(types.items()), list[dict[str, Any]]()
        with atomic(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            while record := (yield):
                rows.append(self.row(record))
                if len(rows) == ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows.clear()
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))

    def row(self, record: Record) -> dict[str, Any]:
        row = record.to_dict()
        row["source"] = record.source.encode("utf-8", "backslashreplace").decode()  # as in text files
        row |= {key: json.dumps(row[key]) for key in ("masks", "extra") if key in row}
        return row if isinstance(record.time, list | None) else row | {"time": [record.time]}


class Pickle(_File):
    """A pickled list of plain dicts, for programs that want one. Held in memory until the end.

    Write only: reading a pickle runs whatever code it holds, so Tag never reads one back.
    """

    def writing(self, path: Path) -> Writing:
        records = []
        with atomic(path, "wb") as file:
            while record := (yield):
                records.append(record.to_dict())
            pickle.dump(records, file)
