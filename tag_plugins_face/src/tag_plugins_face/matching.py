"""Which anchor is to find which face, and the loss that follows (RetinaFace, section 3.1; SSD, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from tag_plugins_face.boxes import Variances, corners, encode_boxes, encode_landmarks
from tag_plugins_face.faces import Faces


def match(boxes: Tensor, anchors: Tensor, least: float, drop: float) -> Tensor:
    """For each anchor [A] the number of the face that it is to find, -1 for none.

    An anchor finds the face it overlaps most, from an IoU of ``least`` on. The best anchor of a face is that face's
    whatever its IoU, and the last one's where it is that of several; a face whose best IoU is below ``drop`` is left
    out.

    Args:
        boxes: [M, 4] as x1, y1, x2, y2, in the unit of the anchors [A, 4].
    """
    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    overlaps = box_iou(boxes, corners(anchors))
    overlap, face = overlaps.max(0)
    face[overlap < least] = -1
    overlap, best = overlaps.max(1)
    kept = torch.nonzero(overlap >= drop).flatten()
    found: Tensor = face.scatter_reduce(0, best[kept], kept, "amax", include_self=False)
    return found


@dataclass(frozen=True)
class MultiBoxLoss:
    """Cross-entropy of face or background, smooth L1 of box and landmarks, of the matched anchors.

    Background counts where it is mistaken most, ``negatives`` anchors per matched one of each picture. Sums over the
    batch are divided by its number of matched anchors, that of landmarks by the number of those whose face has them.
    """

    variances: Variances
    match_iou: float
    drop_iou: float
    negatives: int

    def __call__(
        self, logits: Tensor, boxes: Tensor, landmarks: Tensor, anchors: Tensor, faces: Sequence[Faces]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of class, box and landmarks, without weights.

        Args:
            logits: [N, A, 2], background and face.
            boxes: offsets [N, A, 4] from the anchors [A, 4].
            landmarks: offsets [N, A, 5, 2].
            faces: of each of the N pictures, in the unit of the anchors.
        """
        matched = torch.stack([match(each.boxes, anchors, self.match_iou, self.drop_iou) for each in faces])
        picture, anchor = torch.nonzero(matched >= 0, as_tuple=True)
        face = matched[picture, anchor] + _starts(faces, matched.device)[picture]
        wanted_boxes = torch.cat([each.boxes for each in faces])[face]
        wanted_landmarks = torch.cat([each.landmarks for each in faces])[face]
        known = wanted_landmarks.isfinite().all(-1).all(-1)

        found = encode_boxes(wanted_boxes, anchors[anchor], self.variances)
        box_loss = F.smooth_l1_loss(boxes[picture, anchor], found, reduction="sum")
        found = encode_landmarks(wanted_landmarks[known], anchors[anchor[known]], self.variances)
        landmark_loss = F.smooth_l1_loss(landmarks[picture[known], anchor[known]], found, reduction="sum")
        count = max(len(anchor), 1)
        return self._class_loss(logits, matched >= 0) / count, box_loss / count, landmark_loss / max(len(found), 1)

    def _class_loss(self, logits: Tensor, positive: Tensor) -> Tensor:
        losses = F.cross_entropy(logits.flatten(0, 1), positive.flatten().long(), reduction="none").view_as(positive)
        order = losses.detach().masked_fill(positive, 0).argsort(1, descending=True)
        hardness = torch.arange(order.shape[1], device=order.device)
        rank = torch.empty_like(order).scatter_(1, order, hardness.expand_as(order))
        counts = self.negatives * positive.sum(1, keepdim=True)
        return (losses * (positive | (rank < counts))).sum()


def _starts(faces: Sequence[Faces], device: torch.device) -> Tensor:
    """Where each picture's faces begin among all."""
    counts = torch.tensor([0, *(len(each.boxes) for each in faces)], device=device)
    return counts.cumsum(0)[:-1]
