"""Evaluation: every sample once, metrics merged exactly across processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tag_core.config import Recipe
from tag_core.engine.data import Coverage, Loader, plan_in_order
from tag_core.engine.distributed import Distribution
from tag_core.engine.session import predict_batches, records_of
from tag_core.errors import PluginError
from tag_core.records import Record


@dataclass
class Evaluation:
    """Scores (numbers by name), tables (anything else a metric computes), and the coverage."""

    scores: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    records: list[Record] = field(default_factory=list)


def evaluate(
    task: nn.Module,
    loader: Loader,
    recipe: Recipe,
    classes: Sequence[str],
    distribution: Distribution,
    *,
    keep_records: bool = False,
    progress: Callable[[int], None] = lambda samples: None,
    predict: Any = None,
) -> Evaluation:
    """Run the task over the loader's data set and compute the recipe's metrics.

    Each process takes every ``world``-th sample, none twice, so merged metrics are exact.
    """
    metrics = [spec.build(classes=list(classes)) for spec in recipe.metrics]
    loader.coverage = Coverage()
    mine = range(distribution.rank, len(loader.dataset), distribution.world)
    plan = plan_in_order(mine, recipe.eval.batch_size, recipe.train.seed)
    losses: list[tuple[float, int]] = []
    records: dict[int, list[Record]] = {}
    for read in predict_batches(task, loader, plan, distribution, recipe.eval.precision, predict):
        if read.indices:
            for metric in metrics:
                metric.update(read.outputs, read.batch)
            if "loss" in read.outputs:
                losses.append((float(read.outputs["loss"]), len(read.indices)))
        if keep_records:
            records.update(records_of(task, read, loader))
        progress(len(read.indices) + len(read.failures))
    return _merged(metrics, losses, loader.coverage, records, distribution)


def _merged(
    metrics: list[Any],
    losses: list[tuple[float, int]],
    coverage: Coverage,
    records: dict[int, list[Record]],
    distribution: Distribution,
) -> Evaluation:
    parts = distribution.gather((metrics, losses, coverage, records))
    merged: list[Any] = []
    losses, coverage, records = [], Coverage(), {}
    for other_metrics, other_losses, other_coverage, other_records in parts:
        if not merged:
            merged = other_metrics
        else:
            for metric, other in zip(merged, other_metrics, strict=True):
                metric.merge(other)
        losses += other_losses
        coverage.merge(other_coverage)
        records.update(other_records)
    result = Evaluation(coverage=coverage, records=[r for i in sorted(records) for r in records[i]])
    if count := sum(n for _, n in losses):
        result.scores["val_loss"] = sum(loss * n for loss, n in losses) / count
    for metric in merged:
        values = metric.compute()
        if not isinstance(values, Mapping):
            raise PluginError(f"metric {type(metric).__name__}: compute must give named values, not {values!r}")
        for name, value in values.items():
            (result.scores if isinstance(value, (int, float)) else result.tables)[name] = value
    return result


def better(name: str, scores: Mapping[str, float], best: float | None) -> bool:
    """Whether ``scores`` beats ``best``; a ``-`` in front of the name means smaller is better."""
    value = scores[name.lstrip("-")]
    if value != value:
        return False
    return best is None or (value < best if name.startswith("-") else value > best)
