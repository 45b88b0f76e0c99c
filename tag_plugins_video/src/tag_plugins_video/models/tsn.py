"""Temporal Segment Networks (Wang et al., ECCV 2016; TPAMI 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tag_plugins_video.models.encoders import make_encoder


class TSN(nn.Module):
    """A 2D encoder on every frame, then a consensus of the frames' features.

    Input [N, 3, S, H, W] with S sampled frames, features [N, D]. With a linear classifier behind it the
    average consensus equals the paper's average of the frames' class scores.

    Args:
        encoder: a torchvision classification model (``resnet50``), ``timm/<model>``, or ``tiny`` (three
            convolutions, for pictures of 32 pixels).
        encoder_weights: 'imagenet' starts from the library's ImageNet weights, fetched once.
        consensus: 'average' or 'max' over the frames, or 'attention': an average weighted by the softmax
            over frames of a learned linear score (TPAMI 2018, section 3.3).
        partial_bn: in training keep every batch norm but the first as it is (section 3.3 of the paper;
            for fine-tuning with small batches, not from scratch).
    """

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
        if self._imagenet and encoder == "tiny":
            raise ValueError("encoder 'tiny' has no ImageNet weights")
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
