"""Evaluation of Market-1501's size, against a plain loop that sorts for every query, in the same run.

    python benchmarks/market_evaluation.py

The real identities and cameras of 3,368 queries and 15,913 gallery pictures where ``market1501_labels.npz`` lies in
TAG_SHARED_DATA, else made-up ones of the same number; embeddings of 512 numbers with something of the identity in them.
The plain loop sorts a query's distances and takes the precision at each place of the ranking in Python, as published
evaluations do; it runs on every 40th query and must find the same average precision. CPU time is compared, from the
same distances on; the time of the distances is told beside it. One thread. Exit code 1 if Tag's form is not 100 times
as fast, or if ``reid/market`` takes more than 300 MB above the embeddings it is given.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch

from tag_core.retrieval import distances, unit
from tag_plugins_reid.metrics.market import Market
from tag_plugins_reid.ranking import Pictures, score

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
DIM, SIGNAL, BATCH, EVERY, ROUNDS = 512, 0.45, 64, 40, 5
FASTER, MEMORY = 100, 300
Labels = dict[str, np.ndarray]


def market_labels() -> Labels:
    """``query`` and ``gallery``: [2, N], identities and cameras; identity 0 is a distractor's."""
    file = SHARED / "reid" / "market1501_labels.npz"
    if file.exists():
        found = np.load(file)
        gallery = np.stack([found["test_pid"], found["test_cam"]])
        return {"query": np.stack([found["query_pid"], found["query_cam"]]), "gallery": gallery[:, gallery[0] >= 0]}
    print(f"labels are made up, of Market-1501's numbers: {file.name} is not in {SHARED.name}/reid")
    generator = np.random.default_rng(1)
    identities = [generator.integers(1, 751, 3368), np.append(generator.integers(1, 751, 13115), np.zeros(2798, int))]
    return {
        name: np.stack([ids, generator.integers(1, 7, len(ids))])
        for name, ids in zip(("query", "gallery"), identities, strict=True)
    }


def make_embeddings(labels: Labels) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    centres = SIGNAL * generator.standard_normal((1 + max(ids.max() for ids, _ in labels.values()), DIM), np.float32)
    found = {}
    for name, (ids, _) in labels.items():
        drawn = generator.standard_normal((len(ids), DIM), np.float32)
        drawn[ids > 0] += centres[ids[ids > 0]]
        found[name] = unit(drawn)
    return found


def timed(blocks: Iterable[np.ndarray], spent: list[float], lines: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks; into ``spent`` the CPU seconds that they took, into ``lines`` every 40th row."""
    rows, iterator = 0, iter(blocks)
    while True:
        began = process_time()
        if (block := next(iterator, None)) is None:
            return
        spent.append(process_time() - began)
        lines += [line.copy() for line in block[-rows % EVERY :: EVERY]]
        rows += len(block)
        yield block


def plain_average_precision(line: np.ndarray, own: np.ndarray, gallery: np.ndarray) -> float:
    order = np.argsort(line, kind="stable")
    kept = (gallery[0, order] != own[0]) | (gallery[1, order] != own[1])
    matches = gallery[0, order][kept] == own[0]
    precisions = [found / (place + 1.0) for place, found in enumerate(matches.cumsum())]
    return float((np.asarray(precisions) * matches).sum() / matches.sum())


def resident(field: str) -> float:
    """MB of this process, from Linux' own count; nan elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), float("nan"))


def measure_memory(folder: str, labels: Labels) -> tuple[float, dict[str, float]]:
    """MB that ``reid/market`` takes at most above the embeddings, and its scores."""
    embeddings = {name: torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in labels}
    metric, before = Market(), resident("VmRSS")
    for role, (name, (ids, cameras)) in enumerate(labels.items()):
        for start in range(0, len(ids), BATCH):
            part = slice(start, start + BATCH)
            batch = {"identity": [f"{i:04d}" for i in ids[part]], "camera": torch.tensor(cameras[part])}
            batch |= {
                "role": torch.full((len(ids[part]),), role),
                "source": [f"{i:05d}" for i in range(*part.indices(len(ids)))],
            }
            metric.update({"embedding": embeddings[name][part]}, batch)
    scores = dict(metric.compute())
    return resident("VmHWM") - before, scores


def measure_time(folder: str, labels: Labels) -> tuple[float, float, float]:
    """CPU seconds of the plain loop, of Tag's form, and of the distances, for all queries."""
    queries, gallery = (np.load(f"{folder}/{name}.npy") for name in labels)
    numbers = np.arange(len(queries)), np.arange(len(gallery)) + len(queries)
    sides = [Pictures(*label, number) for label, number in zip(labels.values(), numbers, strict=True)]
    own, found = labels.values()
    ranking, computing = [], []
    for _ in range(ROUNDS):
        spent, lines = list[float](), list[np.ndarray]()
        began = process_time()
        scores = score(timed(distances(queries, gallery, "cosine"), spent, lines), *sides)
        computing.append(sum(spent))
        ranking.append(process_time() - began - sum(spent))
    began = process_time()
    expected = [plain_average_precision(line, own[:, EVERY * i], found) for i, line in enumerate(lines)]
    plain = (process_time() - began) / len(lines) * len(queries)
    if len(lines) != -(-len(queries) // EVERY) or not np.allclose(scores.common[::EVERY], expected, atol=1e-9, rtol=0):
        sys.exit("the plain loop finds other average precisions")
    return plain, median(ranking), median(computing)


def main() -> int:
    labels = market_labels()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        for name, rows in make_embeddings(labels).items():
            np.save(f"{folder}/{name}.npy", rows)
        memory, scores = pool.apply(measure_memory, (folder, labels))
        plain, ranking, computing = pool.apply(measure_time, (folder, labels))
    number = " x ".join(f"{ids.shape[1]:,}" for ids in labels.values())
    print(f"{number} pictures: mAP {scores['map']:.4f}, rank-1 {scores['rank1']:.4f}; equal average precisions")
    print(f"CPU s: plain loop {plain:.1f}, Tag {ranking:.3f}, and the distances {computing:.3f} for either")
    print(f"reid/market takes {memory:.0f} MB at most above the embeddings (bar {MEMORY})")
    print(f"Tag ranks {plain / ranking:.0f} times as fast as the plain loop (bar {FASTER})")
    return int(plain / ranking < FASTER or memory > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
