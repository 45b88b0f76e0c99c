"""The verbs of ``tag-run`` for Python: train, evaluate, predict, export, load."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import logging
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from tag_core.catalog import catalog
from tag_core.config import Recipe, Spec, build_component, resolve
from tag_core.engine.data import Coverage, Loader, datasets, epoch_plan
from tag_core.engine.distributed import Distribution
from tag_core.engine.evaluate import Evaluation
from tag_core.engine.evaluate import evaluate as evaluate_task
from tag_core.engine.export import Exported, Format, needs
from tag_core.engine.export import export as export_task
from tag_core.engine.predict import Predictor, describe_model, fingerprint
from tag_core.engine.progress import Progress
from tag_core.engine.run import Run, check_folder, default_folder, log
from tag_core.engine.session import task_with_weights
from tag_core.engine.train import Trained, Trainer
from tag_core.engine.train import train as train_recipe
from tag_core.engine.weights import weights_of_run
from tag_core.errors import ConfigError, UnknownName, UserError
from tag_core.files import atomic, write_json
from tag_core.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, expand_inputs
from tag_core.records import MIN_SCORE, Record, read_records

RecipeLike = str | Path | Mapping[str, Any]
Inputs = str | Path | Sequence[str | Path]


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
    resolved = resolve(recipe, overrides)
    is_run = isinstance(recipe, (str, Path)) and Path(recipe).is_dir()
    folder = Path(out) if out else Path(str(recipe)) if is_run else default_folder("train", resolved.name)
    check_folder(folder, "train")

    def finish(trained: Trained) -> None:
        if best := distribution.gather(trained.best)[0]:
            _score(replace(resolved, weights=str(best)), "val", folder, distribution)
        elif distribution.is_main:
            _write_report(folder)

    with started(resolved) as distribution:
        return train_recipe(resolved, folder, distribution, resume=resume, strict=strict, finish=finish)


def evaluate(
    recipe: RecipeLike, overrides: Sequence[str] = (), *, out: str | Path | None = None, strict: bool = False
) -> Evaluation:
    """Score weights on the recipe's test data, and write predictions, scores and report to ``out``.

    Raises:
        WeightsError: no weights, or they do not fit.
        UnreadableInput: with ``strict``, the first input that cannot be read.
    """
    resolved = resolve_with_weights(recipe, overrides)
    if resolved.output:
        raise ConfigError(
            resolved.name, ["output: metrics score what the task finds; output is for predict and export"]
        )
    folder = Path(out) if out else default_folder("eval", resolved.name)
    check_folder(folder, "eval")
    with started(resolved) as distribution:
        run = Run(folder, "eval", resolved, distribution.is_main)
        return _score(resolved, "test", folder, distribution, run, strict)


def predict(
    recipe: RecipeLike,
    inputs: Inputs,
    overrides: Sequence[str] = (),
    *,
    strict: bool = False,
    crops: str | Path | None = None,
    min_score: float = MIN_SCORE,
) -> Iterator[Record]:
    """Yield a record for each input (files, folders, patterns); unreadable ones carry ``error``.

    Args:
        crops: folder for what the boxes hold that score at least ``min_score``.

    Raises:
        WeightsError: no weights, or they do not fit.
        UnreadableInput: with ``strict``, the first input that cannot be read.
    """
    with predictor_for(recipe, inputs, overrides, strict) as predictor:
        distribution = predictor.distribution
        mine = range(distribution.rank, len(predictor.inputs), distribution.world)
        yield from _cropped(chain.from_iterable(predictor.records(mine)), predictor, crops, min_score)


def predict_to_folder(
    recipe: RecipeLike,
    inputs: Inputs,
    overrides: Sequence[str] = (),
    *,
    out: str | Path,
    strict: bool = False,
    visualize: bool = False,
    crops: str | Path | None = None,
    min_score: float = MIN_SCORE,
) -> Coverage:
    """Write ``predictions.jsonl`` (and what the recipe's sinks say) into ``out``, resumable.

    Args:
        visualize: also draw them, into ``out/pictures``.
        crops: folder for what the boxes hold.
        min_score: boxes that score less are neither drawn nor cropped.

    Raises:
        RunFolderError: the folder holds other predictions.
        UnreadableInput: with ``strict``, the first input that cannot be read; finished shards stay.
    """
    folder = Path(out)
    check_folder(folder, "predict")
    with predictor_for(recipe, inputs, overrides, strict) as predictor:
        resolved, is_main = predictor.recipe, predictor.distribution.is_main
        predictor.claim(folder)
        with Run(folder, "predict", resolved, is_main):
            with Progress("predict", len(predictor.inputs), main=is_main) as bar:
                coverage = predictor.to_folder(folder, bar.advance)
            if is_main:
                for spec in resolved.sinks:
                    _export(spec, folder)
                if visualize:
                    from tag_core.report import draw_records

                    draw_records(folder, min_score)
                if crops:
                    records = read_records(folder / "predictions.jsonl")
                    deque(_cropped(records, predictor, crops, min_score), 0)
                _write_report(folder)
    return coverage


def _cropped(
    records: Iterable[Record], predictor: Predictor, crops: str | Path | None, min_score: float
) -> Iterable[Record]:
    """The records, whose crops are written as they pass."""
    if crops is None:
        return records
    from tag_core.report.crops import rectangles, with_crops

    return with_crops(records, Path(crops), getattr(predictor.task, "crops", rectangles), min_score)


def export(
    recipe: RecipeLike,
    inputs: Inputs = (),
    overrides: Sequence[str] = (),
    *,
    out: str | Path,
    file_format: Format = "onnx",
    tolerance: float = 1e-3,
) -> Exported:
    """Write the task's ``predict`` as a graph; see :func:`tag_core.engine.export.export`.

    Args:
        inputs: a file to trace the graph with, read as ``data.test`` says; by default what the data set makes up.

    Raises:
        UserError: a library is missing, or the data set makes up no example.
        WeightsError: no weights, or they do not fit.
        UnreadableInput: the file cannot be read.
    """
    needs(file_format)
    plain = ["distribution=core/cpu", "eval.compile=false", "eval.channels_last=false", "eval.workers=0"]
    with predictor_for(recipe, inputs, [*overrides, *plain], strict=True) as predictor:
        resolved, dataset = predictor.recipe, predictor.loader.dataset
        if predictor.inputs:
            sample = dataset[0]
        elif example := getattr(dataset, "example", None):
            sample = example()
        else:
            raise UserError(f"{resolved.data['test'].entry.name} makes up no example; name an INPUT to trace with")
        tables = resolved.to_dict()
        about = {
            "recipe": resolved.name,
            "task": tables["task"],
            "reads": (inspect.getdoc(type(predictor.task)) or "").partition("\nArgs:")[0].strip(),
            "preparation": {key: value for key, value in tables["data"]["test"].items() if key != "source"},
            "classes": predictor.classes,
        }
        options: dict[str, Any] = {"output": resolved.output, "file_format": file_format, "tolerance": tolerance}
        return export_task(predictor.task, sample, Path(out), about, **options)


def check(recipe: RecipeLike, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Coverage]:
    """Resolve, build, and run two batches forward and backward in a scratch folder.

    Returns:
        What was found: components and where they come from, sizes, losses; and the coverage of the two batches.
    """
    resolved = resolve(recipe, overrides)
    with started(resolved) as distribution, tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(resolved, Run(Path(scratch), "train", resolved, main=False), distribution, None)
        with contextlib.closing(trainer):
            found: dict[str, Any] = {f"{s.entry.kind} {s.entry.name}": s.entry.plugin.origin for s in resolved.specs()}
            found |= {f"{name} samples": len(part) for name, part in trainer.data.items()}
            found["classes"] = len(trainer.classes)
            found["parameters"] = sum(p.numel() for p in trainer.task.parameters())
            found["device"] = str(distribution.device)
            samples, options = len(trainer.data["train"]), resolved.train
            plan = epoch_plan(samples, options.batch_size, options.seed, 0, shuffle=True)
            for number, loaded in enumerate(islice(trainer.loader.read(plan[:2]), 2), 1):
                trainer.step([loaded.samples])
                total, samples_read = trainer.losses[0].tolist()
                found[f"mean loss after step {number}"] = total / max(samples_read, 1)
            return found, trainer.loader.coverage


def _export(spec: Spec, folder: Path) -> None:
    """Write the folder's predictions through one sink."""
    name = spec.entry.name.rpartition("/")[2]
    sink = spec.build(path=folder / f"predictions.{getattr(spec.target, 'suffix', name)}")
    for record in read_records(folder / "predictions.jsonl"):
        sink.write(record)
    sink.close()


@contextlib.contextmanager
def predictor_for(
    recipe: RecipeLike, inputs: Inputs, overrides: Sequence[str], strict: bool = False
) -> Iterator[Predictor]:
    """Ready for the files that ``inputs`` stand for; folders for those that the data set knows how to read."""
    resolved = resolve_with_weights(recipe, overrides)
    paths = [str(path) for path in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    spec = resolved.data.get("test")
    if spec and (expand := getattr(spec.target, "expand", None)):
        taken = spec.options.keys() & inspect.signature(expand).parameters.keys()
        paths = list(expand(paths, **{name: spec.options[name] for name in taken}))
    else:
        paths = expand_inputs(paths, VIDEO_SUFFIXES | IMAGE_SUFFIXES)
    with (
        started(resolved) as distribution,
        contextlib.closing(Predictor(resolved, paths, distribution, strict)) as predictor,
    ):
        yield predictor


@contextlib.contextmanager
def started(recipe: Recipe) -> Iterator[Distribution]:
    """The recipe's distribution, joined and left again."""
    distribution: Distribution = recipe.distribution.build()
    distribution.start()
    threads = torch.get_num_threads()
    if distribution.device.type == "cpu":
        _keep_freed_memory()
        if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":  # as tag-run has it
            # Threads that spin while they wait would fight reading workers for the cores, at twice the CPU time.
            torch.set_num_threads(max(1, threads - max(recipe.train.workers, recipe.eval.workers)))
    if not distribution.is_main:
        logging.getLogger("tag").setLevel(logging.WARNING)
    try:
        yield distribution
    finally:
        distribution.stop()
        torch.set_num_threads(threads)


def _keep_freed_memory() -> None:
    """Given back to the system and fetched anew, page by page, it costs up to a third of a forward pass."""
    with contextlib.suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: smaller blocks come from the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: which never shrinks


def _score(
    recipe: Recipe,
    part: str,
    folder: Path,
    distribution: Distribution,
    run: Run | None = None,
    strict: bool = False,
) -> Evaluation:
    """Score the weights on the ``val`` or ``test`` data; predictions, metrics and report go into ``folder``."""
    task, classes = task_with_weights(recipe, distribution)
    data = {
        name: spec.with_options(classes=classes) if spec.takes("classes") and not spec.options.get("classes") else spec
        for name, spec in recipe.data.items()  # labels are numbered as the weights number them
    }
    dataset = datasets(replace(recipe, data=data), (part,))[part]
    loader = Loader(dataset, recipe.eval.workers, timeout=recipe.eval.timeout, strict=strict)
    with run or contextlib.nullcontext():
        with contextlib.closing(loader), Progress("eval", len(dataset), main=distribution.is_main) as bar:
            result = evaluate_task(task, loader, recipe, classes, distribution, keep_records=True, progress=bar.advance)
        if distribution.is_main:
            with atomic(folder / "predictions.jsonl") as file:
                file.writelines(f"{record.to_json()}\n" for record in result.records)
            if part == "test":
                describe_model(folder, recipe, fingerprint(recipe, task))
            told = {"scores": result.scores, "tables": result.tables, "classes": classes}
            write_json(folder / "metrics.json", {**told, "coverage": asdict(result.coverage)})
            _write_report(folder)
    return result


def _write_report(folder: Path) -> None:
    """The report comes last: a fault in it must not cost a finished run its result."""
    try:
        from tag_core.report import write_report

        write_report(folder)
    except Exception:
        log.exception("%s/report.html could not be written; the other files are complete", folder)


def resolve_with_weights(recipe: RecipeLike, overrides: Sequence[str]) -> Recipe:
    """A run folder stands for its own best weights."""
    found = None if isinstance(recipe, Mapping) else weights_of_run(Path(recipe))
    weights = [f"weights={found}"] if found else []
    return resolve(recipe, [*weights, *overrides], needs=())
