"""What the models over feature sequences share: their input, its mask, and layers that heed it.

Their input is a mapping: for each modality (a stream of frame features, such as ``rgb`` and ``audio``) its
features [N, T, D], and ``length`` [N], how many of the T frames are there; without it, all. Padding may hold
anything, NaN included. A sequence of length 0 counts as one frame of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tag_core.errors import UserError

YOUTUBE8M = {"rgb": 1024, "audio": 128}
"""Modalities of the YouTube-8M frame-level features, and the size of each."""
RESERVED = {"source", "label", "length", "damage", "time"}


def check_sizes(modalities: Mapping[str, int], **sizes: int) -> None:
    """Raises ValueError where there is no modality, a name cannot be one, or a size is not positive."""
    if not modalities:
        raise ValueError("modalities needs a name and a size, as in {frames = 512}")
    for name in modalities:
        if not name.isidentifier() or name in RESERVED or hasattr(nn.ModuleDict, name):
            raise ValueError(f"a modality cannot be called {name!r}; choose a plain word such as 'frames'")
    for name, size in {**modalities, **sizes}.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def unpack(inputs: Mapping[str, Tensor], modalities: Mapping[str, int]) -> tuple[dict[str, Tensor], Tensor]:
    """Features [N, T, D] of each modality with zeros for padding, and the mask [N, T] of the frames.

    Raises:
        UserError: a modality is missing or is not what the model was built for.
    """
    for name, size in modalities.items():
        if name not in inputs:
            raise UserError(f"no features {name!r} among {', '.join(inputs)}; set task.backbone.modalities")
        shape, first = inputs[name].shape, inputs[next(iter(modalities))].shape
        if len(shape) != 3 or shape[2] != size or shape[:2] != first[:2]:
            raise UserError(
                f"features {name!r} are {list(shape)}, the model expects {[*first[:2], size]}; "
                f"set task.backbone.modalities.{name} to the size of yours"
            )
    features = {name: inputs[name] for name in modalities}
    some = features[next(iter(modalities))]
    count, frames = some.shape[:2]
    length = inputs.get("length", torch.full((count,), frames, device=some.device))
    mask = torch.arange(frames, device=some.device) < length.unsqueeze(1)
    features = {name: value.masked_fill(~mask.unsqueeze(2), 0) for name, value in features.items()}
    mask = mask | (torch.arange(frames, device=some.device) == 0)
    return features, mask


def softmax_over_frames(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of scores [N, T, C] over the frames of the mask [N, T]; exactly 0 for padding."""
    return scores.masked_fill(~mask.unsqueeze(2), float("-inf")).softmax(dim=1)


def norm_frames(norm: nn.BatchNorm1d, values: Tensor, mask: Tensor) -> Tensor:
    """Batch norm of values [N, T, C] over all frames of the batch; padding is no part of its statistics."""
    if not norm.training:
        return norm(values.flatten(0, 1)).view_as(values)  # type: ignore[no-any-return]
    return values.masked_scatter(mask.unsqueeze(2), norm(values[mask]))


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A fully connected layer as Paddle starts it: weights uniform (Xavier), bias zero."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
