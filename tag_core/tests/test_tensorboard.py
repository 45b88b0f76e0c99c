import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tag_core.builtin import tensorboard
from tag_core.plugins import load_plugins

ROW = {"epoch": 1, "step": 10, "train_loss": 2.5, "top1": 0.25, "lr": 0.1, "note": "x", "best": True, "gone": None}


def run(folder, kind="train"):
    return SimpleNamespace(folder=folder, kind=kind)


def curves(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_numeric_scores_become_curves_over_steps(tmp_path):
    pytest.importorskip("tensorboard")
    plugins = load_plugins()
    plugins.event("tag_run_started", run=run(tmp_path))
    plugins.event("tag_epoch_finished", run=run(tmp_path), scores=ROW)
    plugins.event("tag_epoch_finished", run=run(tmp_path), scores={**ROW, "epoch": 2, "step": 20, "top1": 0.5})
    plugins.event("tag_run_finished", run=run(tmp_path), outcome="done")
    assert curves(tmp_path) == {
        "train_loss": [(10, 2.5), (20, 2.5)],
        "top1": [(10, 0.25), (20, 0.5)],
        "lr": [(10, 0.1), (20, 0.1)],
    }


def test_a_resumed_run_replaces_what_the_killed_one_wrote_later(tmp_path):
    pytest.importorskip("tensorboard")
    for step, value in ((10, 0.1), (20, 0.9), (30, 0.9)):
        tensorboard.tag_epoch_finished(run(tmp_path), {"step": step, "top1": value})
    tensorboard.tag_run_finished(run(tmp_path))
    tensorboard.tag_epoch_finished(run(tmp_path), {"step": 20, "top1": 0.2})
    tensorboard.tag_run_finished(run(tmp_path))
    assert curves(tmp_path)["top1"] == [(10, 0.1), (20, 0.2)]


@pytest.mark.parametrize("kind", ["eval", "predict"])
def test_other_runs_write_nothing(tmp_path, kind):
    tensorboard.tag_epoch_finished(run(tmp_path, kind), ROW)
    tensorboard.tag_run_finished(run(tmp_path, kind))
    assert os.listdir(tmp_path) == []


def test_without_tensorboard_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    tensorboard.tag_epoch_finished(run(tmp_path), ROW)
    assert os.listdir(tmp_path) == []


def test_the_built_in_plugins_import_nothing_heavy():
    code = """
import sys
from tag_core.builtin import plugin, tensorboard
listed = [c for name in dir(plugin) if name.startswith("tag_") for c in getattr(plugin, name)()]
heavy = {"torch", "numpy", "torchmetrics", "tensorboard", "pyarrow"} & set(sys.modules)
print(len(listed) > 20, sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True []\n"
