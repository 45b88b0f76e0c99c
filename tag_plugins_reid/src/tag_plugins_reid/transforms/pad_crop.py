"""Shifting a picture by padding and cropping it."""

from __future__ import annotations

import torch
from torch import Tensor


class PadCrop:
    """Pad every side, then cut out the picture's own size at a random place.

    Args:
        padding: pixels added to each side; the picture moves by this much at most.
        fill: gray level of the padding, 0 to 255.
    """

    def __init__(self, padding: int = 10, fill: int = 0) -> None:
        if padding < 1 or not 0 <= fill <= 255:
            raise ValueError(f"padding must be at least 1 and fill from 0 to 255, got {padding} and {fill}")
        self.padding, self.fill = padding, fill

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        padded = torch.nn.functional.pad(image, [self.padding] * 4, value=self.fill)
        return padded[..., top : top + height, left : left + width]
