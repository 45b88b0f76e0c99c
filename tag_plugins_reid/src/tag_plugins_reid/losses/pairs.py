"""What the losses over pairs of features share: which pairs count, and full precision."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

FILLER = -1e9
"""In place of what does not count, under a softmax or a log of a sum of exponentials; finite, so never nan."""


class PairLoss(nn.Module):
    """Base of the losses over all pairs of features of a batch, or of a batch with other features.

    A pair is positive where both have one label, negative where they differ; no feature makes a pair with itself,
    and one labelled below 0 (unknown) makes none. Without a pair that counts the loss is 0, and so is its gradient.
    """

    takes: ClassVar[str] = "features"

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, features: Tensor, labels: Tensor, memory: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """The loss of features [N, D] with labels [N].

        Args:
            memory: what to pair them with, by default themselves: features [M, D], ``prepared`` before; their labels
                [M]; and where each of the N is among them, or -1.
        """
        features = self.prepared(features)
        if memory is None:  # one tensor on both sides: gradients add up before halves round
            memory = features, labels, torch.arange(len(labels), device=labels.device)
        others, other_labels, own = memory
        itself = own[:, None] == torch.arange(len(other_labels), device=labels.device)
        known = (labels >= 0)[:, None] & (other_labels >= 0)
        equal = labels[:, None] == other_labels
        with torch.autocast(features.device.type, enabled=False):
            others = others.to(features.dtype)
            return self.from_pairs(features, others, equal & known & ~itself, ~equal & known, itself)

    def prepared(self, features: Tensor) -> Tensor:
        """The features as they are compared."""
        features = full_precision(features)
        return normalized(features) if self.normalize else features

    def from_pairs(
        self, features: Tensor, others: Tensor, positive: Tensor, negative: Tensor, itself: Tensor
    ) -> Tensor:
        """The loss where the pairs are known: masks [N, M], ``itself`` of each feature with itself."""
        raise NotImplementedError


def full_precision(values: Tensor) -> Tensor:
    """At least float32: halves overflow in squares and lose the last digits of a cosine."""
    return values if values.dtype == torch.float64 else values.float()


def normalized(features: Tensor) -> Tensor:
    """Rows of unit length; a row of zeros stays, with a gradient of 0 (its direction is anyone's guess)."""
    norms = features.norm(dim=1, keepdim=True)
    return torch.where(norms > 1e-12, features / norms.clamp(min=1e-12), torch.zeros_like(features))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of those under the mask; 0 where there are none."""
    return torch.where(mask, values, torch.zeros_like(values)).sum() / mask.sum().clamp(min=1)
