"""Random erasing."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tag_plugins_reid.transforms.flip import check_probability

IMAGENET_MEAN = (124, 116, 104)
"""(0.485, 0.456, 0.406) as bytes."""
TRIES = 100


class RandomErasing:
    """Paint over a rectangle (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020, algorithm 1).

    It works on bytes, before the task's normalisation, which makes the mean colour 0 (within 0.01). torchreid and the
    "bag of tricks" baseline erase after normalisation and still fill in the mean of [0, 1], so their rectangle is
    lighter than the mean; ``fill = [152, 142, 127]`` is theirs. pytorch-reid writes the mean of [0, 1] into bytes,
    which is black: ``fill = [0, 0, 0]``. A rectangle that does not fit is drawn anew, up to 100 times.

    Args:
        p: how often.
        area: smallest and largest share of the picture that is painted over, all equally likely.
        aspect: smallest and largest height over width of the rectangle, all equally likely.
        fill: 'mean' (ImageNet's colour), 'pixel' (every byte at random), or a colour.
    """

    def __init__(
        self,
        p: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect: tuple[float, float] = (0.3, 3.33),
        fill: Literal["mean", "pixel"] | tuple[int, int, int] = "mean",
    ) -> None:
        self.p = check_probability("p", p)
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise ValueError(f"area and aspect are two positive numbers in order, area up to 1; got {area}, {aspect}")
        self.area, self.aspect, self.fill = area, aspect, fill
        if fill != "pixel":
            colour = IMAGENET_MEAN if fill == "mean" else fill
            if not all(0 <= value <= 255 for value in colour):
                raise ValueError(f"fill is 'mean', 'pixel' or three numbers from 0 to 255, got {fill}")
            self.colour = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        if torch.rand(()) >= self.p or (rectangle := self.rectangle(*image.shape[-2:])) is None:
            return image
        top, left, height, width = rectangle
        image = image.clone()
        shape = (*image.shape[:-2], height, width)
        paint = torch.randint(256, shape, dtype=torch.uint8) if self.fill == "pixel" else self.colour
        image[..., top : top + height, left : left + width] = paint
        return image

    def rectangle(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """(top, left, height, width) at random within a picture of this size; None where none fits."""
        for _ in range(TRIES):
            share, ratio = (low + (high - low) * float(torch.rand(())) for low, high in (self.area, self.aspect))
            down = round(math.sqrt(share * height * width * ratio))
            across = round(math.sqrt(share * height * width / ratio))
            if 0 < down < height and 0 < across < width:
                top = int(torch.randint(height - down + 1, ()))
                return top, int(torch.randint(width - across + 1, ())), down, across
        return None
