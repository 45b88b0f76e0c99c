"""Learn a backbone without labels: momentum contrast (MoCo v2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.kinds import Backbone, Batch
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, ClipEncoder
from tag_plugins_video.tasks.self_supervised import Momentum, gather, mlp, pair, takes_part


class MoCo(ClipEncoder):
    """Two clips of one video are alike, those of other videos are not (arXiv 1911.05722, 2003.04297).

    The first clip's projection, the query, is to find the second's, its key, among the keys of earlier batches in a
    queue. Keys come from a momentum encoder, which moves on, as the queue does, at every forward pass: with
    ``train.accumulate`` several times a step. Several processes fill the queue with the keys of all of them.
    Batches are not shuffled over processes, because keys do not depend on their batch (see ``Momentum``).

    Predicting gives ``embedding``, the backbone's features.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        dim: of the projections that are compared.
        hidden: channels inside the projection head; default: as many as features, as published.
        queue: keys of earlier batches to tell a key from.
        momentum: share of the key encoder that stays at each update.
        temperature: divides the similarities.
        mean: of the normalisation, per channel of clips in [0, 1].
        std: of the normalisation.
    """

    queue: Tensor
    position: Tensor

    def __init__(
        self,
        backbone: Backbone,
        dim: int = 128,
        hidden: int | None = None,
        queue: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
    ) -> None:
        if queue < 1 or temperature <= 0:
            raise ValueError(f"queue must be at least 1 and temperature above 0, got {queue} and {temperature}")
        super().__init__(backbone, mean, std)
        self.projector = mlp(backbone.feature_dim, hidden or backbone.feature_dim, dim)
        self.temperature = temperature
        self.key_encoder = Momentum(nn.Sequential(self.backbone, self.projector), momentum)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        first, second = pair(self, batch).chunk(2)
        moves = self.training and takes_part(self)
        queries = F.normalize(self.projector(self.backbone(first)).float(), dim=1)
        with torch.no_grad():
            if moves:
                self.key_encoder.update(nn.Sequential(self.backbone, self.projector), first)
            keys = F.normalize(self.key_encoder(second).float(), dim=1)
        loss = info_nce(queries, keys, self.queue.clone(), self.temperature)
        if moves:
            self.enqueue(gather(keys)[0])
        return {"loss": loss}

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys in place of the oldest ones."""
        keys = keys[-len(self.queue) :]
        places = (self.position + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.position.copy_((self.position + len(keys)) % len(self.queue))


def info_nce(queries: Tensor, keys: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Mean over i of -log(exp(q_i.k_i / t) / (exp(q_i.k_i / t) + sum_j exp(q_i.o_j / t))); all of unit length."""
    own = (queries * keys).sum(1, keepdim=True)
    logits = torch.cat([own, queries @ others.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
