"""Transforms with random choices of their own for every view."""

from __future__ import annotations

import torch
from torch import Tensor

from tag_core.kinds import Transform


class PerView:
    """Apply transforms to every view by itself: [V, T, C, H, W], the clips of a video, or one clip [T, C, H, W].

    Elsewhere in the list a transform makes one random choice for all views of a video.

    Args:
        transforms: applied in order to [T, C, H, W].
    """

    def __init__(self, transforms: list[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, clip: Tensor) -> Tensor:
        views = list(clip) if clip.dim() == 5 else [clip]
        for transform in self.transforms:
            views = [transform(view) for view in views]
        return torch.stack(views) if clip.dim() == 5 else views[0]
