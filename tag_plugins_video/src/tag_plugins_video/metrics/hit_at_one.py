"""Hit@1 of YouTube-8M."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any, Self

import numpy as np

from tag_core.kinds import Batch, Outputs
from tag_plugins_video.metrics.ranking import scores_and_labels


class HitAtOne:
    """Share of videos whose best-scored class is one of their labels; ``hit_at_1``.

    A video without labels counts as a miss. Of equal scores the class with the lower number is the best.
    """

    def __init__(self) -> None:
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, truth = scores_and_labels("hit-at-1", outputs, batch)
        self.hits += int(np.take_along_axis(truth, scores.argmax(1)[:, None], axis=1).sum())
        self.videos += len(scores)

    def merge(self, other: Self) -> None:
        self.hits += other.hits
        self.videos += other.videos

    def compute(self) -> Mapping[str, Any]:
        return {"hit_at_1": self.hits / self.videos if self.videos else nan}

    def reset(self) -> None:
        self.hits = self.videos = 0
