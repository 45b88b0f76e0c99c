"""Optimizers from ``torch.optim``, with parameter groups.

Build them from the bare model, before a wrapper (DDP, ``torch.compile``) changes the names of its parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tag_core.catalog import did_you_mean

_NO_FACTORS: dict[str, float] = {}


def sgd(
    model: nn.Module,
    lr: float = 0.01,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate.
        momentum: share of the last step that carries over.
        nesterov: look ahead along the momentum.
        weight_decay: L2 penalty.
        lr_factors: part of the model -> factor on the learning rate, as in {backbone = 0.1}; 0 freezes it.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias)
    return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=nesterov)


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).

    Args:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        weight_decay: share of a weight, times the learning rate, taken off at each step.
        lr_factors: part of the model -> factor on the learning rate, as in {backbone = 0.1}; 0 freezes it.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias)
    return torch.optim.AdamW(groups, lr, betas=betas)


def adam(
    model: nn.Module,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    amsgrad: bool = False,
    weight_decay: float = 0.0,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, ICLR 2015).

    Args:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        amsgrad: divide by the largest of the running means of the square so far (Reddi et al., ICLR 2018).
        weight_decay: L2 penalty.
        lr_factors: part of the model -> factor on the learning rate, as in {backbone = 0.1}; 0 freezes it.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias)
    return torch.optim.Adam(groups, lr, betas=betas, amsgrad=amsgrad)


def rmsprop(
    model: nn.Module,
    lr: float = 1e-3,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
) -> torch.optim.Optimizer:
    """RMSprop (Tieleman & Hinton, 2012).

    Args:
        lr: learning rate.
        alpha: decay of the running mean of the squared gradient.
        eps: added to the denominator.
        momentum: share of the last step that carries over.
        centered: divide by the gradient's standard deviation (Graves, 2013), not its second moment.
        weight_decay: L2 penalty.
        lr_factors: part of the model -> factor on the learning rate, as in {backbone = 0.1}; 0 freezes it.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias)
    return torch.optim.RMSprop(groups, lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered)


def groups_of(
    model: nn.Module, lr: float, weight_decay: float, lr_factors: dict[str, float], decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """Every parameter that trains in exactly one group; the rest of the model is frozen.

    ``lr_factors`` names parts as ``named_modules`` and ``named_parameters`` do, and the longest name decides.
    A frozen part keeps its batch-norm statistics and its dropout stays off: a hook, copied and pickled with
    the model, puts each of its modules back into eval mode just before it runs. The engine sets a group's
    ``lr`` to its ``initial_lr`` times the schedule's factor.

    Raises:
        ValueError: there is no such part, or nothing is left to train.
    """
    parts = [name for name, _ in (*model.named_modules(), *model.named_parameters())]
    for part in lr_factors:
        if part not in parts:
            hint = did_you_mean(part, parts) or f"; its parts are {', '.join(dict(model.named_children()))}"
            raise ValueError(f"the model has no part {part!r}{hint}")

    def part_of(name: str) -> str:
        return max((part for part in lr_factors if f"{name}.".startswith(f"{part}.")), key=len, default="")

    for name, module in model.named_modules():
        if lr_factors.get(part_of(name)) == 0:
            module.register_forward_pre_hook(_stay_in_eval)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        factor = lr_factors.get(part, 1.0)
        parameter.requires_grad_(parameter.requires_grad and factor != 0)
        if not parameter.requires_grad:
            continue
        group_name, decay = part or "rest", weight_decay
        if parameter.ndim <= 1 and not decay_norm_and_bias:
            group_name, decay = f"{group_name}, no decay", 0.0
        group = {"name": group_name, "params": [], "weight_decay": decay, "lr": lr * factor, "initial_lr": lr * factor}
        groups.setdefault(group_name, group)["params"].append(parameter)
    if not groups:
        raise ValueError("every parameter of the model is frozen; nothing is left to train")
    return list(groups.values())


def _stay_in_eval(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    module.training = False
