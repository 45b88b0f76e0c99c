"""What every retrieval task does: pictures normalised, losses fed, embeddings written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Loss, Outputs
from tag_core.records import Record
from tag_plugins_reid.losses.memory import Memory

RGB = tuple[float, float, float]
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)


class PictureTask(nn.Module):
    """A picture backbone that pictures are prepared for, and records of their embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, loss: Loss, mean: RGB, std: RGB) -> None:
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        if not hasattr(backbone, "maps"):
            needed = "a backbone with maps(pictures): [N, 3, H, W] to [N, feature_dim, h, w]"
            raise ValueError(f"{type(self).__name__} needs {needed}; {type(backbone).__name__} has none")
        super().__init__()
        self.backbone: Any = backbone
        self.loss: Any = loss
        self.wanted = takes(loss)
        self.decides: Literal["logits", "cosines"] = "logits" if "logits" in self.wanted else "cosines"
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def prepare(self, pictures: Tensor) -> Tensor:
        """[N, 3, H, W] on the model's device: uint8 scaled to [0, 1] and normalised, float as it is."""
        if pictures.dim() != 4 or pictures.shape[1] != 3:
            raise UserError(f"image must be [N, 3, H, W], got {list(pictures.shape)}")
        pictures = pictures.to(self.mean.device)
        if not pictures.is_floating_point():
            pictures = (pictures.to(self.mean.dtype) / 255 - self.mean) / self.std
        return pictures

    def logged(self) -> dict[str, Tensor]:
        """What the loss, or a part of it, has to tell of its last call."""
        return {name: value for part in self._losses() for name, value in getattr(part, "log", {}).items()}

    def scores(self, logits: Tensor) -> Tensor:
        """The softmax of logits, or of cosines [N, C] at the scale of the loss that takes them."""
        scale = next((part.scale for part in self._losses() if hasattr(part, "scale")), 1.0)
        return (logits * (scale if self.decides == "cosines" else 1.0)).softmax(1)

    def check_memories(self, width: int) -> None:
        """Refuse a loss that remembers features or embeddings of another width than this task's.

        Raises:
            UserError: naming the width.
        """
        for part in self._losses():
            if isinstance(part, Memory):
                part.check(width)

    def _losses(self) -> list[Any]:
        return list(self.loss.modules()) if isinstance(self.loss, nn.Module) else []

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        for i, (source, embedding) in enumerate(zip(batch["source"], outputs["embedding"].tolist(), strict=True)):
            record = Record(source=source, embedding=embedding, damage=batch["damage"][i])
            if "identity" in batch:
                record.truth = batch["identity"][i]
            if "box" in batch:
                record.boxes = [[float(edge) for edge in batch["box"][i]]]
            yield record


class Classifier(nn.Linear):
    """Class weights [C, D] for logits, or for cosines; drawn from N(0, std), the bias 0."""

    def __init__(self, inputs: int, classes: int, bias: bool, std: float = 0.001) -> None:
        super().__init__(inputs, classes, bias)
        nn.init.normal_(self.weight, std=std)
        if bias:
            nn.init.zeros_(self.bias)

    def cosines(self, inputs: Tensor) -> Tensor:
        """Cosines [N, C] of inputs [N, D] with the class weights, in float32."""
        with torch.autocast(inputs.device.type, enabled=False):
            return F.linear(F.normalize(inputs.float()), F.normalize(self.weight.float()))


def takes(loss: Any) -> set[str]:
    """What a loss, or any part of a sum of losses, is to be given: of "logits", "cosines" and "features".

    Raises:
        ValueError: it says something else.
    """
    wanted = getattr(loss, "takes", "logits")
    if wanted in ("logits", "cosines", "features"):
        return {wanted}
    if wanted != "all":
        raise ValueError(f"loss {type(loss).__name__}: takes is logits, cosines, features or all, not {wanted!r}")
    return {each for part in getattr(loss, "losses", None) or [getattr(loss, "loss", None)] for each in takes(part)}


def reduction(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear layer to fewer dimensions, as re-identification baselines start it: Kaiming by fan-out, bias 0."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class BatchNorm(nn.BatchNorm1d):
    """Of features [N, D].

    Raises:
        UserError: there is one row to train on, which has no variance.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and len(features) == 1:
            raise UserError(
                "batch norm cannot train on one picture, all that a process has of this batch; set "
                "train.drop_last=true, or another train.batch_size"
            )
        return super().forward(features)


def batch_norm(dim: int) -> BatchNorm:
    """Of the neck: its bias stays 0, so that cosines are taken around the origin (BNNeck, CVPRW 2019, section 3.5)."""
    norm = BatchNorm(dim)
    norm.bias.requires_grad_(False)
    return norm
