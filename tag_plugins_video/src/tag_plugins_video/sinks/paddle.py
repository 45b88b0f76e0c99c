"""The result file of Paddle's video library v1 (``infer.py``)."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import ClassVar

from tag_core.errors import UserError
from tag_core.files import atomic
from tag_core.media.sources import read_label_map
from tag_core.records import Record


class PaddleResult:
    """A pickled list of (id, [top-k probabilities, descending], [their class numbers]).

    k is what the task writes (its ``top_k``; 20 in Paddle's). Records hold class names: their numbers come from
    ``label_map``, and without one the names must be the numbers, as those of video/youtube8m are by default.
    Inputs that could not be read are left out: the format has no place for them. Held in memory until the end.

    Args:
        label_map: file of class names, one a line in index order or ``name index``.
        record_ids: write the part of a source behind its last ``#``, the id in video/youtube8m's
            ``file#id``, instead of the whole source.
    """

    suffix: ClassVar[str] = "infer_result"

    def __init__(self, path: Path, label_map: str | None = None, record_ids: bool = False) -> None:
        names = read_label_map(label_map) if label_map else None
        self.indices = None if names is None else {name: index for index, name in enumerate(names)}
        self.path, self.record_ids = Path(path), record_ids
        self.rows: list[tuple[str, list[float], list[int]]] = []

    def write(self, record: Record) -> None:
        """Raises UserError for a label without a number, or a record without scores."""
        if record.error is not None:
            return
        if record.labels is None or record.scores is None or len(record.labels) != len(record.scores):
            raise UserError(f"{record.source}: video/paddle needs a score for each label; this task gives none")
        best = sorted(zip(record.scores, record.labels, strict=True), key=lambda pair: -pair[0])
        source = record.source.rpartition("#")[2] if self.record_ids else record.source
        self.rows.append((source, [score for score, _ in best], [self._index(label) for _, label in best]))

    def close(self) -> None:
        """Write the file, whole or not at all."""
        with atomic(self.path, "wb") as file:
            pickle.dump(self.rows, file, protocol=2)

    def _index(self, label: str) -> int:
        if self.indices is not None and label in self.indices:
            return self.indices[label]
        if self.indices is None and label.isdecimal():
            return int(label)
        why = "is not in the label_map" if self.indices is not None else "has no number"
        raise UserError(f"class {label!r} {why}; give video/paddle the label_map of the model's classes")
