"""Learn a backbone without labels and without negatives: BYOL."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.kinds import Backbone, Batch
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, ClipEncoder
from tag_plugins_video.tasks.self_supervised import Momentum, mlp, pair, takes_part


class BYOL(ClipEncoder):
    """Predict, from one clip of a video, what a momentum encoder makes of another (arXiv 2006.07733).

    The momentum encoder moves on at every forward pass: with ``train.accumulate`` several times a step; its momentum
    is constant, and its batch norm runs on averaged statistics (see ``Momentum``). The online network's batch norm
    is over both clips of the videos of one process. Predicting gives ``embedding``, the backbone's features.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        dim: of the projections.
        hidden: channels inside the projection and prediction heads.
        momentum: share of the momentum encoder that stays at each update.
        mean: of the normalisation, per channel of clips in [0, 1].
        std: of the normalisation.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int = 256,
        hidden: int = 4096,
        momentum: float = 0.99,
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
    ) -> None:
        super().__init__(backbone, mean, std)
        self.projector = mlp(backbone.feature_dim, hidden, dim, norm=True)
        self.predictor = mlp(dim, hidden, dim, norm=True)
        self.target = Momentum(nn.Sequential(self.backbone, self.projector), momentum)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        clips = pair(self, batch)
        with torch.no_grad():
            if self.training and takes_part(self):
                self.target.update(nn.Sequential(self.backbone, self.projector), clips)
            first, second = self.target(clips).chunk(2)
        predicted = self.predictor(self.projector(self.backbone(clips)))
        # One way and the other: 2 - 2 cos each (equation 2 of the paper).
        cosines = F.cosine_similarity(predicted.float(), torch.cat([second, first]).float(), dim=1)
        return {"loss": 2 * (2 - 2 * cosines.mean())}
