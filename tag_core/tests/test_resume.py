"""Training that is killed, refused or out of room goes on exactly, or says why it cannot."""

from __future__ import annotations

import json
import os
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

import tag_core
from tag_core.engine import checkpoint
from tag_core.errors import CheckpointError, RunFolderError

KILLS = 20


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def start_training(recipe: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tag_core.cli.main", "train", str(recipe), "--out", str(out), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def last(out: Path) -> Path:
    return out / "checkpoints" / "last.pt"


def assert_equal_trees(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_trees(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal_trees(a, b)
    else:
        assert one == other


def test_twenty_kills_leave_the_weights_bit_identical(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    # A wide model and a checkpoint every step: many kills fall into the writing of a checkpoint.
    toy_recipe["task"]["backbone"].update(width=20_000, dropout=0.2)
    toy_recipe["train"].update(epochs=30, checkpoint_every=1, workers=1, ema_decay=0.9, accumulate=2)
    toy_recipe["optimizer"] = {"name": "core/adamw", "lr": 0.001}
    recipe = write_recipe(tmp_path, toy_recipe)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start_training(recipe, whole).wait() == 0

    instants, kills = random.Random(0), 0
    while kills < KILLS:
        process = start_training(recipe, killed, *(["--resume"] if last(killed).exists() else []))
        begun = last(killed).stat().st_mtime_ns if last(killed).exists() else 0
        while process.poll() is None and not (last(killed).exists() and last(killed).stat().st_mtime_ns != begun):
            time.sleep(0.005)
        time.sleep(instants.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        assert code in (0, -signal.SIGKILL), process.stderr.read().decode() if process.stderr else ""
        if code == 0:
            break
        kills += 1
    assert kills >= KILLS // 2, "the training is too short for the number of kills"
    process = start_training(recipe, killed, "--resume")
    assert process.wait() == 0, process.stderr.read().decode() if process.stderr else ""

    ours, theirs = checkpoint.load(last(killed)), checkpoint.load(last(whole))
    for key in ("model", "ema", "averaged", "optimizer", "position", "random"):
        assert_equal_trees(ours[key], theirs[key])
    assert (killed / "scores.jsonl").read_text() == (whole / "scores.jsonl").read_text()


def test_ctrl_c_saves_a_checkpoint_and_exits_130(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    toy_recipe["train"].update(epochs=100_000)
    recipe, out = write_recipe(tmp_path, toy_recipe), tmp_path / "run"
    process = start_training(recipe, out)
    while not last(out).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert checkpoint.load(last(out))["position"]["step"] > 0


def test_a_changed_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    toy_recipe["optimizer"]["lr"] = 0.5
    with pytest.raises(CheckpointError, match=r"optimizer\.lr: was 0\.1, is 0\.5"):
        tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)


def test_options_that_do_not_touch_the_weights_may_change_on_resume(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    toy_recipe["train"].update(workers=1, patience=7, best="top1")
    tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)


def test_an_option_that_did_not_exist_yet_hinders_only_where_it_is_not_at_its_default(
    tmp_path: Path, toy_recipe: dict[str, Any]
) -> None:
    toy_recipe["optimizer"]["nesterov"] = True
    tag_core.train(toy_recipe, out=tmp_path / "run")
    saved = checkpoint.load(last(tmp_path / "run"))
    del saved["recipe"]["optimizer"]["lr_factors"], saved["recipe"]["train"]["deterministic"]
    checkpoint.save(last(tmp_path / "run"), saved)
    tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)
    del saved["recipe"]["optimizer"]["nesterov"]
    checkpoint.save(last(tmp_path / "run"), saved)
    with pytest.raises(CheckpointError, match=r"\(optimizer\.nesterov: was None, is True\)"):
        tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)


def test_a_folder_with_a_training_is_not_overwritten(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    before = last(tmp_path / "run").read_bytes()
    with pytest.raises(RunFolderError, match="--resume"):
        tag_core.train(toy_recipe, out=tmp_path / "run")
    assert last(tmp_path / "run").read_bytes() == before


def test_resuming_from_nothing_says_so(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)


def test_a_truncated_checkpoint_is_named_and_the_best_one_offered(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    path = last(tmp_path / "run")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"damaged or truncated.*best\.pt"):
        tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    toy_recipe["train"]["epochs"] = 1
    tag_core.train(toy_recipe, out=tmp_path / "run")
    path = last(tmp_path / "run")
    before = path.read_bytes()
    script = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from tag_core.engine import checkpoint\n"
        "from tag_core.errors import RunFolderError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    checkpoint.save(Path(sys.argv[1]), {'model': {'w': torch.zeros(1_000_000)}})\n"
        "except RunFolderError as error:\n"
        "    print(error); sys.exit(7)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 7, result.stderr
    assert str(path) in result.stdout
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".pt"] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_said_before_any_work(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tmp_path.joinpath("closed").mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match="cannot be written"):
        tag_core.train(toy_recipe, out=tmp_path / "closed" / "run")


def test_a_file_in_place_of_the_run_folder_is_said_before_any_work(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        tag_core.train(toy_recipe, out=tmp_path / "file" / "run")


def test_scores_are_cut_back_to_what_the_checkpoint_knows(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    path = tmp_path / "run" / "scores.jsonl"
    before = path.read_text()
    path.write_text(before + json.dumps({"epoch": 9, "step": 99}) + "\n")
    tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)
    assert path.read_text() == before
