"""S3D (Xie et al., ECCV 2018): separable 3D Inception, torchvision's graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Literal

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


_KYLEMIN = (
    ("conv_s.", "0.0."),
    ("bn_s.", "0.1."),
    ("conv_t.", "1.0."),
    ("bn_t.", "1.1."),
    ("conv.", "0."),
    ("bn.", "1."),
)


def from_kylemin(state: StateDict) -> StateDict:
    """Keys of the public repository kylemin/S3D (``base.*``, ``fc.0.*``) to those of a classification task.

    Raises:
        KeyError: this is not such a state dict.
    """
    mapped = {"head.weight": state["fc.0.weight"].flatten(1), "head.bias": state["fc.0.bias"]}
    for key in state.keys() - {"fc.0.weight", "fc.0.bias"}:
        found = re.fullmatch(r"base\.(\d+\.(?:branch[0-3]\.[01]\.)?)(\w+\.)(\w+)", key)
        if found is None:
            raise KeyError(key)
        block, layer, name = found.groups()
        own = dict(_KYLEMIN)[layer]
        if block.endswith("branch0.0."):  # one layer in a list there, bare in torchvision
            block = block.removesuffix("0.")
        mapped[f"backbone.features.{block}{own}{name}"] = state[key]
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

    Input [N, 3, T, H, W], T at least 8 and H, W at least 17 (published: 128 frames of 224x224);
    features [N, 1024]: windows averaged, then their mean. With a linear classifier behind it these are
    torchvision's logits. Weights of kylemin/S3D belong to frames scaled to -1..1: mean and std 0.5.

    Args:
        window: what the windows span: '2x7x7', as in torchvision (less where the map is smaller), or '2xHxW',
            the whole plane, as in kylemin/S3D. The same up to frames of 224x224.
    """

    published_weights: ClassVar[dict[str, PublishedWeights]] = {"kinetics-400": _published(S3D_Weights.KINETICS400_V1)}
    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {
        "torchvision": from_torchvision,
        "kylemin": from_kylemin,
    }

    def __init__(self, window: Literal["2x7x7", "2xHxW"] = "2x7x7") -> None:
        super().__init__()
        self.window = window
        self.features = s3d(weights=None).features
        self.feature_dim = 1024

    def forward(self, clips: Tensor) -> Tensor:
        frames, height, width = clips.shape[2:]
        # oneDNN's AVX-512 gradient of the first convolution along time is wrong, or crashes, for 5 to 7 frames
        if frames < 8 or min(height, width) < 17:
            raise ValueError(f"S3D needs 8 frames of 17x17 or more, got {frames} of {height}x{width}")
        maps = self.features(clips)
        largest = (2, 7, 7) if self.window == "2x7x7" else (2, *maps.shape[3:])
        sides = [min(side, most) for side, most in zip(maps.shape[2:], largest, strict=True)]
        pooled = F.avg_pool3d(maps, sides, stride=1)
        return pooled.mean(dim=(2, 3, 4))
