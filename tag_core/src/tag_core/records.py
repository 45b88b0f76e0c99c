"""One record for every result: what was found in a source, or why nothing could be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tag_core.errors import UserError

VERSION = 1
MIN_SCORE = 0.5
"""Boxes that score less are found, but neither drawn nor cut out unless asked for."""


@dataclass(kw_only=True)
class Record:
    """One result. Only ``source`` is required; a task fills what it finds.

    Args:
        source: path of the video or image, as the user gave it.
        frame: index of the frame that the result is about; None for a whole clip or image.
        time: seconds from the first frame to ``frame``, or [start, end] of the part looked at.
        labels: class names, best first.
        scores: the probability or confidence of each label, or of each box.
        boxes: [x1, y1, x2, y2] each, in pixels of the original picture.
        keypoints: per box, [x, y] of each point, in pixels of the original picture.
        masks: per box, COCO run-length encoding.
        embedding: the feature vector.
        track: identity along time, per box.
        truth: the true label, where the data set knows it.
        damage: what is wrong with the source although part of it was used.
        error: why there is no result.
        extra: anything else a task has to say.
    """

    source: str
    frame: int | None = None
    time: float | list[float] | None = None
    labels: list[str] | None = None
    scores: list[float] | None = None
    boxes: list[list[float]] | None = None
    keypoints: list[list[list[float]]] | None = None
    masks: list[dict[str, Any]] | None = None
    embedding: list[float] | None = None
    track: list[int] | None = None
    truth: str | None = None
    damage: str | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, in the order above; lists are the record's own, not copies."""
        return {key: value for key, value in vars(self).items() if value is not None and value != {}}

    def to_json(self) -> str:
        """One line of strict JSON; numbers that JSON cannot say become null."""
        found = self.to_dict()
        try:
            text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        except ValueError:
            text = json.dumps(finite(found), ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()  # a file name that is not UTF-8

    def confident(self, min_score: float) -> Record:
        """With those boxes alone that score enough, and what belongs to them; itself, where boxes have no scores."""
        if not self.boxes or not self.scores:
            return self
        kept = [i for i, score in enumerate(self.scores) if score >= min_score]
        lists = {name: getattr(self, name) for name in ("labels", "scores", "boxes", "keypoints", "masks", "track")}
        chosen: dict[str, Any] = {name: [each[i] for i in kept] for name, each in lists.items() if each}
        return replace(self, **chosen)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Raises UserError for another version or for fields this version does not have."""
        if data.get("version", VERSION) != VERSION:
            raise UserError(f"record version {data['version']} is not {VERSION}; upgrade tag-core to read it")
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown or not isinstance(data.get("source"), str):
            problem = f"unknown fields {', '.join(sorted(unknown))}" if unknown else "no 'source'"
            raise UserError(f"not a record: {problem}")
        return cls(**data)


def read_records(path: str | Path) -> Iterator[Record]:
    """Records of a JSON Lines file, one at a time.

    Raises:
        UserError: naming the line that is not a record.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Record.from_dict(json.loads(line.decode()))
            except (ValueError, TypeError, AttributeError, UserError) as error:
                why = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "msg", error)
                raise UserError(f"{path}, line {number}: no record as in predictions.jsonl: {why}") from error


def finite(value: Any) -> Any:
    """``value`` with None for the numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
