"""Where a run executes: one CPU, one GPU, or several processes.

A distribution hides exactly what differs: the device, how the model is wrapped, how processes talk,
and how a sharded state becomes a whole one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tag_core.errors import UserError

State = dict[str, Any]


class Distribution:
    """One process; the base of all others."""

    rank, world = 0, 1
    device = torch.device("cpu")
    can_step_alone = True
    """Whether a rank may run the bare model while another has no data."""

    def start(self) -> None:
        """Join the other processes; called once before anything is built."""

    def stop(self) -> None:
        """Leave them."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """What the training forward pass is called on."""
        return model

    def exchange_gradients(self, wrapped: nn.Module, on: bool) -> None:
        """Whether the backward passes from here on exchange gradients; only a step's last one need."""

    @contextlib.contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """Around evaluation: the model can be called by one process without the others."""
        yield

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order of ranks, on every rank; small picklable objects."""
        return [value]

    def sum_gradients(self, model: nn.Module) -> None:
        """Add gradients over ranks, where the wrapper did not (some rank had no data)."""

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[State, State]:
        """Whole state dicts of model and optimizer, on every rank that writes."""
        return model.state_dict(), optimizer.state_dict()

    def load_state(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: tuple[State, State]) -> None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])


class Cpu(Distribution):
    """One process on the CPU."""


class Cuda(Distribution):
    """One process on one NVIDIA GPU, the first of those that CUDA_VISIBLE_DEVICES allows."""

    device = torch.device("cuda", 0)

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise UserError("distribution core/cuda: torch sees no GPU; use distribution=core/cpu")


class Ddp(Distribution):
    """Several processes, each with a copy of the model (torch's DistributedDataParallel).

    Started by ``tag-run ... --procs N`` or by ``torchrun``; on GPUs through NCCL where every local
    rank has one, else on the CPU through gloo.
    """

    def __init__(self) -> None:
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            raise UserError("distribution: start several processes with 'tag-run ... --procs N' or torchrun")
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local, local_world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if torch.cuda.is_available() and torch.cuda.device_count() >= local_world:
            self.device = torch.device("cuda", local)

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")

    def stop(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model)

    def exchange_gradients(self, wrapped: nn.Module, on: bool) -> None:
        wrapped.require_backward_grad_sync = on  # type: ignore[assignment]  # all that DDP.no_sync does

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)  # over gloo, where there is NCCL too
        return found

    def sum_gradients(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)


class Fsdp(Ddp):
    """Several processes that share out parameters, gradients and optimizer state (FSDP2)."""

    can_step_alone = False

    def wrap(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for child in model.modules():
            if isinstance(child, nn.Sequential) and sum(p.numel() for p in child.parameters()) > 1_000_000:
                fully_shard(child, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def exchange_gradients(self, wrapped: nn.Module, on: bool) -> None:
        wrapped.set_requires_gradient_sync(on)  # type: ignore[operator]

    @contextlib.contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        from torch.distributed.fsdp import FSDPModule

        shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for shard in shards:
            shard.set_reshard_after_forward(False)
            shard.unshard()
        yield
        for shard in shards:
            shard.set_reshard_after_forward(True)
            shard.reshard()

    def state(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[State, State]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        return get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def load_state(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: tuple[State, State]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        whole = StateDictOptions(full_state_dict=True)
        set_state_dict(model, optimizer, model_state_dict=state[0], optim_state_dict=state[1], options=whole)


def auto() -> Distribution:
    """Several processes under torchrun or ``--procs``, else the first GPU, else the CPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return Ddp()
    return Cuda() if torch.cuda.is_available() else Cpu()


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a batch on the device, whatever containers they are in."""
    if isinstance(value, Tensor):
        pinned = value.pin_memory() if device.type == "cuda" and value.is_cpu else value
        return pinned.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    return [to_device(item, device) for item in value] if isinstance(value, list) else value
