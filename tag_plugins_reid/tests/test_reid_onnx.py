"""Retrieval from an ONNX file: the scores and embeddings of PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tag_core
from tag_core.api import predict_to_folder
from tag_core.config import resolve
from tag_core.errors import UserError
from tag_core.records import read_records

pytest.importorskip("onnx", reason="the extra 'export' of tag-core is not installed")
pytest.importorskip("onnxruntime")

BACKBONE = {"name": "reid/small", "width": 8, "depth": 2}
TASKS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "reid/embedding", "loss": "core/cross-entropy"},
    "bnneck": {"name": "reid/embedding", "neck": "bnneck", "pool": "gem", "loss": "reid/arcface"},
    "triplet": {"name": "reid/embedding", "neck": "linear", "dim": 6, "loss": "reid/triplet"},
    "pcb": {"name": "reid/pcb", "parts": 2, "dim": 4, "loss": "core/cross-entropy"},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four identities, each with a colour that its four noisy pictures are near to."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for identity in range(4):
        colour = generator.integers(60, 200, 3)
        for number in range(4):
            file = folder / f"id{identity}" / f"c{number % 2}_{number}.png"
            file.parent.mkdir(exist_ok=True)
            noisy = colour + generator.normal(0, 40, 3) + generator.normal(0, 40, (40, 24, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file)
    return folder


def recipe(task: str, pictures: Path, folder: Path) -> dict[str, Any]:
    """With weights in ``folder``."""
    resize = {"name": "reid/resize", "size": [32, 16]}
    tables = {
        "metrics": ["reid/market"],
        "task": {"backbone": BACKBONE, **TASKS[task]},
        "data": {"test": {"name": "reid/folder", "source": str(pictures), "camera": "c(.)", "transforms": [resize]}},
        "eval": {"workers": 0, "batch_size": 5},
        "distribution": "core/cpu",
        "weights": str(folder / "weights.pt"),
    }
    torch.manual_seed(0)
    classes = ["a", "b", "c"]
    model = resolve(tables, needs=()).task.build(classes=classes)
    with torch.no_grad():  # its batch norms know the data
        model.train().predict({"image": torch.randint(0, 256, (16, 3, 32, 16), dtype=torch.uint8)})
    torch.save({"model": model.state_dict(), "classes": classes}, folder / "weights.pt")
    return tables


@pytest.mark.parametrize("task", TASKS)
def test_a_graph_ranks_as_pytorch_does(task: str, pictures: Path, tmp_path: Path) -> None:
    tables = recipe(task, pictures, tmp_path)
    tag_core.export(tables, out=tmp_path / "m.onnx")
    graph = [f"weights={tmp_path / 'm.onnx'}"]
    expected = tag_core.evaluate(tables, out=tmp_path / "torch")
    found = tag_core.evaluate(tables, graph, out=tmp_path / "graph")
    assert 0 < expected.scores["map"] < 1
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    predict_to_folder(tables, pictures, graph, out=tmp_path / "out")
    records = list(read_records(tmp_path / "out" / "predictions.jsonl"))
    theirs = list(tag_core.predict(tables, pictures))
    assert [record.source for record in records] == [record.source for record in theirs]
    assert len(records) == 16
    for mine, other in zip(records, theirs, strict=True):
        assert mine.embedding == pytest.approx(other.embedding, abs=1e-4)


def test_a_graph_of_the_embedding_alone_is_enough_to_rank(pictures: Path, tmp_path: Path) -> None:
    tables = recipe("softmax", pictures, tmp_path)
    tag_core.export(tables, overrides=["output=embedding"], out=tmp_path / "e.onnx")
    expected = tag_core.evaluate(tables, out=tmp_path / "torch").scores
    found = tag_core.evaluate(tables, [f"weights={tmp_path / 'e.onnx'}"], out=tmp_path / "graph").scores
    assert found == pytest.approx(expected, abs=1e-4)


def test_pictures_of_another_size_are_refused(pictures: Path, tmp_path: Path) -> None:
    tables = recipe("softmax", pictures, tmp_path)
    tag_core.export(tables, out=tmp_path / "m.onnx")
    other = [f"weights={tmp_path / 'm.onnx'}", "data.test.transforms.0.size=[64, 32]"]
    with pytest.raises(
        UserError, match=r"reads image as uint8 \[batch, 3, 32, 16\], the data give uint8 \[5, 3, 64, 32\]"
    ):
        tag_core.evaluate(tables, other, out=tmp_path / "out")
