"""Features of earlier batches, for losses that look beyond their own."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tag_core.errors import UserError


class Memory(nn.Module):
    """The last features and their labels, in a ring; all of it part of the state dict.

    Every forward pass moves it on: with ``train.accumulate`` several times a step. Several processes (core/ddp) keep
    the same memory, of the features of all of them; a step in which some process has no sample leaves it alone. With
    sharded weights (core/fsdp) it stays empty.

    Args:
        size: number of features.
        dim: of a feature.
        start: batches until what is put in counts; the features of a fresh model drift too fast to be compared.
    """

    features: Tensor
    labels: Tensor
    position: Tensor
    batches: Tensor

    def __init__(self, size: int, dim: int, start: int = 0) -> None:
        if size < 1 or dim < 1 or start < 0:
            raise ValueError(f"size and dim must be at least 1 and start 0 or more, got {size}, {dim} and {start}")
        super().__init__()
        self.start = start
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), -1))  # -1: a place that does not count
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> Tensor:
        """Put features [N, D] and labels [N] in place of the oldest; where each of them is now, [N], or -1.

        Raises:
            UserError: the features have another dimension.
        """
        self.check(features.shape[1])
        size = len(self.features)
        count, first = len(labels), 0
        if dist.is_initialized():
            if nn.parallel.DistributedDataParallel._get_active_ddp_module() is None:  # type: ignore[no-untyped-call]
                return torch.full_like(labels, -1)
            features, labels, first = gather(features.to(self.features.dtype), labels)
        spare = max(len(labels) - size, 0)  # a batch above the memory's size: its first go
        places = (self.position + torch.arange(len(labels), device=labels.device)) % size
        self.features[places[spare:]] = features[spare:].to(self.features.dtype)
        self.labels[places[spare:]] = torch.where(self.batches >= self.start, labels, -1)[spare:]
        self.position.copy_((self.position + len(labels)) % size)
        self.batches += 1
        places[:spare] = -1
        return places[first : first + count]

    def check(self, width: int) -> None:
        """Raises UserError for features of another width."""
        if width != (dim := self.features.shape[1]):
            raise UserError(
                f"task.loss: its memory is for features of {dim} numbers, these have {width}; set its dim={width}"
            )

    def filled(self) -> Tensor:
        """The share of places that count."""
        return (self.labels >= 0).float().mean()


def gather(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Features and labels of all processes in a row, the same on each, and where this process's begin."""
    counts = [torch.zeros((), dtype=torch.int64, device=labels.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(len(labels), device=labels.device))
    lengths = [int(count) for count in counts]
    missing = max(lengths) - len(labels)
    joined = []
    for mine in (nn.functional.pad(features, (0, 0, 0, missing)), nn.functional.pad(labels, (0, missing))):
        parts = [torch.empty_like(mine) for _ in lengths]
        dist.all_gather(parts, mine.contiguous())
        joined.append(torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)]))
    return joined[0], joined[1], sum(lengths[: dist.get_rank()])
