"""A graph is kept only where it gives what PyTorch gives, at other sizes too."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tag_core
from tag_core.engine.export import export
from tag_core.errors import ConfigError, RunFolderError, TagError, UnreadableInput, UserError, WeightsError

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
onnxruntime = pytest.importorskip("onnxruntime")

FRAMES = {"source": "a.mp4", "damage": None, "frames": torch.randn(6, 4), "label": 3}


class Mean(nn.Module):
    """Scores from the mean over a sequence [N, T, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        assert set(batch) == {"frames"}, "labels and what is no tensor are no inputs"
        mean = batch["frames"].mean(1)
        return {"scores": self.head(mean), "embedding": mean, "names": ["a"]}


class ByPlace(Mean):
    """A weight for each of six places: no other length."""

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"scores": batch["frames"].flatten(1) @ torch.arange(24.0)}


class Pairs(Mean):
    """Looks at two samples together: no other batch."""

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"scores": batch["frames"].reshape(2, 24) @ torch.arange(24.0)}


class Finds(nn.Module):
    """As many scores as a picture [N, 3, H, W] has cells of 4x4, rounded up; of these, those above 0."""

    any_size = True

    def dense(self, batch: dict[str, Any]) -> dict[str, Any]:
        cells = nn.functional.avg_pool2d(batch["image"].float(), 4, ceil_mode=True)
        return {"scores": cells.mean(1).flatten(1) - 100}

    def select(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        return {"count": (outputs["scores"] > 0).sum(1)}

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.select(self.dense(batch), batch)


class Wrong(Mean):
    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"scores": batch["frames"].mean(1) + 0.01 * torch.compiler.is_exporting()}


class Undefined(Mean):
    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"scores": batch["frames"].sum(1) / 0 * 0}


def outputs_of(file: Path, **inputs: Tensor) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip([output.name for output in session.get_outputs()], found, strict=True))


def notes_of(file: Path) -> dict[str, Any]:
    properties = {each.key: each.value for each in onnx.load(file).metadata_props}
    notes: dict[str, Any] = json.loads(properties["tag"])
    return notes


def test_an_onnx_file_gives_what_the_task_gives_for_any_batch_and_length(tmp_path: Path) -> None:
    task, file = Mean(), tmp_path / "m.onnx"
    found = export(task, FRAMES, file, {"about": "me"})
    assert found.inputs == {"frames": ["batch", "time", 4]}
    assert found.outputs == {"scores": ["batch", 3], "embedding": ["batch", 4]}
    assert max(found.differences.values()) < 1e-6
    for shape in ((1, 1, 4), (5, 9, 4)):
        frames = torch.randn(shape)
        given = outputs_of(file, frames=frames)
        weight, bias = (p.detach().numpy() for p in task.head.parameters())
        np.testing.assert_allclose(given["embedding"], frames.numpy().mean(1), atol=1e-6)
        np.testing.assert_allclose(given["scores"], frames.numpy().mean(1) @ weight.T + bias, atol=1e-6)
    assert notes_of(file)["about"] == "me"
    assert notes_of(file)["inputs"] == found.inputs
    assert notes_of(file)["types"] == {"frames": "float32", "scores": "float32", "embedding": "float32"}
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"], "one file, and nothing left behind"


def test_a_torch_file_gives_what_the_task_gives(tmp_path: Path) -> None:
    task, file = Mean(), tmp_path / "m.pt2"
    export(task, FRAMES, file, {"about": "me"}, file_format="torch")
    notes = {"tag.json": ""}
    program = torch.export.load(file, extra_files=notes)
    frames = torch.randn(3, 11, 4)
    expected = task.predict({"frames": frames})
    torch.testing.assert_close(program.module()({"frames": frames})["scores"], expected["scores"])
    assert json.loads(notes["tag.json"])["about"] == "me"


def test_one_output_can_be_asked_for(tmp_path: Path) -> None:
    assert export(Mean(), FRAMES, tmp_path / "m.onnx", {}, output="embedding").outputs == {"embedding": ["batch", 4]}
    with pytest.raises(UserError, match=r"output=masks: the task gives scores, embedding; leave the option out"):
        export(Mean(), FRAMES, tmp_path / "n.onnx", {}, output="masks")


@pytest.mark.parametrize("file_format", ["onnx", "torch"])
def test_a_model_made_for_one_length_is_exported_with_it_and_the_reason_told(
    file_format: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tag"):
        found = export(ByPlace(), FRAMES, tmp_path / "m", {}, file_format=file_format)
    assert found.inputs == {"frames": ["batch", 6, 4]}
    assert [m.partition(":")[0] for m in caplog.messages] == ["the length is fixed at 6"]
    assert "\n" not in caplog.text.strip()


def test_a_task_that_selects_is_exported_before_it_does_and_for_pictures_of_any_size(tmp_path: Path) -> None:
    sample = {"source": "a.jpg", "image": torch.randint(0, 255, (3, 21, 30), dtype=torch.uint8), "scale": 1.0}
    found = export(Finds(), sample, tmp_path / "m.onnx", {})
    assert found.inputs == {"image": ["batch", 3, "height", "width"]}
    assert list(found.outputs) == ["scores"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 8), (3, 3, 33, 70)):
        image = torch.randint(0, 255, shape, dtype=torch.uint8)
        scores = session.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(scores, Finds().dense({"image": image})["scores"], atol=1e-3)


@pytest.mark.parametrize("file_format", ["onnx", "torch"])
@pytest.mark.parametrize(("task", "told"), [(Pairs(), "batch"), (Wrong(), "differs by 0.01"), (Undefined(), "nan")])
def test_a_graph_that_gives_something_else_is_not_kept(
    file_format: Any, task: nn.Module, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_text("what was there before")
    with pytest.raises(TagError, match=told) as caught:
        export(task, FRAMES, file, {}, file_format=file_format)
    assert caught.value.exit_code == 1
    assert file.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [file]


def test_the_tolerance_is_a_share_of_the_largest_value(tmp_path: Path) -> None:
    file, larger = tmp_path / "m.pt2", {"frames": FRAMES["frames"] * 1000}
    differs = export(Wrong(), FRAMES, file, {}, file_format="torch", tolerance=0.1).differences["scores"]
    assert differs == pytest.approx(0.01, rel=0.01)
    assert export(Wrong(), larger, file, {}, file_format="torch").differences["scores"] > 5e-3


def test_a_file_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot write .*gone"):
        export(Mean(), FRAMES, tmp_path / "gone" / "m.onnx", {})


@pytest.fixture
def trained(tmp_path: Path, toy_recipe: dict[str, Any]) -> Path:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_exported_with_how_to_prepare_its_inputs(tmp_path: Path, trained: Path) -> None:
    file, point = tmp_path / "m.onnx", tmp_path / "points" / "0-1.txt"
    point.write_text("0.5 -0.25 1")
    found = tag_core.export(trained, point, ["eval.compile=true", "distribution=core/auto"], out=file)
    assert found.inputs == {"point": ["batch", 2]}
    (record,) = tag_core.predict(trained, point)
    scores = outputs_of(file, point=torch.tensor([[0.5, -0.25]]))["scores"][0]
    assert dict(zip(["left", "right"], scores.tolist(), strict=True)) == pytest.approx(
        dict(zip(record.labels or [], record.scores or [], strict=True)), abs=1e-6
    )
    notes = notes_of(file)
    assert notes["classes"] == ["left", "right"]
    assert notes["preparation"] == {"name": "toy-plugin/points", "labelled": True, "noise": 0.0}
    assert notes["task"]["name"] == "toy-plugin/points"
    assert notes["reads"] == "A linear layer over the backbone."


def test_what_is_missing_is_told(tmp_path: Path, trained: Path, toy_recipe: dict[str, Any]) -> None:
    file = tmp_path / "m.onnx"
    with pytest.raises(UserError, match="toy-plugin/points makes up no example; name an INPUT"):
        tag_core.export(trained, out=file)
    with pytest.raises(UnreadableInput, match="No such file"):
        tag_core.export(trained, tmp_path / "gone.txt", out=file)
    with pytest.raises(WeightsError, match="weights=FILE"):
        tag_core.export(toy_recipe, out=file)
    del toy_recipe["data"]
    with pytest.raises(ConfigError, match=r"data\.test"):
        tag_core.export(toy_recipe, out=file)
    assert not file.exists()


def test_without_the_libraries_it_says_what_to_install(
    tmp_path: Path, trained: Path, tag_run: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    path = str(tmp_path / "blocked")
    done = tag_run("export", trained, "--out", tmp_path / "m.onnx", PYTHONPATH=path)
    assert done.returncode == 2
    assert "No module named onnxruntime; type: pip install 'tag-core[export]'" in done.stderr
    assert "Traceback" not in done.stderr
    point = tmp_path / "points" / "0-1.txt"
    point.write_text("0.5 -0.25 1")
    done = tag_run("export", trained, point, "--format", "torch", "--out", tmp_path / "m.pt2", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr


def test_several_inputs_are_refused(trained: Path, tag_run: Callable[..., CompletedProcess[str]]) -> None:
    done = tag_run("export", trained, "a.txt", "b.txt", "--out", "m.onnx")
    assert done.returncode == 2
    assert "one INPUT at most" in done.stderr


def test_a_file_of_another_kind_is_not_replaced(
    tmp_path: Path, trained: Path, tag_run: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "a.jpg").touch()
    done = tag_run("export", trained, "--out", tmp_path / "a.jpg")
    assert done.returncode == 2
    assert "is there already, and does not end in .onnx" in done.stderr
    assert (tmp_path / "a.jpg").read_bytes() == b""
