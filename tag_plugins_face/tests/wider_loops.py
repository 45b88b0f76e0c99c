"""WIDER FACE's evaluation in plain loops, to compare with; the ground truth that tests write; the shared data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
Boxes = Sequence[Sequence[float]]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    area, other = ((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return wide * high / (area + other - wide * high)


def walk(detections: Boxes, faces: Boxes, counted: Sequence[bool]) -> tuple[list[int], list[int]]:
    """Of one picture's detections, x1 y1 x2 y2 score, best first: the faces found so far, and 1, or -1 if ignored."""
    found, recall, proposals = set[int](), [], []
    for detection in detections:
        overlaps = [overlap(detection, face) for face in faces]
        best = max(range(len(faces)), key=overlaps.__getitem__, default=0)
        hit = bool(faces) and overlaps[best] >= 0.5
        if hit and counted[best]:
            found.add(best)
        recall.append(len(found))
        proposals.append(-1 if hit and not counted[best] else 1)
    return recall, proposals


def plain_ap(pictures: Sequence[tuple[Boxes, Boxes, Sequence[bool]]]) -> float:
    """Of pictures (detections, faces, which of them count)."""
    scores = [detection[4] for detections, _, _ in pictures for detection in detections]
    low, high = min(scores), max(scores)
    rights, made = [0] * 1000, [0] * 1000
    for detections, faces, counted in pictures:
        ranked = sorted(detections, key=lambda detection: -detection[4])
        recall, proposals = walk(ranked, faces, counted)
        for t in range(1000):
            kept = sum((d[4] - low) / (high - low) >= 1 - (t + 1) / 1000 for d in ranked)
            rights[t] += recall[kept - 1] if kept else 0
            made[t] += proposals[:kept].count(1)
    number = sum(sum(counted) for _, _, counted in pictures)
    precision = [right / all_of if all_of else 0.0 for right, all_of in zip(rights, made, strict=True)]
    area, before = 0.0, 0.0
    for t in range(1000):
        area += (rights[t] / number - before) * max(precision[t:])
        before = rights[t] / number
    return area


def write_ground_truth(folder: Path, pictures: dict[str, tuple[Boxes, dict[str, list[int]]]]) -> Path:
    """``<event>/<picture>`` -> faces x y w h, and by subset the numbers (from 1) of those that count."""
    folder.mkdir(parents=True, exist_ok=True)
    events: dict[str, list[str]] = {}
    for name in pictures:
        events.setdefault(name.partition("/")[0], []).append(name)
    faces = [_column([np.reshape(pictures[name][0], (-1, 4)) for name in names]) for names in events.values()]
    files = [_column([name.partition("/")[2] for name in names]) for names in events.values()]
    known = {"event_list": _column(list(events)), "file_list": _column(files), "face_bbx_list": _column(faces)}
    savemat(folder / "wider_face_val.mat", known)
    for subset in ("easy", "medium", "hard"):
        kept = [
            _column([np.reshape(pictures[n][1].get(subset, []), (-1, 1)) for n in names]) for names in events.values()
        ]
        savemat(folder / f"wider_{subset}_val.mat", {"gt_list": _column(kept)})
    return folder


def _column(values: Sequence[object]) -> np.ndarray:
    column = np.empty((len(values), 1), object)
    for place, value in enumerate(values):
        column[place, 0] = value
    return column
