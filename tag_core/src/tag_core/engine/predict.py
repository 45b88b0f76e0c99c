"""Prediction over many inputs: sharded, resumable, each input exactly once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tag_core.config import Recipe
from tag_core.engine.data import Coverage, Loader, plan_in_order
from tag_core.engine.distributed import Distribution
from tag_core.engine.session import predict_batches, records_of, task_with_weights
from tag_core.errors import ConfigError, RunFolderError
from tag_core.files import atomic, write_json, write_text
from tag_core.records import Record, read_records


class Predictor:
    """A task with weights, ready for any number of inputs.

    Args:
        recipe: resolved; names the weights and, in ``data.test``, how inputs are prepared.
        inputs: files, in the order in which records are wanted.
        strict: raise UnreadableInput at the first that cannot be read.

    Raises:
        WeightsError: the weights are missing or do not fit.
        ConfigError: the recipe's test data cannot take plain files.
    """

    def __init__(self, recipe: Recipe, inputs: Sequence[str], distribution: Distribution, strict: bool = False) -> None:
        spec = recipe.data.get("test")
        if spec is None or not (spec.takes("source") and spec.takes("labelled")):
            raise ConfigError(recipe.name, ["data.test: prediction needs a data set with source and labelled"])
        self.recipe, self.distribution, self.inputs = recipe, distribution, list(inputs)
        self.task: nn.Module
        self.task, self.classes = task_with_weights(recipe, distribution)
        options: dict[str, Any] = {"source": self.inputs, "labelled": False}
        dataset = spec.with_options(**options).build()
        if len(dataset) != len(self.inputs):
            problem = f"data.test: {len(dataset)} samples of {len(self.inputs)} inputs; its expand() must list each one"
            raise ConfigError(recipe.name, [problem])
        self.loader = Loader(dataset, recipe.eval.workers, timeout=recipe.eval.timeout, strict=strict)

    def records(self, indices: Sequence[int]) -> Iterator[list[Record]]:
        """The records of each of these inputs, in their order."""
        plan = plan_in_order(indices, self.recipe.eval.batch_size, self.recipe.train.seed)
        reads = predict_batches(self.task, self.loader, plan, self.distribution, self.recipe.eval.precision)
        found: dict[int, list[Record]] = {}
        for index in indices:
            while index not in found:
                found.update(records_of(self.task, next(reads), self.loader, self.recipe.output))
            yield found.pop(index)

    def close(self) -> None:
        self.loader.close()

    def claim(self, folder: Path) -> None:
        """Make a folder for these predictions, with a fingerprint of all that they depend on, and ``model.json``.

        Raises:
            RunFolderError: it holds predictions of other inputs, weights or options, or cannot be written.
        """
        if not self.distribution.is_main:
            return
        options, model = self.recipe.eval, fingerprint(self.recipe, self.task)
        data = self.recipe.to_dict(defaults=False)["data"]["test"]
        described = [model, self.inputs, data, options.precision, self.classes]
        settings = json.dumps([*described, options.shard_size, self.recipe.output])
        depends_on = hashlib.sha256(settings.encode()).hexdigest()
        mark = folder / "predictions" / "fingerprint.txt"
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            theirs = mark.read_text("utf-8") if mark.is_file() else None
        except OSError as error:
            raise RunFolderError(f"{folder}: cannot be used: {error}; choose another --out") from error
        if theirs is None and not (folder / "predictions.jsonl").exists():
            write_text(mark, depends_on)
        elif theirs != depends_on:
            raise RunFolderError(f"{folder} holds other predictions (inputs, weights or options); choose another --out")
        describe_model(folder, self.recipe, model)

    def to_folder(self, folder: Path, progress: Callable[[int], None] = lambda inputs: None) -> Coverage:
        """Write ``predictions.jsonl`` into a claimed folder, going on where a killed run left off.

        Each rank writes the shards that are its own to a temporary name and renames them; the last
        step joins all shards. A kill at any instant therefore loses at most one shard per rank.
        """
        parts, whole, gather = folder / "predictions", folder / "predictions.jsonl", self.distribution.gather
        size, total = self.recipe.eval.shard_size, len(self.inputs)
        shards = {parts / f"part-{i // size:06d}.jsonl": range(i, min(i + size, total)) for i in range(0, total, size)}
        gather("claimed")
        if not whole.is_file():
            mine = list(shards)[self.distribution.rank :: self.distribution.world]
            self._write_shards({path: shards[path] for path in mine}, progress)
            gather("written")
            if self.distribution.is_main:
                with atomic(whole) as file:
                    for path in shards:
                        file.write(path.read_text("utf-8"))
        if self.distribution.is_main:
            for path in [*parts.glob("part-*.jsonl"), *parts.glob(".tag-*.tmp")]:
                path.unlink(missing_ok=True)
        gather("joined")
        return coverage_of(read_records(whole))

    def _write_shards(self, shards: Mapping[Path, range], progress: Callable[[int], None]) -> None:
        """Those that are not there yet, reading ahead from one into the next."""
        missing = {path: shard for path, shard in shards.items() if not path.is_file()}
        indices = list(chain.from_iterable(missing.values()))
        progress(sum(map(len, shards.values())) - len(indices))
        stream = self.records(indices)
        for path, shard in missing.items():
            with atomic(path) as file:
                for records in islice(stream, len(shard)):
                    file.writelines(f"{record.to_json()}\n" for record in records)
                    progress(1)


def describe_model(folder: Path, recipe: Recipe, model: str) -> None:
    """Write ``model.json``: the recipe, where its weights are, and the model's :func:`fingerprint`."""

    def located(source: str) -> str:
        return str(Path(source).resolve()) if Path(source).exists() else source

    given = recipe.weights
    weights = located(given) if isinstance(given, str) else {part: located(source) for part, source in given.items()}
    tables = {**recipe.to_dict(), "name": recipe.name, "weights": weights}
    write_json(folder / "model.json", {"fingerprint": model, "recipe": tables})


def fingerprint(recipe: Recipe, task: nn.Module, *more: object) -> str:
    """Of the model and how it is fed, whatever the inputs: the task's options, the preparation, the weights.

    Of a data set that names its ``preparation``, those options alone count. The weights themselves do, since a file
    may be written anew. Options at their defaults do not, so that one more changes nothing.
    """
    tables = recipe.to_dict(defaults=False)
    data, counts = tables["data"]["test"], getattr(recipe.data["test"].target, "preparation", None)
    if counts is not None:
        data = {name: data[name] for name in counts if name in data}
    else:
        data = {name: value for name, value in data.items() if name not in ("source", "classes")}
    found = hashlib.sha256(json.dumps([tables["task"], data, *more]).encode())
    for name, tensor in task.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def coverage_of(records: Iterable[Record]) -> Coverage:
    """Coverage told from records, so that a resumed run counts everything; what is read in part is damaged."""
    coverage, read = Coverage(), set()
    for record in records:
        if record.error is not None:
            coverage.unreadable[record.source] = record.error
            continue
        read.add(record.source)
        if record.damage:
            coverage.damaged[record.source] = record.damage
    coverage.total = len(read | coverage.unreadable.keys())
    for source in read & coverage.unreadable.keys():
        coverage.damaged[source] = coverage.unreadable.pop(source)
    return coverage
