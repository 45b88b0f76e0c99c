"""From datasets to batches: splits, order, seeds, and reading in worker processes."""

from __future__ import annotations

import contextlib
import hashlib
import numbers
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, tee
from typing import Any

import numpy as np
import torch

from tag_core.config import Recipe
from tag_core.engine.pool import Failure, WorkerPool
from tag_core.errors import ConfigError, UnreadableInput, UserError
from tag_core.kinds import Batch, Dataset, Sample

Item = tuple[int, int]
"""(index in the data set, seed of the sample's random choices)"""


class Part:
    """Some samples of a data set."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)
        self.classes = getattr(dataset, "classes", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]  # type: ignore[no-any-return]

    def key(self, index: int) -> str:
        return self.dataset.key(self.indices[index])  # type: ignore[no-any-return]

    def label(self, index: int) -> Any:
        return self.dataset.label(self.indices[index])


def datasets(recipe: Recipe, wanted: Sequence[str]) -> dict[str, Any]:
    """Build the data sets named in ``wanted`` (train, val, test).

    A set without a source of its own is the held-out part of the training set, chosen by a hash of
    each sample's key: stratified by label, the same on every machine.

    Raises:
        ConfigError: a source that cannot be listed, or a split that leaves a part empty.
    """
    train_spec, built = recipe.data.get("train"), dict[str, Any]()
    held_out = [name for name in wanted if name not in ("train", *recipe.own_source)]
    train = None
    if train_spec is not None and train_spec.complete and ("train" in wanted or held_out):
        train = train_spec.build()
    for name in wanted:
        if name == "train":
            own_val = "val" in recipe.own_source or "val" not in recipe.data or recipe.holdout == 0
            built[name] = train if own_val else Part(train, _split(train, recipe.holdout)[0])
            continue
        if (spec := recipe.data.get(name)) is None:
            continue
        options = {} if name in recipe.own_source else {"source": _source(recipe)}
        classes = getattr(train, "classes", None)
        if spec.takes("classes") and classes and not spec.options.get("classes"):
            options["classes"] = list(classes)
        dataset = (spec.with_options(**options) if options else spec).build()
        if name not in recipe.own_source and recipe.holdout == 0:
            continue
        built[name] = Part(dataset, _split(dataset, recipe.holdout)[1]) if name in held_out else dataset
    if "test" in wanted and "test" not in built:
        problem = "data.test.source: required (or a data.train.source, and data.holdout above 0)"
        raise ConfigError(recipe.name, [problem])
    for name, dataset in built.items():
        if len(dataset) == 0:
            raise ConfigError(recipe.name, [f"data.{name}: no samples"])
    return built


def _source(recipe: Recipe) -> Any:
    spec = recipe.data.get("train")
    if spec is None or not spec.options.get("source"):
        raise ConfigError(recipe.name, ["data.test.source: required (or data.train.source, to hold out a part)"])
    return spec.options["source"]


def _split(dataset: Any, share: float) -> tuple[list[int], list[int]]:
    """(kept, held out) indices; each label gives its share, one at least and never its last sample.

    Keys are taken relative to the folder they have in common, so that a data set that was moved, or is
    named by another path, is split the same way: nothing that was trained on is tested on.
    """
    keys = [dataset.key(index) for index in range(len(dataset))]
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
        self.dataset, self.strict = dataset, strict
        self.coverage = Coverage()
        self.workers = workers
        self._pool = WorkerPool(_Read(dataset), workers, timeout=timeout, start=_start_worker)

    def read(self, plan: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        """Batches of ``plan`` one by one; about two of its first one's size are read ahead."""
        plan = iter(plan)
        first = list(islice(plan, 1))
        batches, ahead_of_them = tee(chain(first, plan))
        ahead = max(2 * sum(map(len, first)), 2 * self.workers, 1)
        results = self._pool.map(chain.from_iterable(ahead_of_them), ahead=ahead)
        for batch in batches:
            loaded = Loaded([], [], {})
            with contextlib.nullcontext() if self.workers else _own_generators():
                for (index, _seed), result in islice(results, len(batch)):
                    self._count(index, result)
                    if isinstance(result, Failure):
                        loaded.failures[index] = result
                    else:
                        loaded.samples.append(result)
                        loaded.indices.append(index)
            yield loaded

    def _count(self, index: int, result: Sample | Failure) -> None:
        self.coverage.total += 1
        if isinstance(result, Failure):
            self.coverage.unreadable[self.dataset.key(index)] = result.reason
            if self.strict:
                raise UnreadableInput(self.dataset.key(index), result.reason)
        elif damage := result.get("damage"):
            self.coverage.damaged[self.dataset.key(index)] = damage

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
        values = [_tensor(sample[key]) for sample in samples]
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


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def same_shapes(loaded: Loaded) -> Iterator[tuple[list[Sample], list[int]]]:
    """Runs of consecutive samples whose tensors agree in shape."""
    start, shapes = 0, [_shapes(sample) for sample in loaded.samples]
    for end in range(1, len(shapes) + 1):
        if end == len(shapes) or shapes[end] != shapes[start]:
            yield loaded.samples[start:end], loaded.indices[start:end]
            start = end


def _shapes(sample: Sample) -> list[tuple[str, tuple[int, ...]]]:
    return [(key, tuple(value.shape)) for key, value in sample.items() if hasattr(value, "shape")]


class _Read:
    """Reads one sample under its seed."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, item: Item) -> Sample:
        index, seed = item
        # torch.manual_seed would seed the GPU's generator too, and take 0.15 ms or more where there is none.
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        return self.dataset[index]


@contextlib.contextmanager
def _own_generators() -> Iterator[None]:
    """Around reading in this process: its generators go on as if nothing had been read."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _start_worker() -> None:
    torch.set_num_threads(1)
