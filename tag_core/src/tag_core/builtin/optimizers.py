"""Optimizers from ``torch.optim``, with parameter groups.

Prefixes of parameter names end at a dot: ``backbone.layer1`` is not ``backbone.layer10``. Build the
optimizer from the bare model, before a wrapper (DDP, ``torch.compile``) changes its names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # every batch and instance norm

from tag_core.catalog import did_you_mean

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_NO_NAMES: list[str] = []
_NO_FACTORS: dict[str, float] = {}


def sgd(
    model: nn.Module,
    lr: float = 0.01,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
    frozen: list[str] = _NO_NAMES,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate.
        momentum: share of the last step that carries over.
        nesterov: look ahead along the momentum.
        weight_decay: L2 penalty.
        lr_factors: prefix of parameter names -> factor on the learning rate, as in {backbone = 0.1};
            the longest decides.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
        frozen: prefixes of the parts of the model that stay as they are.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias, frozen)
    return torch.optim.SGD(groups, lr, momentum=momentum, nesterov=nesterov)


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
    frozen: list[str] = _NO_NAMES,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).

    Args:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: share of a weight, times the learning rate, taken off at each step.
        lr_factors: prefix of parameter names -> factor on the learning rate, as in {backbone = 0.1};
            the longest decides.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
        frozen: prefixes of the parts of the model that stay as they are.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias, frozen)
    return torch.optim.AdamW(groups, lr, betas=betas, eps=eps)


def adam(
    model: nn.Module,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
    frozen: list[str] = _NO_NAMES,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, ICLR 2015).

    Args:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: L2 penalty.
        lr_factors: prefix of parameter names -> factor on the learning rate, as in {backbone = 0.1};
            the longest decides.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
        frozen: prefixes of the parts of the model that stay as they are.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias, frozen)
    return torch.optim.Adam(groups, lr, betas=betas, eps=eps)


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
    frozen: list[str] = _NO_NAMES,
) -> torch.optim.Optimizer:
    """RMSprop (Tieleman & Hinton, 2012).

    Args:
        lr: learning rate.
        alpha: decay of the running mean of the squared gradient.
        eps: added to the denominator, after the square root.
        momentum: share of the last step that carries over.
        centered: divide by the standard deviation of the gradient (Graves, 2013), not its second moment.
        weight_decay: L2 penalty.
        lr_factors: prefix of parameter names -> factor on the learning rate, as in {backbone = 0.1};
            the longest decides.
        decay_norm_and_bias: decay norm layers, biases and other vectors too.
        frozen: prefixes of the parts of the model that stay as they are.
    """
    groups = groups_of(model, lr, weight_decay, lr_factors, decay_norm_and_bias, frozen)
    return torch.optim.RMSprop(groups, lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered)


def groups_of(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    lr_factors: dict[str, float] = _NO_FACTORS,
    decay_norm_and_bias: bool = False,
    frozen: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Freeze what is frozen and put every other parameter into exactly one group.

    A group has ``name``, ``params``, ``weight_decay``, ``lr`` and ``initial_lr``; the engine sets
    ``lr`` to ``initial_lr`` times the schedule's factor.

    Raises:
        ValueError: a prefix names nothing, or nothing is left to train.
    """
    freeze(model, frozen)
    for prefix in lr_factors:
        _check_prefix(model, prefix)
    vectors = set() if decay_norm_and_bias else set(_norms_and_vectors(model))
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        prefix = max((p for p in lr_factors if _under(name, p)), key=len, default="")
        group_name, decay = prefix or "rest", weight_decay
        if name in vectors:
            group_name, decay = f"{group_name}, no decay", 0.0
        rate = lr * lr_factors.get(prefix, 1.0)
        group = {"name": group_name, "params": [], "lr": rate, "initial_lr": rate, "weight_decay": decay}
        groups.setdefault(group_name, group)["params"].append(parameter)
    if not groups:
        raise ValueError("every parameter of the model is frozen; nothing is left to train")
    return list(groups.values())


def freeze(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Stop training everything under these name prefixes, batch-norm statistics and dropout included.

    A forward hook puts each module back into eval mode just before it runs, so ``model.train()`` may be
    called as usual. It is a plain function: copied and pickled with the model, unknown to its state dict.

    Raises:
        ValueError: a prefix names no parameter, with the nearest names.
    """
    for prefix in prefixes:
        _check_prefix(model, prefix)
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if _under(name, prefix):
                parameter.requires_grad_(False)
        for name, module in model.named_modules(remove_duplicate=False):
            if _under(name, prefix) and _stay_in_eval not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_stay_in_eval)


def _stay_in_eval(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    module.training = False


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _check_prefix(model: nn.Module, prefix: str) -> None:
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if any(_under(name, prefix) for name in names):
        return
    parts = {".".join(name.split(".")[:n]): None for name in names for n in range(1, name.count(".") + 2)}
    hint = did_you_mean(prefix, parts) or f"; its parts are {', '.join(p for p in parts if '.' not in p)}"
    raise ValueError(f"no parameter of the model is under {prefix!r}{hint}")


def _norms_and_vectors(model: nn.Module) -> Iterable[str]:
    """Names of the parameters that weight decay usually leaves alone."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, _NORMS) or parameter.ndim <= 1 or name.endswith("bias"):
                yield f"{path}.{name}" if path else name
