"""Trainings that are killed in the middle of an epoch end with the same weights, memory and batches."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from reid_pictures import write_pictures

from tag_core.engine import checkpoint

KILLS = 3
DIM = 1024  # so wide that many kills fall into the writing of a checkpoint
ARCFACE = {"name": "reid/arcface", "scale": 24.0, "margin": 0.3}
PAIRS = {"name": "reid/xbm", "loss": "reid/triplet", "dim": DIM, "size": 24}
BACKBONE = {"name": "reid/small", "width": 4, "depth": 2}
PARTS: dict[str, dict[str, Any]] = {
    "identities": {
        "task": {"neck": "bnneck", "dropout": 0.2, "loss": {"name": "reid/sum", "losses": [ARCFACE, PAIRS]}},
        "sampler": {"name": "reid/identities", "num_instances": 2},
        "transforms": [
            {"name": "reid/resize", "size": [16, 12]},
            "reid/pad-crop",
            "reid/random-erasing",
            "reid/affine",
        ],
    },
    "aspect-groups": {
        "task": {"neck": "linear", "pool": "gem", "loss": {"name": "reid/xbm-softmax", "loss": ARCFACE, "dim": DIM}},
        "sampler": "reid/aspect-groups",
        "transforms": ["reid/taobao-augment", {"name": "reid/resize", "size": [16, 12]}],
    },
}


def start(folder: Path, out: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tag_core.cli.main", "train", "recipe.toml", "--out", out, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", PARTS)
def test_kills_leave_weights_and_memories_bit_identical(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", [f"p{who}/{number}.png" for who in range(6) for number in range(5)], (40, 20))
    task, sampler, transforms = PARTS[name].values()
    recipe = {
        "task": {"name": "reid/embedding", "backbone": BACKBONE, "dim": DIM} | task,
        "data": {"holdout": 0.0, "train": {"name": "reid/folder", "source": "data", "transforms": transforms}},
        "sampler": sampler,
        "optimizer": {"name": "core/adamw", "lr": 0.001},
        "train": {"epochs": 15, "batch_size": 4, "checkpoint_every": 1, "workers": 1, "ema_decay": 0.9},
        "distribution": "core/cpu",
    }
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe))
    whole = start(tmp_path, "whole")
    assert whole.wait() == 0, whole.stderr and whole.stderr.read()

    last, instants = tmp_path / "killed" / "checkpoints" / "last.pt", random.Random(0)
    steps = []
    for kill in range(KILLS + 1):
        begun = last.stat().st_mtime_ns if last.exists() else None
        process = start(tmp_path, "killed", *(["--resume"] if begun else []))
        while kill < KILLS and process.poll() is None:
            if last.exists() and last.stat().st_mtime_ns != begun:
                time.sleep(instants.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait() == (-signal.SIGKILL if kill < KILLS else 0), process.stderr and process.stderr.read()
        steps.append(checkpoint.load(last)["position"]["step"])
    assert steps == sorted(set(steps))

    ours, theirs = (checkpoint.load(tmp_path / run / "checkpoints" / "last.pt") for run in ("killed", "whole"))
    assert ours["position"] == theirs["position"]
    for part in ("model", "ema"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items())
    assert any("memor" in key or "queue" in key for key in ours["model"])
