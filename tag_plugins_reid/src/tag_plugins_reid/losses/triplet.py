"""Triplet loss, batch-hard or with adaptive weights."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from tag_plugins_reid.losses.pairs import FILLER, PairLoss, masked_mean


class Triplet(PairLoss):
    """An anchor is nearer to its farthest positive than to its nearest negative, by a margin.

    mean(max(0, margin + d_ap - d_an)) over the anchors, on Euclidean distances; with the soft margin
    mean(log(1 + exp(d_ap - d_an))). Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification"
    (arXiv 1703.07737), equation 5. Anchors without a positive besides themselves, or without a negative, are left
    out of the mean; peers count the first with a positive distance of 0.

    Adaptive weights take for d_ap and d_an the means of all distances to positives and to negatives, weighted by
    their softmax and softmin: Ristani & Tomasi, "Features for Multi-Target Multi-Camera Tracking and
    Re-Identification" (CVPR 2018), equation 3. As in pytorch-reid, the anchor itself is one of the positives there.

    Logged: ``triplet_right``, the share of anchors with d_ap < d_an; ``triplet_active``, the number with a loss above
    0.001; and the means of both distances.

    Args:
        margin: in units of the distance; "soft" for the soft margin.
        adaptive_weights: weigh all positives and negatives in place of taking the hardest.
        normalize: compare features of unit length.
    """

    def __init__(
        self, margin: float | Literal["soft"] = 0.3, adaptive_weights: bool = False, normalize: bool = False
    ) -> None:
        if isinstance(margin, float) and margin < 0:
            raise ValueError(f"margin must be 0 or more, not {margin}")
        super().__init__(normalize)
        self.margin, self.adaptive_weights = margin, adaptive_weights
        self.log: dict[str, Tensor] = {}

    def from_pairs(
        self, features: Tensor, others: Tensor, positive: Tensor, negative: Tensor, itself: Tensor
    ) -> Tensor:
        distances = euclidean(features, others)
        if self.adaptive_weights:
            farthest = _weighted(distances, distances, positive | itself)
            nearest = _weighted(distances, -distances, negative)
        else:
            farthest = distances.masked_fill(~positive, 0).amax(1)
            nearest = distances.masked_fill(~negative, -FILLER).amin(1)
        gaps = farthest - nearest
        losses = F.softplus(gaps) if self.margin == "soft" else F.relu(gaps + self.margin)
        anchors = positive.any(1) & negative.any(1)
        self.log = {
            "triplet_right": masked_mean((gaps < 0).to(gaps.dtype), anchors),
            "triplet_active": (anchors & (losses > 1e-3)).sum(),
            "positive_distance": masked_mean(farthest.detach(), anchors),
            "negative_distance": masked_mean(nearest.detach(), anchors),
        }
        return masked_mean(losses, anchors)


def euclidean(features: Tensor, others: Tensor) -> Tensor:
    """Distances [N, M]; at least 1e-6, where the root still has a slope."""
    squares = features.square().sum(1)[:, None] + others.square().sum(1) - 2 * features @ others.T
    return squares.clamp(min=1e-12).sqrt()


def _weighted(distances: Tensor, exponents: Tensor, mask: Tensor) -> Tensor:
    """Mean of the distances under the mask, weighted by the softmax of the exponents."""
    return (exponents.masked_fill(~mask, FILLER).softmax(1) * distances).sum(1)
