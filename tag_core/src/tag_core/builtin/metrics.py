"""Metrics over ``outputs["scores"]`` [N, C] and ``batch["label"]``.

Samples labelled -1 (unknown) are left out; a number with nothing to compute it from is nan.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from math import nan
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs

# Merging is the engine's: a cached value would survive it, and torchmetrics' own would count twice.
COMMON: dict[str, Any] = {"ignore_index": -1, "compute_with_cache": False, "sync_on_compute": False}


class TopK:
    """Accuracy: the share of samples whose label is among the k best scores; ``top1``, ``top5``.

    One ``topk`` serves every k: torchmetrics would sort once for each, at 1 % of an evaluation's time.

    Args:
        k: numbers of best scores; one above the number of classes counts as all of them.
    """

    def __init__(self, k: list[int] = [1, 5]) -> None:  # noqa: B006
        if not k or min(k) < 1:
            raise ValueError(f"k must be one number or more, each at least 1, not {k}")
        self.k = k
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _scores_and_labels("top-k", outputs, batch, label_dim=1)
        found = scores.topk(min(max(self.k), scores.shape[1])).indices == labels.unsqueeze(1)
        places = found[labels >= 0].sum(0).cumsum(0).cpu()
        self.hits += places[[min(k, len(places)) - 1 for k in self.k]]
        self.samples += int((labels >= 0).sum())

    def merge(self, other: Self) -> None:
        self.hits += other.hits
        self.samples += other.samples

    def compute(self) -> Mapping[str, Any]:
        shares = [hits / self.samples if self.samples else nan for hits in self.hits.tolist()]
        return {f"top{k}": share for k, share in zip(self.k, shares, strict=True)}

    def reset(self) -> None:
        self.hits, self.samples = torch.zeros(len(self.k), dtype=torch.int64), 0


class _Wrapped:
    """A torchmetrics object, made at the first batch, when the number of classes is known."""

    name: str
    label_dim = 1

    def __init__(self) -> None:
        self.metric: TorchMetric | None = None

    def make(self, num_classes: int) -> TorchMetric:
        raise NotImplementedError

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _scores_and_labels(self.name, outputs, batch, self.label_dim)
        self.metric = self.metric or self.make(scores.shape[1]).to(scores.device)
        self.metric.update(scores, labels)

    def merge(self, other: Self) -> None:
        if self.metric is None:
            self.metric = copy.deepcopy(other.metric)
        elif other.metric is not None:
            self.metric.merge_state(other.metric.to(self.metric.device))

    def reset(self) -> None:
        self.metric = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "metric": self.metric and self.metric.cpu()}


def _scores_and_labels(name: str, outputs: Outputs, batch: Batch, label_dim: int) -> tuple[Tensor, Tensor]:
    scores, labels = outputs.get("scores"), batch.get("label")
    if scores is None or not isinstance(labels, Tensor) or labels.dim() != label_dim:
        wanted = "one label a sample" if label_dim == 1 else "a 0 or 1 per class for each sample"
        raise UserError(f"metric core/{name} needs scores and {wanted}; this task and data give something else")
    return scores.detach(), labels.to(scores.device).long()


class ConfusionMatrix(_Wrapped):
    """Counts [C, C] of true class (row) and best-scored class (column); ``confusion_matrix``."""

    name = "confusion-matrix"

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.num_classes = len(classes)

    def make(self, num_classes: int) -> TorchMetric:
        return MulticlassConfusionMatrix(num_classes, **COMMON)

    def matrix(self) -> Tensor:
        empty = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        return self.metric.compute().cpu() if self.metric else empty

    def compute(self) -> Mapping[str, Any]:
        return {"confusion_matrix": self.matrix().tolist()}


class MeanClassAccuracy(ConfusionMatrix):
    """Accuracy of each class, averaged over the classes that occur; ``mean_class_accuracy``.

    Not torchmetrics' macro accuracy, which counts a class that was only ever predicted as 0.
    """

    name = "mean-class-accuracy"

    def compute(self) -> Mapping[str, Any]:
        matrix = self.matrix()
        samples = matrix.sum(1)
        present = samples > 0
        return {"mean_class_accuracy": (matrix.diag()[present] / samples[present]).double().mean().item()}


class MultilabelMAP(_Wrapped):
    """Average precision of each class, averaged over the classes with positives; ``map``.

    Exact, not binned: keeps every score and label. Labels are [N, C] of 0 and 1, or -1 where unknown.
    """

    name, label_dim = "multilabel-map", 2

    def make(self, num_classes: int) -> TorchMetric:
        return MultilabelAveragePrecision(num_classes, average=None, thresholds=None, **COMMON)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if "scores" in outputs:  # scores a rounding error above 1 would make torchmetrics take them for logits
            outputs = {**outputs, "scores": outputs["scores"].clamp(0, 1)}
        super().update(outputs, batch)

    def compute(self) -> Mapping[str, Any]:
        if self.metric is None or not (positives := dim_zero_cat(self.metric.target) == 1).any():
            return {"map": nan}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes without positives, which are left out here
            return {"map": self.metric.compute()[positives.any(0)].double().mean().item()}
