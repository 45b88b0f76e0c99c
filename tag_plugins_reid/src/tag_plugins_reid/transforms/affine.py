"""Rotating, shifting, scaling and shearing a picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from tag_plugins_reid.transforms.flip import check_probability
from tag_plugins_reid.transforms.photometric import to_array, to_tensor


class Affine:
    """Rotate, scale, shear and shift at random about the centre, each evenly within its bounds.

    Args:
        degrees: rotation by at most this, either way.
        translate: shift by at most this share of width and height.
        scale: factor from 1 - scale to 1 + scale.
        shear: degrees of shear by at most this, along both axes.
        fill: gray level of what comes in from outside, 0 to 255.
        p: how often.
    """

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        fill: int = 0,
        p: float = 1.0,
    ) -> None:
        if degrees < 0 or translate < 0 or not (0 <= shear < 45 and 0 <= scale < 1 and 0 <= fill <= 255):
            raise ValueError("degrees and translate are 0 or more, shear below 45, scale below 1, fill from 0 to 255")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear
        self.fill, self.p = fill, check_probability("p", p)

    def __call__(self, image: Tensor) -> Tensor:
        if torch.rand(()) >= self.p:
            return image
        height, width = image.shape[-2:]
        angle, factor, shear_x, shear_y, right, down = (torch.rand(6, dtype=torch.float64) * 2 - 1).tolist()
        cos, sin = math.cos(math.radians(angle * self.degrees)), math.sin(math.radians(angle * self.degrees))
        across, along = (math.tan(math.radians(share * self.shear)) for share in (shear_x, shear_y))
        turned = np.array([[1, across], [along, 1]]) @ [[cos, sin], [-sin, cos]] * (1 + factor * self.scale)
        centre = np.array([width - 1, height - 1]) / 2
        shift = np.array([right * width, down * height]) * self.translate
        matrix = np.column_stack([turned, centre + shift - turned @ centre])
        border = (self.fill,) * 3
        return to_tensor(cv2.warpAffine(to_array(image), matrix, (width, height), borderValue=border))
