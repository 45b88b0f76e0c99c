"""GAP@20 of YouTube-8M's size of problem, against plain Python, in the same run.

Plain Python ranks the 3,862 scores of each video with ``heapq.nlargest``, pools, sorts and walks the pool.
Both must give the same number. One thread; CPU time is compared, since machines are seldom quiet. Exit code 1
if Tag's form is not 20 times as fast.
"""

from __future__ import annotations

import heapq
import sys
from statistics import median
from time import process_time

import torch

from tag_plugins_video.metrics.gap import GAP

VIDEOS, CLASSES, K, BATCH, ROUNDS, LIMIT = 2048, 3862, 20, 128, 5, 20.0


def plain_gap(batches: list[tuple[list[list[float]], list[list[int]]]]) -> float:
    pool: list[tuple[float, int]] = []
    positives = 0
    for scores, labels in batches:
        for video, truth in zip(scores, labels, strict=True):
            positives += sum(truth)
            pool += [(video[c], truth[c]) for c in heapq.nlargest(K, range(CLASSES), key=video.__getitem__)]
    pool.sort(key=lambda entry: -entry[0])
    right, total = 0, 0.0
    for rank, (_, hit) in enumerate(pool, 1):
        right += hit
        total += hit * right / rank
    return total / positives


def tag_gap(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    metric = GAP(K)
    for scores, labels in batches:
        metric.update({"scores": scores}, {"label": labels})
    return float(metric.compute()["gap"])


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(VIDEOS, CLASSES, generator=generator) < 3 / CLASSES).float()
    # Distinct scores, so that ties, which the two count differently, play no part.
    scores = torch.randperm(VIDEOS * CLASSES, generator=generator).view(VIDEOS, CLASSES).float() / (VIDEOS * CLASSES)
    scores = (scores + labels / 2).double().view(-1).argsort().argsort().view(VIDEOS, CLASSES).float() / 2**24
    tensors = list(zip(torch.split(scores, BATCH), torch.split(labels, BATCH), strict=True))
    lists = [(part.tolist(), truth.int().tolist()) for part, truth in tensors]
    began = process_time()
    expected = plain_gap(lists)
    plain = process_time() - began
    times = []
    for _ in range(ROUNDS):
        began = process_time()
        found = tag_gap(tensors)
        times.append(process_time() - began)
        if abs(found - expected) > 1e-9:
            sys.exit(f"GAP {found} is not {expected}")
    ratio = plain / median(times)
    print(f"GAP@{K} = {found:.6f} over {VIDEOS} videos and {CLASSES} classes, both ways")
    print(f"plain Python {plain / VIDEOS * 1e3:.3f} ms a video, Tag {median(times) / VIDEOS * 1e3:.4f} ms")
    print(f"Tag is {ratio:.0f} times as fast (bar {LIMIT:.0f})")
    return int(ratio < LIMIT)


if __name__ == "__main__":
    sys.exit(main())
