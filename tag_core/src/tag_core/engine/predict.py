"""Prediction over many inputs: sharded, resumable, each input exactly once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tag_core.config import Recipe
from tag_core.engine.data import Coverage, Item, Loader, epoch_plan
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

    Raises:
        WeightsError: the weights are missing or do not fit.
        ConfigError: the recipe's test data cannot take plain files.
    """

    def __init__(self, recipe: Recipe, inputs: Sequence[str], distribution: Distribution) -> None:
        spec = recipe.data.get("test")
        if spec is None or not (spec.takes("source") and spec.takes("labelled")):
            raise ConfigError(recipe.name, ["data.test: prediction needs a data set with source and labelled"])
        self.recipe, self.distribution, self.inputs = recipe, distribution, list(inputs)
        self.task: nn.Module
        self.task, self.classes = task_with_weights(recipe, distribution)
        options: dict[str, Any] = {"source": self.inputs, "labelled": False}
        self.loader = Loader(spec.with_options(**options).build(), recipe.eval.workers, timeout=recipe.eval.timeout)

    def records(self, indices: Sequence[int]) -> Iterator[list[Record]]:
        """The records of each of these inputs, in their order."""
        items = epoch_plan(len(self.inputs), 1, self.recipe.train.seed, 0, shuffle=False)
        chosen: list[Item] = [items[index][0] for index in indices]
        size = self.recipe.eval.batch_size
        plan = [chosen[i : i + size] for i in range(0, len(chosen), size)]
        found: dict[int, list[Record]] = {}
        waiting = iter(indices)
        expected = next(waiting, None)
        precision = self.recipe.eval.precision
        for read in predict_batches(self.task, self.loader, plan, self.distribution, precision):
            found.update(records_of(self.task, read, self.loader))
            while expected in found:
                yield found.pop(expected)
                expected = next(waiting, None)

    def close(self) -> None:
        self.loader.close()

    def to_folder(self, folder: Path, progress: Callable[[int], None] = lambda inputs: None) -> Coverage:
        """Write ``predictions.jsonl``, going on where a killed run left off.

        Each rank writes the shards that are its own to a temporary name and renames them; the last
        step joins all shards. A kill at any instant therefore loses at most one shard per rank.

        Raises:
            RunFolderError: the folder holds predictions of other inputs or another recipe.
        """
        parts = folder / "predictions"
        size = self.recipe.eval.shard_size
        shards = [range(i, min(i + size, len(self.inputs))) for i in range(0, len(self.inputs), size)]
        if self.distribution.is_main:
            self._claim(folder, parts)
        self.distribution.gather(None)
        if (folder / "predictions.jsonl").is_file():
            shards = []
        for number in range(self.distribution.rank, len(shards), self.distribution.world):
            path = parts / f"part-{number:06d}.jsonl"
            if not path.is_file():
                with atomic(path) as file:
                    for records in self.records(shards[number]):
                        file.writelines(f"{record.to_json()}\n" for record in records)
            progress(len(shards[number]))
        self.distribution.gather(None)
        if self.distribution.is_main:
            _join(folder, parts, len(shards))
        self.distribution.gather(None)
        return coverage_of(folder / "predictions.jsonl", len(self.inputs))

    def _claim(self, folder: Path, parts: Path) -> None:
        recipe = self.recipe.to_dict()
        described = json.dumps([self.inputs, recipe["task"], recipe["data"].get("test"), recipe["weights"]])
        mine = {
            "inputs": len(self.inputs),
            "shard_size": self.recipe.eval.shard_size,
            "fingerprint": hashlib.sha256(described.encode("utf-8", "surrogateescape")).hexdigest(),
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


def _join(folder: Path, parts: Path, count: int) -> None:
    """One file of all shards, which then are not needed any more."""
    if count:
        with atomic(folder / "predictions.jsonl") as whole:
            for number in range(count):
                whole.write((parts / f"part-{number:06d}.jsonl").read_text("utf-8"))
    for path in parts.glob("part-*.jsonl"):
        path.unlink()


def coverage_of(path: Path, total: int) -> Coverage:
    """Coverage told from written records, so that a resumed run counts everything."""
    coverage = Coverage(total=total)
    for record in read_records(path):
        if record.error is not None:
            coverage.unreadable[record.source] = record.error
        elif record.damage:
            coverage.damaged[record.source] = record.damage
    return coverage
