"""NeXtVLAD (Lin, Xiao, Fan, ECCV 2018 workshops): grouped, gated residuals to cluster centres."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_plugins_video.models.sequences import YOUTUBE8M, check_sizes, linear, norm_frames, unpack


class NeXtVLADPooling(nn.Module):
    """Residuals of the frames to K centres, in G groups of features (section 3.2).

    Features [N, T, D] and mask [N, T] to [N, f * K] with f = expansion * D / G; index f * K + k.
    """

    def __init__(self, dim: int, clusters: int, groups: int, expansion: int) -> None:
        super().__init__()
        self.shape = (groups, clusters)
        wide, size = expansion * dim, expansion * dim // groups
        self.expand = linear(dim, wide)
        self.group_attention = linear(wide, groups)
        self.assign = linear(wide, groups * clusters, bias=False)
        self.assign_norm = nn.BatchNorm1d(groups * clusters)
        self.centres = nn.Parameter(nn.init.xavier_uniform_(torch.empty(clusters, size)))
        self.norm = nn.BatchNorm1d(size * clusters)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        wide = self.expand(features)
        gate = torch.sigmoid(self.group_attention(wide)) * mask.unsqueeze(2)
        assigned = norm_frames(self.assign_norm, self.assign(wide), mask)
        weights = assigned.reshape(*mask.shape, *self.shape).softmax(dim=3) * gate.unsqueeze(3)  # [N, T, G, K]
        split = wide.reshape(*mask.shape, self.shape[0], -1)
        sums = torch.einsum("ntgk,ntgf->nfk", weights, split)
        residuals = sums - weights.sum(dim=(1, 2)).unsqueeze(1) * self.centres.T
        return self.norm(F.normalize(residuals, dim=1).flatten(1))  # type: ignore[no-any-return]


class NeXtVLAD(nn.Module):
    """NeXtVLAD pooling of each modality, a hidden layer, and gates on its units.

    Lin et al., "NeXtVLAD: An Efficient Neural Network to Aggregate Frame-level Features", ECCV 2018
    workshops (arXiv 1811.05014), in the form of Paddle's video library, where every modality has all
    clusters and groups (the authors' halves both for audio): with its default sizes and 3862 classes,
    89,088,550 parameters with the classifier. Input: see :mod:`tag_plugins_video.models.sequences`;
    features [N, hidden]. The order of frames changes nothing.

    Args:
        modalities: name of each stream of features and its size; default: YouTube-8M's rgb 1024, audio 128.
        clusters: cluster centres (K).
        groups: groups that a frame's expanded features are split into (G).
        expansion: factor on a frame's features before the split.
        hidden: units of the hidden layer.
        gating_reduction: factor between those units and the narrow layer that computes their gates.
        dropout: share of the pooled values dropped in training; the rest is scaled up, where Paddle's
            original scaled down in evaluation instead.
    """

    def __init__(
        self,
        modalities: dict[str, int] = YOUTUBE8M,
        clusters: int = 128,
        groups: int = 8,
        expansion: int = 2,
        hidden: int = 2048,
        gating_reduction: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(modalities, clusters=clusters, groups=groups, expansion=expansion)
        if not 1 <= gating_reduction <= hidden:
            raise ValueError(f"gating_reduction must be between 1 and hidden = {hidden}, got {gating_reduction}")
        for name, dim in modalities.items():
            if expansion * dim % groups:
                raise ValueError(f"{name}: {expansion} * {dim} features cannot be split into {groups} groups")
        self.modalities, self.feature_dim = dict(modalities), hidden
        pooling = {name: NeXtVLADPooling(dim, clusters, groups, expansion) for name, dim in modalities.items()}
        self.pooling = nn.ModuleDict(pooling)
        self.dropout = nn.Dropout(dropout)
        pooled = sum(expansion * dim // groups * clusters for dim in modalities.values())
        self.fc = nn.Sequential(linear(pooled, hidden, bias=False), nn.BatchNorm1d(hidden))
        narrow = hidden // gating_reduction
        self.gate = nn.Sequential(
            linear(hidden, narrow, bias=False),
            nn.BatchNorm1d(narrow),
            nn.ReLU(),
            linear(narrow, hidden, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features, mask = unpack(inputs, self.modalities)
        pooled = torch.cat([pooling(features[name], mask) for name, pooling in self.pooling.items()], dim=1)
        hidden = self.fc(self.dropout(pooled))
        return torch.mul(hidden, self.gate(hidden))
