"""Learn a backbone without labels: SimCLR."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tag_core.kinds import Backbone, Batch
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, ClipEncoder
from tag_plugins_video.tasks.self_supervised import gather, mlp, pair, takes_part


class SimCLR(ClipEncoder):
    """Two clips of one video are alike, all other clips of the batch are not (arXiv 2002.05709).

    The batch is that of all processes; with ``train.accumulate``, each of its parts is one by itself.
    Predicting gives ``embedding``, the backbone's features.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        dim: of the projections that are compared.
        hidden: channels inside the projection head; default: as many as features, as published.
        temperature: divides the similarities.
        mean: of the normalisation, per channel of clips in [0, 1].
        std: of the normalisation.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int = 128,
        hidden: int | None = None,
        temperature: float = 0.1,
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        super().__init__(backbone, mean, std)
        self.projector = mlp(backbone.feature_dim, hidden or backbone.feature_dim, dim)
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        projected = self.projector(self.backbone(pair(self, batch)))
        first, second = F.normalize(projected.float(), dim=1).chunk(2)
        joined = torch.cat([first, second], dim=1)
        everyone, start = gather(joined) if takes_part(self) else (joined, 0)
        firsts, seconds = everyone.chunk(2, dim=1)
        one = nt_xent(first, firsts, seconds, start, self.temperature)
        return {"loss": (one + nt_xent(second, seconds, firsts, start, self.temperature)) / 2}


def nt_xent(anchors: Tensor, same: Tensor, other: Tensor, start: int, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy (equation 1 of the paper), the mean over these anchors.

    Args:
        anchors: one view of n videos, [n, D], of unit length.
        same: this view of all N videos; the anchors are its rows ``start`` to ``start`` + n.
        other: the other view of all N videos.
    """
    places = start + torch.arange(len(anchors), device=anchors.device)
    itself = F.one_hot(places, len(same)).bool()
    logits = torch.cat([anchors @ other.T, (anchors @ same.T).masked_fill(itself, -torch.inf)], dim=1)
    return F.cross_entropy(logits / temperature, places)
