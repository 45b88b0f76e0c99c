"""CosFace."""

from __future__ import annotations

from tag_plugins_reid.losses.am_softmax import AMSoftmax


class CosFace(AMSoftmax):
    """AM-softmax, as published at the same time with a larger scale.

    Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition" (CVPR 2018), equation 4.

    Args:
        scale: of the cosines.
        margin: taken off the true class's cosine.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(scale, margin)
