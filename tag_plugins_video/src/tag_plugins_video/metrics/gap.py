"""GAP@k of YouTube-8M: global average precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tag_core.kinds import Batch, Outputs
from tag_plugins_video.metrics.ranking import Rows, average_precision, best_classes, scores_and_labels


class GAP:
    """Average precision of the k best classes of all videos in one pool; ``gap``.

    Recall is over all labels, those outside the k best included. Exact; keeps 4 bytes and a bit for each of
    the k classes: 83 bytes a video at k = 20. Equal scores in the pool are one threshold; of equal scores in a
    video the class with the lower number is the better.

    Args:
        k: classes of each video that go into the pool.
    """

    def __init__(self, k: int = 20) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, truth = scores_and_labels("gap", outputs, batch)
        values, classes = best_classes(scores, self.k)
        hits = np.take_along_axis(truth, classes, axis=1)
        self.width = hits.shape[1]
        self.positives += int(np.count_nonzero(truth))
        self.scores.append(values.reshape(-1, 1))
        self.hits.append(np.packbits(hits, axis=1))

    def merge(self, other: Self) -> None:
        self.width = max(self.width, other.width)
        self.positives += other.positives
        self.scores.merge(other.scores)
        self.hits.merge(other.hits)

    def compute(self) -> Mapping[str, Any]:
        rows = self.hits.flat().reshape(-1, max(-(-self.width // 8), 1))
        hits = np.unpackbits(rows, axis=1, count=self.width).astype(bool).ravel()
        return {"gap": average_precision(self.scores.flat(), hits, self.positives)}

    def reset(self) -> None:
        self.positives, self.width = 0, 0
        self.scores, self.hits = Rows(1, np.float32), Rows(-(-self.k // 8), np.uint8)
