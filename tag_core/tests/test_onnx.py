"""A graph in the place of weights: eval and predict give what they give with PyTorch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

import tag_core
from tag_core.api import predict_to_folder
from tag_core.errors import RunFolderError, TagError, UserError, WeightsError

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, with its points and its graph m.onnx beside it."""
    from toy_plugin import write_points

    folder = tmp_path_factory.mktemp("home")
    task = {"name": "toy-plugin/points", "backbone": "toy-plugin/mlp", "loss": "core/cross-entropy"}
    recipe = {
        "metrics": ["core/top-k"],
        "task": task,
        "data": {"train": {"name": "toy-plugin/points", "source": str(write_points(folder / "points", 40))}},
        "optimizer": {"name": "core/sgd", "lr": 0.1},
        "train": {"epochs": 2, "batch_size": 8, "workers": 0},
        "eval": {"workers": 0},
        "distribution": "core/cpu",
    }
    tag_core.train(recipe, out=folder / "run")
    tag_core.export(folder / "run", a_point(folder), out=folder / "m.onnx")
    return folder / "run"


@pytest.fixture
def graph(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copy(trained.parent / "m.onnx", tmp_path))


def a_point(folder: Path) -> Path:
    path = folder / "extra" / "0-1.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("0.5 -0.25 1")
    return path


def changed(graph: Path, notes: dict[str, Any] | None, to: str) -> str:
    """A copy with other notes on it."""
    model = onnx.load(graph)
    about = json.loads({each.key: each.value for each in model.metadata_props}["tag"])
    onnx.helper.set_model_props(model, {} if notes is None else {"tag": json.dumps({**about, **notes})})
    onnx.save(model, graph.with_name(to))
    return f"weights={graph.with_name(to)}"


def test_the_scores_and_records_are_those_of_pytorch(tmp_path: Path, trained: Path, graph: Path) -> None:
    expected = tag_core.evaluate(trained, out=tmp_path / "torch")
    found = tag_core.evaluate(trained, [f"weights={graph}"], out=tmp_path / "graph")
    assert found.scores
    assert found.scores == pytest.approx({k: v for k, v in expected.scores.items() if k != "val_loss"})
    assert found.coverage == expected.coverage
    for mine, theirs in zip(found.records, expected.records, strict=True):
        assert (mine.source, mine.labels, mine.truth) == (theirs.source, theirs.labels, theirs.truth)
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-6)


def test_a_recipe_needs_no_other_weights_than_the_graph(
    tmp_path: Path, toy_recipe: dict[str, Any], trained: Path, graph: Path
) -> None:
    toy_recipe["weights"] = str(graph)
    (record,) = tag_core.predict(toy_recipe, a_point(tmp_path))
    (expected,) = tag_core.predict(trained, a_point(tmp_path))
    assert record.labels == expected.labels
    assert record.scores == pytest.approx(expected.scores, abs=1e-6)


def test_class_names_come_from_the_file(tmp_path: Path, trained: Path, graph: Path) -> None:
    weights = changed(graph, {"classes": ["west", "east"]}, "named.onnx")
    (record,) = tag_core.predict(trained, a_point(tmp_path), [weights])
    assert set(record.labels or []) == {"west", "east"}


def test_embeddings_come_from_the_graph_too(tmp_path: Path, trained: Path, graph: Path) -> None:
    (found,) = tag_core.predict(trained, a_point(tmp_path), [f"weights={graph}", "output=embedding"])
    (expected,) = tag_core.predict(trained, a_point(tmp_path), ["output=embedding"])
    assert found.embedding == pytest.approx(expected.embedding, abs=1e-6)


def test_a_folder_of_predictions_belongs_to_one_graph(tmp_path: Path, trained: Path, graph: Path) -> None:
    points, out = trained.parent / "points", tmp_path / "out"
    assert predict_to_folder(trained, points, [f"weights={graph}"], out=out).total == 40
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    expected = [json.loads(record.to_json()) for record in tag_core.predict(trained, points)]
    assert [record.pop("scores") for record in found] == [
        pytest.approx(record.pop("scores"), abs=1e-6) for record in expected
    ]
    assert found == expected
    with pytest.raises(RunFolderError, match="other predictions"):
        predict_to_folder(trained, points, [changed(graph, {"recipe": "another"}, "other.onnx")], out=out)
    assert predict_to_folder(trained, points, [f"weights={graph}"], out=out).total == 40


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        (None, "no graph of 'tag-run export'"),
        ({"classes": 3}, "no graph of 'tag-run export'"),
        (
            {"task": {"name": "video/classification"}},
            "a graph of video/classification, not of this recipe's toy-plugin",
        ),
    ],
)
def test_a_file_of_another_program_or_task_is_refused(
    notes: dict[str, Any] | None, told: str, tmp_path: Path, trained: Path, graph: Path
) -> None:
    with pytest.raises(WeightsError, match=told):
        list(tag_core.predict(trained, a_point(tmp_path), [changed(graph, notes, "n.onnx")]))


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ({"inputs": {"point": ["batch", 3]}}, r"reads point as float32 \[batch, 3\], the data give float32 \[1, 2\]"),
        ({"inputs": {"point": ["batch", 2, 2]}}, r"float32 \[batch, 2, 2\], the data give float32 \[1, 2\]"),
        ({"types": {"point": "uint8"}}, r"reads point as uint8 \[batch, 2\], the data give float32"),
        (
            {"inputs": {"clip": ["batch"]}, "types": {"clip": "uint8"}},
            r"reads clip as uint8 \[batch\], the data give none",
        ),
        ({"inputs": {}}, "onnxruntime cannot run this batch: .*point"),
    ],
)
def test_data_that_do_not_fit_the_graph_are_refused(
    notes: dict[str, Any], told: str, tmp_path: Path, trained: Path, graph: Path
) -> None:
    with pytest.raises(UserError, match=told):
        list(tag_core.predict(trained, a_point(tmp_path), [changed(graph, notes, "n.onnx")]))


def test_an_output_that_the_graph_lacks_is_told(tmp_path: Path, trained: Path) -> None:
    tag_core.export(trained, a_point(tmp_path), ["output=embedding"], out=tmp_path / "e.onnx")
    with pytest.raises(UserError, match=r"e\.onnx: the graph gives embedding, and scores is needed"):
        list(tag_core.predict(trained, a_point(tmp_path), [f"weights={tmp_path / 'e.onnx'}"]))


def test_a_missing_or_damaged_file_is_told(tmp_path: Path, trained: Path, graph: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.onnx: No such file"):
        tag_core.evaluate(trained, [f"weights={tmp_path / 'none.onnx'}"], out=tmp_path / "out")
    graph.write_bytes(graph.read_bytes()[:-300])
    with pytest.raises(WeightsError, match=r"m\.onnx: no graph that onnxruntime can run"):
        tag_core.evaluate(trained, [f"weights={graph}"], out=tmp_path / "out")


def test_a_graph_is_no_start_for_a_training_nor_for_another_graph(
    tmp_path: Path, toy_recipe: dict[str, Any], graph: Path
) -> None:
    toy_recipe["weights"] = str(graph)
    with pytest.raises(WeightsError, match="a graph cannot be trained on"):
        tag_core.train(toy_recipe, out=tmp_path / "again")
    with pytest.raises(TagError, match="is a graph already"):
        tag_core.export(toy_recipe, a_point(tmp_path), out=tmp_path / "n.onnx")


def test_without_onnxruntime_it_says_what_to_install(
    tmp_path: Path, trained: Path, graph: Path, tag_run: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    done = tag_run("eval", trained, f"weights={graph}", PYTHONPATH=str(tmp_path / "blocked"))
    assert done.returncode == 2
    assert "No module named onnxruntime; type: pip install 'tag-core[export]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_pytorch_runs_nothing(trained: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph alone predicts: a task whose layers are broken gives the same."""
    expected = list(tag_core.predict(trained, a_point(tmp_path), [f"weights={graph}"]))
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda *_: 1 / 0)
    assert list(tag_core.predict(trained, a_point(tmp_path), [f"weights={graph}"])) == expected
