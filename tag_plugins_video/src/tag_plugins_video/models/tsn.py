"""Temporal Segment Networks (Wang et al., ECCV 2016; TPAMI 2018)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from tag_plugins_video.models.clips import check_clips
from tag_plugins_video.models.encoders import make_encoder

StateDict = dict[str, Tensor]


def from_mmaction(state: StateDict) -> StateDict:
    """A TSN of MMAction2 with a ResNet (``backbone.conv1.conv.weight`` ... ``cls_head.fc_cls.bias``).

    Raises:
        KeyError: this is not such a state dict.
    """
    if "backbone.conv1.conv.weight" not in state:
        raise KeyError("backbone.conv1.conv.weight")
    own = {}
    for key, value in state.items():
        key = key.replace("cls_head.fc_cls.", "head.").replace("backbone.", "backbone.encoder.")
        key = key.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
        own[re.sub(r"conv(\d)\.(conv|bn)\.", r"\2\1.", key)] = value
    return own


def from_encoder(state: StateDict) -> StateDict:
    """The encoder's own, as its library or a training on pictures saves it: a start, without the classifier."""
    return {f"backbone.encoder.{key}": value for key, value in state.items()}


class TSN(nn.Module):
    """A 2D encoder on every frame, then a consensus of the frames' features.

    Input [N, 3, S, H, W] with S sampled frames, features [N, D]. With a linear classifier behind it the
    average consensus equals the paper's average of the frames' class scores.

    Args:
        encoder: a torchvision classification model (``resnet50``), ``timm/<model>``, ``tiny`` (three
            convolutions, for pictures of 32 pixels), or ``tiny-grid`` (the same without its last average:
            features tell what is where, in 4x4 places).
        encoder_weights: 'imagenet' starts from the library's ImageNet weights, fetched once.
        consensus: 'average' or 'max' over the frames, or 'attention': an average weighted by the softmax
            over frames of a learned linear score (TPAMI 2018, section 3.3).
        partial_bn: in training keep every batch norm but the first as it is (section 3.3 of the paper;
            for fine-tuning with small batches, not from scratch).
    """

    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {
        "mmaction2": from_mmaction,
        "encoder": from_encoder,
    }

    def __init__(
        self,
        encoder: str = "resnet50",
        encoder_weights: Literal["", "imagenet"] = "",
        consensus: Literal["average", "max", "attention"] = "average",
        partial_bn: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.feature_dim = make_encoder(encoder)
        self._encoder_name = encoder
        self._imagenet = encoder_weights == "imagenet"
        if self._imagenet and encoder.startswith("tiny"):
            raise ValueError(f"encoder {encoder!r} has no ImageNet weights")
        self.consensus = consensus
        self.attention = nn.Linear(self.feature_dim, 1) if consensus == "attention" else None
        norms = [m for m in self.encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._frozen_norms = norms[1:] if partial_bn else []
        for norm in self._frozen_norms:
            norm.requires_grad_(False)

    def initialize(self) -> None:
        """Fetch the encoder's ImageNet weights, where asked for; called when a training starts afresh.

        Raises:
            WeightsError: they cannot be fetched.
        """
        if self._imagenet:
            self.encoder.load_state_dict(make_encoder(self._encoder_name, imagenet=True)[0].state_dict())

    def forward(self, clips: Tensor) -> Tensor:
        check_clips("TSN", clips)
        frames = clips.transpose(1, 2)
        features = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        if self.attention is not None:
            return torch.sum(features * self.attention(features).softmax(dim=1), dim=1)
        return torch.amax(features, dim=1) if self.consensus == "max" else torch.mean(features, dim=1)

    def train(self, mode: bool = True) -> TSN:
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self
