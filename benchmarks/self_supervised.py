"""Features learned without labels against random-initialised ones, in a linear probe at equal budget.

    python benchmarks/self_supervised.py [--methods moco mae ...] [--seeds 0 1 2] [--processes N] [--data FOLDER]

On the moving digits of `tag-run motion-data`, the class (one of eight directions) is in the motion alone. Each
method sees 1,600 clips without labels; then `video/linear-probe` trains a classifier on 400 labelled clips and is
scored on 400 more. No digit picture is in two of the three sets. The same probe, with as many steps and the same
seed, is put on the backbone as it was initialised. Contrastive methods get two windows of a clip, cropped and
recoloured each by itself; nothing mirrors, turns or reverses a clip. Clips are decoded once and kept in memory.

Prints a row per method and seed, then mean and range over the seeds. Exits with 1 where the mean of a method is not
20 points above that of random features.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from tag_core import Component, hookimpl
from tag_core.media.sources import Item
from tag_core.media.video import Clip, read_clip
from tag_plugins_video.datasets.folder import VideoFolder
from tag_plugins_video.motion import make_motion_data

BAR, COUNTS = 20.0, {"train": 1600, "val": 400, "test": 400}


@hookimpl
def tag_datasets() -> list[Component]:
    return [Component("clips", "self_supervised:Clips", "A folder of short clips, decoded once")]


@cache
def decoded(path: str, short_side: int | None) -> Clip:
    return read_clip(path, range, short_side)


class Clips(VideoFolder):
    """Videos in one folder per class, kept in memory."""

    def read(self, item: Item) -> Clip:
        whole = decoded(item.path, self.short_side)
        chosen = self.choose(whole.num_frames)
        return Clip(whole.frames[chosen], tuple(chosen), whole.times[chosen], whole.num_frames, whole.fps, whole.damage)


C3D = {"name": "video/c3d-tiny", "width": 16}
VIT = {"name": "video/vit", "dim": 48, "depth": 4, "heads": 3, "patch": 8, "tubelet": 2}
GREY = {"mean": [0.1, 0.1, 0.1], "std": [0.3, 0.3, 0.3]}
CLIPS = {"name": "self-supervised/clips", "short_side": 32}
CROP = {"name": "video/random-resized-crop", "size": 32, "scale": [0.4, 1.0], "ratio": [1.0, 1.0]}
COLOUR = {"name": "video/color-jitter", "brightness": 0.5, "contrast": 0.5, "saturation": 0.0}
PAIR = {"sampler": "dense", "clip_len": 6, "num_clips": 2, "random": True}
PAIR |= {"transforms": [{"name": "video/per-view", "transforms": [CROP, COLOUR]}]}

# The task's options, those of the data, learning rate, epochs, clips a step.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any], float, int, int]] = {
    "moco": ({"backbone": C3D, "queue": 256, "momentum": 0.99, "temperature": 0.1, "dim": 64}, PAIR, 0.003, 3, 64),
    "simclr": ({"backbone": C3D, "dim": 64}, PAIR, 0.005, 3, 128),
    "byol": ({"backbone": C3D, "dim": 64, "hidden": 128, "momentum": 0.99}, PAIR, 0.003, 3, 64),
    "mae": (
        {"backbone": VIT, "mask_ratio": 0.5, "decoder_dim": 48, "decoder_depth": 1},
        {"sampler": "segments"},
        0.002,
        20,
        32,
    ),
}


def learn(method: str, data: Path, seed: int, out: Path) -> Path:
    """Train a method without labels; returns its checkpoint."""
    import tag_core

    task, options, lr, epochs, batch_size = METHODS[method]
    recipe = {
        "task": {"name": f"video/{method}", **task, **GREY},
        "data": {"holdout": 0.0, "train": {**CLIPS, **options, "source": str(data / "train"), "labelled": False}},
        "optimizer": {"name": "core/adamw", "lr": lr},
        "schedule": {"name": "core/one-cycle"},
        "train": {"epochs": epochs, "batch_size": batch_size, "seed": seed, "workers": 0},
        "distribution": "core/cpu",
    }
    tag_core.train(recipe, out=out)
    return out / "checkpoints" / "last.pt"


def probe(backbone: dict[str, Any], data: Path, seed: int, weights: Path | None, out: Path) -> float:
    """Per cent of test clips that a linear classifier gets right; random features without ``weights``."""
    import tag_core

    recipe = {
        "task": {"name": "video/linear-probe", "backbone": backbone, "loss": "core/cross-entropy", **GREY},
        "weights": str(weights or ""),
        "metrics": ["core/top-k"],
        "data": {"train": {**CLIPS, "source": str(data / "val")}, "val": {"source": str(data / "test")}},
        "optimizer": {"name": "core/adamw", "lr": 0.03},
        "schedule": {"name": "core/one-cycle"},
        "train": {"epochs": 10, "batch_size": 32, "seed": seed, "workers": 0, "validate_every": 10},
        "eval": {"workers": 0},
        "distribution": "core/cpu",
    }
    return 100 * float(tag_core.train(recipe, out=out).scores["top1"])


def run(job: tuple[str, int, Path]) -> tuple[str, int, float, float]:
    """(method, seed, accuracy of random features, accuracy of learned ones)."""
    method, seed, data = job
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    backbone = METHODS[method][0]["backbone"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        weights = learn(method, data, seed, out / "learned")
        random = probe(backbone, data, seed, None, out / "random")
        return method, seed, random, probe(backbone, data, seed, weights, out / "probe")


def told(values: list[float]) -> str:
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time")
    parser.add_argument("--data", type=Path, help="keep the clips here, for another time")
    options = parser.parse_args()
    os.environ["TAG_PLUGINS"] = __file__
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "digits"
        for _ in make_motion_data(data, COUNTS):
            pass
        jobs = [(method, seed, data) for method in options.methods for seed in options.seeds]
        found: dict[str, list[tuple[float, float]]] = {}
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            for method, seed, random, learned in pool.map(run, jobs):
                print(f"{method} seed {seed}: random {random:.1f} %, learned {learned:.1f} %", flush=True)
                found.setdefault(method, []).append((random, learned))
    passed = True
    for method, rows in found.items():
        random, learned = (list(column) for column in zip(*rows, strict=True))
        gain = mean(learned) - mean(random)
        passed &= gain >= BAR
        verdict = "pass" if gain >= BAR else "FAIL"
        print(
            f"{method}: random {told(random)} %, learned {told(learned)} %: {gain:+.1f} points (bar {BAR}): {verdict}"
        )
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
