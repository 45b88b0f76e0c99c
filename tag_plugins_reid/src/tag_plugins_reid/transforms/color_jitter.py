"""Changing colours at random."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms import v2


class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, in random order.

    Args:
        brightness: factor from 1 - brightness to 1 + brightness.
        contrast: likewise.
        saturation: likewise.
        hue: shift by at most this share of the colour circle; at most 0.5.
    """

    def __init__(
        self, brightness: float = 0.15, contrast: float = 0.15, saturation: float = 0.1, hue: float = 0.1
    ) -> None:
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def __call__(self, image: Tensor) -> Tensor:
        jittered: Tensor = self.jitter(image)
        return jittered
