"""``tag-run reid import-params``: pytorch-reid's params.json becomes a recipe, and nothing is lost in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tag_core.cli.main import cli
from tag_core.config import Recipe, resolve
from tag_core.errors import ConfigError, UserError
from tag_plugins_reid.params import KEYS, read_params

DEFAULT: dict[str, Any] = {  # params.json of the commit
    "batch_sampling_params": {"K": 4, "P": 32, "batch_size": 32, "class_balanced": False},
    "batches_dir": "market/train",
    "data_augmentation": {
        "colour_jitering": False,
        "crop_h": 0,
        "crop_w": 0,
        "mirror": True,
        "random_erasing": False,
        "rotation": 0,
    },
    "epochs": 30,
    "evaluation_params": {"type": "market_evaluate", "step": None},
    "fine_tune": False,
    "imagenet_pretrain": True,
    "img_h": 384,
    "img_w": 128,
    "lr": {"base_lr": 0.01, "fc_lr": 0.1, "decay_gamma": 0.1, "decay_step": 10},
    "model_params": {"feature_dim": 1536, "model": "resnet_50", "pcb_n_parts": 6},
    "num_preprocess_workers": 4,
    "optimizer": "sgd",
    "parallels": [0, 1],
    "pretrain_snapshot": "",
    "tri_loss_params": {"margin": 0, "use_adaptive_weight": True, "lambda_tri": 10, "lambda_cls": 0},
    "weight_decay": 4e-5,
    "working_dir": "models",
}


def run(params: Any, folder: Path) -> Result:
    (folder / "params.json").write_text(json.dumps(params) if not isinstance(params, str) else params)
    out = str(folder / "out.toml")
    return CliRunner().invoke(cli, ["reid", "import-params", str(folder / "params.json"), out])


def imported(params: Any, folder: Path) -> tuple[Recipe, dict[str, str]]:
    """The recipe, and remarks by key."""
    (folder / "out.toml").unlink(missing_ok=True)
    done = run(params, folder)
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.strip() == str(folder / "out.toml")
    lines = done.stderr.splitlines()
    keys = [line.partition(": ")[0] for line in lines]
    assert len(set(keys)) == len(keys), "one remark a key"
    return resolve(folder / "out.toml", needs=()), dict(line.split(": ", 1) for line in lines)


def refused(params: Any, folder: Path) -> Exception:
    (folder / "params.json").write_text(json.dumps(params) if not isinstance(params, str) else params)
    with pytest.raises(UserError) as caught:
        read_params(folder / "params.json")
    done = run(params, folder)
    assert isinstance(done.exception, UserError)
    assert not (folder / "out.toml").exists()
    return caught.value


def test_the_default_file_is_pcb_as_pytorch_reid_trains_it(tmp_path: Path) -> None:
    recipe, remarks = imported(DEFAULT, tmp_path)
    assert recipe.task.entry.name == "reid/pcb"
    assert recipe.task.options["parts"] * recipe.task.options["dim"] == 1536
    train = recipe.data["train"]
    assert (train.entry.name, train.options["source"]) == ("reid/folder", "market/train")
    assert [t.entry.name for t in train.options["transforms"]] == ["reid/resize", "reid/flip"]
    assert all(part.options["transforms"][0].options["size"] == (384, 128) for part in recipe.data.values())
    assert len(recipe.data["val"].options["transforms"]) == 1
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.train.workers) == (30, 64, 4)
    assert recipe.sampler is None
    assert recipe.metrics[0].options["ap"] == "trapezoid"
    told = {"colour_jitering", "crop_h", "crop_w", "parallels", "working_dir", "type"}
    told |= {"K", "P", "use_adaptive_weight", "lambda_tri", "lambda_cls"}
    assert {key.rpartition(".")[2] for key in remarks} == told


def test_the_default_file_trains_two_groups_and_steps_every_ten_epochs(tmp_path: Path) -> None:
    recipe, _ = imported(DEFAULT | {"model_params": {**DEFAULT["model_params"], "model": "resnet_18"}}, tmp_path)
    task = recipe.task.build(classes=["a", "b"])
    assert recipe.optimizer is not None
    assert recipe.schedule is not None
    optimizer = recipe.optimizer.build(model=task)
    names = {parameter: name for name, parameter in task.named_parameters()}
    rates = {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert all(rate == pytest.approx(0.01 if name.startswith("backbone.") else 0.1) for name, rate in rates.items())
    assert {group["weight_decay"] for group in optimizer.param_groups} == {4e-5}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    schedule = recipe.schedule.build(total_steps=300, steps_per_epoch=10)
    assert [schedule(step) for step in (0, 99, 100, 200)] == pytest.approx([1, 1, 0.1, 0.01])


def test_keys_that_are_left_out_have_the_programs_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text(json.dumps(DEFAULT))
    whole, _ = read_params(tmp_path / "params.json")
    (tmp_path / "params.json").write_text('{"batches_dir": "market/train"}')
    assert read_params(tmp_path / "params.json")[0] == whole
    _, remarks = imported({}, tmp_path)
    assert set(remarks) == {"batches_dir", "evaluation_params.type"}


def test_triplets_alone_take_p_times_k_and_count_steps(tmp_path: Path) -> None:
    params = DEFAULT | {"tri_loss_params": {**DEFAULT["tri_loss_params"], "margin": 0.3}}
    params |= {"model_params": {"feature_dim": 256, "model": "resnet_34", "pcb_n_parts": 0}}
    params["lr"] = DEFAULT["lr"] | {"decay_step": 4000}
    recipe, remarks = imported(params, tmp_path)
    assert recipe.task.entry.name == "reid/embedding"
    assert (recipe.task.options["neck"], recipe.task.options["dim"]) == ("linear", 256)
    assert recipe.task.options["backbone"].options["depth"] == 34
    loss = recipe.task.options["loss"]
    assert (loss.entry.name, loss.options["margin"], loss.options["adaptive_weights"]) == ("reid/triplet", 0.3, True)
    assert recipe.sampler is not None
    assert recipe.sampler.options["num_instances"] == 4
    assert recipe.train.batch_size == 128
    assert recipe.schedule is not None
    assert (recipe.schedule.options["every"], recipe.schedule.options["unit"]) == (4000, "step")
    assert "lambda_cls is 0" in remarks["tri_loss_params.lambda_tri"]
    assert "P x K" in remarks["batch_sampling_params.batch_size"]
    assert "never end" in remarks["epochs"]
    assert recipe.task.build(classes=["a"]).head is None


def test_older_spellings_give_joint_losses_with_their_weights(tmp_path: Path) -> None:
    params = {"epoch": 3, "batch_size": 7, "tri_loss_margin": "soft_margin", "tri_loss_lambda_cls": 0.5}
    recipe, remarks = imported(params | {"batches_dir": "x"}, tmp_path)
    loss = recipe.task.options["loss"]
    assert loss.entry.name == "reid/sum"
    assert loss.options["weights"] == [0.5, 10.0]
    assert [part.entry.name for part in loss.options["losses"]] == ["core/cross-entropy", "reid/triplet"]
    assert loss.options["losses"][1].options["margin"] == "soft"
    assert recipe.train.epochs == 3
    assert "does not combine" in remarks["model_params.pcb_n_parts"]
    _, remarks = imported(params | {"epochs": 4}, tmp_path)
    assert remarks["epoch"] == "has no effect beside epochs"


def test_augmentation_is_what_the_program_does(tmp_path: Path) -> None:
    every = {"colour_jitering": True, "colour_jiterring": True, "mirror": True, "random_erasing": True, "rotation": 15}
    recipe, _ = imported({"data_augmentation": every}, tmp_path)
    _, flip, affine, jitter, erasing = recipe.data["train"].options["transforms"]
    assert flip.entry.name == "reid/flip"
    assert affine.options["degrees"] == 15
    assert (jitter.options["brightness"], jitter.options["hue"]) == (0.1, 0)
    assert (erasing.options["p"], erasing.options["area"], erasing.options["fill"]) == (0.6, (0.02, 0.1), (0, 0, 0))


def test_a_folder_with_a_class_mapping_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "class_mapping.json").write_text("{}")
    recipe, _ = imported({"batches_dir": str(tmp_path)}, tmp_path)
    assert recipe.data["train"].entry.name == "reid/class-mapping"


@pytest.mark.parametrize(
    ("given", "name", "nesterov"),
    [("nesterov", "core/sgd", True), ("amsgrad", "core/adam", None), ("rmsprop", "core/rmsprop", None)],
)
def test_every_optimizer_is_known(given: str, name: str, nesterov: bool | None, tmp_path: Path) -> None:
    recipe, remarks = imported({"optimizer": given, "fine_tune": True, "lr": {"base_lr": 1.0}}, tmp_path)
    assert recipe.optimizer is not None
    assert recipe.optimizer.entry.name == name
    assert recipe.optimizer.options.get("nesterov") == nesterov
    assert recipe.optimizer.options.get("amsgrad", False) == (given == "amsgrad")
    assert recipe.optimizer.options["lr_factors"] == {"backbone": 0}
    assert "optimizer" not in remarks
    assert "freezes" in remarks["lr.base_lr"]


def test_an_optimizer_that_is_changed_is_told(tmp_path: Path) -> None:
    assert "taken for sgd" in imported({"optimizer": "adagrad"}, tmp_path)[1]["optimizer"]


def test_unknown_keys_are_told_with_the_nearest_name(tmp_path: Path) -> None:
    params = {"epohcs": 3, "lr": {"base_rl": 1, "warmup_epoch": 20}, "gan_params": {"input_dim": 0}}
    _, remarks = imported(params, tmp_path)
    assert "did you mean 'epochs' or 'epoch'?" in remarks["epohcs"]
    assert "did you mean 'lr.base_lr'" in remarks["lr.base_rl"]
    assert remarks["gan_params.input_dim"] == "is not carried over: unknown"
    assert "lr.warmup_epoch" in remarks


def test_paths_that_are_lost_are_told_only_where_there_are_any(tmp_path: Path) -> None:
    assert "other names" in imported({"pretrain_snapshot": "a.pth"}, tmp_path)[1]["pretrain_snapshot"]
    quiet = {"pretrain_snapshot": None, "evaluation_params": {"type": None}}
    recipe, remarks = imported(quiet, tmp_path)
    assert "pretrain_snapshot" not in remarks
    assert "no evaluation becomes" in remarks["evaluation_params.type"]
    assert [metric.entry.name for metric in recipe.metrics] == ["reid/market"]


def test_every_wrong_value_is_told_at_once(tmp_path: Path) -> None:
    params = {"epochs": "3", "lr": 5, "img_h": 0, "parallels": [], "tri_loss_params": {"margin": -1}}
    params |= {"model_params": {"model": "resnet_51", "feature_dim": 100}, "weight_decay": float("inf")}
    error = refused(params, tmp_path)
    assert isinstance(error, ConfigError)
    keys = ["epochs", "lr", "img_h", "parallels", "margin", "model_params.model", "feature_dim", "weight_decay"]
    assert len(error.problems) == len(keys)
    assert all(any(key in problem.partition(": ")[0] for problem in error.problems) for key in keys)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"text"', '{"a": ' * 2000, "\xff"])
def test_what_is_no_params_json_is_refused(text: str, tmp_path: Path) -> None:
    assert "params.json: " in str(refused(text, tmp_path))


def test_a_missing_file_and_a_recipe_in_the_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read as JSON: No such file"):
        read_params(tmp_path / "none.json")
    (tmp_path / "out.toml").write_text("mine")
    done = run(DEFAULT, tmp_path)
    assert isinstance(done.exception, UserError)
    assert "is there already" in str(done.exception)
    assert (tmp_path / "out.toml").read_text() == "mine"


def test_defaults_are_of_their_own_type() -> None:
    from tag_core.typed import check_type

    for kind, default in KEYS.values():
        assert check_type(kind, default) == default


def test_the_recipe_trains(tmp_path: Path) -> None:
    """As a user would: import, then check, on small pictures."""
    generator = np.random.default_rng(0)
    for person in range(3):
        for number in range(5):
            file = tmp_path / "train" / str(person) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(file)
    params = DEFAULT | {"batches_dir": str(tmp_path / "train"), "img_h": 192, "img_w": 32, "imagenet_pretrain": False}
    params |= {"model_params": {"feature_dim": 12, "model": "resnet_18", "pcb_n_parts": 6}, "parallels": [0]}
    params["batch_sampling_params"] = {"batch_size": 4}
    imported(params, tmp_path)
    command = ["check", str(tmp_path / "out.toml"), "train.workers=0", "distribution=core/cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "tag_core.cli.main", *command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mean loss after step 2" in done.stdout
