"""Mirroring a picture."""

from __future__ import annotations

import torch
from torch import Tensor


class Flip:
    """Mirror left and right at random.

    Args:
        p: how often.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability("p", p)

    def __call__(self, image: Tensor) -> Tensor:
        return image.flip(-1) if torch.rand(()) < self.p else image


def check_probability(name: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {p}")
    return p
