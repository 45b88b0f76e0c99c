"""Which frames of a feature sequence a sample has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameChoice:
    """All frames up to ``max_frames``, or ``num_frames`` of them: frame min(T - 1, int((i + u) * T / num_frames)).

    Here i = 0 .. num_frames - 1, and u is uniform in [0, 1) with ``random`` and 0.5 otherwise. (Paddle's reader
    draws in testing too.)
    """

    max_frames: int
    num_frames: int | None
    random: bool

    def __post_init__(self) -> None:
        if self.max_frames < 1 or (self.num_frames is not None and self.num_frames < 1):
            raise ValueError("max_frames and num_frames must be at least 1")
        if self.random and self.num_frames is None:
            raise ValueError("random chooses among frames; set num_frames")

    def __call__(self, length: int) -> np.ndarray:
        """Frame numbers, of ``length`` frames."""
        if self.num_frames is None:
            return np.arange(min(length, self.max_frames))
        place = torch.rand(self.num_frames, dtype=torch.float64).numpy() if self.random else 0.5
        frames = (np.arange(self.num_frames) + place) * length / self.num_frames
        return np.minimum(frames.astype(np.int64), length - 1)

    def pad(self, frames: np.ndarray) -> Tensor:
        """Chosen frames [t, D] with zeros behind them, [num_frames or max_frames, D]."""
        padded = np.zeros((self.num_frames or self.max_frames, frames.shape[1]), frames.dtype)
        padded[: len(frames)] = frames
        return torch.from_numpy(padded)
