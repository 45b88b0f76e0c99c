"""Metrics over ``outputs["scores"]`` [N, C] and ``batch["label"]``, computed by torchmetrics.

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
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MultilabelAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs

# Merging is the engine's: a cached value would survive it, and torchmetrics' own would count twice.
COMMON: dict[str, Any] = {"ignore_index": -1, "compute_with_cache": False, "sync_on_compute": False}


class _Wrapped:
    """torchmetrics objects, made at the first batch, when the number of classes is known."""

    name: str
    label_dim = 1

    def __init__(self) -> None:
        self.metrics: list[TorchMetric] = []

    def make(self, num_classes: int) -> list[TorchMetric]:
        raise NotImplementedError

    def update(self, outputs: Outputs, batch: Batch) -> None:
        labels = batch.get("label")
        if "scores" not in outputs or not isinstance(labels, Tensor) or labels.dim() != self.label_dim:
            wanted = "one label a sample" if self.label_dim == 1 else "a 0 or 1 per class for each sample"
            raise UserError(
                f"metric core/{self.name} needs scores and {wanted}; this task and data give something else"
            )
        scores: Tensor = outputs["scores"].detach()
        if not self.metrics:
            self.metrics = [metric.to(scores.device) for metric in self.make(scores.shape[1])]
        for metric in self.metrics:
            metric.update(scores, labels.to(scores.device).long())

    def merge(self, other: Self) -> None:
        if not self.metrics:
            self.metrics = copy.deepcopy(other.metrics)
        elif other.metrics:
            for mine, theirs in zip(self.metrics, other.metrics, strict=True):
                mine.merge_state(theirs.to(mine.device))

    def reset(self) -> None:
        self.metrics = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "metrics": [metric.cpu() for metric in self.metrics]}


class TopK(_Wrapped):
    """Accuracy: the share of samples whose label is among the k best scores; ``top1``, ``top5``.

    Args:
        k: numbers of best scores; one above the number of classes counts as all of them.
    """

    name = "top-k"

    def __init__(self, k: list[int] = [1, 5]) -> None:  # noqa: B006
        if not k or min(k) < 1:
            raise ValueError(f"k must be one number or more, each at least 1, not {k}")
        super().__init__()
        self.k = k

    def make(self, num_classes: int) -> list[TorchMetric]:
        return [MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro", **COMMON) for k in self.k]

    def compute(self) -> Mapping[str, Any]:
        values = [m.compute().item() if (m.tp + m.fn).any() else nan for m in self.metrics] or [nan] * len(self.k)
        return {f"top{k}": value for k, value in zip(self.k, values, strict=True)}


class ConfusionMatrix(_Wrapped):
    """Counts [C, C] of true class (row) and best-scored class (column); ``confusion_matrix``."""

    name = "confusion-matrix"

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.num_classes = len(classes)

    def make(self, num_classes: int) -> list[TorchMetric]:
        return [MulticlassConfusionMatrix(num_classes, **COMMON)]

    def matrix(self) -> Tensor:
        empty = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        return self.metrics[0].compute().cpu() if self.metrics else empty

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

    def make(self, num_classes: int) -> list[TorchMetric]:
        return [MultilabelAveragePrecision(num_classes, average=None, thresholds=None, **COMMON)]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        if "scores" in outputs:  # scores a rounding error above 1 would make torchmetrics take them for logits
            outputs = {**outputs, "scores": outputs["scores"].clamp(0, 1)}
        super().update(outputs, batch)

    def compute(self) -> Mapping[str, Any]:
        positives = dim_zero_cat(self.metrics[0].target) == 1 if self.metrics else torch.zeros(0)
        if not positives.any():
            return {"map": nan}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes without positives, which are left out here
            return {"map": self.metrics[0].compute()[positives.any(0)].double().mean().item()}
