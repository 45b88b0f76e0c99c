"""Metrics over ``outputs["scores"]`` [N, C] and ``batch["label"]``.

Samples labelled -1 (unknown) are left out; a number with nothing to compute it from is nan.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs


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


def _scores_and_labels(name: str, outputs: Outputs, batch: Batch, label_dim: int) -> tuple[Tensor, Tensor]:
    scores, labels = outputs.get("scores"), batch.get("label")
    if scores is None or not isinstance(labels, Tensor) or labels.dim() != label_dim:
        wanted = "one label a sample" if label_dim == 1 else "a 0 or 1 per class for each sample"
        raise UserError(f"metric core/{name} needs scores and {wanted}; this task and data give something else")
    return scores.detach(), labels.to(scores.device).long()


class ConfusionMatrix:
    """Counts [C, C] of true class (row) and best-scored class (column); ``confusion_matrix``."""

    name = "confusion-matrix"

    def __init__(self, classes: list[str]) -> None:
        self.num_classes = len(classes)
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _scores_and_labels(self.name, outputs, batch, label_dim=1)
        places = torch.stack([labels, scores.argmax(1)])[:, labels >= 0].cpu()
        self.matrix.index_put_(tuple(places), torch.tensor(1), accumulate=True)

    def merge(self, other: Self) -> None:
        self.matrix += other.matrix

    def compute(self) -> Mapping[str, Any]:
        return {"confusion_matrix": self.matrix.tolist()}

    def reset(self) -> None:
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)


class MeanClassAccuracy(ConfusionMatrix):
    """Accuracy of each class, averaged over the classes that occur; ``mean_class_accuracy``.

    Not torchmetrics' macro accuracy, which counts a class that was only ever predicted as 0.
    """

    name = "mean-class-accuracy"

    def compute(self) -> Mapping[str, Any]:
        samples = self.matrix.sum(1)
        present = samples > 0
        return {"mean_class_accuracy": (self.matrix.diag()[present] / samples[present]).double().mean().item()}


class MultilabelMAP:
    """Average precision of each class, averaged over the classes with positives; ``map``.

    Exact, not binned: keeps every score and label. Labels are [N, C] of 0 and 1, or -1 where unknown.
    """

    def __init__(self) -> None:
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, labels = _scores_and_labels("multilabel-map", outputs, batch, label_dim=2)
        # A rounding error above 1 would make torchmetrics take them for logits.
        self.seen.append((scores.clamp(0, 1).cpu(), labels.to(torch.int8).cpu()))

    def merge(self, other: Self) -> None:
        self.seen += other.seen

    def compute(self) -> Mapping[str, Any]:
        if not self.seen:
            return {"map": nan}
        scores, labels = (torch.cat(parts) for parts in zip(*self.seen, strict=True))
        found = [
            binary_average_precision(column[known >= 0], known[known >= 0].long())
            for column, known in zip(scores.T, labels.T, strict=True)
            if (known == 1).any()
        ]
        return {"map": torch.stack(found).double().mean().item() if found else nan}

    def reset(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
