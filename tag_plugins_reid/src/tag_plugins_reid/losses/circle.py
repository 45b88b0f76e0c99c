"""Circle loss over pairs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tag_plugins_reid.losses.pairs import FILLER, PairLoss, masked_mean


class Circle(PairLoss):
    """Each pair's cosine is pulled the harder, the farther it is from its optimum.

    Mean over the anchors that have both kinds of pair of log(1 + sum_n exp(s a_n (c_n - m)) sum_p exp(-s a_p (c_p -
    1 + m))), where a_p = max(0, 1 + m - c_p) and a_n = max(0, c_n + m) are constants to the gradient. Sun et al.,
    "Circle Loss" (CVPR 2020), equation 6 with 7 to 10. fast-reid divides by all
    anchors.

    Args:
        scale: s, the paper's gamma; 128 for Re-ID, 80 for fine-grained retrieval, 256 for faces.
        margin: m; 0.25 for Re-ID and faces, 0.4 for fine-grained retrieval.
    """

    def __init__(self, scale: float = 128.0, margin: float = 0.25) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be above 0, not {scale}")
        super().__init__()
        self.scale, self.margin = scale, margin

    def from_pairs(
        self, features: Tensor, others: Tensor, positive: Tensor, negative: Tensor, itself: Tensor
    ) -> Tensor:
        cosines, m = features @ others.T, self.margin
        pull = -self.scale * F.relu(1 + m - cosines.detach()) * (cosines - (1 - m))
        push = self.scale * F.relu(cosines.detach() + m) * (cosines - m)
        both = pull.masked_fill(~positive, FILLER).logsumexp(1) + push.masked_fill(~negative, FILLER).logsumexp(1)
        return masked_mean(F.softplus(both), positive.any(1) & negative.any(1))
