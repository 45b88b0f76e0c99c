"""Bringing a drawing to the middle and to one size, by the moments of its ink."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from torch import Tensor

from tag_plugins_reid.transforms.photometric import to_array, to_tensor


class Moments:
    """Shift and scale a drawing so that its ink has its mean in the middle and one spread, the same for all drawings.

    Ink and paper are told apart by Otsu's threshold; what comes in from outside has the median colour of the paper. A
    picture of one gray level stays as it is. Proportions stay too: sizes are divided by one number, the root of the
    mean of the ink's variances along both axes, as in the first steps of moment normalisation (Casey, Moment
    Normalization of Handprinted Characters, IBM Journal of Research and Development, 1970).

    Args:
        spread: the spread of the ink afterwards, in halves of the shorter side; a filled square that reaches from edge
            to edge has 0.58. Long strokes leave the picture where it is large.
        ink: whether the ink is darker or lighter than the paper.
    """

    def __init__(self, spread: float = 0.45, ink: Literal["dark", "light"] = "dark") -> None:
        if spread <= 0:
            raise ValueError(f"spread must be above 0, got {spread}")
        self.spread, self.ink = spread, ink

    def __call__(self, image: Tensor) -> Tensor:
        colours = to_array(image)
        gray = colours.mean(2).round().astype(np.uint8)
        if gray.min() == gray.max():
            return image
        threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        dark = gray <= threshold
        ink = dark if self.ink == "dark" else ~dark
        rows, columns = np.nonzero(ink)
        height, width = gray.shape
        size = max(np.sqrt((rows.var() + columns.var()) / 2), 0.5)  # a single point has no size
        factor = self.spread * min(height, width) / 2 / size
        shift = np.array([width - 1, height - 1]) / 2 - factor * np.array([columns.mean(), rows.mean()])
        matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
        paper = np.median(colours[~ink], axis=0).tolist()
        return to_tensor(cv2.warpAffine(colours, matrix, (width, height), borderValue=paper))
