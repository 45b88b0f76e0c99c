"""Tag a sequence of frame features: any number of labels, or one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Loss, Outputs
from tag_core.records import Record
from tag_plugins_video.models.sequences import linear, norm_frames, unpack
from tag_plugins_video.tasks.labelling import label_records


def dequantise(features: Tensor) -> Tensor:
    """YouTube-8M's bytes as numbers from -2 to 2: the middle of each of 256 equal steps."""
    return features.float() * (4 / 255) + (4 / 512 - 2)


class Tagging(nn.Module):
    """A linear classifier on a backbone over feature sequences.

    Reads the backbone's modalities, each [N, T, D], and ``length`` [N], the frames that are there (without
    it, all): uint8 is taken for YouTube-8M's quantised features and dequantised on the model's device, other
    numbers are taken as they are. From Python each modality may also be a list of N tensors [T, D] of
    different lengths.

    Args:
        backbone: maps feature sequences to features [N, D], as video/nextvlad does.
        loss: from logits and labels to a scalar.
        multi_label: any number of labels: sigmoid scores, labels [N, classes] of 0 and 1; otherwise one
            label: softmax scores, labels [N].
        head_decay: L2 penalty of the classifier's weights and bias alone, whatever the optimizer decays.
        top_k: labels per record, best first.
        normalize: bring every feature to mean 0 and variance 1 (a batch norm) before the backbone.
            YouTube-8M's are whitened already; features of your own hardly ever are.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: Loss,
        classes: list[str],
        multi_label: bool = True,
        head_decay: float = 0.0,
        top_k: int = 20,
        normalize: bool = False,
    ) -> None:
        modalities = getattr(backbone, "modalities", None)
        if not modalities:
            raise ValueError("backbone takes no feature sequences; choose one that does, such as video/nextvlad")
        if top_k < 1 or head_decay < 0:
            raise ValueError(f"top_k must be at least 1 and head_decay 0 or more, got {top_k} and {head_decay}")
        super().__init__()
        self.backbone, self.loss, self.classes = backbone, loss, list(classes)
        self.modalities = tuple(modalities)
        self.head = linear(backbone.feature_dim, len(classes))
        self.multi_label, self.head_decay = multi_label, head_decay
        self.top_k = top_k
        sizes = backbone.modalities if normalize else {}  # type: ignore[attr-defined]
        self.norms = nn.ModuleDict({name: nn.BatchNorm1d(size, affine=False) for name, size in sizes.items()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = self.loss(self.head(self.features(batch)), batch["label"])
        if self.head_decay:
            loss = loss + self.head_decay / 2 * sum(p.square().sum() for p in self.head.parameters())
        return {"loss": loss}

    def predict(self, batch: Batch) -> Outputs:
        """``scores`` and ``logits`` [N, classes] and ``embedding`` [N, D]; with labels also the ``loss``."""
        features = self.features(batch)
        logits = self.head(features).float()
        scores = logits.sigmoid() if self.multi_label else logits.softmax(1)
        outputs = {"scores": scores, "logits": logits, "embedding": features.float()}
        if "label" in batch:
            outputs["loss"] = self.loss(logits, batch["label"])
        return outputs

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        return label_records(outputs, batch, self.classes, self.top_k)

    def features(self, batch: Batch) -> Tensor:
        """The backbone's [N, D]."""
        inputs = self.prepare(batch)
        if self.norms:
            features, mask = unpack(inputs, self.backbone.modalities)  # type: ignore[attr-defined]
            inputs |= {name: norm_frames(norm, features[name], mask) for name, norm in self.norms.items()}  # type: ignore[arg-type]
        return self.backbone(inputs)  # type: ignore[arg-type]

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """What the backbone reads, on the model's device, cut to the longest sequence of the batch.

        An exported graph is not: padding changes nothing, and its shapes may not depend on values.
        """
        missing = [name for name in self.modalities if name not in batch]
        if missing:
            given = ", ".join(name for name, value in batch.items() if getattr(value, "ndim", 0) == 3) or "none"
            raise UserError(f"no features {', '.join(missing)} (given: {given}); set task.backbone.modalities")
        inputs = {name: self._numbers(batch[name]) for name in self.modalities}
        first, length = batch[self.modalities[0]], batch.get("length")
        if not isinstance(first, Tensor):
            length = torch.tensor([len(sequence) for sequence in first])
        if length is not None:
            if not torch.compiler.is_exporting():
                longest = max(int(length.max()), 1)
                inputs = {name: value[:, :longest] for name, value in inputs.items()}
            inputs["length"] = length.to(self.head.weight.device)
        return inputs

    def _numbers(self, features: Any) -> Tensor:
        """[N, T, D] in the weights' type."""
        features = features if isinstance(features, Tensor) else pad_sequence(features, batch_first=True)
        features = features.to(self.head.weight.device)
        features = dequantise(features) if features.dtype == torch.uint8 else features
        return features.to(self.head.weight.dtype)  # type: ignore[no-any-return]
