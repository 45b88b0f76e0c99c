"""Making every picture a square of one size."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import torch

from tag_core.kinds import Sample
from tag_plugins_face.transforms.resize import resized

Interpolation = Literal["random", "linear", "cubic", "area", "nearest", "lanczos"]
METHODS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "lanczos": cv2.INTER_LANCZOS4,
}


class SquareResize:
    """Resize a picture to fit into a square, padded on the right or below, as RetinaFace does for training.

    Args:
        size: pixels of each side.
        fill: red, green and blue of the padding, 0 to 255.
        interpolation: how to resize; random draws one of the others each time.
    """

    def __init__(
        self, size: int = 640, fill: tuple[int, int, int] = (123, 117, 104), interpolation: Interpolation = "random"
    ) -> None:
        if size < 1 or not all(0 <= level <= 255 for level in fill):
            raise ValueError(f"size is at least 1 and fill from 0 to 255, got {size} and {fill}")
        self.size, self.fill, self.interpolation = size, tuple(fill), interpolation

    def __call__(self, sample: Sample) -> dict[str, Any]:
        methods = list(METHODS.values())
        random = self.interpolation == "random"
        method = methods[int(torch.randint(len(methods), ()))] if random else METHODS[self.interpolation]
        changed = resized(sample, self.size / max(sample["image"].shape[-2:]), method)
        height, width = changed["image"].shape[-2:]
        square = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None].repeat(1, self.size, self.size)
        square[:, :height, :width] = changed["image"]
        return {**changed, "image": square}
