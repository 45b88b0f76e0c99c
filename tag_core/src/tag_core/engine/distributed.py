"""Where a run executes: one CPU, one GPU, or several processes.

A distribution hides exactly what differs: the device, how the model is wrapped, how processes talk,
and how a sharded state becomes a whole one. Small talk (counts, metrics) goes over gloo on the CPU.
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

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Around a backward pass; gradients need only be exchanged after the last micro-batch."""
        yield

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

    def __init__(self, threads: int = 0) -> None:
        """Args:
        threads: CPU threads of torch; 0 leaves as many cores to the reading workers as there are.
        """
        if threads:
            torch.set_num_threads(threads)


class Cuda(Distribution):
    """One process on one NVIDIA GPU."""

    def __init__(self, device: int = 0) -> None:
        """Args:
        device: index of the GPU.
        """
        if not torch.cuda.is_available():
            raise UserError("distribution core/cuda: torch sees no GPU; use distribution=core/cpu")
        self.device = torch.device("cuda", device)

    def start(self) -> None:
        torch.cuda.set_device(self.device)


class Ddp(Distribution):
    """Several processes, each with a copy of the model (torch's DistributedDataParallel).

    Started by ``tag-run ... --procs N`` or by ``torchrun``; on GPUs through NCCL where every local
    rank has one, else on the CPU through gloo.
    """

    def __init__(self, sync_batch_norm: bool = False) -> None:
        """Args:
        sync_batch_norm: batch norm over all processes' samples (GPUs only).
        """
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            raise UserError("distribution: start several processes with 'tag-run ... --procs N' or torchrun")
        self.sync_batch_norm = sync_batch_norm
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
        if self.sync_batch_norm and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=False)

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        if last or not isinstance(wrapped, nn.parallel.DistributedDataParallel):
            yield
        else:
            with wrapped.no_sync():
                yield

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self._cpu_group())
        return found

    def sum_gradients(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def _cpu_group(self) -> Any:
        if self.device.type == "cpu":
            return None
        if not hasattr(self, "_gloo"):
            self._gloo = dist.new_group(backend="gloo")
        return self._gloo


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

    @contextlib.contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield

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

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_state_dict(model, optimizer, options=whole)

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
        if device.type == "cuda" and value.device.type == "cpu":
            return value.pin_memory().to(device, non_blocking=True)
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    return [to_device(item, device) for item in value] if isinstance(value, list) else value
