"""Mirroring a picture with its faces."""

from __future__ import annotations

from typing import Any

import torch

from tag_core.kinds import Sample


class Mirror:
    """Mirror left and right at random; left and right eyes and corners of the mouth change places.

    Args:
        p: how often.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in [0, 1], got {p}")
        self.p = p

    def __call__(self, sample: Sample) -> dict[str, Any]:
        if torch.rand(()) >= self.p:
            return dict(sample)
        image = sample["image"]
        return {**sample, "image": image.flip(-1), "faces": sample["faces"].mirror(image.shape[-1])}
