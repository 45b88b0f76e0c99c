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

    def __init__(self, option: str, weights: list[float] | None) -> None:
        super().__init__()
        self.option = option
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
        super().__init__("class_weights", class_weights)
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

    def __init__(self, pos_weight: list[float] | None = None, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__("pos_weight", pos_weight)
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
        reduction: sigmoid only: "mean" over all samples and classes, or the "sum" over classes and
            then the mean over samples.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        form: Literal["softmax", "sigmoid"] = "softmax",
        alpha: float | None = None,
        class_weights: list[float] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__("class_weights", class_weights)
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, not {gamma}")
        if form == "softmax" and (alpha is not None or reduction != "mean"):
            raise ValueError("alpha and reduction need form = 'sigmoid'; with softmax use class_weights")
        if form == "sigmoid" and class_weights is not None:
            raise ValueError("class_weights need form = 'softmax'; with sigmoid use alpha")
        self.gamma, self.form, self.alpha, self.reduction = gamma, form, alpha, reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.check(logits.shape[1])
        logits = logits.float()
        if self.form == "sigmoid":
            targets = multi_hot(targets, logits)
            return _reduce(sigmoid_focal(logits, targets, self.gamma, self.alpha), targets, self.reduction)
        known = targets >= 0
        losses = softmax_focal(logits[known], targets[known], self.gamma)
        return (losses if self.weights is None else losses * self.weights[targets[known]]).mean()


def softmax_focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Focal loss of each sample [N].

    1 - p is the probability of all other classes, taken in logarithms: a power of a rounded 1 - p
    has an infinite slope at 0 for gamma below 1.
    """
    log_p = logits.log_softmax(1)
    index = targets.unsqueeze(1)
    log_rest = log_p.scatter(1, index, -torch.inf).logsumexp(1)
    return -(gamma * log_rest).exp() * log_p.gather(1, index).squeeze(1)


def sigmoid_focal(logits: Tensor, targets: Tensor, gamma: float, alpha: float | None) -> Tensor:
    """Focal loss of each sample and class [N, C]."""
    log_rest = -F.softplus(logits * (2 * targets - 1))
    losses = (gamma * log_rest).exp() * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return losses if alpha is None else losses * (alpha * targets + (1 - alpha) * (1 - targets))


def multi_hot(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as numbers [N, C] of the logits' type; class indices [N] become one-hot rows."""
    if targets.dim() == 1:
        rows = torch.zeros_like(logits).scatter(1, targets.clamp(min=0).unsqueeze(1), 1.0)
        return torch.where((targets >= 0).unsqueeze(1), rows, UNKNOWN)
    return targets.to(logits.dtype)


def _reduce(losses: Tensor, targets: Tensor, reduction: str) -> Tensor:
    known = targets >= 0
    total = torch.where(known, losses, 0).sum()
    return total / (known.sum() if reduction == "mean" else known.any(1).sum()).clamp(min=1)
