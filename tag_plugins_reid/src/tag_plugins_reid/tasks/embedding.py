"""Pictures to embeddings: pool, neck, and whatever losses put identities apart."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Loss, Outputs
from tag_plugins_reid.tasks.pictures import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    Classifier,
    PictureTask,
    batch_norm,
    reduction,
)
from tag_plugins_reid.tasks.pooling import Pool, Pooling


class Embedding(PictureTask):
    """One embedding of the whole picture.

    Reads ``image`` [N, 3, H, W]: uint8 is scaled to [0, 1] and normalised on the model's device, float is taken as it
    is. The backbone's last map is pooled and goes through the neck. A loss of features gets what goes into the neck's
    batch norm, a loss of logits or cosines what comes out of it, through a classifier. The embedding is what comes
    out of the neck.

    Args:
        backbone: maps [N, 3, H, W] to a feature map.
        loss: of logits, cosines or features, or a sum of such (reid/sum).
        pool: average, maximum, or generalized mean with the power 3 or a learned one.
        neck: 'linear' is one linear layer to ``dim``; 'bnneck' batch norm with its bias fixed at 0, after a linear
            layer without bias where ``dim`` is given ("Bag of Tricks and A Strong Baseline", CVPRW 2019); or none.
        dim: length of the embedding; 0: the backbone's.
        dropout: share of the neck's output that is dropped before the classifier in training.
        turns: 4: every picture is also shown turned by 90, 180 and 270 degrees, as three further classes.
        views: 4: the embeddings of the picture as it is and turned by 90, 180 and 270 degrees are joined to one, four
            times as long; for networks trained with ``turns``, which see a different sign each time.
        normalize: embeddings have length 1.
        mean: of the normalisation, RGB in [0, 1]; default: ImageNet's.
        std: of the normalisation.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        classes: list[str],
        pool: Pooling = "avg",
        neck: Literal["none", "linear", "bnneck"] = "none",
        dim: int = 0,
        dropout: float = 0.0,
        turns: Literal[1, 4] = 1,
        views: Literal[1, 4] = 1,
        normalize: bool = True,
        mean: RGB = IMAGENET_MEAN,
        std: RGB = IMAGENET_STD,
    ) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if dim < 0 or (dim and neck == "none"):
            raise ValueError(f"dim must be 0 or more, and 0 with neck none; got {dim} and {neck}")
        super().__init__(backbone, loss, mean, std)
        self.classes, self.normalize, self.turns, self.views = list(classes), normalize, turns, views
        self.pool = Pool(pool)
        width = dim or backbone.feature_dim
        self.check_memories(width)
        self.reduce: nn.Module = nn.Identity()
        if dim or neck == "linear":
            self.reduce = reduction(backbone.feature_dim, width, bias=neck == "linear")
        self.norm = batch_norm(width) if neck == "bnneck" else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head: Any = None
        if self.wanted != {"features"}:
            self.head = Classifier(width, turns * len(classes), bias="logits" in self.wanted and neck != "bnneck")
        elif neck == "bnneck":
            self.norm.requires_grad_(False)  # nothing learns behind it: it only standardises

    def features(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] to what goes into the neck's batch norm, [N, D]."""
        return self.reduce(self.pool(self.backbone.maps(self.prepare(pictures)))).float()  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        pictures, labels = batch["image"], batch["label"]
        if self.turns == 4:
            if pictures.shape[2] != pictures.shape[3]:
                size = f"{pictures.shape[2]}x{pictures.shape[3]}"
                raise UserError(
                    f"task.turns=4 needs square pictures, these are {size}; resize them, or set task.turns=1"
                )
            pictures = torch.cat([pictures.rot90(turn, (2, 3)) for turn in range(4)])
            shifts = torch.where(labels < 0, 0, len(self.classes))  # -1 is unknown however it is turned
            labels = torch.cat([labels + turn * shifts for turn in range(4)])
        features = self.features(pictures)
        embeddings = self.dropout(self.norm(features))
        given = {"features": features}
        if self.head is not None:
            given |= {"embeddings": embeddings, "class_weights": self.head.weight}
            given |= {"logits": self.head(embeddings), "cosines": self.head.cosines(embeddings)}
        wanted = getattr(self.loss, "takes", "logits")
        return {"loss": self.loss(given if wanted == "all" else given[wanted], labels), **self.logged()}

    def predict(self, batch: Batch) -> Outputs:
        """``embedding`` [N, views * D]; with a classifier ``logits`` and ``scores`` [N, classes] of those trained on.

        With labels also the ``loss`` of these, unless some picture is of an identity not trained on (label -1).
        """
        turned = [batch["image"].rot90(turn, (2, 3)) for turn in range(self.views)]
        embeddings = [self.norm(self.features(pictures)).float() for pictures in turned]
        weighed = [F.normalize(each) for each in embeddings] if self.normalize else embeddings
        outputs = {"embedding": torch.cat(weighed, 1) / len(weighed) ** 0.5}
        if self.head is None:
            return outputs
        found = self.head(embeddings[0]) if self.decides == "logits" else self.head.cosines(embeddings[0])
        logits = found[:, : len(self.classes)]  # as the pictures are, not turned
        outputs |= {"logits": logits, "scores": self.scores(logits)}
        if "label" in batch and self.wanted == {getattr(self.loss, "takes", "logits")} and (batch["label"] >= 0).all():
            outputs["loss"] = self.loss(found, batch["label"])
        return outputs
