"""Flip, colours and normalisation; one random choice for all frames of a clip."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor
from torchvision.transforms import v2


class Flip:
    """Mirror left and right at random.

    Args:
        p: how often.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in [0, 1], got {p}")
        self.p = p

    def __call__(self, clip: Tensor) -> Tensor:
        return clip.flip(-1) if torch.rand(()) < self.p else clip


class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, in random order.

    Args:
        brightness: factor from 1 - brightness to 1 + brightness.
        contrast: likewise.
        saturation: likewise.
        hue: shift by at most this share of the colour circle; at most 0.5.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0
    ) -> None:
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def __call__(self, clip: Tensor) -> Tensor:
        jittered: Tensor = self.jitter(clip)
        return jittered


class Normalize:
    """To float in [0, 1], minus mean, over standard deviation.

    The task does this on its device when it gets uint8; needed only for transforms that work on floats.

    Args:
        mean: per channel.
        std: per channel.
    """

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.mean, self.std = list(mean), list(std)

    def __call__(self, clip: Tensor) -> Tensor:
        normalized: Tensor = F.normalize(F.to_dtype(clip, torch.float32, scale=True), self.mean, self.std)
        return normalized
