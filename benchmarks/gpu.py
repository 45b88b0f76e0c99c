"""Tag on a GPU: its loops against bare PyTorch, how long the GPU waits for data, and exact resume.

    python benchmarks/gpu.py [--rounds N] [--batch N] [--workers 2 4 8] [--only training prediction data resume]

Without a GPU it says so and exits with 0. Needs torch, torchvision, timm, torchmetrics, av and the rest of
requirements.txt. Tag need not be installed: where its packages have no entry points, it finds them beside this file
(``tag_core/src``, ``tag_plugins_video/src``) and registers their plugins itself, in worker processes too. Only
sampled decoding and model code run; nothing is fetched and no data set is needed: tensors are random, and the videos
are encoded on the spot.

1. *training*, *prediction*: clips a second of S3D (16 frames of 112x112) and of TSN with a ResNet-50 (8 frames of
   224x224), in fp32, bf16, bf16 with channels-last, and bf16 compiled, each next to a hand-written loop with the same
   settings on the same task, in alternating rounds. Both take ready batches from the host, pin them and copy them; the
   ratio is of medians of wall time, the GPU synchronised before and after each round.
2. *data*: a training epoch on H.264 files of 340x256, decoded by N workers: the share of its time during which the
   loop waits for the next batch (the GPU has nothing to do then, at the latest when its queue is empty), and clips a
   second next to the same model on ready batches.
3. *resume*: 20 steps at once, and 10 steps, stop, 10 more from the checkpoint, with ``deterministic``: every tensor of
   the checkpoints must be bit-identical. Exits with 1 when one is not; speeds are reported and have no bar.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import Any

# cuBLAS reads it when it starts; without it, deterministic mode refuses matrix products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
ROOT = Path(__file__).resolve().parents[1]
OWN = [str(Path(__file__).resolve())]
if not any(entry.name == "video" for entry in entry_points(group="tag.plugins")):
    sys.path[:0] = [str(ROOT / name / "src") for name in ("tag_core", "tag_plugins_video")]
    here = {entry.name for entry in entry_points(group="tag.plugins")}
    OWN += [] if "core" in here else ["tag_core.builtin.plugin"]
    OWN += ["tag_plugins_video.plugin"]

import torch
from torch import Tensor, nn

from tag_core import Component, hookimpl

CLASSES, TINY_CLASSES, STEPS = 400, 8, 10
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16, channels-last": {"precision": "bf16", "channels_last": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
