"""Classification losses: logits [N, C] and targets to a scalar, the mean over the batch.

Targets are class indices [N], or [N, C] with a 0/1 (cross-entropy: a probability) for each class.
A label of -1 is unknown and leaves the mean; a batch of nothing else gives nan (softmax forms) or 0.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.errors import UserError

UNKNOWN = -1


class _ClassWeighted(nn.Module):
    """Keeps a weight per class beside the model, but out of its checkpoints."""

    weights: Tensor | None
    option = "class_weights"

    def __init__(self, weights: list[float] | None) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def check(self, num_classes: int) -> None:
        if self.weights is not None and len(self.weights) != num_classes:
            raise UserError(
                f"loss option {self.option} has {len(self.weights)} values for {num_classes} classes; "
                "give one per class, in the order of the classes"
            )


class CrossEntropy(_ClassWeighted):
    """Cross-entropy of the softmax; with class weights, their weighted mean over the batch.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        class_weights: one weight per class, in the order of the classes.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | None = None) -> None:
        super().__init__(class_weights)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.check(logits.shape[1])
        return F.cross_entropy(
            logits, targets, self.weights, ignore_index=UNKNOWN, label_smoothing=self.label_smoothing
        )


class BCE(_ClassWeighted):
    """Binary cross-entropy of each class on its own, for samples with several labels.

    Args:
        pos_weight: one weight per class for its positive samples, in the order of the classes.
        reduction: "mean" over all samples and classes, or the "sum" over classes and then the mean
            over samples (as YouTube-8M models are trained).
    """

    option = "pos_weight"

    def __init__(self, pos_weight: list[float] | None = None, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(pos_weight)
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.check(logits.shape[1])
        targets = multi_hot(targets, logits)
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.weights, reduction="none")
        return _reduce(losses, targets, self.reduction)


class Focal(_ClassWeighted):
    """Focal loss, -(1 - p)^gamma log p of the true class, which passes over easy samples.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5.

    Args:
        gamma: focusing strength; 0 is cross-entropy, the paper's best is 2.
        form: "softmax" for one label a sample, "sigmoid" for each class on its own (hard labels).
        alpha: sigmoid only: weight of positives, 1 - alpha of negatives; the paper's best is 0.25.
        class_weights: softmax only: one weight per class, in the order of the classes.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        form: Literal["softmax", "sigmoid"] = "softmax",
        alpha: float | None = None,
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__(class_weights)
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, not {gamma}")
        if form == "softmax" and alpha is not None:
            raise ValueError("alpha needs form = 'sigmoid'; with softmax use class_weights")
        if form == "sigmoid" and class_weights is not None:
            raise ValueError("class_weights need form = 'softmax'; with sigmoid use alpha")
        self.gamma, self.form, self.alpha = gamma, form, alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.check(logits.shape[1])
        logits = logits.float()
        if self.form == "softmax":
            known = targets >= 0
            losses = focal(F.cross_entropy(logits[known], targets[known], reduction="none"), self.gamma)
            return (losses if self.weights is None else losses * self.weights[targets[known]]).mean()
        targets = multi_hot(targets, logits)
        losses = focal(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), self.gamma)
        if self.alpha is not None:
            losses = losses * (self.alpha * targets + (1 - self.alpha) * (1 - targets))
        return _reduce(losses, targets)


def focal(log_loss: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma times ``log_loss`` = -log p, of any shape."""
    rest = -torch.expm1(-log_loss.clamp(min=1e-12))  # 1 - p; its power has an infinite slope at 0 for gamma below 1
    return rest**gamma * log_loss


def multi_hot(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as numbers [N, C] of the logits' type; class indices [N] become one-hot rows."""
    if targets.dim() == 1:
        rows = torch.zeros_like(logits).scatter(1, targets.clamp(min=0).unsqueeze(1), 1.0)
        return torch.where((targets >= 0).unsqueeze(1), rows, UNKNOWN)
    return targets.to(logits.dtype)


def _reduce(losses: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    known = targets >= 0
    total = torch.where(known, losses, 0).sum()
    return total / (known.sum() if reduction == "mean" else known.any(1).sum()).clamp(min=1)
