"""Two processes do what one does, write once, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

import tag_core
from tag_core.engine import checkpoint
from tag_core.records import read_records

Call = Callable[..., subprocess.CompletedProcess[str]]


def scores(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def write(folder: Path, recipe: dict[str, Any]) -> Path:
    recipe.pop("distribution", None)
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def assert_same_curve(one: Path, two: Path) -> None:
    rows, others = scores(one), scores(two)
    assert len(rows) == len(others) > 10
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call) -> None:
    # 9 does not divide by 2, and one file is unreadable: the ranks' shares differ from step to step.
    toy_recipe["train"].update(batch_size=9, drop_last=False, accumulate=2, clip_norm=0.5, epochs=6)
    first = sorted((tmp_path / "points").iterdir())[0]
    first.write_text("unreadable")
    recipe = write(tmp_path, toy_recipe)
    assert tag_run("train", recipe, "--out", tmp_path / "one").returncode == 3
    result = tag_run("train", recipe, "--out", tmp_path / "two", "--procs", 2)
    assert result.returncode == 3, result.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    one, two = (checkpoint.load(tmp_path / name / "checkpoints" / "last.pt")["model"] for name in ("one", "two"))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)


def test_a_rank_without_a_single_sample_does_not_hang_the_others(
    tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call
) -> None:
    # Batches of one sample: the second rank never has any.
    toy_recipe["train"].update(batch_size=1, epochs=1)
    recipe = write(tmp_path, toy_recipe)
    assert tag_run("train", recipe, "--out", tmp_path / "one").returncode == 0
    result = tag_run("train", recipe, "--out", tmp_path / "two", "--procs", 2)
    assert result.returncode == 0, result.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")


def test_torchrun_works_as_procs_does(tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call) -> None:
    recipe = write(tmp_path, toy_recipe)
    assert tag_run("train", recipe, "--out", tmp_path / "one").returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tag_core.cli.main", "train", str(recipe), "--out", str(tmp_path / "two")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")


def test_merged_metrics_are_those_of_one_process(tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call) -> None:
    # 39 samples over 2 processes: padding would count one twice.
    sorted((tmp_path / "points").iterdir())[0].unlink()
    toy_recipe["metrics"] = ["core/top-k", "core/mean-class-accuracy", "core/confusion-matrix"]
    toy_recipe["data"]["test"] = {"source": str(tmp_path / "points")}
    recipe = write(tmp_path, toy_recipe)
    trained = tag_core.train(toy_recipe, out=tmp_path / "run")
    weights = f"weights={trained.best}"
    one = tag_run("eval", recipe, weights, "--json", "--out", tmp_path / "one")
    two = tag_run("eval", recipe, weights, "--json", "--out", tmp_path / "two", "--procs", 2)
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert json.loads(one.stdout)["tables"] == json.loads(two.stdout)["tables"]
    assert json.loads(one.stdout)["scores"] == pytest.approx(json.loads(two.stdout)["scores"], rel=1e-6)
    assert sum(map(sum, json.loads(two.stdout)["tables"]["confusion_matrix"])) == 39
    sources = [record.source for record in read_records(tmp_path / "two" / "predictions.jsonl")]
    assert len(sources) == len(set(sources)) == 39


def test_two_processes_predict_each_input_once(tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call) -> None:
    toy_recipe["eval"].update(shard_size=3)
    trained = tag_core.train(toy_recipe, out=tmp_path / "run")
    recipe = write(tmp_path, toy_recipe)
    arguments = [f"weights={trained.best}", tmp_path / "points"]
    result = tag_run("predict", recipe, *arguments, "--out", tmp_path / "out", "--procs", 2)
    assert result.returncode == 0, result.stderr
    alone = [r.to_json() for r in tag_core.predict(recipe, tmp_path / "points", arguments[:1])]
    assert [r.source for r in read_records(tmp_path / "out" / "predictions.jsonl")] == [
        json.loads(line)["source"] for line in alone
    ]


def test_a_rank_that_dies_ends_the_run_and_shows_its_traceback(
    tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call
) -> None:
    toy_recipe["task"]["die_at"] = 2
    result = tag_run("train", write(tmp_path, toy_recipe), "--out", tmp_path / "run", "--procs", 2, timeout=60)
    assert result.returncode == 1
    assert "rank one has had enough" in result.stderr
    assert "Traceback" in result.stderr
    assert "process 1 of 2 failed" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_launcher_ends_all_its_processes_in_order_where_they_can(
    tmp_path: Path, toy_recipe: dict[str, Any], number: signal.Signals
) -> None:
    toy_recipe["train"].update(epochs=100_000)
    command = [sys.executable, "-m", "tag_core.cli.main", "train", str(write(tmp_path, toy_recipe)), "--procs", "2"]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    launcher = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    while not last.exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    ranks = children.read_text().split()
    assert len(ranks) == 2
    launcher.send_signal(number)
    assert launcher.wait(60) == (-number if number == signal.SIGKILL else 130)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{rank}").exists() for rank in ranks) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert checkpoint.load(last)["position"]["step"] > 0


def test_a_mistake_in_the_recipe_is_told_once_with_exit_code_2(
    tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call
) -> None:
    toy_recipe["optimizer"]["lrr"] = 1
    result = tag_run("train", write(tmp_path, toy_recipe), "--out", tmp_path / "run", "--procs", 2, timeout=60)
    assert result.returncode == 2
    assert result.stderr.count("optimizer.lrr") == 1


def test_sharded_training_gives_the_loss_curve_of_one_process(
    tmp_path: Path, toy_recipe: dict[str, Any], tag_run: Call
) -> None:
    toy_recipe["train"].update(clip_norm=0.5)
    recipe = write(tmp_path, toy_recipe)
    assert tag_run("train", recipe, "--out", tmp_path / "one").returncode == 0
    result = tag_run("train", recipe, "distribution=fsdp", "--out", tmp_path / "two", "--procs", 2)
    assert result.returncode == 0, result.stderr
    assert_same_curve(tmp_path / "one", tmp_path / "two")
    whole = checkpoint.load(tmp_path / "two" / "checkpoints" / "last.pt")["model"]
    assert {k: v.shape for k, v in whole.items()} == {
        k: v.shape for k, v in checkpoint.load(tmp_path / "one" / "checkpoints" / "last.pt")["model"].items()
    }


def test_asking_for_ddp_in_one_process_says_how_to_start_several(toy_recipe: dict[str, Any]) -> None:
    toy_recipe["distribution"] = "core/ddp"
    if "RANK" not in os.environ:
        with pytest.raises(tag_core.errors.UserError, match="--procs"):
            tag_core.train(toy_recipe)
