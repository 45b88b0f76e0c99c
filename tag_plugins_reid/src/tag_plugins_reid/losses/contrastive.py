"""Contrastive loss on cosines."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tag_plugins_reid.losses.pairs import PairLoss, masked_mean


class Contrastive(PairLoss):
    """Pairs of one identity have a cosine above one margin, others below another.

    "nonzero", as in pytorch-metric-learning: the mean of max(0, positive_margin - cos) over the positive pairs where
    it is not 0, plus that of max(0, cos - negative_margin) over the negative ones. "anchor", as in the published code
    of cross-batch memory (arXiv 1912.06798): the sum over the positive pairs of max(0, positive_margin - cos), plus
    that over the negative pairs of cos where it is above negative_margin, divided by the number of anchors.

    Args:
        positive_margin: cosine that a positive pair need not surpass.
        negative_margin: cosine that a negative pair may have.
        reduction: mean over the pairs with a loss, or sum over pairs and mean over anchors.
    """

    def __init__(
        self,
        positive_margin: float = 1.0,
        negative_margin: float = 0.5,
        reduction: Literal["nonzero", "anchor"] = "nonzero",
    ) -> None:
        super().__init__()
        self.positive_margin, self.negative_margin, self.reduction = positive_margin, negative_margin, reduction

    def from_pairs(
        self, features: Tensor, others: Tensor, positive: Tensor, negative: Tensor, itself: Tensor
    ) -> Tensor:
        cosines = features @ others.T
        pull = F.relu(self.positive_margin - cosines)
        above = negative & (cosines > self.negative_margin)
        if self.reduction == "nonzero":
            return masked_mean(pull, positive & (pull > 0)) + masked_mean(cosines - self.negative_margin, above)
        anchors = (positive | negative).any(1).sum().clamp(min=1)
        return ((pull * positive).sum() + (cosines * above).sum()) / anchors
