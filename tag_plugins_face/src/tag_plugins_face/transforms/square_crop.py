"""Cutting a square with a whole face out of a picture."""

from __future__ import annotations

from typing import Any

import torch

from tag_core.kinds import Sample
from tag_plugins_face.faces import Faces


class SquareCrop:
    """Cut out a random square that holds at least one face whole, as RetinaFace does for training.

    Faces with their centre in the square stay, cut off at its edges. If no try holds a whole face, the picture stays as
    it is.

    Args:
        scales: sides to choose from, as shares of the picture's shorter side.
        tries: squares to draw at most.
        min_face: least width and height of a face, as a share of the square's side; smaller ones are left out and do
            not count as the whole one. RetinaFace's code speaks of 16 pixels (0.025 of 640), and keeps all.
    """

    def __init__(
        self, scales: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0), tries: int = 250, min_face: float = 0.0
    ) -> None:
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales lie above 0 and up to 1, got {scales}")
        if tries < 1 or not 0 <= min_face < 1:
            raise ValueError(f"tries is at least 1 and min_face lies in [0, 1), got {tries} and {min_face}")
        self.scales, self.tries, self.min_face = torch.tensor(scales, dtype=torch.float64), tries, min_face

    def __call__(self, sample: Sample) -> dict[str, Any]:
        faces: Faces = sample["faces"]
        height, width = sample["image"].shape[-2:]
        chosen = self.scales[torch.randint(len(self.scales), (self.tries,))]
        sides = (chosen * min(height, width)).long().clamp(min=1)
        room = torch.stack([width - sides, height - sides], 1) + 1
        corners = (torch.rand(self.tries, 2, dtype=torch.float64) * room).long()
        starts, ends = faces.boxes[:, :2], faces.boxes[:, 2:]
        whole = (starts >= corners[:, None]) & (ends <= (corners + sides[:, None])[:, None])
        large = (ends - starts).amin(1) >= self.min_face * sides[:, None]
        good = (whole.all(2) & large).any(1).nonzero()
        if not len(good):
            return dict(sample)
        first = int(good[0])
        (left, top), side = corners[first].tolist(), int(sides[first])
        image = sample["image"][:, top : top + side, left : left + side]
        kept = faces[large[first]].crop(left, top, side, side)
        return {**sample, "image": image, "faces": kept}
