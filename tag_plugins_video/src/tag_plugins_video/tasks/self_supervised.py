"""What the tasks that learn without labels share: pairs of views, momentum encoders, other ranks' features."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from tag_core.errors import UserError
from tag_core.kinds import Batch
from tag_plugins_video.tasks.clips import ClipEncoder, split_views


def pair(encoder: ClipEncoder, batch: Batch) -> Tensor:
    """The first view of every video, then the second: prepared, [2 * N, C, T, H, W].

    Raises:
        UserError: a video has one view, or more than two.
    """
    views = split_views(batch["clip"])
    if views.shape[1] != 2:
        raise UserError(
            f"task: two clips of each video are compared, got {views.shape[1]}; set data.train.num_clips = 2"
        )
    return encoder.prepare(views.transpose(0, 1).flatten(0, 1))


class Momentum(AveragedModel):
    """A slowly following copy of a model that is never trained: new = momentum * old + (1 - momentum) * model.

    The first update copies the model, so that weights loaded after construction count. Batch norm always runs on
    statistics that are averaged as the weights are (EMAN, arXiv 2101.08482). A clip's features therefore never
    depend on the clips beside it, which is what MoCo shuffles its batches over GPUs for. Fresh statistics (0 and 1)
    would take hundreds of steps to come near the truth; those of the first batch take their place.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
        super().__init__(model, multi_avg_fn=partial(_follow, momentum=momentum), use_buffers=True)
        self.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, clips: Tensor) -> None:
        """Move on towards the model; ``clips`` are what it trains on."""
        if not self.n_averaged:
            norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
            before = [norm.momentum for norm in norms]
            for norm in norms:
                norm.momentum = 1.0
            model(clips)
            for norm, momentum in zip(norms, before, strict=True):
                norm.momentum = momentum
        self.update_parameters(model)

    def train(self, mode: bool = True) -> Momentum:
        super().train(False)
        return self


@torch.no_grad()
def _follow(old: list[Tensor], new: list[Tensor], count: Any, momentum: float) -> None:
    for mine, theirs in zip(old, new, strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - momentum)
        else:  # batch norm's count of batches
            mine.copy_(theirs)


def mlp(inputs: int, hidden: int, outputs: int, norm: bool = False) -> nn.Sequential:
    """A projection head: linear, batch norm where asked for, ReLU, linear."""
    norms = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(nn.Linear(inputs, hidden), *norms, nn.ReLU(inplace=True), nn.Linear(hidden, outputs))


def takes_part(model: nn.Module) -> bool:
    """Whether this forward pass runs on every process, so that queues and momentum encoders may move on.

    Where some process has no sample, the engine calls the others' bare models, and what they would change or wait
    for would never reach it.

    Raises:
        UserError: the weights are sharded, and a momentum encoder or queue cannot follow them.
    """
    if not dist.is_initialized():
        return True
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        raise UserError("task: this self-supervised task does not work with sharded weights; use core/ddp")
    return nn.parallel.DistributedDataParallel._get_active_ddp_module() is not None  # type: ignore[no-untyped-call]


def gather(features: Tensor) -> tuple[Tensor, int]:
    """Features [n, D] of every process in a row [N, D], and where this process's begin; with gradients.

    Processes may hold different numbers of them. The gradient of a process's features adds up what the losses of
    all processes say, so that sharing out a batch changes nothing.
    """
    if not dist.is_initialized():
        return features, 0
    counts = [torch.zeros((), dtype=torch.int64, device=features.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(len(features), device=features.device))
    lengths = [int(count) for count in counts]
    padded = nn.functional.pad(features, (0, 0, 0, max(lengths) - len(features)))
    parts = _Gather.apply(padded)
    joined = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
    return joined, sum(lengths[: dist.get_rank()])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
