"""S3D (Xie et al., ECCV 2018): separable 3D Inception, torchvision's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.video import S3D_Weights, s3d

from tag_core.engine.weights import PublishedWeights

StateDict = dict[str, Tensor]


def from_torchvision(state: StateDict) -> StateDict:
    """torchvision's keys (``features.*``, ``classifier.1.*``) to those of a classification task.

    Raises:
        KeyError: this is not a state dict of torchvision's S3D.
    """
    mapped = {f"backbone.{key}": value for key, value in state.items() if key.startswith("features.")}
    mapped["head.weight"] = state["classifier.1.weight"].flatten(1)
    mapped["head.bias"] = state["classifier.1.bias"]
    return mapped


def _published(weights: S3D_Weights) -> PublishedWeights:
    scores = weights.meta["_metrics"]["Kinetics-400"]
    return PublishedWeights(
        url=weights.url,
        sha256=weights.url.rpartition("-")[2].removesuffix(".pth"),
        summary=f"Kinetics-400, clip top-1 {scores['acc@1']} %, top-5 {scores['acc@5']} % (torchvision)",
        classes=tuple(weights.meta["categories"]),
    )


class S3D(nn.Module):
    """Separable 3D convolutions in Inception blocks.

    Input [N, 3, T, H, W], T at least 5 and H, W at least 17 (published: 128 frames of 224x224);
    features [N, 1024]: windows of 2x7x7 averaged (smaller where the map is), then their mean. With a
    linear classifier behind it these are torchvision's logits.
    """

    published_weights: ClassVar[dict[str, PublishedWeights]] = {"kinetics-400": _published(S3D_Weights.KINETICS400_V1)}
    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {"torchvision": from_torchvision}

    def __init__(self) -> None:
        super().__init__()
        self.features = s3d(weights=None).features
        self.feature_dim = 1024

    def forward(self, clips: Tensor) -> Tensor:
        frames, height, width = clips.shape[2:]
        if frames < 5 or min(height, width) < 17:
            raise ValueError(f"S3D needs 5 frames of 17x17 or more, got {frames} of {height}x{width}")
        maps = self.features(clips)
        window = [min(side, full) for side, full in zip(maps.shape[2:], (2, 7, 7), strict=True)]
        pooled = F.avg_pool3d(maps, window, stride=1)
        return pooled.mean(dim=(2, 3, 4))
