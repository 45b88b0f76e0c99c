"""Aspect-ratio groups: twelve shapes of pictures, and the size each is resized to.

Templates and sizes are those of the Taobao Live solution (``metric_sub/src_train``, preprocess.py and dataset.py).
The sampler ``reid/aspect-groups`` and the transform ``reid/aspect-resize`` share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Scale = Literal["S", "SM", "M"]

TEMPLATES = (0.25, 0.335, 0.415, 0.5, 0.5721925, 0.66857143, 0.8, 1.0, 1.25, 1.4957264, 1.74766355, 2.0)
"""Width / height of each group."""

SIZES: dict[Scale, tuple[tuple[int, int], ...]] = {
    "S": (
        (80, 320),
        (106, 320),
        (134, 320),
        (160, 320),
        (170, 298),
        (186, 280),
        (214, 266),
        (234, 234),
        (266, 214),
        (280, 186),
        (298, 170),
        (320, 160),
    ),
    "SM": (
        (100, 400),
        (134, 400),
        (166, 400),
        (200, 400),
        (214, 374),
        (234, 350),
        (256, 320),
        (290, 290),
        (320, 256),
        (350, 234),
        (374, 214),
        (400, 200),
    ),
    "M": (
        (120, 480),
        (160, 480),
        (200, 480),
        (240, 480),
        (256, 448),
        (280, 420),
        (320, 400),
        (352, 352),
        (400, 320),
        (420, 280),
        (448, 256),
        (480, 240),
    ),
}
"""Scale -> (width, height) in pixels of each group."""


def aspect_group(height: int, width: int, templates: Sequence[float] = TEMPLATES) -> int:
    """Which template is nearest to width / height by absolute difference; the first of equally near ones."""
    ratio = width / max(height, 1)
    return min(range(len(templates)), key=lambda group: abs(ratio - templates[group]))
