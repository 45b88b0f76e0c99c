"""MobileNet v1 as RetinaFace has it: leaky activations, and maps of three sizes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tag_core.engine.weights import PublishedWeights

REPOSITORY = "https://raw.githubusercontent.com/m2man/Pytorch_Retinaface/752127c3f1efe263d24a5b25c46aa6cf88ca42a0"
STAGES = (((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)), ((512, 2), *[(512, 1)] * 5), ((1024, 2), (1024, 1)))
"""Channels and stride of each separable convolution, by stage, of the network of full width."""


class MobileNet(nn.Module):
    """Depthwise separable convolutions (Howard et al., 2017) down to maps of 1/8, 1/16 and 1/32 of a picture.

    Input [N, 3, H, W], BGR less its mean; features [N, feature_dim] are the mean of the last map. Parameters are named
    as in the public files mobilenetV1X0.25_pretrain.tar (ImageNet, top-1 46.58 %), which load with ``weights=FILE``.

    Args:
        width: channels as a share of the original network's.
        slope: of the leaky activations below 0.
    """

    published_weights: ClassVar[dict[str, PublishedWeights]] = {
        "wider-face": PublishedWeights(
            url=f"{REPOSITORY}/weights/mobilenet0.25_Final.pth",
            sha256="38ec7bb3c9cbfe2f40edabc05fab970a6d648747cbc534092be85d5eb9b37ed0",
            summary="RetinaFace trained on WIDER FACE, from an MIT-licensed repository (m2man/Pytorch_Retinaface)",
            classes=("face",),
        )
    }

    def __init__(self, width: float = 0.25, slope: float = 0.1) -> None:
        if width <= 0:
            raise ValueError(f"width must be above 0, got {width}")
        super().__init__()
        inputs = max(round(32 * width), 1)
        self.stage1 = nn.Sequential(_convolution(3, inputs, 2, slope))
        self.stage2, self.stage3 = nn.Sequential(), nn.Sequential()
        self.channels: list[int] = []
        for stage, layers in zip((self.stage1, self.stage2, self.stage3), STAGES, strict=True):
            for full, stride in layers:
                outputs = max(round(full * width), 1)
                stage.append(_separable(inputs, outputs, stride, slope))
                inputs = outputs
            self.channels.append(inputs)
        self.feature_dim = inputs

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to three maps [N, channels, ceil(H / s), ceil(W / s)] with s = 8, 16 and 32."""
        fine = self.stage1(pictures)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]

    def forward(self, pictures: Tensor) -> Tensor:
        return self.maps(pictures)[-1].mean((2, 3))


def _convolution(inputs: int, outputs: int, stride: int, slope: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(slope, inplace=True),
    )


def _separable(inputs: int, outputs: int, stride: int, slope: float) -> nn.Sequential:
    """A 3x3 convolution of each channel by itself, then a 1x1 one."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(slope, inplace=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(slope, inplace=True),
    )
