"""Labelled faces of one picture, and what becomes of them as the picture is cut, scaled and mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MIRRORED = [1, 0, 2, 4, 3]  # left and right eye, nose, left and right corner of the mouth


@dataclass(frozen=True, eq=False)
class Faces:
    """Boxes and landmarks in pixels; pixel i reaches from i to i + 1. Every method gives new faces.

    Args:
        boxes: float32 [M, 4], x1, y1, x2, y2.
        landmarks: float32 [M, 5, 2], x and y of the left and right eye, the nose and the left and right corner of the
            mouth, as they lie in the picture; nan where they are not labelled.
    """

    boxes: Tensor
    landmarks: Tensor

    @classmethod
    def of_rows(cls, rows: np.ndarray) -> Faces:
        """From float [M, 14]: the box, then the five landmarks."""
        table = torch.from_numpy(np.array(rows, np.float32).reshape(-1, 14))
        return cls(table[:, :4].contiguous(), table[:, 4:].reshape(-1, 5, 2))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, chosen: Tensor) -> Faces:
        """Those of a mask, or of indices."""
        return Faces(self.boxes[chosen], self.landmarks[chosen])

    def to(self, device: torch.device) -> Faces:
        return Faces(self.boxes.to(device), self.landmarks.to(device))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Faces):
            return NotImplemented
        pairs = ((self.boxes, other.boxes), (self.landmarks, other.landmarks))
        return all(np.array_equal(mine, theirs, equal_nan=True) for mine, theirs in pairs)

    __hash__ = None  # type: ignore[assignment]

    def crop(self, left: int, top: int, width: int, height: int) -> Faces:
        """Those with their centre inside this part of the picture, as they lie in it; what sticks out is cut off."""
        corner, size = torch.tensor([left, top]), torch.tensor([width, height])
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - corner
        inside = self[((centre > 0) & (centre < size)).all(1)]
        boxes = (inside.boxes - corner.repeat(2)).clamp(min=0).minimum(size.repeat(2))
        return Faces(boxes, (inside.landmarks - corner).clamp(min=0).minimum(size))

    def scale(self, factor: float) -> Faces:
        """Of the picture ``factor`` times as large."""
        return Faces(self.boxes * factor, self.landmarks * factor)

    def mirror(self, width: int) -> Faces:
        """Of the picture mirrored, ``width`` pixels wide: left eye and corner of the mouth become right ones."""
        boxes, landmarks = self.boxes.clone(), self.landmarks[:, MIRRORED]
        boxes[:, [0, 2]] = width - self.boxes[:, [2, 0]]
        landmarks[..., 0] = width - landmarks[..., 0]
        return Faces(boxes, landmarks)
