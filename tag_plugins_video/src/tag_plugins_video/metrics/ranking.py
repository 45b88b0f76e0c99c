"""What the metrics of YouTube-8M share: the best classes of each video, and average precision of a pool.

Scores are compared as float32, and a nan is the worst of all. Of equal scores in one video the class with the
lower number comes first. Where the predictions of all videos are pooled, equal scores are one threshold: all of them
count at the precision that is reached after the last (as in scikit-learn), so that no order matters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs

Scores = npt.NDArray[np.float32]
Truth = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.int64]
_CHUNKS = 256


class Rows:
    """Rows of one shape and type, appended batch by batch; few arrays, however small the batches."""

    def __init__(self, width: int, dtype: type[np.generic]) -> None:
        self.parts = [np.zeros((0, width), dtype)]
        self.small = 0

    def append(self, rows: np.ndarray) -> None:
        self.parts.append(rows)
        if len(self.parts) - self.small >= _CHUNKS:
            self.parts[self.small :] = [np.concatenate(self.parts[self.small :])]
            if self.parts[-1].nbytes > 1 << 22:  # whole now: it is not copied again
                self.small = len(self.parts)

    def merge(self, other: Rows) -> None:
        for part in other.parts:
            self.append(part)

    def flat(self) -> np.ndarray:
        """Everything in one array, [values]."""
        return np.concatenate([part.ravel() for part in self.parts])


def scores_and_labels(name: str, outputs: Outputs, batch: Batch) -> tuple[Scores, Truth]:
    """float32 scores [N, C] and whether each class is true, bool [N, C], of the videos whose labels are known.

    Labels are 0 and 1 per class, or one class number a video; -1 is unknown.

    Raises:
        UserError: the task gives no scores, or the data no such labels.
    """
    given, target = outputs.get("scores"), batch.get("label")
    if given is None or not isinstance(target, Tensor) or (target.dim() > 1 and target.shape != given.shape):
        raise UserError(f"metric video/{name} needs scores and the labels of each video; this task and data give none")
    scores, labels = given.detach().float().cpu().numpy(), target.cpu().numpy()
    if scores.size and np.isnan(scores.max()):
        scores = np.where(np.isnan(scores), -np.inf, scores)
    if labels.ndim == 1:
        known, truth = labels >= 0, labels[:, None] == np.arange(scores.shape[1])
    else:
        known, truth = labels.max(1, initial=-1) >= 0, labels > 0
    return (scores, truth) if known.all() else (scores[known], truth[known])


def best_classes(scores: Scores, k: int) -> tuple[Scores, Classes]:
    """The k best scores of each video, descending, and their classes, [N, min(k, C)] each."""
    videos, number = scores.shape
    k = min(k, number)
    size = max(number // (4 * max(k, 1)), 1)
    # The k best are no worse than the k best of any other k: here, the best of k groups of classes.
    groups = torch.from_numpy(scores)[:, : number // size * size].reshape(videos, number // size, size)
    floor = np.sort(groups.amax(2).numpy(), axis=1)[:, -k:][:, :1]
    found = np.flatnonzero(scores >= floor)
    rows, classes = np.divmod(found, max(number, 1))
    values = scores.ravel()[found]
    order = np.lexsort((-values, rows))  # stable, so that equal scores stay in the order of their classes
    best = order[np.searchsorted(rows, np.arange(videos))[:, None] + np.arange(k)]
    return values[best], classes[best]


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Area under precision over recall of pooled predictions: mean over ``positives`` of the precision there.

    Args:
        scores: [n], in any order; they are sorted in place.
        hits: bool [n], of the same order.
        positives: number of true labels, those that were not predicted included.

    Returns:
        0 where nothing is a hit, nan where ``positives`` is 0.
    """
    if positives == 0:
        return float("nan")
    found = np.sort(scores[hits])
    scores.sort()
    thresholds, first = np.unique(found, return_index=True)
    better = len(scores) - np.searchsorted(scores, thresholds)
    right = len(found) - first
    counts = np.diff(np.append(first, len(found)))
    return float((counts * (right / better)).sum() / positives)
