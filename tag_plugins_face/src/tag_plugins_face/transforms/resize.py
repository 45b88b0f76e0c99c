"""Resizing a picture for prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2

from tag_core.kinds import Sample
from tag_plugins_face.transforms.opencv import to_array, to_tensor


class Resize:
    """Scale a picture, bilinearly, to a shorter side, as far as its longer side stays within a limit.

    RetinaFace's ``test_widerface.py`` has 1600 and 2150 where it does not take pictures as they are.

    Args:
        short_side: pixels of the shorter side.
        max_side: pixels of the longer side at most.
    """

    def __init__(self, short_side: int = 1600, max_side: int = 2150) -> None:
        if not 1 <= short_side <= max_side:
            raise ValueError(f"short_side is at least 1 and max_side no less, got {short_side} and {max_side}")
        self.short_side, self.max_side = short_side, max_side

    def __call__(self, sample: Sample) -> dict[str, Any]:
        short, long = sorted(sample["image"].shape[-2:])
        factor = self.short_side / short
        if round(factor * long) > self.max_side:
            factor = self.max_side / long
        return dict(sample) if factor == 1 else resized(sample, factor, cv2.INTER_LINEAR)


def resized(sample: Mapping[str, Any], factor: float, interpolation: int) -> dict[str, Any]:
    """The sample, its picture, faces and ``scale``, times ``factor``; every side has a pixel at least."""
    image = to_array(sample["image"])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    if min(image.shape[:2]) * factor >= 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)
    else:
        image = cv2.resize(image, (width, height), interpolation=interpolation)
    changed = {"image": to_tensor(image), "scale": sample["scale"] * factor}
    if "faces" in sample:
        changed["faces"] = sample["faces"].scale(factor)
    return {**sample, **changed}
