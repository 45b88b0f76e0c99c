"""Attention Clusters (Long et al., CVPR 2018): frames weighted in many ways, their order ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_plugins_video.models.sequences import YOUTUBE8M, check_sizes, linear, softmax_over_frames, unpack


class ShiftingAttention(nn.Module):
    """Weighted means of the frames, each shifted, scaled and brought to one length (section 3.3).

    Features [N, T, D] and mask [N, T] to [N, clusters * D], cluster after cluster.
    """

    def __init__(self, dim: int, clusters: int) -> None:
        super().__init__()
        self.scores = nn.Linear(dim, clusters)  # a 1x1 convolution over time
        nn.init.kaiming_normal_(self.scores.weight)
        nn.init.uniform_(self.scores.bias, -math.sqrt(6 / clusters), math.sqrt(6 / clusters))
        self.scale = nn.Parameter(torch.randn(clusters, 1) * clusters**-0.25)
        self.shift = nn.Parameter(torch.randn(clusters, 1) * clusters**-0.25)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        attention = softmax_over_frames(self.scores(features), mask)
        means = attention.transpose(1, 2) @ features
        shifted = F.normalize(self.scale * means + self.shift, dim=2)
        return (shifted / math.sqrt(len(self.scale))).flatten(1)


class AttentionCluster(nn.Module):
    """Shifting attention clusters on each modality, then two fully connected layers (tanh).

    Long et al., CVPR 2018 (arXiv 1711.09550), in the form of Paddle's video library: with its default sizes
    and 3862 classes, 57,807,830 parameters with the classifier. Input: see
    :mod:`tag_plugins_video.models.sequences`; features [N, hidden[1]]. The order of frames changes nothing.

    Args:
        modalities: name of each stream of features and its size; default: YouTube-8M's rgb 1024, audio 128.
        clusters: attention clusters of every modality, or a number for each.
        hidden: units of the two fully connected layers.
        dropout: share of the clusters' values dropped in training; the rest is scaled up, where Paddle's
            original scaled down in evaluation instead.
    """

    def __init__(
        self,
        modalities: dict[str, int] = YOUTUBE8M,
        clusters: int | list[int] = 32,
        hidden: tuple[int, int] = (1024, 4096),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        counts = [clusters] * len(modalities) if isinstance(clusters, int) else clusters
        if len(counts) != len(modalities):
            raise ValueError(f"clusters has {len(counts)} numbers for {len(modalities)} modalities")
        check_sizes(modalities, hidden=min(hidden), clusters=min(counts, default=1))
        self.modalities, self.feature_dim = dict(modalities), hidden[1]
        named = dict(zip(modalities.items(), counts, strict=True))
        self.attention = nn.ModuleDict({name: ShiftingAttention(dim, c) for (name, dim), c in named.items()})
        self.dropout = nn.Dropout(dropout)
        self.fc1 = linear(sum(dim * c for (_, dim), c in named.items()), hidden[0])
        self.fc2 = linear(*hidden)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features, mask = unpack(inputs, self.modalities)
        clusters = [attention(features[name], mask) for name, attention in self.attention.items()]
        hidden = torch.tanh(self.fc1(self.dropout(torch.cat(clusters, dim=1))))
        return torch.tanh(self.fc2(hidden))
