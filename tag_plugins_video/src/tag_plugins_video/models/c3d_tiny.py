"""A small 3D convolutional network for small clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tag_plugins_video.models.clips import check_clips


class C3DTiny(nn.Module):
    """Three 3D convolutions and a global average: tells motions apart in small clips.

    After C3D (Tran et al., ICCV 2015: 3x3x3 kernels throughout), at a thousandth of its size. Input
    [N, C, T, H, W] with any T, H, W; features [N, 4 * width].

    Args:
        width: channels of the first layer; the next have two and four times as many.
        channels: of the input: 3 for pictures, 2 for optical flow.
    """

    def __init__(self, width: int = 12, channels: int = 3) -> None:
        super().__init__()
        self.feature_dim, self.channels = 4 * width, channels
        self.layers = nn.Sequential(
            _layer(channels, width, stride=(1, 2, 2)),
            _layer(width, 2 * width, stride=(1, 2, 2)),
            _layer(2 * width, 4 * width, stride=(2, 2, 2)),
        )

    def forward(self, clips: Tensor) -> Tensor:
        check_clips("C3DTiny", clips, channels=self.channels)
        return torch.mean(self.layers(clips), dim=(2, 3, 4))


def _layer(inputs: int, outputs: int, stride: tuple[int, int, int]) -> nn.Sequential:
    conv = nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
