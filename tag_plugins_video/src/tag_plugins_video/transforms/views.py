"""Several crops of one clip, as views for testing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from tag_plugins_video.transforms.crop import check_fits, check_size


class ThreeCrop:
    """Three squares along the long side: left, centre, right (or top, centre, bottom).

    [T, C, H, W] becomes [3, T, C, S, S]; [V, T, C, H, W], clips as views, becomes [3 * V, ...], the
    three crops of a clip next to each other.

    Args:
        size: side of the square, in pixels; default: the short side.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size if size is None else check_size(size)

    def __call__(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[-2:]
        size = self.size or min(height, width)
        check_fits(size, clip, "three-crop")
        down, right = height - size, width - size
        if width >= height:
            places = [(down // 2, 0), (down // 2, right // 2), (down // 2, right)]
        else:
            places = [(0, right // 2), (down // 2, right // 2), (down, right // 2)]
        return as_views([clip[..., top : top + size, left : left + size] for top, left in places], clip)


class TenCrop:
    """Four corners and the centre, then those of the mirror image.

    [T, C, H, W] becomes [10, T, C, S, S]; [V, T, C, H, W] becomes [10 * V, ...].

    Args:
        size: side of the square, in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = check_size(size)

    def __call__(self, clip: Tensor) -> Tensor:
        check_fits(self.size, clip, "ten-crop")
        return as_views(F.ten_crop(clip, [self.size, self.size]), clip)


def as_views(crops: Sequence[Tensor], clip: Tensor) -> Tensor:
    """Crops as the leading axis; where ``clip`` has views already, the crops of each in turn."""
    return torch.stack(list(crops)) if clip.dim() == 4 else torch.stack(list(crops), dim=1).flatten(0, 1)
