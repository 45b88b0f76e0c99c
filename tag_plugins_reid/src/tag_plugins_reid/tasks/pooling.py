"""From a feature map to a feature vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["avg", "max", "gem", "gem-learned"]


class Pool(nn.Module):
    """A map [N, D, h, w] to [N, D], in float32.

    Generalized-mean pooling is (mean of max(x, 1e-6) ** p) ** (1 / p) with p = 3, fixed or learned ("Fine-tuning CNN
    Image Retrieval with No Human Annotation", TPAMI 2018, equation 3). In 16 bits 40.4 ** 3 would overflow.
    """

    def __init__(self, pool: Pooling) -> None:
        super().__init__()
        self.pool = pool
        if pool == "gem-learned":
            self.p = nn.Parameter(torch.tensor([3.0]))

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.float()
        if self.pool == "avg":
            return maps.mean((2, 3))
        if self.pool == "max":
            return maps.amax((2, 3))
        p = self.p.float() if self.pool == "gem-learned" else 3.0
        return maps.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
