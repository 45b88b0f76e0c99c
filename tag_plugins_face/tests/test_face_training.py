"""Whole trainings: from ImageNet weights to every face found, cut off and resumed, on two processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from face_pictures import FACE_DATA, write_labelled

import tag_core
from tag_core.engine import checkpoint

IMAGENET = FACE_DATA / "weights" / "mobilenetV1X0.25_pretrain.tar"


def recipe_of(labels: str, size: int, **train: Any) -> dict[str, Any]:
    """The published one, for drawn pictures of ``size`` pixels and few steps."""
    transforms = [{"name": "face/square-resize", "size": size, "interpolation": "linear"}]
    return {
        "extends": "face/retinaface-mobilenet0.25",
        "data": {"train": {"source": labels, "transforms": transforms}, "val": {"source": labels}},
        "optimizer": {"lr": 0.02},
        "schedule": {"milestones": [20, 26]},
        "train": {"epochs": 2, "batch_size": 4, "workers": 0, "validate_every": 0, **train},
        "eval": {"workers": 0},
        "distribution": "core/cpu",
    }


def train(recipe: dict[str, Any], folder: Path, *options: str) -> str:
    """What ``tag-run train`` says on stderr; the run is ``folder/run``."""
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
    command = [sys.executable, "-m", "tag_core.cli.main", "train", "recipe.toml", "--out", "run", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(not IMAGENET.is_file(), reason="the shared data are not here")
def test_from_imagenet_weights_every_face_of_a_small_set_is_learned(tmp_path: Path) -> None:
    labels = write_labelled(tmp_path / "data", count=6, size=(128, 128), least=20, most=50)
    recipe = recipe_of(labels, 128, epochs=30, batch_size=3, validate_every=30) | {"weights": str(IMAGENET)}
    assert "162 tensors loaded (layout backbone)" in train(recipe, tmp_path)
    scores = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert scores[-1]["ap"] > 0.95


def test_a_training_that_was_cut_off_goes_on_bit_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(write_labelled(tmp_path / "data"), 64, checkpoint_every=1, batch_size=2)
    recipe["data"]["train"]["transforms"][:0] = ["face/square-crop", "face/photometric", "face/mirror"]
    write, killed = checkpoint.save, tmp_path / "killed"

    def save_and_keep_the_first(path: Path, state: Any) -> None:
        write(path, state)
        if not killed.exists():
            shutil.copytree(tmp_path / "whole", killed)

    monkeypatch.setattr(checkpoint, "save", save_and_keep_the_first)
    tag_core.train(recipe, out=tmp_path / "whole")
    assert checkpoint.load(killed / "checkpoints" / "last.pt")["position"]["step"] == 1
    tag_core.train(recipe, out=killed, resume=True)
    whole, resumed = (checkpoint.load(tmp_path / run / "checkpoints" / "last.pt") for run in ("whole", "killed"))
    assert whole["position"]["step"] == 4
    assert all(torch.equal(value, resumed["model"][key]) for key, value in whole["model"].items())


def test_two_processes_learn_together_and_leave_weights_that_predict(tmp_path: Path) -> None:
    labels = write_labelled(tmp_path / "data")
    recipe = recipe_of(labels, 64, validate_every=2) | {"distribution": "core/ddp"}
    train(recipe, tmp_path, "--procs", "2")
    pictures = sorted((tmp_path / "data").rglob("*.png"))
    records = list(tag_core.predict(tmp_path / "run", [str(path) for path in pictures], ["distribution=core/cpu"]))
    assert [record.source for record in records] == [str(path) for path in pictures]
    assert all(len(record.boxes or []) == len(record.scores or []) for record in records)
