"""The evaluation of WIDER FACE, against plain loops over the same detections in the same run.

    python benchmarks/wider_evaluation.py

Detections that were made from the faces and noise, and the validation set's ground truth, where both lie in
TAG_SHARED_DATA; else as many made-up ones. The floor goes through pictures, detections and thresholds in Python, with
numpy for the overlaps of a detection and the counts at a threshold, as published evaluations do, and once for each of
the three subsets; it runs on every tenth picture, where it must find the same average precision. CPU time is compared,
from detections and ground truth in memory to the scores. Exit code 1 if Tag's form is not 10 times as fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

from tag_plugins_face.wider import SUBSETS, Truth, evaluate, read_ground_truth

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
EVERY, ROUNDS, FASTER = 10, 5, 10
THRESHOLDS = 1000
Pictures = dict[str, tuple[np.ndarray, Truth]]
"""Detections x1 y1 x2 y2 score, best first, and the faces."""


def wider_pictures() -> Pictures:
    folder = SHARED / "face"
    if not folder.is_dir():
        print(f"detections are made up, as many as WIDER FACE has faces: there is no {SHARED.name}/face")
        return made_up_pictures()
    stored = np.load(folder / "reference" / "wider_eval_good.npz")
    rows = stored["xywh_score"].astype(float)
    rows[:, 2:4] += rows[:, :2]
    parts = np.split(rows, stored["counts"].cumsum()[:-1])
    truth = read_ground_truth(folder / "widerface_gt")
    return {str(name): (part, truth[str(name)]) for name, part in zip(stored["names"], parts, strict=True)}


def made_up_pictures() -> Pictures:
    generator, pictures = np.random.default_rng(0), {}
    for number in range(3226):
        faces = generator.integers(0, 900, (1 + generator.geometric(1 / 11), 4)).astype(float)
        faces[:, 2:] = faces[:, :2] + generator.integers(8, 80, (len(faces), 1))
        boxes = faces + generator.normal(0, 3, faces.shape)
        scores = np.sort(generator.random((len(faces), 1)), axis=0)[::-1]
        pictures[f"e/{number}"] = np.hstack([boxes, scores]), Truth(faces, generator.random((len(faces), 3)) < 0.7)
    return pictures


def overlaps_of(box: np.ndarray, faces: np.ndarray) -> np.ndarray:
    wide = np.maximum(np.minimum(box[2], faces[:, 2]) - np.maximum(box[0], faces[:, 0]) + 1, 0)
    high = np.maximum(np.minimum(box[3], faces[:, 3]) - np.maximum(box[1], faces[:, 1]) + 1, 0)
    areas = (faces[:, 2] - faces[:, 0] + 1) * (faces[:, 3] - faces[:, 1] + 1)
    return wide * high / ((box[2] - box[0] + 1) * (box[3] - box[1] + 1) + areas - wide * high)


def plain_counts(detections: np.ndarray, faces: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """[1000, 2] of one picture: proposals and faces found at each threshold."""
    state, proposals, recall = np.zeros(len(faces)), np.ones(len(detections)), np.zeros(len(detections))
    for place, detection in enumerate(detections):
        overlaps = overlaps_of(detection, faces)
        best = overlaps.argmax()
        if overlaps[best] >= 0.5:
            if not counted[best]:
                proposals[place] = -1
            elif state[best] == 0:
                state[best] = 1
        recall[place] = (state == 1).sum()
    counts = np.zeros((THRESHOLDS, 2))
    for t in range(THRESHOLDS):
        kept = np.flatnonzero(detections[:, 4] >= 1 - (t + 1) / THRESHOLDS)
        if len(kept):
            counts[t] = (proposals[: kept[-1] + 1] == 1).sum(), recall[kept[-1]]
    return counts


def plain_evaluation(pictures: Pictures) -> list[float]:
    scores = np.concatenate([detections[:, 4] for detections, _ in pictures.values()])
    low, high = scores.min(), scores.max()
    found = []
    for subset in range(len(SUBSETS)):
        counts, number = np.zeros((THRESHOLDS, 2)), 0
        for detections, truth in pictures.values():
            number += truth.counted[:, subset].sum()
            scaled = np.column_stack([detections[:, :4], (detections[:, 4] - low) / (high - low)])
            counts += plain_counts(scaled, truth.boxes, truth.counted[:, subset])
        area, before = 0.0, 0.0
        precision = counts[:, 1] / np.maximum(counts[:, 0], 1)
        for t in range(THRESHOLDS):
            area += (counts[t, 1] / number - before) * precision[t:].max()
            before = counts[t, 1] / number
        found.append(area)
    return found


def tag_evaluation(pictures: Pictures) -> list[float]:
    predictions, truth = ({name: both[side] for name, both in pictures.items()} for side in (0, 1))
    return [*evaluate(predictions, truth).values()]


def main() -> int:
    pictures = wider_pictures()
    part = dict(list(pictures.items())[::EVERY])
    began = process_time()
    expected = plain_evaluation(part)
    plain = (process_time() - began) / len(part) * len(pictures)
    if not np.allclose(tag_evaluation(part), expected, atol=1e-9, rtol=0):
        sys.exit(f"the plain loops find another average precision: {expected} and {tag_evaluation(part)}")
    spent = []
    for _ in range(ROUNDS):
        began = process_time()
        scores = tag_evaluation(pictures)
        spent.append(process_time() - began)
    number = sum(len(detections) for detections, _ in pictures.values())
    found = ", ".join(f"{subset} {score:.4f}" for subset, score in zip(SUBSETS, scores, strict=True))
    print(f"{number:,} detections in {len(pictures):,} pictures: {found}; equal on every tenth")
    print(f"CPU s: plain loops {plain:.1f}, Tag {median(spent):.2f}")
    print(f"Tag evaluates {plain / median(spent):.0f} times as fast as plain loops (bar {FASTER})")
    return int(plain / median(spent) < FASTER)


if __name__ == "__main__":
    sys.exit(main())
