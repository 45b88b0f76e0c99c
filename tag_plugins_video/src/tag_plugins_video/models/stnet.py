"""StNet: local and global spatio-temporal modelling (He et al., AAAI 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from tag_core.errors import UserError
from tag_plugins_video.models.clips import check_clips
from tag_plugins_video.models.encoders import make_encoder

StateDict = dict[str, Tensor]


class StNet(nn.Module):
    """A 2D ResNet on super-images, 3D convolutions between them, and a temporal Xception block.

    A super-image is ``snippet`` consecutive frames stacked as channels, frame after frame. Input
    [N, 3, S * snippet, H, W] with S segments, any number of them; features [N, 1024]: the largest value over
    the segments. The graph of Paddle's video library v1.

    Args:
        snippet: frames of a super-image; give the data set's ``clip_len`` the same number.
        depth: layers of the ResNet.
        encoder_weights: 'imagenet' starts from torchvision's weights, fetched once. ``weights=FILE`` of a
            torchvision ResNet does the same without a network. Either way the first convolution gets
            the mean over its colours, divided by ``snippet``, for every channel.
    """

    def __init__(
        self, snippet: int = 5, depth: Literal[50, 101, 152] = 50, encoder_weights: Literal["", "imagenet"] = ""
    ) -> None:
        super().__init__()
        if snippet < 1:
            raise ValueError(f"snippet must be at least 1, got {snippet}")
        self.snippet, self.feature_dim = snippet, 1024
        self._encoder_name, self._imagenet = f"resnet{depth}", encoder_weights == "imagenet"
        resnet = get_model(self._encoder_name, weights=None)
        conv = nn.Conv2d(3 * snippet, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.stem = nn.Sequential(conv, resnet.bn1, resnet.relu, resnet.maxpool)
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(resnet, f"layer{i}") for i in range(1, 5))
        self.temporal2, self.temporal3 = TemporalBlock(512), TemporalBlock(1024)
        self.xception = TemporalXception(2048, self.feature_dim)

    def forward(self, clips: Tensor) -> Tensor:
        check_clips("StNet", clips)
        if clips.shape[2] % self.snippet:
            told = f"StNet needs a multiple of {self.snippet} frames, got {clips.shape[2]}"
            raise UserError(f"{told}; set data.train.clip_len={self.snippet}, or task.backbone.snippet")
        count, segments, (height, width) = clips.shape[0], clips.shape[2] // self.snippet, clips.shape[3:]
        images = clips.transpose(1, 2).reshape(count * segments, 3 * self.snippet, height, width)
        maps = self.layer2(self.layer1(self.stem(images)))
        maps = self.layer3(self.temporal2(maps, segments))
        maps = self.layer4(self.temporal3(maps, segments))
        pooled = maps.mean(dim=(2, 3)).reshape(count, segments, maps.shape[1]).transpose(1, 2)
        return torch.amax(self.xception(pooled), dim=2)

    def initialize(self) -> None:
        """Fetch ImageNet weights, where asked for; called when a training starts afresh.

        Raises:
            WeightsError: they cannot be fetched.
        """
        if self._imagenet:
            encoder, _ = make_encoder(self._encoder_name, imagenet=True)
            self.load_state_dict({**self.state_dict(), **self.inflate(encoder.state_dict())})

    @property
    def layouts(self) -> dict[str, Callable[[StateDict], StateDict]]:
        """Key mappings to a classification task; this one depends on ``snippet``."""
        return {"torchvision-resnet": self.from_resnet}

    def from_resnet(self, state: StateDict) -> StateDict:
        """A 2D ResNet's weights as a start: everything but its classifier.

        Raises:
            KeyError: this is not a state dict of torchvision's ResNet.
        """
        return {f"backbone.{key}": value for key, value in self.inflate(state).items()}

    def inflate(self, state: StateDict) -> StateDict:
        """A 2D ResNet's state dict, without its classifier, in this module's keys and with its first layer."""
        mean = state["conv1.weight"].mean(dim=1, keepdim=True) / self.snippet
        own = {"stem.0.weight": mean.repeat(1, 3 * self.snippet, 1, 1)}
        for key, value in state.items():
            if key.startswith("layer"):
                own[key] = value
            elif key.startswith("bn1."):
                own[f"stem.1.{key.removeprefix('bn1.')}"] = value
        return own


class TemporalBlock(nn.Module):
    """A convolution over neighbouring segments, added to its input [N * S, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.bn = nn.BatchNorm3d(channels)
        _initialise(self)

    def forward(self, maps: Tensor, segments: int) -> Tensor:
        clips = maps.reshape(-1, segments, *maps.shape[1:]).transpose(1, 2)
        added: Tensor = clips + self.bn(torch.relu(self.conv(clips)))
        return added.transpose(1, 2).reshape(maps.shape)


class TemporalXception(nn.Module):
    """Depthwise and pointwise convolutions along time: [N, inputs, S] to [N, outputs, S]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(inputs)
        self.branch = nn.Sequential(
            nn.Conv1d(inputs, inputs, 3, padding=1, groups=inputs),
            nn.Conv1d(inputs, outputs, 1),
            nn.BatchNorm1d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv1d(outputs, outputs, 3, padding=1, groups=outputs),
            nn.Conv1d(outputs, outputs, 1),
        )
        self.skip = nn.Conv1d(inputs, outputs, 1)
        self.end = nn.BatchNorm1d(outputs)
        _initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        features = self.bn(features)
        return torch.relu(self.end(self.branch(features) + self.skip(features)))


def _initialise(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, nn.Conv1d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
