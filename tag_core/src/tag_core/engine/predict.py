"""Prediction over many inputs: sharded, resumable, each input exactly once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tag_core.config import Recipe
from tag_core.engine.data import Coverage, Loader, item
from tag_core.engine.distributed import Distribution
from tag_core.engine.session import predict_batches, records_of, task_with_weights
from tag_core.errors import ConfigError, RunFolderError
from tag_core.files import atomic, write_json
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
        self.loader = Loader(dataset, recipe.eval.workers, timeout=recipe.eval.timeout, strict=strict)

    def records(self, indices: Sequence[int]) -> Iterator[list[Record]]:
        """The records of each of these inputs, in their order."""
        return self._records(self._batches(indices))

    def _batches(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        size = self.recipe.eval.batch_size
        return (indices[i : i + size] for i in range(0, len(indices), size))

    def _records(self, batches: Iterator[Sequence[int]]) -> Iterator[list[Record]]:
        planned, batches = tee(batches)
        plan = ([item(index, self.recipe.train.seed, 0) for index in batch] for batch in planned)
        reads = predict_batches(self.task, self.loader, plan, self.distribution, self.recipe.eval.precision)
        found: dict[int, list[Record]] = {}
        for index in chain.from_iterable(batches):
            while index not in found:
                found.update(records_of(self.task, next(reads), self.loader))
            yield found.pop(index)

    def close(self) -> None:
        self.loader.close()

    def to_folder(self, folder: Path, progress: Callable[[int], None] = lambda inputs: None) -> Coverage:
        """Write ``predictions.jsonl``, going on where a killed run left off.

        Each rank writes the shards that are its own to a temporary name and renames them; the last
        step joins all shards. A kill at any instant therefore loses at most one shard per rank.

        Raises:
            RunFolderError: the folder holds predictions of other inputs or another recipe.
        """
        parts, whole, size = folder / "predictions", folder / "predictions.jsonl", self.recipe.eval.shard_size
        shards = [range(i, min(i + size, len(self.inputs))) for i in range(0, len(self.inputs), size)]
        if self.distribution.is_main:
            self._claim(folder, parts)
        self.distribution.gather(None)
        if not whole.is_file():
            paths = {_part(parts, number): shard for number, shard in enumerate(shards)}
            mine = list(paths.items())[self.distribution.rank :: self.distribution.world]
            self._write_shards(mine, progress)
            self.distribution.gather(None)
            if self.distribution.is_main:
                _join(whole, list(paths))
        if self.distribution.is_main:
            for path in [*parts.glob("part-*.jsonl"), *parts.glob(".tag-*.tmp")]:
                path.unlink(missing_ok=True)
        self.distribution.gather(None)
        return coverage_of(whole, len(self.inputs))

    def _write_shards(self, shards: list[tuple[Path, range]], progress: Callable[[int], None]) -> None:
        """Those that are not there yet, reading ahead from one into the next."""
        missing = [shard for shard in shards if not shard[0].is_file()]
        progress(sum(len(shard) for _, shard in shards) - sum(len(shard) for _, shard in missing))
        stream = self._records(chain.from_iterable(self._batches(shard) for _, shard in missing))
        for path, shard in missing:
            with atomic(path) as file:
                for records in islice(stream, len(shard)):
                    file.writelines(f"{record.to_json()}\n" for record in records)
                    progress(1)

    def _claim(self, folder: Path, parts: Path) -> None:
        recipe, options = self.recipe.to_dict(), self.recipe.eval
        described = [self.inputs, recipe["task"], recipe["data"].get("test"), options.precision, self.classes]
        mine = {
            "inputs": len(self.inputs),
            "shard_size": options.shard_size,
            "fingerprint": hashlib.sha256(json.dumps(described).encode()).hexdigest(),
            "weights": _fingerprint(self.task),
        }
        manifest = parts / "manifest.json"
        try:
            parts.mkdir(parents=True, exist_ok=True)
            theirs = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{folder}: cannot be used: {error}; choose another --out") from error
        if theirs is None:
            write_json(manifest, mine)
        elif theirs != mine:
            raise RunFolderError(
                f"{folder} holds predictions of other inputs, weights or options; choose another --out"
            )


def _part(parts: Path, number: int) -> Path:
    return parts / f"part-{number:06d}.jsonl"


def _join(whole: Path, parts: Sequence[Path]) -> None:
    """One file of all shards, which then are not needed any more."""
    with atomic(whole) as file:
        for path in parts:
            file.write(path.read_text("utf-8"))


def _fingerprint(task: nn.Module) -> str:
    """Of the weights themselves: a file may be written anew under the same name."""
    digest = hashlib.sha256()
    for name, tensor in task.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def coverage_of(path: Path, total: int) -> Coverage:
    """Coverage told from written records, so that a resumed run counts everything."""
    coverage = Coverage(total=total)
    for record in read_records(path):
        if record.error is not None:
            coverage.unreadable[record.source] = record.error
        elif record.damage:
            coverage.damaged[record.source] = record.damage
    return coverage
