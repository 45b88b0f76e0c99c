"""How good are features? A linear classifier on a frozen backbone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tag_core.kinds import Backbone, Batch, Loss
from tag_plugins_video.tasks.classification import Classification
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, split_views


class LinearProbe(Classification):
    """Trains a linear classifier on the features of a backbone that stays as it is, statistics included.

    The backbone comes from ``weights=FILE``. Features are normalised by their own statistics before the classifier
    (batch norm without scale and shift, as in MAE's linear probing, arXiv 2111.06377, appendix A), so that one
    learning rate suits features of any size. Several views are samples of their own in training and averaged in
    evaluation, as in ``video/classification``.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        loss: from logits and labels to a scalar.
        mean: of the normalisation, per channel of clips in [0, 1].
        std: of the normalisation.
        views: average the views' scores (probabilities) or their logits.
        multi_label: any number of labels per clip: sigmoid scores, labels [N, classes] of 0 and 1.
        top_k: labels per record, best first.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        classes: list[str],
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
        views: Literal["scores", "logits"] = "scores",
        multi_label: bool = False,
        top_k: int = 5,
    ) -> None:
        super().__init__(backbone, loss, classes, mean=mean, std=std, views=views, multi_label=multi_label, top_k=top_k)
        self.backbone.requires_grad_(False)
        norm = nn.BatchNorm1d(backbone.feature_dim, affine=False)
        self.head = nn.Sequential(norm, self.head)  # type: ignore[assignment]

    def train(self, mode: bool = True) -> LinearProbe:
        super().train(mode)
        self.backbone.train(False)
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views = split_views(batch["clip"])
        with torch.no_grad():
            features = self.backbone(self.prepare(views.flatten(0, 1))).float()
        if len(features) == 1:  # a batch of one has no statistics
            self.head[0].eval()  # type: ignore[index]
        labels = batch["label"].repeat_interleave(views.shape[1], dim=0)
        return {"loss": self.loss(self.head(features), labels)}
