"""TSN's corner cropping with scale jittering."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from tag_plugins_video.transforms.crop import check_size


class MultiScaleCrop:
    """Crop a corner, the centre or a place between, at one of several sizes; resize to a square.

    The augmentation of TSN (Wang et al., ECCV 2016). Height and width of the crop are each the frame's
    short side times one of ``scales``, at most ``max_distort`` places apart in that list; a size within
    2 pixels of ``size`` becomes it. The crop lies on a grid of quarter steps: its corners, centre and
    edge centres, and the four points between corner and centre.

    Args:
        size: side of the square, in pixels.
        scales: sizes of the crop, relative to the short side.
        max_distort: how far apart in ``scales`` height and width may be.
        fixed: choose among the 13 places; False takes any place.
        more_places: False keeps to the corners and the centre.
    """

    def __init__(
        self,
        size: int,
        scales: list[float] = [1, 0.875, 0.75, 0.66],  # noqa: B006 (read only)
        max_distort: int = 1,
        fixed: bool = True,
        more_places: bool = True,
    ) -> None:
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales must lie in (0, 1], got {scales}")
        if max_distort < 0:
            raise ValueError(f"max_distort must be 0 or more, got {max_distort}")
        self.size, self.scales, self.max_distort = check_size(size), list(scales), max_distort
        self.fixed, self.more_places = fixed, more_places

    def __call__(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[-2:]
        sizes = self.sizes(height, width)
        h, w = sizes[int(torch.randint(len(sizes), ()))]
        if self.fixed:
            places = self.places(height - h, width - w)
            top, left = places[int(torch.randint(len(places), ()))]
        else:
            top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
        cropped: Tensor = F.resized_crop(clip, top, left, h, w, [self.size, self.size], antialias=True)
        return cropped

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The (height, width) of crops that a frame of this size allows."""
        short = min(height, width)
        sides = [max(1, int(short * scale)) for scale in self.scales]
        sides = [self.size if abs(side - self.size) < 3 and self.size <= short else side for side in sides]
        pairs = [(i, j) for i in range(len(sides)) for j in range(len(sides))]
        return [(sides[i], sides[j]) for i, j in pairs if abs(i - j) <= self.max_distort]

    def places(self, room_down: int, room_right: int) -> list[tuple[int, int]]:
        """The (top, left) of crops that leave this much room."""
        grid = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        if self.more_places:
            grid += [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
        return [(row * (room_down // 4), column * (room_right // 4)) for row, column in grid]
