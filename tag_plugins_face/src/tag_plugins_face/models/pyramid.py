"""What RetinaFace builds on a backbone: feature pyramid, context modules, heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Three maps to the same width, each coarser one added to the finer (Lin et al., CVPR 2017)."""

    def __init__(self, channels: Sequence[int], width: int, slope: float) -> None:
        super().__init__()
        first, second, third = channels
        self.output1 = convolution(first, width, 1, slope)
        self.output2 = convolution(second, width, 1, slope)
        self.output3 = convolution(third, width, 1, slope)
        self.merge1 = convolution(width, width, 3, slope)
        self.merge2 = convolution(width, width, 3, slope)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:]))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:]))
        return [fine, middle, coarse]


class SSH(nn.Module):
    """Contexts of 3x3, 5x5 and 7x7 pixels of a map side by side (Najibi et al., ICCV 2017)."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.conv3x3 = convolution(width, width // 2, 3, None)
        self.conv5x5_1 = convolution(width, width // 4, 3, slope)
        self.conv5x5_2 = convolution(width // 4, width // 4, 3, None)
        self.conv7x7_2 = convolution(width // 4, width // 4, 3, slope)
        self.conv7x7_3 = convolution(width // 4, width // 4, 3, None)

    def forward(self, inputs: Tensor) -> Tensor:
        shared = self.conv5x5_1(inputs)
        contexts = [self.conv3x3(inputs), self.conv5x5_2(shared), self.conv7x7_3(self.conv7x7_2(shared))]
        return F.relu_(torch.cat(contexts, 1))


class Pyramid(nn.Module):
    """From maps of three sizes to what is told of every anchor.

    Activations are leaky with a slope of 0.1 up to 64 channels, and ReLU above, as in the public networks. One
    convolution of each map is the heads of class, box and landmarks at once.

    Args:
        channels: of the backbone's maps.
        width: channels of the pyramid's maps, a multiple of 4.
        anchors: per cell of each map.
        outputs: numbers told of an anchor.
    """

    def __init__(self, channels: Sequence[int], width: int, anchors: Sequence[int], outputs: int) -> None:
        super().__init__()
        slope = 0.1 if width <= 64 else 0.0
        self.outputs = outputs
        self.fpn = FPN(channels, width, slope)
        self.ssh1, self.ssh2, self.ssh3 = (SSH(width, slope) for _ in range(3))
        self.heads = nn.ModuleList(nn.Conv2d(width, count * outputs, 1) for count in anchors)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """[N, A, outputs], by map, row, column and anchor of the cell."""
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        found = [head(ssh(each)) for head, ssh, each in zip(self.heads, contexts, self.fpn(maps), strict=True)]
        return torch.cat([each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, self.outputs) for each in found], 1)


def convolution(inputs: int, outputs: int, size: int, slope: float | None) -> nn.Sequential:
    """Convolution, batch norm, and an activation unless ``slope`` is None."""
    layers = [nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if slope is None else [nn.LeakyReLU(slope, inplace=True)]))
