"""ArcFace."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tag_plugins_reid.losses.margin_softmax import MarginSoftmax


class ArcFace(MarginSoftmax):
    """Softmax of scale * cos(theta + margin) for the true class and scale * cos(theta) for the others.

    Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (CVPR 2019), equation 3. Where
    theta is pi - margin or more, cos(theta + margin) would rise again: cos(theta) - margin * sin(margin) takes its
    place, as in the published code.

    Args:
        scale: of the cosines.
        margin: added to the true class's angle, in radians.
        easy_margin: only where the angle is below 90 degrees; beyond, the plain cosine.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5, easy_margin: bool = False) -> None:
        if margin >= math.pi:
            raise ValueError(f"margin must be below pi (it is in radians), not {margin}")
        super().__init__(scale, margin)
        self.easy_margin = easy_margin

    def lowered(self, cosines: Tensor) -> Tensor:
        m = self.margin
        # the floor is below any 1 - cos^2 that float32 knows, and keeps the root's slope finite at cos = +-1
        sines = ((1 - cosines) * (1 + cosines)).clamp(min=1e-12).sqrt()
        turned = cosines * math.cos(m) - sines * math.sin(m)
        if self.easy_margin:
            return torch.where(cosines > 0, turned, cosines)
        return torch.where(cosines > math.cos(math.pi - m), turned, cosines - m * math.sin(m))
