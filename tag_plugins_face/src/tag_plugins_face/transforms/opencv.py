"""Pictures as OpenCV has them, and back."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

cv2.setNumThreads(1)  # pictures are prepared in parallel already


def to_array(image: Tensor) -> np.ndarray:
    """[3, H, W] as [H, W, 3]."""
    return image.permute(1, 2, 0).contiguous().numpy()


def to_tensor(image: np.ndarray) -> Tensor:
    """[H, W, 3] as [3, H, W]."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def between(low: float, high: float) -> float:
    """A random number."""
    return low + (high - low) * float(torch.rand(()))
