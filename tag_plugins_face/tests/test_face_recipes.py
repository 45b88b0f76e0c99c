"""The published schedules, and detections through the command line, by weights and by graph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_pictures import FACE_DATA, write_labelled
from PIL import Image

import tag_core
from tag_core.config import resolve
from tag_core.errors import WeightsError

WEIGHTS = FACE_DATA / "weights" / "retinaface_mobilenet0.25.pth"
NAMES = ["retinaface-mobilenet0.25", "retinaface-resnet50"]


def tag_run(folder: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "tag_core.cli.main", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(file: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return {Path(record["source"]).name: record for record in found}


@pytest.mark.parametrize(
    ("name", "side", "batch", "epochs", "milestones"),
    [(NAMES[0], 640, 32, 250, [190, 220]), (NAMES[1], 840, 24, 100, [70, 90])],
)
def test_recipes_train_as_published(name, side, batch, epochs, milestones, tmp_path):
    recipe = resolve(f"face/{name}", [f"data.train.source={write_labelled(tmp_path)}"])
    assert (recipe.train.batch_size, recipe.train.epochs) == (batch, epochs)
    assert recipe.schedule.options["milestones"] == milestones
    sample = recipe.data["train"].build()[0]
    assert sample["image"].shape == (3, side, side)
    assert len(sample["faces"]) > 0
    parameter = torch.nn.BatchNorm2d(1)
    group = recipe.optimizer.build(model=parameter).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-3, 0.9, 5e-4)
    assert recipe.data["test"].options["transforms"] == []


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the shared data are not here")
def test_an_exported_graph_finds_the_stored_faces_in_pictures_of_any_size_as_the_weights_do(tmp_path):
    pytest.importorskip("onnxruntime")
    pictures = [FACE_DATA / "images" / name for name in ("skimage_astronaut.png", "retinaface_curve_test.jpg")]
    options = ["eval.workers=0", "eval.batch_size=2"]
    told = tag_run(tmp_path, "export", f"face/{NAMES[0]}", f"weights={WEIGHTS}", "--out", "f.onnx")
    assert "uint8    [batch, 3, height, width]" in told
    with np.load(FACE_DATA / "reference" / "detections_retinaface_mobilenet0.25.npz") as stored:
        for weights in (WEIGHTS, "f.onnx"):
            out = tmp_path / Path(weights).suffix
            tag_run(tmp_path, "predict", f"face/{NAMES[0]}", f"weights={weights}", *options, *pictures, "--out", out)
            found = records(out / "predictions.jsonl")
            for picture in pictures:
                for key, name in (("boxes", "boxes"), ("scores", "scores"), ("keypoints", "landmarks")):
                    expected = stored[f"{picture.stem}/{name}"]
                    np.testing.assert_allclose(found[picture.name][key], expected, rtol=0, atol=1e-2)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the shared data are not here")
def test_faces_of_a_resized_picture_are_told_in_pixels_of_the_original(tmp_path):
    picture = Image.open(FACE_DATA / "images" / "skimage_astronaut.png").convert("RGB")
    picture.resize((1024, 1024), Image.Resampling.BICUBIC).save(tmp_path / "large.png")
    resize = 'data.test.transforms=[{name="face/resize",short_side=512,max_side=600}]'
    options = [f"weights={WEIGHTS}", resize, "eval.workers=0", "task.threshold=0.5"]
    tag_run(tmp_path, "predict", f"face/{NAMES[0]}", *options, "large.png", "--out", "out")
    (record,) = records(tmp_path / "out" / "predictions.jsonl").values()
    with np.load(FACE_DATA / "reference" / "detections_retinaface_mobilenet0.25.npz") as stored:
        expected = 2 * stored["skimage_astronaut/boxes"][:1]
    np.testing.assert_allclose(record["boxes"], expected, rtol=0, atol=6)


def test_without_weights_of_a_large_detector_the_way_to_give_some_is_told(tmp_path):
    command = [sys.executable, "-m", "tag_core.cli.main", "predict", f"face/{NAMES[1]}", "a.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "add weights=FILE" in done.stderr


def test_without_weights_the_published_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights; add weights=FILE .* or a published name: wider-face"):
        list(tag_core.predict(f"face/{NAMES[0]}", tmp_path))
