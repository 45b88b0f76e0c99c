"""P3D: residual networks of pseudo-3D blocks (Qiu, Yao, Mei, ICCV 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from tag_plugins_video.models.clips import check_clips

StateDict = dict[str, Tensor]
BLOCKS = {63: (3, 4, 6, 3), 131: (3, 4, 23, 3), 199: (3, 8, 36, 3)}
EXPANSION = 4
_PARTS = {"conv1": "reduce", "conv2": "spatial", "conv_normal": "spatial", "conv3": "temporal", "conv4": "expand"}
_PARTS |= {"bn1": "reduce_bn", "bn2": "spatial_bn", "bn_normal": "spatial_bn", "bn3": "temporal_bn", "bn4": "expand_bn"}
_PARTS |= {"downsample": "downsample"}


def from_pytorch_port(state: StateDict) -> StateDict:
    """The keys of ``p3d_rgb_199.checkpoint.pth.tar`` and its siblings to those of a classification task.

    Raises:
        KeyError: this is not such a state dict.
    """
    names = {"fc.weight": "head.weight", "fc.bias": "head.bias", "conv1_custom.weight": "backbone.stem.0.weight"}
    mapped = {own: state[name] for name, own in names.items()}
    for key in state.keys() - names.keys():
        layer, _, rest = key.partition(".")
        if layer == "bn1":
            mapped[f"backbone.stem.1.{rest}"] = state[key]
        else:
            block, part, *last = rest.split(".")
            mapped[".".join(["backbone", layer, block, _PARTS[part], *last])] = state[key]
    return mapped


class P3D(nn.Module):
    """Spatial 1x3x3 and temporal 3x1x1 convolutions in three arrangements, cycled through the blocks.

    Input [N, C, T, H, W], T at least 16 (published: 16 frames of 160x160); features [N, 2048]: the mean over
    the places that remain in time and space, so one row a clip at every size. Where the published pooling
    (kernel 5 at 160 pixels, 7 at 224, 9 at 288) has one place, this is its result.

    Args:
        depth: 63, 131 or 199 layers.
        variants: the cycle of blocks: A (temporal after spatial), B (both side by side, added), C (temporal
            after spatial, with a skip around it).
        channels: 3 for RGB, 2 for horizontal and vertical optical flow.
        shortcut: of blocks that change the shape: 'convolution' (the paper's B) or 'pad' (A: strided
            average, zero channels).
        partial_bn: in training keep every 3D batch norm but the first as it is, as published for fine-tuning;
            those of the last, 2D stage train.
    """

    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {"pseudo-3d-pytorch": from_pytorch_port}
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        depth: Literal[63, 131, 199] = 63,
        variants: str = "ABC",
        channels: int = 3,
        shortcut: Literal["convolution", "pad"] = "convolution",
        partial_bn: bool = False,
    ) -> None:
        super().__init__()
        if not variants or set(variants) - set("ABC"):
            raise ValueError(f"variants is a cycle of the letters A, B and C, not {variants!r}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.feature_dim, self.channels = 512 * EXPANSION, channels
        conv = nn.Conv3d(channels, 64, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        pool = nn.MaxPool3d((2, 3, 3), 2, (0, 1, 1))
        self.stem = nn.Sequential(conv, nn.BatchNorm3d(64), nn.ReLU(inplace=True), pool)
        self.halve_time = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        numbers, inputs = count(), 64
        for stage, blocks in enumerate(BLOCKS[depth], 1):
            planes, layers = 32 * 2**stage, []
            for index in range(blocks):
                stride = 2 if index == 0 and stage > 1 else 1
                variant = variants[next(numbers) % len(variants)] if stage < 4 else "2D"
                layers.append(_Block(inputs, planes, stride, variant, shortcut if index == 0 else None))
                inputs = planes * EXPANSION
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.apply(_initialise)
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm3d)]
        self._frozen_norms = norms[1:] if partial_bn else []
        for norm in self._frozen_norms:
            norm.requires_grad_(False)

    def forward(self, clips: Tensor) -> Tensor:
        check_clips("P3D", clips, frames=16, channels=self.channels)
        maps = self.stem(clips)
        for stage in (self.layer1, self.layer2, self.layer3):
            maps = self.halve_time(stage(maps))
        frames = maps.transpose(1, 2)
        places = self.layer4(frames.flatten(0, 1)).flatten(2).mean(dim=2)
        features: Tensor = places.reshape(*frames.shape[:2], -1).mean(dim=1)
        return features

    def train(self, mode: bool = True) -> P3D:
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self


class _Block(nn.Module):
    """A bottleneck; ``variant`` 2D is the plain residual one of the last stage, on [N * T, C, H, W]."""

    def __init__(self, inputs: int, planes: int, stride: int, variant: str, shortcut: str | None) -> None:
        super().__init__()
        flat, outputs = variant == "2D", planes * EXPANSION
        layers: Any = (nn.Conv2d, nn.BatchNorm2d) if flat else (nn.Conv3d, nn.BatchNorm3d)
        (conv, norm), along_time = layers, () if flat else (1,)
        kernel, padding = (*along_time, 3, 3), (*(0 for _ in along_time), 1, 1)
        strides = (*along_time, stride, stride)
        self.variant = variant
        self.reduce, self.reduce_bn = conv(inputs, planes, 1, strides, bias=False), norm(planes)
        self.spatial, self.spatial_bn = conv(planes, planes, kernel, 1, padding, bias=False), norm(planes)
        if not flat:
            self.temporal = nn.Conv3d(planes, planes, (3, 1, 1), 1, (1, 0, 0), bias=False)
            self.temporal_bn = nn.BatchNorm3d(planes)
        self.expand, self.expand_bn = conv(planes, outputs, 1, bias=False), norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if shortcut == "convolution":
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, strides, bias=False), norm(outputs))
        elif shortcut == "pad":
            self.downsample = _Pad(strides, outputs - inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.relu(self.reduce_bn(self.reduce(inputs)))
        spatial = self.relu(self.spatial_bn(self.spatial(maps)))
        if self.variant == "2D":
            maps = spatial
        else:
            temporal = self.relu(self.temporal_bn(self.temporal(maps if self.variant == "B" else spatial)))
            maps = temporal if self.variant == "A" else spatial + temporal
        result: Tensor = self.relu(self.expand_bn(self.expand(maps)) + self.downsample(inputs))
        return result


class _Pad(nn.Module):
    """A shortcut without parameters: a strided average, and zeros for the new channels."""

    def __init__(self, strides: tuple[int, ...], channels: int) -> None:
        super().__init__()
        pool: Any = nn.AvgPool2d if len(strides) == 2 else nn.AvgPool3d
        self.pool = pool(1, strides)
        self.padding = [0, 0] * len(strides) + [0, channels]

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.pad(self.pool(inputs), self.padding)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):  # as published: of the kernel's three sides, the first two count
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
