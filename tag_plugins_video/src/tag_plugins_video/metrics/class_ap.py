"""Average precision of each class, over the best classes of each video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tag_core.kinds import Batch, Outputs
from tag_plugins_video.metrics.ranking import Rows, best_classes, scores_and_labels


class ClassAP:
    """Average precision per class over each video's k best classes; ``class_ap`` and ``mean_class_ap``.

    ``class_ap`` is a list with 0 for a class that no video has among its k best, or that no video is labelled with;
    ``mean_class_ap`` is the mean over the classes with labels. Keeps 8 bytes for each of the k: 160 bytes a video
    at k = 20. Ties are as in video/gap.

    Args:
        k: classes of each video that count as predicted.
    """

    def __init__(self, k: int = 20) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, truth = scores_and_labels("class-ap", outputs, batch)
        values, classes = best_classes(scores, self.k)
        packed = sortable(values, classes, np.take_along_axis(truth, classes, axis=1))
        self.predictions.append(packed.reshape(-1, 1))
        self._add(truth.sum(0, dtype=np.int64))

    def merge(self, other: Self) -> None:
        self.predictions.merge(other.predictions)
        self._add(other.positives)

    def compute(self) -> Mapping[str, Any]:
        positives = self.positives
        precisions = average_precisions(self.predictions.flat(), positives)
        labelled = precisions[positives > 0]
        return {
            "class_ap": precisions.tolist(),
            "mean_class_ap": float(labelled.mean()) if len(labelled) else float("nan"),
        }

    def reset(self) -> None:
        self.predictions = Rows(1, np.uint64)
        self.positives = np.zeros(0, np.int64)

    def _add(self, positives: np.ndarray) -> None:
        if not len(self.positives):
            self.positives = np.zeros_like(positives)
        if len(positives):
            self.positives = self.positives + positives


def sortable(scores: np.ndarray, classes: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """uint64 that sort by class, then from the best score to the worst; the lowest bit is the hit."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0: there is one zero only
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    falling = (~rising).astype(np.uint64)
    packed: np.ndarray = classes.astype(np.uint64) << np.uint64(33) | falling << np.uint64(1) | hits.astype(np.uint64)
    return packed


def average_precisions(predictions: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """[C] from `sortable` predictions, which are sorted in place, and the true labels of each class, [C]."""
    predictions.sort()
    classes = (predictions >> np.uint64(33)).astype(np.int64)
    hits = (predictions & np.uint64(1)).astype(np.int64)
    starts = np.searchsorted(classes, np.arange(len(positives)))
    right = np.concatenate([[0], np.cumsum(hits)])
    # Every prediction counts at the last one that has its class and score.
    threshold = predictions >> np.uint64(1)
    ends = np.flatnonzero(np.append(threshold[1:] != threshold[:-1], len(threshold) > 0)) + 1
    begins = np.concatenate([[0], ends[:-1]])[: len(ends)]
    start = starts[classes[begins]] if len(ends) else begins
    precision = (right[ends] - right[start]) / (ends - start)
    sums = np.bincount(
        classes[begins] if len(ends) else begins,
        weights=precision * (right[ends] - right[begins]),
        minlength=len(positives),
    )
    found: np.ndarray = sums / np.maximum(positives, 1)
    return found
