"""A plain small convolutional network, for training from scratch on few and small pictures."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class SmallNet(nn.Module):
    """Blocks of 3x3 convolution, batch norm and ReLU, with 2x2 max pooling between them.

    Input [N, 3, H, W], normalised, each side at least 2 ** (depth - 1) pixels. Block i has width * 2 ** i channels,
    so the last map has width * 2 ** (depth - 1) channels and a side of that part of the picture's.

    Args:
        width: channels of the first block.
        depth: blocks.
        channels: 3 for pictures in colour, 1 for grey ones, of which only the mean of the channels is looked at.
        convs: convolutions of a block, each with batch norm and ReLU.
    """

    def __init__(self, width: int = 32, depth: int = 4, channels: Literal[1, 3] = 3, convs: int = 1) -> None:
        if min(width, depth, convs) < 1:
            raise ValueError(f"width, depth and convs must be at least 1, got {width}, {depth} and {convs}")
        super().__init__()
        self.channels = channels
        self.blocks = nn.Sequential()
        inputs = channels
        for block in range(depth):
            if block:
                self.blocks.append(nn.MaxPool2d(2))
            for _ in range(convs):
                outputs = width * 2**block
                self.blocks.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
                self.blocks.append(nn.BatchNorm2d(outputs))
                self.blocks.append(nn.ReLU(inplace=True))
                inputs = outputs
        self.feature_dim = inputs

    def maps(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] to the last feature map [N, feature_dim, h, w]."""
        if self.channels == 1:
            pictures = pictures.mean(1, keepdim=True)
        found: Tensor = self.blocks(pictures)
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        return self.maps(pictures).mean((2, 3))
