"""How fast Tag's worker pool moves samples, against torch's DataLoader in the same run.

Both run the same function, which does next to nothing but fill a clip, in 2 workers: what is timed is the
way from the workers to here. Rounds alternate and medians are compared, since machines are seldom quiet.
Exit code 1 if the pool takes more than 1.1 times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter

import torch
from torch.utils.data import DataLoader, Dataset

from tag_core.engine.pool import WorkerPool

SHAPE, SAMPLES, WORKERS, AHEAD, ROUNDS, LIMIT = (16, 3, 224, 224), 300, 2, 8, 7, 1.1


def make_clip(index: int) -> torch.Tensor:
    return torch.full(SHAPE, index % 251, dtype=torch.uint8)


class Clips(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return make_clip(index)


def seconds(clips: Iterable[torch.Tensor]) -> float:
    began = perf_counter()
    total = sum(int(clip.flatten()[::4096].sum()) for clip in clips)  # reads something of every page
    took = perf_counter() - began
    if total != sum(index % 251 for index in range(SAMPLES)) * len(range(0, make_clip(0).numel(), 4096)):
        sys.exit("the clips did not arrive intact")
    return took


def main() -> int:
    loader = DataLoader(Clips(), None, num_workers=WORKERS, prefetch_factor=AHEAD // WORKERS, persistent_workers=True)
    with WorkerPool(make_clip, WORKERS) as pool:
        passes: dict[str, Callable[[], Iterable[torch.Tensor]]] = {
            "DataLoader": lambda: loader,
            "WorkerPool": lambda: (clip for _, clip in pool.map(range(SAMPLES), AHEAD)),  # type: ignore[misc]
        }
        times: dict[str, list[float]] = {name: [] for name in passes}
        for round_ in range(ROUNDS + 1):
            for name, clips in passes.items():
                took = seconds(clips())
                if round_:  # the first starts the workers
                    times[name].append(took)
    for name, taken in times.items():
        print(f"{name}: {median(taken) / SAMPLES * 1000:.2f} ms a clip (median of {ROUNDS} rounds)")
    ratio = median(times["WorkerPool"]) / median(times["DataLoader"])
    print(f"WorkerPool takes {ratio:.2f} times as long as DataLoader (limit {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
