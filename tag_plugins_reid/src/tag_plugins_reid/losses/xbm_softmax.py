"""Cross-batch memory around a softmax with a margin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Loss
from tag_plugins_reid.losses.margin_softmax import MarginSoftmax
from tag_plugins_reid.losses.memory import Memory
from tag_plugins_reid.losses.pairs import full_precision, normalized


class XBMSoftmax(nn.Module):
    """A margin softmax over the batch together with the features of earlier batches.

    The batch is put into the memory first, and so counts twice, once without a gradient to the features; the
    memory's features train the class weights only. As in the seventh place of the Tianchi Taobao-Live contest
    (sizes 256 and 512, reid/arcface with scale 30 and margin 0.3). In evaluation, and called with cosines alone, it is
    the loss itself.

    It needs of the task ``cosines`` [N, C], the ``embeddings`` [N, D] and the ``class_weights`` [C, D] that they are
    the cosines of.

    Args:
        loss: reid/arcface, reid/cosface, reid/am-softmax or reid/circle-softmax.
        dim: of the embeddings.
        size: embeddings that the memory holds.
        start: batches before anything is remembered.
    """

    takes: ClassVar[str] = "all"

    def __init__(self, loss: Loss, dim: int, size: int = 512, start: int = 0) -> None:
        if not isinstance(loss, MarginSoftmax):
            raise ValueError("loss must be a softmax with a margin, such as reid/arcface; for pairs there is reid/xbm")
        super().__init__()
        self.loss = loss
        self.memory = Memory(size, dim, start)
        self.log: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | Mapping[str, Tensor], labels: Tensor) -> Tensor:
        cosines = full_precision(inputs if isinstance(inputs, Tensor) else inputs["cosines"])
        if self.training and isinstance(inputs, Mapping):
            if lacking := [key for key in ("embeddings", "class_weights") if key not in inputs]:
                raise UserError(
                    f"loss reid/xbm-softmax: needs {' and '.join(lacking)} of the task, which gives {', '.join(inputs)}"
                )
            self.memory.push(normalized(full_precision(inputs["embeddings"])), labels)
            with torch.autocast(cosines.device.type, enabled=False):
                weights = normalized(full_precision(inputs["class_weights"]))
                remembered = self.memory.features.to(weights.dtype) @ weights.T
            cosines, labels = torch.cat([cosines, remembered]), torch.cat([labels, self.memory.labels])
            self.log = {"memory_filled": self.memory.filled()}
        loss: Tensor = self.loss(cosines, labels)
        return loss
