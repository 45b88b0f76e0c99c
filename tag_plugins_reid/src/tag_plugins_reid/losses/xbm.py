"""Cross-batch memory around a loss over pairs."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from tag_core.kinds import Loss
from tag_plugins_reid.losses.memory import Memory
from tag_plugins_reid.losses.pairs import PairLoss, full_precision


class XBM(nn.Module):
    """A pair loss of the batch with itself, plus that of the batch with the features of earlier batches.

    The batch is put into the memory first and compared with all of it but, each feature, itself. Wang et al.,
    "Cross-Batch Memory for Embedding Learning" (CVPR 2020, arXiv 1912.06798), algorithm 1. Without ``within_batch``
    it is the one loss against the memory of pytorch-metric-learning. In evaluation the memory rests.

    Logged: ``memory_loss``, ``memory_filled`` (the share of the memory that counts), and what the loss logs.

    Args:
        loss: reid/contrastive, reid/triplet, reid/circle or another over pairs.
        dim: of the features.
        size: features that the memory holds.
        start: batches before anything is remembered; the published configuration has 2000.
        weight: of the loss with the memory.
        within_batch: add the loss of the batch with itself.
    """

    takes: ClassVar[str] = "features"
    loss: PairLoss

    def __init__(
        self, loss: Loss, dim: int, size: int = 8192, start: int = 0, weight: float = 1.0, within_batch: bool = True
    ) -> None:
        if not isinstance(loss, PairLoss):
            raise ValueError("loss must be one over pairs, such as reid/contrastive, reid/triplet or reid/circle")
        if start and not within_batch:
            raise ValueError("start needs within_batch: until then there would be no loss at all")
        super().__init__()
        self.loss, self.weight, self.within_batch = loss, weight, within_batch
        self.memory = Memory(size, dim, start)
        self.log: dict[str, Tensor] = {}

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        if not self.training:
            return self._within(features, labels)
        features = full_precision(features)
        own = self.memory.push(self.loss.prepared(features), labels)
        remembered: Tensor = self.loss(features, labels, (self.memory.features, self.memory.labels, own))
        total = self.weight * remembered
        if self.within_batch:
            total = total + self._within(features, labels)
        logged = getattr(self.loss, "log", {})
        self.log = {**logged, "memory_loss": remembered.detach(), "memory_filled": self.memory.filled()}
        return total

    def _within(self, features: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.loss(features, labels)
        return loss
