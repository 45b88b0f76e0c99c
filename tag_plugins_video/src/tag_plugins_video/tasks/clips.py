"""What every task that looks at clips does first: views apart, pixels normalised, a backbone's features of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Outputs
from tag_core.records import Record

RGB = tuple[float, float, float]
KINETICS_MEAN: RGB = (0.43216, 0.394666, 0.37645)
KINETICS_STD: RGB = (0.22803, 0.22145, 0.216989)


class ClipEncoder(nn.Module):
    """A video backbone that clips are prepared for; by itself it gives embeddings.

    Reads ``clip`` [N, T, C, H, W], or [N, V, T, C, H, W] with V views of every video: uint8 is scaled to [0, 1]
    and normalised on the model's device, float is taken as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(f"mean and std need a number for each channel, std above 0; got {mean} and {std}")
        super().__init__()
        self.backbone: Any = backbone
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def predict(self, batch: Batch) -> Outputs:
        """``embedding`` [N, D]: the backbone's features, averaged over the views."""
        return {"embedding": self.features(split_views(batch["clip"])).float().mean(1)}

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        for i, (source, embedding) in enumerate(zip(batch["source"], outputs["embedding"].tolist(), strict=True)):
            record = Record(source=source, embedding=embedding, damage=batch["damage"][i])
            if "time" in batch:
                record.time = list(batch["time"][i])
            yield record

    def features(self, views: Tensor) -> Tensor:
        """Of clips [N, V, T, C, H, W], [N, V, D]. One view at a time: ten crops need no more memory than one."""
        if torch.compiler.is_exporting():  # one copy of the backbone, for any V
            return self.backbone(self.prepare(views.flatten(0, 1))).reshape(*views.shape[:2], -1)  # type: ignore[no-any-return]
        return torch.stack([self.backbone(self.prepare(view)) for view in views.unbind(1)], dim=1)

    def prepare(self, clips: Tensor) -> Tensor:
        """[N, T, C, H, W] to normalised [N, C, T, H, W]."""
        clips = clips.to(self.mean.device)
        if not clips.is_floating_point():
            if clips.shape[-3] != len(self.mean):
                raise UserError(f"clips of {clips.shape[-3]} channels: task.mean and task.std have {len(self.mean)}")
            clips = (clips.to(self.mean.dtype) / 255 - self.mean) / self.std
        return clips.transpose(1, 2)


def split_views(clips: Tensor) -> Tensor:
    """[N, T, C, H, W] as [N, 1, T, C, H, W]; with views already, unchanged."""
    if clips.dim() not in (5, 6):
        raise ValueError(f"clip must be [N, T, C, H, W] or [N, V, T, C, H, W], got {list(clips.shape)}")
    return clips if clips.dim() == 6 else clips.unsqueeze(1)
