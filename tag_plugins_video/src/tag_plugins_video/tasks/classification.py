"""Classify a clip: one label, or any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from tag_core.kinds import Backbone, Batch, Loss, Outputs
from tag_core.records import Record
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, ClipEncoder, split_views
from tag_plugins_video.tasks.labelling import label_records


class Classification(ClipEncoder):
    """A linear classifier on a video backbone's features.

    Reads ``clip`` [N, T, C, H, W], or [N, V, T, C, H, W] with V views of every video: uint8 is scaled
    to [0, 1] and normalised on the model's device, float is taken as it is. Training counts every view
    as a sample of its own; evaluation averages them.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        loss: from logits and labels to a scalar.
        dropout: share of features dropped before the classifier in training.
        mean: of the normalisation, per channel (RGB in [0, 1], or as many as the clips have); default:
            torchvision's for Kinetics.
        std: of the normalisation.
        head_bound: the classifier's first weights lie evenly between minus and plus this; 0: normally, with a
            standard deviation of 0.01.
        views: average the views' scores (probabilities) or their logits.
        multi_label: any number of labels per clip: sigmoid scores, labels [N, classes] of 0 and 1.
        top_k: labels per record, best first.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        classes: list[str],
        dropout: float = 0.0,
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
        head_bound: float = 0.0,
        views: Literal["scores", "logits"] = "scores",
        multi_label: bool = False,
        top_k: int = 5,
    ) -> None:
        if top_k < 1 or not 0 <= dropout < 1:
            raise ValueError(f"top_k must be at least 1 and dropout in [0, 1), got {top_k} and {dropout}")
        if head_bound < 0:
            raise ValueError(f"head_bound must be 0 or more, got {head_bound}")
        super().__init__(backbone, mean, std)
        self.loss, self.classes = loss, list(classes)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.feature_dim, len(classes))
        if head_bound:
            nn.init.uniform_(self.head.weight, -head_bound, head_bound)
        else:
            nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.views, self.multi_label = views, multi_label
        self.top_k = top_k

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views = split_views(batch["clip"])
        features = self.backbone(self.prepare(views.flatten(0, 1)))
        labels = batch["label"].repeat_interleave(views.shape[1], dim=0)
        return {"loss": self.loss(self.head(self.dropout(features)), labels)}

    def predict(self, batch: Batch) -> Outputs:
        """``scores`` and ``logits`` [N, classes] and ``embedding`` [N, D], averaged over the views.

        With labels also the ``loss`` of these logits.
        """
        features = self.features(split_views(batch["clip"]))
        logits = self.head(self.dropout(features.flatten(0, 1))).float().reshape(*features.shape[:2], -1)
        mean = logits.mean(1)
        scores = self.to_scores(logits).mean(1) if self.views == "scores" else self.to_scores(mean)
        outputs = {"scores": scores, "logits": mean, "embedding": features.float().mean(1)}
        if "label" in batch:
            outputs["loss"] = self.loss(mean, batch["label"])
        return outputs

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        return label_records(outputs, batch, self.classes, self.top_k)

    def to_scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)
