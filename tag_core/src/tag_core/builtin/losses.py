"""Classification losses: logits [N, C] and targets to the mean over the batch, a scalar.

Targets are class indices [N], or [N, C] with 0 or 1 (cross-entropy: a probability) for each class.
Cross-entropy leaves samples labelled -1 (unknown) out, and is 0 where none is left.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.errors import UserError


class CrossEntropy(nn.Module):
    """Cross-entropy of the softmax; with class weights, their weighted mean over the batch.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        class_weights: one weight per class, in the order of the classes.
    """

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: list[float] | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be between 0 and 1, not {label_smoothing}")
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)  # not part of a model's checkpoint

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        _check("class_weights", self.class_weights, logits)
        loss = F.cross_entropy(
            logits, targets, self.class_weights, ignore_index=-1, label_smoothing=self.label_smoothing
        )
        # the mean over no sample would be nan
        return loss if targets.dim() == 2 else torch.where((targets == -1).all(), 0, loss)


class BCE(nn.Module):
    """Binary cross-entropy of each class on its own, for samples with several labels.

    Args:
        pos_weight: one weight per class for its positive samples, in the order of the classes.
        reduction: over the classes of a sample, "mean" or (as YouTube-8M models are trained) "sum".
    """

    pos_weight: Tensor | None

    def __init__(self, pos_weight: list[float] | None = None, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.reduction = reduction
        weights = None if pos_weight is None else torch.tensor(pos_weight)
        self.register_buffer("pos_weight", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        _check("pos_weight", self.pos_weight, logits)
        if targets.dim() == 1:
            targets = F.one_hot(targets, logits.shape[1])
        mean = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), pos_weight=self.pos_weight)
        return mean * logits.shape[1] if self.reduction == "sum" else mean


class Focal(nn.Module):
    """Focal loss, -(1 - p)^gamma log p of the truth, which passes over easy samples.

    p is of the softmax where targets are class indices, of each class's sigmoid where they are [N, C].
    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5.

    Args:
        gamma: focusing strength; 0 is cross-entropy, the paper's best is 2.
        alpha: weight of positives, 1 - alpha of negatives; the paper's best is 0.25.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must be 0 or more, not {gamma}")
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        if targets.dim() == 1:
            minus_log_p = F.cross_entropy(logits, targets, reduction="none")
            positive = torch.ones_like(minus_log_p)
        else:
            positive = targets.float()
            minus_log_p = F.binary_cross_entropy_with_logits(logits, positive, reduction="none")
        # a little is left of 1 - p even where p is 1: for gamma below 1 its power has an infinite slope at 0
        losses = (-torch.expm1(-minus_log_p.clamp(min=1e-12))) ** self.gamma * minus_log_p
        if self.alpha is not None:
            losses = losses * (self.alpha * positive + (1 - self.alpha) * (1 - positive))
        return losses.mean()


def _check(option: str, weights: Tensor | None, logits: Tensor) -> None:
    if weights is not None and len(weights) != logits.shape[1]:
        raise UserError(
            f"loss option {option} has {len(weights)} values for {logits.shape[1]} classes; "
            "give one per class, in the order of the classes"
        )
