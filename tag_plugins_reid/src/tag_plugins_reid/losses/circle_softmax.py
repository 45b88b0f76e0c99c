"""Circle loss over classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tag_plugins_reid.losses.margin_softmax import MarginSoftmax


class CircleSoftmax(MarginSoftmax):
    """Circle loss with class labels: the farther a cosine is from its optimum, the more it counts.

    Softmax of s a_p (c - 1 + m) for the true class and s a_n (c - m) for the others, where a_p = max(0, 1 + m - c)
    and a_n = max(0, c + m) are constants to the gradient. Sun et al., "Circle Loss" (CVPR 2020), section 3.2; scale
    and margin are fast-reid's.

    Args:
        scale: s, the paper's gamma (256 for faces).
        margin: m (the paper's is 0.25).
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(scale, margin)

    def logits(self, cosines: Tensor, truth: Tensor) -> Tensor:
        m, constant = self.margin, cosines.detach()
        positive = F.relu(1 + m - constant) * (cosines - (1 - m))
        negative = F.relu(constant + m) * (cosines - m)
        return self.scale * negative.scatter(1, truth, positive.gather(1, truth))
