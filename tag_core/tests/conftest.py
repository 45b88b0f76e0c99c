"""Shared by the core's tests: the toy plugin, and recipes that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_catalog import plugged

HERE = Path(__file__).resolve().parent
TOY = str(HERE / "toy_plugin.py")


@pytest.fixture(scope="module", autouse=True)
def toy_plugin() -> Iterator[None]:
    """In these tests alone: every new process would load it too."""
    with plugged(TOY):
        yield


@pytest.fixture
def toy_recipe(tmp_path: Path) -> dict[str, Any]:
    """Tables of a small training on 40 points."""
    from toy_plugin import write_points

    return {
        "metrics": ["core/top-k"],
        "task": {
            "name": "toy-plugin/points",
            "backbone": {"name": "toy-plugin/mlp"},
            "loss": {"name": "core/cross-entropy"},
        },
        "data": {
            "holdout": 0.2,
            "train": {"name": "toy-plugin/points", "source": str(write_points(tmp_path / "points", 40)), "noise": 0.1},
            "val": {"noise": 0.0},
        },
        "optimizer": {"name": "core/sgd", "lr": 0.1},
        "schedule": {"name": "core/cosine"},
        "train": {"epochs": 3, "batch_size": 8, "workers": 0, "log_every": 1},
        "eval": {"workers": 0},
        "distribution": "core/cpu",
    }


@pytest.fixture
def tag_run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``tag-run`` as a user would, in a process of its own."""

    def call(*arguments: object, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tag_core.cli.main", *map(str, arguments)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return call
