"""Resizing the frames of a clip."""

from __future__ import annotations

from typing import Literal

import torchvision.transforms.functional as F1
import torchvision.transforms.v2.functional as F
from torch import Tensor


class Resize:
    """Resize every frame, bilinearly, either to a short side or to an exact size.

    Args:
        short_side: pixels of the shorter side.
        size: exact (height, width) instead.
        aspect: 'keep' the frame's own, or make every frame '4:3' as Paddle's video library does: the long
            side becomes int(short_side * 4 / 3), unless the short side fits already.
        antialias: smooth while shrinking, as Pillow does; False as torchvision's video presets do.
    """

    def __init__(
        self,
        short_side: int | None = None,
        size: tuple[int, int] | None = None,
        aspect: Literal["keep", "4:3"] = "keep",
        antialias: bool = True,
    ) -> None:
        if (short_side is None) == (size is None):
            raise ValueError("give short_side or size, one of them")
        if aspect not in ("keep", "4:3"):
            raise ValueError(f"aspect is 'keep' or '4:3', not {aspect!r}")
        if min(size or [short_side or 0]) < 1:
            raise ValueError("sizes must be at least 1 pixel")
        self.short_side, self.size, self.aspect, self.antialias = short_side, size, aspect, antialias

    def __call__(self, clip: Tensor) -> Tensor:
        height, width = self.target(*clip.shape[-2:])
        if (height, width) == clip.shape[-2:]:
            return clip
        # The presets' arithmetic: in float, then rounded. v2's integer kernel differs by one level.
        resize = F.resize if self.antialias else F1.resize
        frames = clip.reshape(-1, *clip.shape[-3:])
        resized: Tensor = resize(frames, [height, width], antialias=self.antialias)
        return resized.reshape(*clip.shape[:-2], height, width)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a frame of this size gets."""
        if self.size is not None:
            return self.size
        short = self.short_side or 0
        if short == min(height, width):
            return height, width
        aspect = 4 / 3 if self.aspect == "4:3" else max(height, width) / min(height, width)
        long = int(short * aspect)
        return (long, short) if width < height else (short, long)
