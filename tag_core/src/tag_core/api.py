"""The verbs of ``tag-run`` for Python: train, evaluate, predict, load."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tag_core.catalog import catalog
from tag_core.config import Recipe, Spec, resolve
from tag_core.engine.data import Coverage, Loader, datasets
from tag_core.engine.distributed import Distribution
from tag_core.engine.evaluate import Evaluation
from tag_core.engine.evaluate import evaluate as evaluate_task
from tag_core.engine.predict import Predictor
from tag_core.engine.progress import Progress
from tag_core.engine.run import Run, default_folder, log
from tag_core.engine.session import task_with_weights
from tag_core.engine.train import Trained
from tag_core.engine.train import train as train_recipe
from tag_core.errors import UnknownName
from tag_core.files import atomic, write_json
from tag_core.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, expand_inputs
from tag_core.records import Record
from tag_core.typed import signature

RecipeLike = str | Path | Mapping[str, Any]


def load(name: str, kind: str | None = None, **options: Any) -> Any:
    """Build a component by name.

    Args:
        name: ``video/s3d``, or ``s3d`` where that is unique.
        kind: backbone, loss, ...; needed only where several kinds share the name.
        options: values for its signature, checked as in a recipe.

    Raises:
        UnknownName: nothing, or several kinds, under that name.
        ConfigError: with every option that is wrong.
    """
    from tag_core.config import build_component

    kinds = [kind] if kind else [entry.kind for entry in catalog().find(name) if entry.kind != "recipe"]
    if len(kinds) != 1:
        found = ", ".join(kinds) or "only a recipe; use tag_core.train, evaluate or predict"
        raise UnknownName(f"{name!r} is {found}; pass kind=")
    return build_component(kinds[0], name, options)


def train(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
) -> Trained:
    """Train a recipe; see :func:`tag_core.engine.train.train`.

    Args:
        recipe: a name, a TOML file, a run folder, or the tables themselves.
        overrides: ``key=value`` each.
        out: the run folder; a new one under ``runs/`` by default, the run itself for a run folder.
    """
    resolved = resolve(recipe, overrides, needs=("data.train", "optimizer"))
    is_run = isinstance(recipe, (str, Path)) and Path(recipe).is_dir()
    folder = Path(out) if out else Path(str(recipe)) if is_run else default_folder("train", resolved.name)
    with started(resolved) as distribution:
        trained = train_recipe(resolved, folder, distribution, resume=resume, strict=strict)
        if best := distribution.gather(trained.best)[0]:
            _score_best(replace(resolved, weights=str(best)), folder, distribution)
        if distribution.is_main:
            _write_report(folder)
    return trained


def evaluate(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, out: str | Path | None = None, strict: bool = False
) -> Evaluation:
    """Score weights on the recipe's test data, and write predictions, scores and report to ``out``.

    Raises:
        WeightsError: no weights, or they do not fit.
        UnreadableInput: with ``strict``, the first input that cannot be read.
    """
    resolved = resolve(recipe, [*_run_weights(recipe), *overrides], needs=())
    folder = Path(out) if out else default_folder("eval", resolved.name)
    with started(resolved) as distribution:
        task, classes = task_with_weights(resolved, distribution)
        dataset = datasets(_with_classes(resolved, classes), ("test",))["test"]
        with Run(folder, "eval", resolved, distribution.is_main):
            result = _evaluate(task, dataset, resolved, classes, distribution, strict)
            if distribution.is_main:
                write_evaluation(folder, result, classes)
                _write_report(folder)
    return result


def predict(
    recipe: RecipeLike,
    inputs: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
) -> Iterator[Record]:
    """Yield a record for each input (files, folders, patterns); unreadable ones carry ``error``.

    Raises:
        WeightsError: no weights, or they do not fit.
        UnreadableInput: with ``strict``, the first input that cannot be read.
    """
    resolved = resolve(recipe, [*_run_weights(recipe), *overrides], needs=())
    paths = list_inputs(resolved, inputs)
    with (
        started(resolved) as distribution,
        contextlib.closing(Predictor(resolved, paths, distribution, strict)) as predictor,
    ):
        for records in predictor.records(range(distribution.rank, len(paths), distribution.world)):
            yield from records


def predict_to_folder(
    recipe: RecipeLike,
    inputs: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    *,
    out: str | Path,
    strict: bool = False,
    visualize: bool = False,
) -> Coverage:
    """Write ``predictions.jsonl`` (and what the recipe's sinks say) into ``out``, resumable.

    Raises:
        RunFolderError: the folder holds other predictions.
        UnreadableInput: with ``strict``, the first input that cannot be read; finished shards stay.
    """
    resolved = resolve(recipe, [*_run_weights(recipe), *overrides], needs=())
    paths, folder = list_inputs(resolved, inputs), Path(out)
    with (
        started(resolved) as distribution,
        contextlib.closing(Predictor(resolved, paths, distribution, strict)) as predictor,
        Run(folder, "predict", resolved, distribution.is_main),
    ):
        with Progress("predict", len(paths), main=distribution.is_main) as bar:
            coverage = predictor.to_folder(folder, bar.advance)
        if distribution.is_main:
            for spec in resolved.sinks:
                _export(spec, folder)
            if visualize:
                from tag_core.report import draw_records

                draw_records(folder)
            _write_report(folder)
    return coverage


def check(recipe: RecipeLike, overrides: Sequence[str] = ()) -> tuple[list[str], int]:
    """Resolve, build, and run two batches forward and backward in a scratch folder.

    Returns:
        Lines that say what was found, and the number of unreadable inputs met.
    """
    import tempfile
    from itertools import islice

    from tag_core.engine.data import epoch_plan
    from tag_core.engine.train import Trainer

    resolved = resolve(recipe, overrides)
    with started(resolved) as distribution, tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(resolved, Run(Path(scratch), "train", resolved, main=False), distribution, None)
        try:
            train_set = trainer.data["train"]
            parameters = sum(p.numel() for p in trainer.task.parameters())
            lines = [f"{spec.entry.kind} {spec.entry.name} ({spec.entry.plugin.origin})" for spec in resolved.specs()]
            lines += [f"{name}: {len(part)} samples" for name, part in trainer.data.items()]
            lines.append(f"{len(trainer.classes)} classes, {parameters:,} parameters on {distribution.device}")
            plan = epoch_plan(len(train_set), resolved.train.batch_size, resolved.train.seed, 0, shuffle=True)
            for loaded in islice(trainer.loader.read(plan[:2]), 2):
                trainer.step([loaded.samples])
                loss = float(trainer.loss_sums[0]) / max(trainer.position.loss_count, 1)
                lines.append(f"batch of {len(loaded.samples)}: mean loss so far {loss:.4f}")
            return [*lines, str(trainer.loader.coverage)], len(trainer.loader.coverage.unreadable)
        finally:
            trainer.close()


def _export(spec: Spec, folder: Path) -> None:
    """Write the folder's predictions through one sink."""
    from tag_core.records import read_records

    name = spec.entry.name.rpartition("/")[2]
    sink = spec.build(path=folder / f"predictions.{getattr(spec.target, 'suffix', name)}")
    for record in read_records(folder / "predictions.jsonl"):
        sink.write(record)
    sink.close()


def list_inputs(recipe: Recipe, inputs: str | Path | Sequence[str | Path]) -> list[str]:
    """Files of these inputs: as given, of folders those with the data set's suffixes."""
    listed = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    spec = recipe.data.get("test")
    paths = [str(item) for item in listed]
    expand = getattr(spec.target, "expand", None) if spec else None
    return list(expand(paths)) if expand else expand_inputs(paths, VIDEO_SUFFIXES | IMAGE_SUFFIXES)


@contextlib.contextmanager
def started(recipe: Recipe) -> Iterator[Distribution]:
    """The recipe's distribution, joined and left again."""
    distribution: Distribution = recipe.distribution.build()
    distribution.start()
    threads = torch.get_num_threads()
    if distribution.device.type == "cpu" and not recipe.distribution.options.get("threads"):
        # Reading workers and the model's threads would fight for the cores, at twice the CPU time.
        torch.set_num_threads(max(1, threads - max(recipe.train.workers, recipe.eval.workers)))
    if not distribution.is_main:
        logging.getLogger("tag").setLevel(logging.WARNING)
    try:
        yield distribution
    finally:
        distribution.stop()
        torch.set_num_threads(threads)


def write_evaluation(folder: Path, result: Evaluation, classes: Sequence[str]) -> None:
    """``predictions.jsonl`` and ``metrics.json`` of an evaluation."""
    with atomic(folder / "predictions.jsonl") as file:
        file.writelines(f"{record.to_json()}\n" for record in result.records)
    coverage = {
        "total": result.coverage.total,
        "unreadable": result.coverage.unreadable,
        "damaged": result.coverage.damaged,
    }
    tables = {"scores": result.scores, "tables": result.tables, "classes": list(classes), "coverage": coverage}
    write_json(folder / "metrics.json", tables)


def _score_best(recipe: Recipe, folder: Path, distribution: Distribution) -> None:
    """Score the best checkpoint on the validation data: its predictions and tables, for the report."""
    task, classes = task_with_weights(recipe, distribution)
    dataset = datasets(recipe, ("train", "val"))["val"]
    result = _evaluate(task, dataset, recipe, classes, distribution)
    if distribution.is_main:
        write_evaluation(folder, result, classes)


def _evaluate(
    task: nn.Module, dataset: Any, recipe: Recipe, classes: list[str], distribution: Distribution, strict: bool = False
) -> Evaluation:
    """Scores and records of the whole data set."""
    loader = Loader(dataset, recipe.eval.workers, timeout=recipe.eval.timeout, strict=strict)
    with contextlib.closing(loader), Progress("eval", len(dataset), main=distribution.is_main) as bar:
        return evaluate_task(task, loader, recipe, classes, distribution, keep_records=True, progress=bar.advance)


def _write_report(folder: Path) -> None:
    """The report comes last: a fault in it must not cost a finished run its result."""
    try:
        from tag_core.report import write_report

        write_report(folder)
    except Exception:
        log.exception("%s/report.html could not be written; the other files are complete", folder)


def _with_classes(recipe: Recipe, classes: list[str]) -> Recipe:
    """Test data that number their labels as the weights do."""
    data: dict[str, Spec] = {}
    for name, spec in recipe.data.items():
        fits = "classes" in signature(spec.target) and not spec.options.get("classes")
        data[name] = spec.with_options(classes=classes) if fits else spec
    return replace(recipe, data=data)


def _run_weights(recipe: RecipeLike) -> list[str]:
    """A run folder stands for its own best weights."""
    if isinstance(recipe, Mapping):
        return []
    found = [Path(recipe) / "checkpoints" / f"{name}.pt" for name in ("best", "last")]
    return [f"weights={path}" for path in found if path.is_file()][:1]
