"""AM-softmax."""

from __future__ import annotations

from torch import Tensor

from tag_plugins_reid.losses.margin_softmax import MarginSoftmax


class AMSoftmax(MarginSoftmax):
    """Softmax of scale * (cos - margin) for the true class and scale * cos for the others.

    Wang et al., "Additive Margin Softmax for Face Verification" (arXiv 1801.05599), equation 6.

    Args:
        scale: of the cosines, which are too small for a softmax.
        margin: taken off the true class's cosine.
    """

    def __init__(self, scale: float = 30.0, margin: float = 0.35) -> None:
        super().__init__(scale, margin)

    def lowered(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin
