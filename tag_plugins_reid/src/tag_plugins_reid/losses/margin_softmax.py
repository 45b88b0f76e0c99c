"""What the softmax losses with a margin share."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from tag_plugins_reid.losses.pairs import full_precision


class MarginSoftmax(nn.Module):
    """Cross-entropy of scaled cosines [N, C] between features and class weights, the true class's lowered by a margin.

    Samples labelled -1 (unknown) are left out; with no other the loss is 0.
    """

    takes: ClassVar[str] = "cosines"

    def __init__(self, scale: float, margin: float) -> None:
        if scale <= 0 or margin < 0:
            raise ValueError(f"scale must be above 0 and margin 0 or more, got {scale} and {margin}")
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, cosines: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(full_precision(cosines), labels.clamp(min=0)[:, None])
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        return total / (labels >= 0).sum().clamp(min=1)

    def logits(self, cosines: Tensor, truth: Tensor) -> Tensor:
        """Logits [N, C], given the true classes [N, 1]."""
        return self.scale * cosines.scatter(1, truth, self.lowered(cosines.gather(1, truth)))

    def lowered(self, cosines: Tensor) -> Tensor:
        """The cosines of the true classes [N, 1], by the margin worse."""
        raise NotImplementedError
