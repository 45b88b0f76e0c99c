"""Every hook of Tag.

A plugin is a module named in the entry-point group ``tag.plugins``; the entry's name is the
namespace of everything it registers. Implement only the hooks you need, each marked with
``@tag_core.hookimpl``. Registration hooks return descriptions and must import nothing heavy;
event hooks may take any subset of their arguments.
"""

# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from tag_core.component import Command, Component, RecipeFile

if TYPE_CHECKING:
    from tag_core.engine.run import Run

hookspec = pluggy.HookspecMarker("tag")
hookimpl = pluggy.HookimplMarker("tag")


@hookspec
def tag_datasets() -> Iterable[Component]:
    """Data sets: map-style, picklable, opening files only when a sample is asked for.
    Example: ``return [Component("folder", "my_pkg.data:VideoFolder", "One folder per class")]``
    """


@hookspec
def tag_transforms() -> Iterable[Component]:
    """Transforms of samples: called with a tensor, return a tensor.
    Example: ``return [Component("resize", "my_pkg.transforms:Resize", "Resize the shorter side")]``
    """


@hookspec
def tag_backbones() -> Iterable[Component]:
    """Backbones: ``nn.Module`` with ``feature_dim``, from inputs to features [N, feature_dim].
    Example: ``return [Component("tsn", "my_pkg.tsn:TSN", "Temporal segments", paper="ECCV 2016")]``
    """


@hookspec
def tag_tasks() -> Iterable[Component]:
    """Tasks: ``nn.Module`` whose forward gives the loss and whose ``predict`` gives outputs.
    Example: ``return [Component("classification", "my_pkg.tasks:Classification", "One label a clip")]``
    """


@hookspec
def tag_losses() -> Iterable[Component]:
    """Losses: from (logits, targets) to the mean over the batch.
    Example: ``return [Component("poly", "my_pkg.losses:PolyLoss", "PolyLoss", paper="ICLR 2022")]``
    """


@hookspec
def tag_optimizers() -> Iterable[Component]:
    """Optimizers: functions of ``model`` and options that return a ``torch.optim.Optimizer``.
    Example: ``return [Component("lion", "my_pkg.optim:lion", "Lion", paper="arXiv 2302.06675")]``
    """


@hookspec
def tag_samplers() -> Iterable[Component]:
    """Samplers: from ``dataset``, ``batch_size``, ``seed``, ``processes`` and options to the batches of an epoch.
    Example: ``return [Component("balanced", "my_pkg.samplers:Balanced", "As many of each class")]``
    """


@hookspec
def tag_schedules() -> Iterable[Component]:
    """Schedules: from ``total_steps``, ``steps_per_epoch`` and options to a function step -> factor.
    Example: ``return [Component("cyclic", "my_pkg.schedules:Cyclic", "Triangular cycles")]``
    """


@hookspec
def tag_metrics() -> Iterable[Component]:
    """Metrics: ``update(outputs, batch)``, ``merge(other)``, ``compute()``, ``reset()``.
    Example: ``return [Component("gap", "my_pkg.metrics:GAP", "Global average precision")]``
    """


@hookspec
def tag_distributions() -> Iterable[Component]:
    """Distributions: where a run executes; subclasses of ``tag_core.engine.distributed.Distribution``.
    Example: ``return [Component("ray", "my_pkg.ray:Ray", "Many machines through Ray")]``
    """


@hookspec
def tag_indexes() -> Iterable[Component]:
    """Nearest-neighbour indexes over embeddings.
    Example: ``return [Component("hnsw", "my_pkg.index:HNSW", "Hierarchical navigable small world")]``
    """


@hookspec
def tag_sinks() -> Iterable[Component]:
    """Sinks: take ``path`` and options, ``write(record)`` and ``close()``.
    Example: ``return [Component("xml", "my_pkg.sinks:XML", "One XML element per record")]``
    """


@hookspec
def tag_recipes() -> Iterable[RecipeFile]:
    """Recipes that the package ships as TOML files.
    Example: ``return [RecipeFile("tsn", "my_pkg:recipes/tsn.toml", "TSN on folders of clips")]``
    """


@hookspec
def tag_commands() -> Iterable[Command]:
    """Sub-commands of ``tag-run``: click commands, imported when called.
    Example: ``return [Command("flow", "my_pkg.cli:flow", "Compute optical flow")]``
    """


@hookspec
def tag_run_started(run: Run) -> None:
    """A run begins, on rank 0; ``run`` knows its folder, recipe and kind (train, eval, predict).
    Example: ``def tag_run_started(run): print("writing to", run.folder, file=sys.stderr)``
    """


@hookspec
def tag_epoch_finished(run: Run, scores: Mapping[str, Any]) -> None:
    """A training epoch was trained and, where due, validated, on rank 0; ``scores`` is its row.
    Example: ``def tag_epoch_finished(scores): notify(scores["epoch"], scores.get("top1"))``
    """


@hookspec
def tag_run_finished(run: Run, outcome: str) -> None:
    """A run ended, on rank 0; ``outcome`` is ``done``, ``interrupted`` or ``failed``.
    Example: ``def tag_run_finished(run, outcome): upload(run.folder / "report.html")``
    """
