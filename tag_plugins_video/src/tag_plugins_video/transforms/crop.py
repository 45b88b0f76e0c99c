"""Crops; one place for all frames of a clip."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor
from torchvision.transforms import v2

from tag_core.errors import UserError


class CenterCrop:
    """The middle of every frame.

    Args:
        size: side of the square, in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = check_size(size)

    def __call__(self, clip: Tensor) -> Tensor:
        check_fits(self.size, clip, "center-crop")
        cropped: Tensor = F.center_crop(clip, [self.size, self.size])
        return cropped


class RandomCrop:
    """A square at a random place.

    Args:
        size: side of the square, in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = check_size(size)

    def __call__(self, clip: Tensor) -> Tensor:
        check_fits(self.size, clip, "random-crop")
        top, left = (int(torch.randint(side - self.size + 1, ())) for side in clip.shape[-2:])
        return clip[..., top : top + self.size, left : left + self.size]


class RandomResizedCrop:
    """A random part of random shape, resized to a square (Szegedy et al., CVPR 2015).

    Args:
        size: side of the square, in pixels.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        for name, (low, high) in (("scale", scale), ("ratio", ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two positive numbers in order, got {low}, {high}")
        self.crop = v2.RandomResizedCrop(check_size(size), scale, ratio, antialias=True)

    def __call__(self, clip: Tensor) -> Tensor:
        cropped: Tensor = self.crop(clip)
        return cropped


def check_size(size: int) -> int:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    return size


def check_fits(size: int, clip: Tensor, name: str) -> None:
    height, width = clip.shape[-2:]
    if size > min(height, width):
        raise UserError(
            f"video/{name}: {size} pixels do not fit into frames of {width}x{height}; "
            f"put {{ name = 'video/resize', short_side = {size} }} in front of it"
        )
