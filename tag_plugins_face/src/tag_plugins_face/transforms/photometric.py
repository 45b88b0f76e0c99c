"""Changing the light and the colours of a picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from tag_core.kinds import Sample
from tag_plugins_face.transforms.opencv import between, to_array, to_tensor

Bounds = tuple[float, float]


class Photometric:
    """Change brightness, contrast, saturation and hue at random, as SSD and RetinaFace do for training.

    Each is changed or not; contrast is the second or, as often, the last of the four. Levels are those of OpenCV, 0 to
    255, its hue is 0 to 179.

    Args:
        brightness: add a number up to this, either way.
        contrast: multiply by a number within these bounds.
        saturation: multiply by a number within these bounds.
        hue: turn by a whole number up to this, either way.
        p: how often each is changed.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Bounds = (0.5, 1.5),
        saturation: Bounds = (0.5, 1.5),
        hue: int = 18,
        p: float = 0.5,
    ) -> None:
        if brightness < 0 or hue < 0 or not 0 <= p <= 1:
            raise ValueError(f"brightness and hue are 0 or more, p lies in [0, 1], got {brightness}, {hue} and {p}")
        if not all(0 <= low <= high for low, high in (contrast, saturation)):
            raise ValueError(f"contrast and saturation are (least, most), got {contrast} and {saturation}")
        self.brightness, self.contrast, self.saturation, self.hue, self.p = brightness, contrast, saturation, hue, p

    def __call__(self, sample: Sample) -> dict[str, Any]:
        image = to_array(sample["image"])
        contrast_first = torch.rand(()) < 0.5
        if self._now():
            image = _linear(image, 1, between(-self.brightness, self.brightness))
        if contrast_first and self._now():
            image = _linear(image, between(*self.contrast), 0)
        image = self._colour(image)
        if not contrast_first and self._now():
            image = _linear(image, between(*self.contrast), 0)
        return {**sample, "image": to_tensor(image)}

    def _colour(self, image: np.ndarray) -> np.ndarray:
        factor = between(*self.saturation) if self._now() else 1
        turn = int(torch.randint(-self.hue, self.hue + 1, ())) if self._now() else 0
        if factor == 1 and turn == 0:
            return image
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        hue = ((hue.astype(np.int16) + turn) % 180).astype(np.uint8)
        changed = cv2.merge([hue, _linear(saturation, factor, 0), value])
        return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB))

    def _now(self) -> bool:
        return bool(torch.rand(()) < self.p)


def _linear(levels: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Every level times ``factor`` plus ``shift``."""
    table = (np.arange(256) * factor + shift).round().clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(levels, table))
