"""Metrics over ``outputs["scores"]`` [N, C] and ``batch["label"]``.

Samples labelled -1 (unknown) are left out; a number with nothing to compute it from is nan. Written
here rather than wrapped: plain counts merge exactly across processes, a batch costs a fraction of
torchmetrics' time and waits for no GPU, and a run need not import torchmetrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs


class _Counts:
    """A metric whose state is one tensor of counts, on the device of the scores."""

    size: int

    def reset(self) -> None:
        self.counts = torch.zeros(self.size, dtype=torch.int64)

    def merge(self, other: Self) -> None:
        self.counts = self.counts.cpu() + other.counts.cpu()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "counts": self.counts.cpu()}


class TopK(_Counts):
    """Accuracy: the share of samples whose label is among the k best scores; ``top1``, ``top5``.

    Args:
        k: numbers of best scores; one above the number of classes counts as all of them.
    """

    def __init__(self, k: list[int] = [1, 5]) -> None:  # noqa: B006
        if not k or min(k) < 1:
            raise ValueError(f"k must be one number or more, each at least 1, not {k}")
        self.k, self.size = k, len(k) + 1  # the last counts samples
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _inputs(outputs, batch, 1, "top-k")
        best = scores.topk(min(max(self.k), scores.shape[1])).indices
        hits = best == labels.unsqueeze(1)  # -1 is no index
        counts = [hits[:, :k].sum() for k in self.k] + [(labels >= 0).sum()]
        self.counts = self.counts.to(scores.device) + torch.stack(counts)

    def compute(self) -> Mapping[str, Any]:
        *hits, samples = self.counts.tolist()
        return {f"top{k}": hit / samples if samples else nan for k, hit in zip(self.k, hits, strict=True)}


class ConfusionMatrix(_Counts):
    """Counts [C, C] of true class (row) and best-scored class (column); ``confusion_matrix``."""

    def __init__(self, classes: list[str]) -> None:
        self.size = len(classes) ** 2
        self.num_classes = len(classes)
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _inputs(outputs, batch, 1, "confusion-matrix or mean-class-accuracy")
        cells = labels.clamp(min=0) * self.num_classes + scores.argmax(1)
        self.counts = self.counts.to(scores.device).index_add_(0, cells, (labels >= 0).long())

    def matrix(self) -> Tensor:
        return self.counts.cpu().view(self.num_classes, self.num_classes)

    def compute(self) -> Mapping[str, Any]:
        return {"confusion_matrix": self.matrix().tolist()}


class MeanClassAccuracy(ConfusionMatrix):
    """Accuracy of each class, averaged over the classes that occur; ``mean_class_accuracy``."""

    def compute(self) -> Mapping[str, Any]:
        matrix = self.matrix()
        samples = matrix.sum(1)
        present = samples > 0
        return {"mean_class_accuracy": (matrix.diag()[present] / samples[present]).double().mean().item()}


class MultilabelMAP:
    """Average precision of each class, averaged over the classes with positives; ``map``.

    Exact, not binned: keeps every score, 5 bytes per sample and class. Labels are [N, C] of 0 and
    1, or -1 where unknown.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _inputs(outputs, batch, 2, "multilabel-map")
        self.scores.append(scores.float().cpu())
        self.labels.append(labels.to(torch.int8).cpu())

    def merge(self, other: Self) -> None:
        self.scores += other.scores
        self.labels += other.labels

    def compute(self) -> Mapping[str, Any]:
        if not self.scores:
            return {"map": nan}
        scores, labels = torch.cat(self.scores).numpy(), torch.cat(self.labels).numpy()
        precisions = [
            average_precision(scores[known, c], labels[known, c] > 0)
            for c, known in enumerate((labels >= 0).T)
            if (labels[:, c] > 0).any()
        ]
        return {"map": float(np.mean(precisions)) if precisions else nan}


def average_precision(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall steps, sum of (R_n - R_(n-1)) P_n; equal scores are one step."""
    order = np.argsort(-scores)
    hits = positive[order].cumsum()
    steps = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    recall = hits[steps] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits[steps] / (steps + 1)))


def _inputs(outputs: Outputs, batch: Batch, dim: int, name: str) -> tuple[Tensor, Tensor]:
    """Scores and labels on one device, checked to be what the metric reads."""
    labels = batch.get("label")
    if "scores" not in outputs or not isinstance(labels, Tensor) or labels.dim() != dim:
        wanted = "one label a sample" if dim == 1 else "a 0 or 1 per class for each sample"
        raise UserError(f"metric core/{name} needs scores and {wanted}; this task and data give something else")
    scores: Tensor = outputs["scores"]
    return scores.detach(), labels.to(scores.device)
