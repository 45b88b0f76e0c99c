"""Resizing a picture."""

from __future__ import annotations

import torchvision.transforms.v2.functional as F
from torch import Tensor


class Resize:
    """Resize a picture, bilinearly and smoothed as Pillow does.

    Args:
        size: exact (height, width), in pixels.
        short_side: pixels of the shorter side instead; the shape is kept.
    """

    def __init__(self, size: tuple[int, int] | None = None, short_side: int | None = None) -> None:
        if (size is None) == (short_side is None):
            raise ValueError("give size = [height, width] or short_side, one of them")
        if min(size or [short_side or 0]) < 1:
            raise ValueError("sizes must be at least 1 pixel")
        self.size = [short_side or 0] if size is None else list(size)

    def __call__(self, image: Tensor) -> Tensor:
        resized: Tensor = F.resize(image, self.size, antialias=True)
        return resized
