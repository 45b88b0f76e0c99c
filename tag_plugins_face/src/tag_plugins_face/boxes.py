"""Boxes and landmarks as offsets from anchors, and back (SSD, ECCV 2016, equation 2).

Anchors are [A, 4] as centre x, centre y, width, height; boxes [..., A, 4] as x1, y1, x2, y2; landmarks
[..., A, P, 2]; all in one unit, whichever it is. ``variances`` scale the offsets of centres and points, and of sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor

Variances = tuple[float, float]


def encode_boxes(boxes: Tensor, anchors: Tensor, variances: Variances) -> Tensor:
    """(centre - anchor's centre) / (v0 * anchor's size), log(size / anchor's size) / v1."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 - anchors[:, :2]
    sizes = (boxes[..., 2:] - boxes[..., :2]) / anchors[:, 2:]
    return torch.cat([centres / (variances[0] * anchors[:, 2:]), sizes.log() / variances[1]], -1)


def decode_boxes(offsets: Tensor, anchors: Tensor, variances: Variances) -> Tensor:
    """The inverse of :func:`encode_boxes`."""
    centres = anchors[:, :2] + offsets[..., :2] * variances[0] * anchors[:, 2:]
    half = anchors[:, 2:] * (offsets[..., 2:] * variances[1]).exp() / 2
    return torch.cat([centres - half, centres + half], -1)


def encode_landmarks(landmarks: Tensor, anchors: Tensor, variances: Variances) -> Tensor:
    """(point - anchor's centre) / (v0 * anchor's size), [..., A, P, 2]."""
    return (landmarks - anchors[:, None, :2]) / (variances[0] * anchors[:, None, 2:])


def decode_landmarks(offsets: Tensor, anchors: Tensor, variances: Variances) -> Tensor:
    """The inverse of :func:`encode_landmarks`."""
    return anchors[:, None, :2] + offsets * variances[0] * anchors[:, None, 2:]


def corners(anchors: Tensor) -> Tensor:
    """Centre and size to x1, y1, x2, y2."""
    half = anchors[..., 2:] / 2
    return torch.cat([anchors[..., :2] - half, anchors[..., :2] + half], -1)
