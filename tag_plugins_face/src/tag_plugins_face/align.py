"""Faces turned, scaled and shifted so that their eyes, nose and mouth come to standard places."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 112
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where face recognisers expect left eye, right eye, nose and mouth corners, [x, y] in a square of 112 pixels.

The five points of ArcFace's public training data (github.com/deepinsight/insightface).
"""
Floats = npt.NDArray[np.float64]


def similarity(points: Floats, targets: Floats) -> Floats:
    """Turn, scale and shift, without mirroring, that bring points nearest to targets in the least squares sense.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991.

    Args:
        points: [N, 2].
        targets: [N, 2].

    Returns:
        [2, 3]: a point goes to ``matrix[:, :2] @ point + matrix[:, 2]``. Points that are all one keep their size.
    """
    centre, goal = points.mean(0), targets.mean(0)
    left, values, right = np.linalg.svd((targets - goal).T @ (points - centre))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    spread = np.square(points - centre).sum()
    scale = (values * signs).sum() / spread if spread > 0 else 1.0
    turned = scale * (left * signs) @ right
    return np.column_stack([turned, goal - turned @ centre])


def aligned(image: np.ndarray, landmarks: Floats) -> np.ndarray:
    """A face as recognisers want it: uint8 [112, 112, 3], black where the picture ends.

    Args:
        image: uint8 [H, W, 3].
        landmarks: [5, 2] in its pixels: left eye, right eye, nose, left and right mouth corner, as seen.
    """
    matrix = similarity(np.asarray(landmarks, np.float64), TEMPLATE)
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR))
