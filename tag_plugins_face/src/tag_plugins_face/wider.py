"""Average precision as WIDER FACE's evaluation defines it (its eval_tools; arXiv 1511.06523). Needs no torch.

A detection hits the face that it overlaps most, where their IoU is at least 0.5; the pixels at both ends of a box count
in its width and height. Of the detections that hit one face the best-scored finds it and the others are false. Scores
are scaled to 0..1 over all pictures; precision and recall are taken at 1,000 thresholds, and the area under their upper
envelope is the average precision. Easy, medium and hard are subsets of the faces: a detection of a face outside of a
subset is neither right nor wrong there. In a picture without any face all detections are false; eval_tools leaves it
out, and WIDER FACE has none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from tag_core.errors import UserError

SUBSETS = ("easy", "medium", "hard")
IOU = 0.5
THRESHOLDS = 1 - (np.arange(1000) + 1) / 1000
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Truth:
    """Faces of a picture: boxes [M, 4], x1 y1 x2 y2 in pixels, and which count in each of S subsets, bool [M, S]."""

    boxes: Array
    counted: Array


class Tally:
    """What the detections of many pictures come to in each of S subsets; tallies of other pictures merge in."""

    def __init__(self, subsets: int) -> None:
        self.faces = np.zeros(subsets, np.int64)
        self.scores: list[Array] = []
        self.right: list[Array] = []
        self.proposed: list[Array] = []

    def add(self, boxes: Array, scores: Array, truth: Truth) -> None:
        """Count the detections of one picture, boxes [N, 4] and scores [N], in any order."""
        face, first = match(boxes, scores, truth.boxes)
        counted = np.ones((len(face), len(self.faces)), bool)
        counted[face >= 0] = truth.counted[face[face >= 0]]
        self.faces += truth.counted.sum(0)
        self.scores.append(np.asarray(scores, np.float64))
        self.proposed.append(counted)
        self.right.append(counted & first[:, None])

    def merge(self, other: Self) -> None:
        self.faces += other.faces
        self.scores += other.scores
        self.right += other.right
        self.proposed += other.proposed

    def average_precision(self) -> list[float]:
        """Of each subset; nan of one without faces."""
        if not sum(map(len, self.scores)):
            return [0.0 if number else float("nan") for number in self.faces]
        scores = np.concatenate(self.scores)
        right, proposed = np.concatenate(self.right), np.concatenate(self.proposed)
        low, high = scores.min(), scores.max()
        scores = (scores - low) / (high - low) if high > low else np.ones_like(scores)
        # The first threshold that lets each detection in.
        place = len(THRESHOLDS) - np.searchsorted(THRESHOLDS[::-1], scores, side="right")
        found = []
        for subset, number in enumerate(self.faces):
            hits, proposals = (
                np.bincount(place[flags[:, subset]], minlength=len(THRESHOLDS)).cumsum() for flags in (right, proposed)
            )
            found.append(_area(hits / number, hits / np.maximum(proposals, 1)) if number else float("nan"))
        return found


def match(boxes: Array, scores: Array, faces: Array) -> tuple[Array, Array]:
    """The face that each of N boxes hits, -1 for none, and whether it is the best-scored to hit it."""
    face, first = np.full(len(boxes), -1), np.zeros(len(boxes), bool)
    if len(boxes) and len(faces):
        overlaps = iou(np.asarray(boxes, np.float64), np.asarray(faces, np.float64))
        face = np.where(overlaps.max(1) >= IOU, overlaps.argmax(1), -1)
        order = np.argsort(-scores, kind="stable")
        first[order[np.unique(face[order], return_index=True)[1]]] = True
        first &= face >= 0
    return face, first


def iou(boxes: Array, faces: Array) -> Array:
    """[N, M]; widths and heights are one more than the difference of the coordinates."""
    corner, other = np.maximum(boxes[:, None, :2], faces[:, :2]), np.minimum(boxes[:, None, 2:], faces[:, 2:])
    shared, first, second = (
        (far - near + 1).clip(0).prod(-1)
        for near, far in ((corner, other), (boxes[:, :2], boxes[:, 2:]), (faces[:, :2], faces[:, 2:]))
    )
    overlaps: Array = shared / np.maximum(first[:, None] + second - shared, 1e-9)
    return overlaps


def evaluate(predictions: Mapping[str, Array], truth: Mapping[str, Truth]) -> dict[str, float]:
    """Average precision of each subset.

    Args:
        predictions: picture -> [N, 5], x1 y1 x2 y2 score; pictures that have no truth are left out.

    Raises:
        UserError: there are pictures without predictions.
    """
    if missing := [name for name in truth if name not in predictions]:
        raise UserError(
            f"{len(missing)} of the {len(truth)} pictures of the ground truth have no predictions: "
            f"{', '.join(missing[:3])}{', ...' if missing[3:] else ''}; the predictions have names like "
            f"{next(iter(predictions), 'none')}. A picture without a face found needs a file too, with the number 0"
        )
    tally = Tally(len(SUBSETS))
    for name, faces in truth.items():
        tally.add(predictions[name][:, :4], predictions[name][:, 4], faces)
    return dict(zip(SUBSETS, tally.average_precision(), strict=True))


def read_ground_truth(folder: str | Path) -> dict[str, Truth]:
    """``<event>/<picture>`` -> its faces, from WIDER FACE's ``wider_face_val.mat`` and those of the three subsets.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    files = {name: Path(folder) / f"wider_{name}_val.mat" for name in ("face", *SUBSETS)}
    if missing := [file.name for file in files.values() if not file.is_file()]:
        raise UserError(
            f"{folder}: no {', '.join(missing)} in it; give the folder ground_truth of WIDER FACE's eval_tools"
        )
    face = _read_mat(files["face"], "event_list", "file_list", "face_bbx_list")
    kept = [_read_mat(files[name], "gt_list")["gt_list"] for name in SUBSETS]
    found = {}
    try:
        for i, (event,) in enumerate(face["event_list"]):
            for j, (picture,) in enumerate(face["file_list"][i, 0]):
                boxes = face["face_bbx_list"][i, 0][j, 0].reshape(-1, 4).astype(np.float64)
                boxes[:, 2:] += boxes[:, :2]
                counted = np.zeros((len(boxes), len(SUBSETS)), bool)
                for subset, numbers in enumerate(kept):
                    counted[numbers[i, 0][j, 0].ravel().astype(int) - 1, subset] = True
                found[f"{event[0]}/{picture[0]}"] = Truth(boxes, counted)
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: the .mat files do not fit together: {error}; get them again") from error
    return found


def picture_name(source: str) -> str:
    """``<event>/<picture>``, as the ground truth names it: the folder that the file is in, and the file's stem."""
    path = Path(os.path.abspath(source))
    return f"{path.parent.name}/{path.stem}".lstrip("/")


def _read_mat(file: Path, *names: str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(file, variable_names=names)
    except Exception as error:  # whatever scipy meets in a damaged file
        raise UserError(f"{file}: not a .mat file that can be read: {error}") from error
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{file}: has no {', '.join(missing)}; it is not WIDER FACE's ground truth")
    return found


def _area(recall: Array, precision: Array) -> float:
    """Under the upper envelope, at every point (PASCAL VOC 2010's devkit)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())
