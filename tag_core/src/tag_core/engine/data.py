"""From datasets to batches: splits, order, seeds, and reading in worker processes."""

from __future__ import annotations

import hashlib
import numbers
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice, tee
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from tag_core.config import Recipe
from tag_core.engine import checkpoint
from tag_core.engine.pool import Failure, WorkerPool
from tag_core.errors import ConfigError, UnreadableInput, UserError
from tag_core.kinds import Batch, Dataset, Sample, Sampler

Item = tuple[int, int]
"""(index in the data set, seed of the sample's random choices)"""


class Part(Subset[Sample]):
    """Some samples of a data set."""

    dataset: Any

    @property
    def classes(self) -> Any:
        return getattr(self.dataset, "classes", None)

    def key(self, index: int) -> str:
        return self.dataset.key(self.indices[index])  # type: ignore[no-any-return]

    def label(self, index: int) -> Any:
        return self.dataset.label(self.indices[index])

    def size(self, index: int) -> tuple[int, int]:
        return self.dataset.size(self.indices[index])  # type: ignore[no-any-return]


def datasets(recipe: Recipe, wanted: Sequence[str]) -> dict[str, Any]:
    """Build the data sets named in ``wanted`` (train, val, test); val is left out where the recipe has none.

    A set without a source of its own is the held-out part of the training set, chosen by a hash of
    each sample's key: stratified by label, the same on every machine.

    Raises:
        ConfigError: a source that cannot be listed, or a split that leaves a part empty.
    """
    specs, own, built = recipe.data, recipe.own_source, dict[str, Any]()
    held_out = [name for name in ("val", "test") if name in specs and name not in own and recipe.holdout > 0]
    train: Any = None
    if "train" in specs and not specs["train"].missing and not set(wanted).isdisjoint(["train", *held_out]):
        train = specs["train"].build()
    for name in wanted:
        if name == "train":
            built[name] = Part(train, _split(train, recipe.holdout)[0]) if "val" in held_out else train
        elif name in own or (name in held_out and train is not None):
            spec, classes = specs[name], getattr(train, "classes", None)
            if classes and spec.takes("classes") and not spec.options.get("classes"):
                spec = spec.with_options(classes=list(classes))
            dataset = spec.build()
            built[name] = Part(dataset, _split(dataset, recipe.holdout)[1]) if name in held_out else dataset
    if "test" in wanted and "test" not in built:
        problem = "data.test.source: required (or a data.train.source, and data.holdout above 0)"
        raise ConfigError(recipe.name, [problem])
    for name, dataset in built.items():
        if len(dataset) == 0:
            few = "; each label's last picture or clip is trained on: give more, or a data.val.source"
            raise ConfigError(recipe.name, [f"data.{name}: no samples{few if name in held_out else ''}"])
    return built


def _split(dataset: Any, share: float) -> tuple[list[int], list[int]]:
    """(kept, held out) indices; each label gives its share, one at least and never its last sample.

    Keys are taken relative to the folder they have in common, so that a data set that was moved, or is
    named by another path, is split the same way: nothing that was trained on is tested on.
    """
    keys = [getattr(dataset, "origin", dataset.key)(index) for index in range(len(dataset))]
    common = os.path.commonprefix(keys).rfind("/") + 1  # noqa: RUF071 (keys need not be paths)
    digests = [hashlib.sha256(key[common:].encode("utf-8", "surrogateescape")).digest() for key in keys]
    groups: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        label = dataset.label(index) if getattr(dataset, "classes", None) else ""
        groups.setdefault(str(label), []).append(index)
    held: set[int] = set()
    for members in groups.values():
        members.sort(key=digests.__getitem__)
        held.update(members[: min(max(round(share * len(members)), 1), len(members) - 1)])
    kept = [i for i in range(len(dataset)) if i not in held]
    return kept, sorted(held)


@dataclass
class Coverage:
    """How much of the input was readable; printed by every evaluation and prediction."""

    total: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def merge(self, other: Coverage) -> None:
        self.total += other.total
        self.unreadable.update(other.unreadable)
        self.damaged.update(other.damaged)

    def __str__(self) -> str:
        text = f"read {self.total - len(self.unreadable)} of {self.total} inputs"
        if self.damaged:
            text += f", {len(self.damaged)} of them damaged (their good part was used)"
        if self.unreadable:
            reasons = Counter(self.unreadable.values()).most_common(3)
            listed = "; ".join(f"{count} x {reason}" if count > 1 else reason for reason, count in reasons)
            text += f"; {len(self.unreadable)} unreadable ({listed})"
        return text


@dataclass
class Loaded:
    """One planned batch after reading: what could be read, and what could not."""

    samples: list[Sample]
    indices: list[int]
    failures: dict[int, Failure]


class Loader:
    """Reads planned batches of a data set, in order, in worker processes that may die.

    Args:
        timeout: seconds that one sample may take, with workers.
        strict: raise UnreadableInput at the first sample that cannot be read.
    """

    def __init__(self, dataset: Dataset, workers: int, timeout: float, strict: bool = False) -> None:
        self.dataset, self.workers, self.strict = dataset, workers, strict
        self.coverage = Coverage()
        self._pool = WorkerPool(partial(_read, dataset), workers, timeout=timeout)

    def read(self, plan: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Batches of ``plan`` one by one; about two of its first one's size are read ahead."""
        plan = iter(plan)
        first = list(islice(plan, 1))
        batches, upcoming = tee(chain(first, plan))
        ahead = max(2 * sum(map(len, first)), 2 * self.workers, 1)
        results = self._pool.map(chain.from_iterable(upcoming), ahead)
        for batch in batches:
            loaded = Loaded([], [], {})
            with checkpoint.unchanged_random_state():  # without workers, reading draws from this process's generators
                for (index, _), result in islice(results, len(batch)):
                    self.coverage.total += 1
                    if isinstance(result, Failure):
                        file = file_of(self.dataset, index)
                        loaded.failures[index] = result
                        self.coverage.unreadable[file] = result.reason
                        if self.strict:
                            raise UnreadableInput(file, result.reason)
                        continue
                    for sample in result if isinstance(result, list) else [result]:
                        loaded.samples.append(sample)
                        loaded.indices.append(index)
                        if damage := sample.get("damage"):
                            self.coverage.damaged[file_of(self.dataset, index)] = damage
            yield loaded

    def close(self) -> None:
        self._pool.close()


def epoch_plan(
    length: int, batch_size: int, seed: int, epoch: int, *, shuffle: bool, drop_last: bool = False
) -> list[list[Item]]:
    """Global batches of one epoch; the same for every number of processes.

    A sample's seed depends on (seed, epoch, index) alone, so neither workers, processes nor a
    resumed run change what augmentation it gets.
    """
    order = list(range(length))
    if shuffle:
        generator = torch.Generator().manual_seed(_mix(seed, epoch, -1))
        order = torch.randperm(length, generator=generator).tolist()
    items = [item(index, seed, epoch) for index in order]
    batches = [items[i : i + batch_size] for i in range(0, length, batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def sampled_plan(sampler: Sampler, seed: int, epoch: int) -> list[list[Item]]:
    """Global batches of one epoch as a sampler has them; what comes again gets random choices of its own."""
    seen, batches = Counter[int](), list[list[Item]]()
    for batch in sampler.batches(epoch):
        batches.append([])
        for index in batch:
            batches[-1].append(item(index, _mix(seed, seen[index]) if seen[index] else seed, epoch))
            seen[index] += 1
    return batches


def plan_in_order(indices: Sequence[int], batch_size: int, seed: int) -> Iterator[list[Item]]:
    """Batches of these samples for evaluation and prediction, which know no epochs."""
    for start in range(0, len(indices), batch_size):
        yield [item(index, seed, 0) for index in indices[start : start + batch_size]]


def item(index: int, seed: int, epoch: int) -> Item:
    """What to read of a data set, with the seed of its random choices in this epoch."""
    return index, _mix(seed, epoch, index)


def _mix(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack tensors [N, ...] and numbers [N]; everything else becomes a list.

    Raises:
        UserError: tensors of one key differ in shape, or samples have different keys.
    """
    batch: dict[str, Any] = {}
    for sample in samples:
        if odd := samples[0].keys() ^ sample.keys():
            raise UserError(f"samples of a batch differ: only some have {', '.join(map(repr, sorted(odd)))}")
    for key in samples[0]:
        values = [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in (s[key] for s in samples)]
        if all(isinstance(value, torch.Tensor) for value in values):
            shapes = {tuple(value.shape) for value in values}
            if len(shapes) > 1:
                listed = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
                raise UserError(f"samples of a batch differ in {key!r}: {listed}; add a resize or crop transform")
            batch[key] = torch.stack(values)
        elif all(isinstance(value, numbers.Real) for value in values):
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values
    return batch


def same_shapes(loaded: Loaded) -> Iterator[tuple[list[Sample], list[int]]]:
    """Runs of consecutive samples whose tensors agree in shape."""
    for _, run in groupby(zip(loaded.samples, loaded.indices, strict=True), key=lambda pair: _shapes(pair[0])):
        samples, indices = zip(*run, strict=True)
        yield list(samples), list(indices)


def _shapes(sample: Sample) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(value.shape)) for key, value in sample.items() if hasattr(value, "shape")]


def file_of(dataset: Any, index: int) -> str:
    """What records and messages call a sample: the file that it is in, where its key is another."""
    return getattr(dataset, "file", dataset.key)(index)  # type: ignore[no-any-return]


def _read(dataset: Dataset, item: Item) -> Sample | list[Sample]:
    """One sample under its seed, or those of one index."""
    index, seed = item
    # torch.manual_seed would seed the GPU's generator too, and take 0.15 ms or more where there is none.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    return dataset[index]
