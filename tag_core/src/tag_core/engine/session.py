"""What evaluation and prediction share: a task with its weights, and batches through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tag_core.config import Recipe, Spec
from tag_core.engine.data import Item, Loader, collate, file_of, same_shapes
from tag_core.engine.distributed import Distribution, to_device
from tag_core.engine.onnx import task_with_graph
from tag_core.engine.pool import Failure
from tag_core.engine.run import log
from tag_core.engine.weights import Weights, fit, load_weights, published, read_weights
from tag_core.errors import ConfigError, UserError, WeightsError
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


def channels_last(model: nn.Module, wanted: bool | Literal["auto"], device: torch.device) -> None:
    """Convolution weights in channels-last order, where wanted; inputs follow inside the convolutions."""
    if not wanted or (wanted == "auto" and device.type != "cpu"):
        return
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def task_with_weights(recipe: Recipe, distribution: Distribution) -> tuple[nn.Module, list[str]]:
    """The recipe's task, its weights loaded strictly, in evaluation mode; and its class names.

    Weights that end in ``.onnx`` are a graph that predicts in the task's place.

    Raises:
        WeightsError: the recipe names no weights, or they do not fit the task or each other.
    """
    if isinstance(recipe.weights, str) and recipe.weights.endswith(".onnx"):
        return task_with_graph(recipe, recipe.weights, distribution.device)
    parts = weighted_parts(recipe)
    if lacking := [f"weights.{name}".rstrip(".") + "=FILE" for name, (_, source) in parts.items() if not source]:
        names = [name for spec, _ in parts.values() for name in published(spec.target, _backbone_class(spec))]
        known = f", or a published name: {', '.join(names)}" if names else ""
        add = f"add {' '.join(lacking)} (such as runs/NAME/checkpoints/best.pt){known}"
        raise WeightsError(f"{recipe.name}: no weights; {add}")
    found = {name: weights_for(spec, source) for name, (spec, source) in parts.items()}
    first = next(iter(parts))
    classes = _common_classes(list(found.values())) or _guess_classes(parts[first][0], found[first])
    torch.manual_seed(recipe.train.seed)
    task: Any = recipe.task.build(classes=classes)
    for name, weights in found.items():
        report = load_weights(weights, task.get_submodule(name), strict=True, spare=("head.",) if recipe.output else ())
        log.info("weights %s: %s", parts[name][1], report)
    task.to(distribution.device).eval()
    if hasattr(task, "fuse"):
        task.fuse()
    channels_last(task, recipe.eval.channels_last, distribution.device)
    if recipe.eval.compile:
        task.predict = torch.compile(task.predict)
    return task, classes


def weighted_parts(recipe: Recipe) -> dict[str, tuple[Spec, str]]:
    """Part of the task ('' is all of it) -> its component, and where its weights are.

    Raises:
        ConfigError: the recipe gives weights to a part that the task does not have.
    """
    parts = {n: spec for n, spec in recipe.task.options.items() if isinstance(spec, Spec) and spec.entry.kind == "task"}
    given = recipe.weights or {}
    if isinstance(given, str):
        return {"": (recipe.task, given)}
    if not (given or parts):
        return {"": (recipe.task, "")}
    if unknown := [f"weights.{n}: {recipe.task.entry.name} has no such part" for n in given if n not in parts]:
        raise ConfigError(recipe.name, unknown)
    return {name: (spec, given.get(name, "")) for name, spec in parts.items()}


def weights_for(spec: Spec, source: str) -> Weights:
    """Weights for a task; published names are those of the task and its backbone."""
    return read_weights(source, spec.target, _backbone_class(spec))


def _backbone_class(task: Spec) -> Any:
    backbone = task.options.get("backbone")
    return backbone.target if isinstance(backbone, Spec) else None


def _common_classes(found: Sequence[Weights]) -> list[str]:
    """Those of the weights that know theirs.

    Raises:
        WeightsError: two of them differ.
    """
    named = [(weights.source, weights.classes) for weights in found if weights.classes]
    for source, classes in named[1:]:
        first, others = named[0]
        if classes != others:
            pairs = zip(others, classes, strict=False)
            differ = next(((a, b) for a, b in pairs if a != b), (f"{len(others)} classes", str(len(classes))))
            told = f"{differ[0]} in the one, {differ[1]} in the other"
            raise WeightsError(f"weights {first} and {source} have different classes: {told}")
    return named[0][1] if named else []


def _guess_classes(spec: Spec, weights: Weights) -> list[str]:
    """Names for a foreign state dict: of published weights with as many classes, else numbers."""
    probe = spec.build(classes=["0"])
    state, _ = fit(weights, probe)
    head = state.get("head.weight")
    count = int(head.shape[0]) if head is not None else 1
    for entry in (getattr(_backbone_class(spec), "published_weights", None) or {}).values():
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


def records_of(task: Any, read: Read, loader: Loader, output: str = "") -> dict[int, list[Record]]:
    """Index in the data set -> its records: results, or why there are none.

    Raises:
        UserError: ``output`` is 'embedding', and the task gives none.
    """
    found: dict[int, list[Record]] = {index: [] for index in read.indices}
    by_source = {loader.dataset.key(index): index for index in read.indices}
    if read.indices:
        for record in _embeddings(task, read) if output else task.records(read.outputs, read.batch):
            index = by_source[record.source]
            record.source = file_of(loader.dataset, index)
            found[index].append(record)
    for index, failure in read.failures.items():
        found[index] = [Record(source=file_of(loader.dataset, index), error=failure.reason)]
    return found


def _embeddings(task: Any, read: Read) -> Iterator[Record]:
    """A record per sample: its feature vector in place of what the task finds."""
    if "embedding" not in read.outputs:
        gives = ", ".join(read.outputs)
        raise UserError(f"output=embedding: {type(task).__name__} gives no embedding ({gives}); leave the option out")
    rows = dict(zip(read.batch["source"], read.outputs["embedding"].float().tolist(), strict=True))
    for found in task.records(read.outputs, read.batch):
        if found.source in rows:
            known = {name: getattr(found, name) for name in ("frame", "time", "boxes", "truth", "damage")}
            yield Record(source=found.source, embedding=rows.pop(found.source), **known)
