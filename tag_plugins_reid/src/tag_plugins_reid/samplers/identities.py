"""P x K batches: P identities, K pictures of each."""

from __future__ import annotations

import random
from typing import Any

Batches = list[list[int]]


class Identities:
    """P x K batches: ``train.batch_size`` pictures are P identities with K pictures of each, for losses on pairs.

    An epoch deals every identity's pictures, shuffled, into chunks of K, and each batch takes a chunk of each of P
    identities chosen at random, until fewer than P have one left (torchreid's RandomIdentitySampler). So no picture
    comes twice in an epoch but to fill up an identity that has fewer than K. Pictures labelled -1, whose identity is
    unknown, are left out. Of several processes, each gets P /
    processes identities with all their K pictures.

    Args:
        num_instances: K, the pictures of an identity in a batch.
        fill: an identity with fewer pictures than K is filled up with repeated ones; False leaves it out.
    """

    def __init__(
        self, dataset: Any, batch_size: int, seed: int, processes: int, num_instances: int = 4, fill: bool = True
    ) -> None:
        if num_instances < 1:
            raise ValueError(f"num_instances must be at least 1, got {num_instances}")
        if batch_size % (num_instances * processes):
            told = f"num_instances {num_instances}" + (f" x {processes} processes" if processes > 1 else "")
            raise ValueError(f"train.batch_size {batch_size} cannot be divided by {told}")
        groups: dict[int, list[int]] = {}
        for index in range(len(dataset)):
            if (label := dataset.label(index)) >= 0:
                groups.setdefault(label, []).append(index)
        self.groups = [group for group in groups.values() if fill or len(group) >= num_instances]
        self.seed, self.processes, self.num_instances = seed, processes, num_instances
        self.num_identities = batch_size // num_instances
        if len(self.groups) < self.num_identities:
            enough = "" if fill else f" with {num_instances} pictures"
            raise ValueError(
                f"train.batch_size {batch_size} needs {self.num_identities} identities{enough} with num_instances "
                f"{num_instances}, and the training data have {len(self.groups)}"
            )

    def batches(self, epoch: int) -> Batches:
        rng = random.Random(f"{self.seed} {epoch}")
        left = [self._chunks(group, rng) for group in self.groups]
        batches = []
        while len(left) >= self.num_identities:
            chosen = rng.sample(range(len(left)), self.num_identities)
            batches.append(self._interleaved([left[place].pop() for place in chosen]))
            for place in sorted(chosen, reverse=True):
                if not left[place]:  # the last one takes its place
                    left[place] = left[-1]
                    left.pop()
        return batches

    def _chunks(self, group: list[int], rng: random.Random) -> Batches:
        size = self.num_instances
        order = rng.sample(group, len(group))
        order += rng.choices(group, k=max(size - len(group), 0))
        return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]

    def _interleaved(self, chunks: Batches) -> list[int]:
        """The batch of which ``batch[r::processes]`` holds whole chunks."""
        shares = [[index for chunk in chunks[r :: self.processes] for index in chunk] for r in range(self.processes)]
        return [index for together in zip(*shares, strict=True) for index in together]
