"""PERR of YouTube-8M: precision at equal recall rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import nan
from typing import Any, Self

import numpy as np

from tag_core.kinds import Batch, Outputs
from tag_plugins_video.metrics.ranking import best_classes, scores_and_labels


class PERR:
    """Share of right ones among each video's n best classes, n its number of labels; mean over videos; ``perr``.

    Classes with a score of 0 or less are never right; a video without labels has 0. Of equal scores the class
    with the lower number is the better. Exact: hits are counted for each n.
    """

    def __init__(self) -> None:
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, truth = scores_and_labels("perr", outputs, batch)
        counts = truth.sum(1)
        self.videos += len(scores)
        if not len(scores) or not (most := int(counts.max())):
            return
        values, classes = best_classes(scores, most)
        hits = np.take_along_axis(truth, classes, axis=1) & (values > 0) & (np.arange(most) < counts[:, None])
        for n, right in zip(counts.tolist(), hits.sum(1).tolist(), strict=True):
            self.hits[n] += right

    def merge(self, other: Self) -> None:
        self.hits.update(other.hits)
        self.videos += other.videos

    def compute(self) -> Mapping[str, Any]:
        precisions = sum(self.hits[n] / n for n in sorted(self.hits) if n)
        return {"perr": precisions / self.videos if self.videos else nan}

    def reset(self) -> None:
        self.hits: Counter[int] = Counter()
        """Number of labels -> hits of all videos that have as many"""
        self.videos = 0
