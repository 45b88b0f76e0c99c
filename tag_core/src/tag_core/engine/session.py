"""What evaluation and prediction share: a task with its weights, and batches through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tag_core.config import Recipe, Spec
from tag_core.engine.data import Item, Loader, collate, same_shapes
from tag_core.engine.distributed import Distribution, to_device
from tag_core.engine.pool import Failure
from tag_core.engine.run import log
from tag_core.engine.weights import Weights, fit, load_weights, read_weights
from tag_core.errors import WeightsError
from tag_core.kinds import Batch, Outputs
from tag_core.records import Record


@dataclass
class Read:
    """One batch after the model: outputs for its samples, failures for the rest."""

    indices: list[int]
    batch: Batch
    outputs: Outputs
    failures: dict[int, Failure]


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The arithmetic of ``precision`` on this device; fp16 needs a GPU."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" or device.type == "cpu" else torch.float16
    return torch.autocast(device.type, dtype)


def channels_last(model: nn.Module) -> None:
    """Convolution weights in channels-last order; inputs follow inside the convolutions."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def task_with_weights(recipe: Recipe, distribution: Distribution) -> tuple[nn.Module, list[str]]:
    """The recipe's task, its weights loaded strictly, in evaluation mode; and its class names.

    Raises:
        WeightsError: the recipe names no weights, or they do not fit.
    """
    if not recipe.weights:
        raise WeightsError(f"{recipe.name}: no weights; add weights=FILE (such as runs/NAME/checkpoints/best.pt)")
    backbone = recipe.task.options.get("backbone")
    backbone_class = backbone.target if isinstance(backbone, Spec) else None
    weights = read_weights(recipe.weights, recipe.task.target, backbone_class)
    classes = weights.classes or _guess_classes(recipe, weights, backbone_class)
    torch.manual_seed(recipe.train.seed)
    task: Any = recipe.task.build(classes=classes)
    log.info("weights %s: %s", recipe.weights, load_weights(weights, task, strict=True))
    task.to(distribution.device).eval()
    if recipe.eval.channels_last:
        channels_last(task)
    if recipe.eval.compile:
        task.predict = torch.compile(task.predict)
    return task, classes


def _guess_classes(recipe: Recipe, weights: Weights, backbone_class: Any) -> list[str]:
    """Names for a foreign state dict: of published weights with as many classes, else numbers."""
    probe = recipe.task.build(classes=["0"])
    state, _ = fit(weights, probe)
    head = state.get("head.weight")
    count = int(head.shape[0]) if head is not None else 1
    for entry in (getattr(backbone_class, "published_weights", None) or {}).values():
        if len(entry.classes) == count:
            return list(entry.classes)
    return [str(number) for number in range(count)]


def predict_batches(
    task: nn.Module,
    loader: Loader,
    plan: Iterable[Sequence[Item]],
    distribution: Distribution,
    precision: str = "fp32",
    predict: Any = None,
) -> Iterator[Read]:
    """Read the planned batches and run the task on each, in order."""
    predict = predict or task.predict
    for loaded in loader.read(plan):
        if not loaded.samples:
            yield Read([], {}, {}, loaded.failures)
        failures = loaded.failures
        for samples, indices in same_shapes(loaded):
            batch = to_device(collate(samples), distribution.device)
            with torch.no_grad(), autocast(precision, distribution.device):
                outputs = predict(batch)
            yield Read(indices, batch, outputs, failures)
            failures = {}


def records_of(task: Any, read: Read, loader: Loader) -> dict[int, list[Record]]:
    """Index in the data set -> its records: results, or why there are none."""
    found: dict[int, list[Record]] = {index: [] for index in read.indices}
    by_source = {loader.dataset.key(index): index for index in read.indices}
    if read.indices:
        for record in task.records(read.outputs, read.batch):
            found[by_source[record.source]].append(record)
    for index, failure in read.failures.items():
        found[index] = [Record(source=loader.dataset.key(index), error=failure.reason)]
    return found
