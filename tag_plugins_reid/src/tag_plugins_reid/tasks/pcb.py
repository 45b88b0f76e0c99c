"""Part-based Convolutional Baseline (Sun et al., "Beyond Part Models", ECCV 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    BatchNorm,
    Classifier,
    PictureTask,
    reduction,
)
from tag_plugins_reid.tasks.pooling import Pool, Pooling


class PCB(PictureTask):
    """Horizontal stripes of the picture, each with a vector and a classifier of its own.

    Reads ``image`` as reid/embedding does. Each stripe of the backbone's last map is pooled and reduced to ``dim``
    numbers. Losses of logits or cosines are summed over the stripes; losses of features get all stripes'
    numbers in one row, as search does.

    Args:
        backbone: maps [N, 3, H, W] to a feature map.
        loss: of logits, cosines or features, or a sum of such (reid/sum).
        parts: stripes.
        stripes: of a map whose height ``parts`` does not divide: 'adaptive' stripes overlap by a row, 'chunk' ones are
            ceil(height / parts) high and the last is lower.
        whole: one more branch, of the whole map.
        pool: average, maximum, or generalized mean with the power 3 or a learned one.
        dim: numbers per stripe.
        shared: one reduction, and one batch norm, for all stripes, or one for each; the whole map has its own.
        norm: batch norm of the reduced numbers, with ReLU behind it; without, the reduction has a bias.
        dropout: share of the pooled features dropped before the reduction in training.
        dropout_after: share of the reduced numbers dropped before the classifier in training.
        embedding: the stripes' reduced numbers (H of the paper), or their pooled features, each stripe's of length 1
            (G of the paper).
        normalize: embeddings have length 1.
        mean: of the normalisation, RGB in [0, 1]; default: ImageNet's.
        std: of the normalisation.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        classes: list[str],
        parts: int = 6,
        stripes: Literal["adaptive", "chunk"] = "adaptive",
        whole: bool = False,
        pool: Pooling = "avg",
        dim: int = 256,
        shared: bool = True,
        norm: bool = True,
        dropout: float = 0.5,
        dropout_after: float = 0.0,
        embedding: Literal["reduced", "pooled"] = "reduced",
        normalize: bool = True,
        mean: RGB = IMAGENET_MEAN,
        std: RGB = IMAGENET_STD,
    ) -> None:
        if min(parts, dim) < 1 or not (0 <= dropout < 1 and 0 <= dropout_after < 1):
            told = f"{parts}, {dim}, {dropout} and {dropout_after}"
            raise ValueError(f"parts and dim must be at least 1, dropout and dropout_after in [0, 1); got {told}")
        super().__init__(backbone, loss, mean, std)
        self.parts_of_loss = list(parts_of(loss))
        self.classes, self.parts, self.stripes, self.whole = list(classes), parts, stripes, whole
        self.embedding, self.normalize = embedding, normalize
        branches = parts + whole
        self.check_memories(dim * branches)
        self.pools = nn.ModuleList(Pool(pool) for _ in range(branches))
        self.groups = [parts, 1][: 1 + whole] if shared else [1] * branches
        self.reducers = nn.ModuleList(self._reducer(backbone.feature_dim, dim, norm) for _ in self.groups)
        self.dropout, self.dropout_after = nn.Dropout(dropout), nn.Dropout(dropout_after)
        self.head: Any = None
        if self.wanted != {"features"}:
            heads = (Classifier(dim, len(classes), bias="logits" in self.wanted) for _ in range(branches))
            self.head = nn.ModuleList(heads)

    @staticmethod
    def _reducer(inputs: int, dim: int, norm: bool) -> nn.Module:
        linear = reduction(inputs, dim, bias=not norm)
        return nn.Sequential(linear, BatchNorm(dim), nn.ReLU()) if norm else linear

    def pooled(self, pictures: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to the pooled features [N, D] of each branch.

        Raises:
            UserError: the map is too low for so many stripes.
        """
        maps = self.backbone.maps(self.prepare(pictures))
        height = maps.shape[2]
        if self.stripes == "chunk":
            branches = list(maps.chunk(self.parts, 2))
        else:
            edges = [(i * height // self.parts, -(-(i + 1) * height // self.parts)) for i in range(self.parts)]
            branches = [maps[:, :, top:bottom] for top, bottom in edges]
        if len(branches) < self.parts or height < self.parts:
            raise UserError(
                f"a map {height} high, of pictures {pictures.shape[2]} high, does not give {self.parts} stripes "
                f"({self.stripes}); take higher pictures, fewer task.parts, or a backbone with last_stride=1"
            )
        branches += [maps] * self.whole
        return [pool(branch) for pool, branch in zip(self.pools, branches, strict=True)]

    def reduced(self, pooled: Sequence[Tensor]) -> list[Tensor]:
        """The ``dim`` numbers of each branch, [N, dim]."""
        found: list[Tensor] = []
        for reducer, count in zip(self.reducers, self.groups, strict=True):
            group = torch.stack(list(pooled[len(found) : len(found) + count]), 1)  # its batch norm is over all of them
            numbers = reducer(self.dropout(group.flatten(0, 1))).float()
            found += numbers.unflatten(0, (-1, count)).unbind(1)
        return found

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        reduced = self.reduced(self.pooled(batch["image"]))
        given = {"features": [torch.cat(reduced, 1)]}
        if self.head is not None:
            inputs = [self.dropout_after(numbers) for numbers in reduced]
            given["logits"] = [head(numbers) for head, numbers in zip(self.head, inputs, strict=True)]
            given["cosines"] = [head.cosines(numbers) for head, numbers in zip(self.head, inputs, strict=True)]
        losses = [
            weight * loss(each, batch["label"])
            for weight, loss in self.parts_of_loss
            for each in given[getattr(loss, "takes", "logits")]
        ]
        return {"loss": torch.stack(losses).sum(), **self.logged()}

    def predict(self, batch: Batch) -> Outputs:
        """``embedding`` [N, D]; with classifiers ``logits``, the sum over the stripes, and ``scores`` [N, classes]."""
        pooled = self.pooled(batch["image"])
        reduced = self.reduced(pooled)
        parts = reduced if self.embedding == "reduced" else [F.normalize(features) for features in pooled]
        embedding = torch.cat(parts, 1)
        outputs = {"embedding": F.normalize(embedding) if self.normalize else embedding}
        if self.head is not None:
            pairs = zip(self.head, reduced, strict=True)
            logits = [head(x) if self.decides == "logits" else head.cosines(x) for head, x in pairs]
            outputs["logits"] = torch.stack(logits).sum(0)
            outputs["scores"] = self.scores(outputs["logits"])
        return outputs


def parts_of(loss: Any, weight: float = 1.0) -> Iterator[tuple[float, Any]]:
    """Each loss of a sum with its weight, or the loss itself with the weight 1.

    Raises:
        ValueError: one of them keeps embeddings of one classifier; here there are several.
    """
    if getattr(loss, "takes", "logits") != "all":
        yield weight, loss
    elif not hasattr(loss, "losses"):
        raise ValueError(f"loss {type(loss).__name__} is for reid/embedding; here each stripe has its own classifier")
    else:
        for part, factor in zip(loss.losses, loss.weights, strict=True):
            yield from parts_of(part, weight * factor)
