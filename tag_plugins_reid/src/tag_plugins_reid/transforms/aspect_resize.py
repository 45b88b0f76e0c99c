"""Resizing a picture to the nearest of twelve shapes."""

from __future__ import annotations

import torchvision.transforms.v2.functional as F
from torch import Tensor

from tag_plugins_reid.aspect import SIZES, Scale, aspect_group


class AspectResize:
    """Resize to the size of the shape nearest to the picture's own, as in the Taobao Live solution.

    With the sampler ``reid/aspect-groups`` the pictures of a batch get one size.

    Args:
        scale: sizes around 234 ('S'), 290 ('SM') or 352 ('M') pixels for a square.
    """

    def __init__(self, scale: Scale = "SM") -> None:
        self.scale = scale

    def __call__(self, image: Tensor) -> Tensor:
        width, height = SIZES[self.scale][aspect_group(*image.shape[-2:])]
        resized: Tensor = F.resize(image, [height, width], antialias=True)
        return resized
