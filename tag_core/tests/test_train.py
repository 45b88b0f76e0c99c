"""The training loop: every option does what it says, against a loop written out by hand."""

from __future__ import annotations

import copy
import json
import math
import shutil
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_plugin import write_points

import tag_core
from tag_core.config import resolve
from tag_core.engine.data import collate, datasets, epoch_plan
from tag_core.engine.train import Trained
from tag_core.errors import ConfigError, TagError, UnreadableInput
from tag_core.plugins import installed
from tag_core.records import read_records

Recipe = dict[str, Any]


def train(folder: Path, recipe: Recipe, **options: Any) -> Trained:
    return tag_core.train(copy.deepcopy(recipe), out=folder, **options)


def state(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)


def rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "scores.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def epochs(folder: Path) -> list[dict[str, Any]]:
    return [row for row in rows(folder) if "epoch_loss" in row]


def assert_close(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=tolerance, atol=tolerance)


def assert_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def spoil(recipe: Recipe, *words: str) -> list[Path]:
    """Write these words into the first training files."""
    train_set = datasets(resolve(recipe), ("train", "val"))["train"]
    files = [Path(train_set.key(index)) for index in range(len(words))]
    for file, word in zip(files, words, strict=True):
        file.write_text(word)
    return files


def test_plugins_hear_of_the_end_when_the_report_is_there(toy_recipe: Recipe, tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    listener = types.ModuleType("listener")

    @tag_core.hookimpl
    def tag_run_finished(run: Any, outcome: str) -> None:
        heard.append((outcome, (run.folder / "report.html").is_file()))

    listener.tag_run_finished = tag_run_finished  # type: ignore[attr-defined]
    installed().manager.register(listener)
    try:
        train(tmp_path / "run", toy_recipe)
    finally:
        installed().manager.unregister(listener)
    assert heard == [("done", True)]


# --- against a loop by hand


def by_hand(recipe: Recipe, clip: float = 0.0, decay: float = 0.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """(weights, averaged weights) after the recipe's epochs, in plain PyTorch."""
    resolved = resolve(copy.deepcopy(recipe))
    torch.manual_seed(resolved.train.seed)
    data = datasets(resolved, ("train", "val"))["train"]
    model = resolved.task.build(classes=["left", "right"])
    average: dict[str, torch.Tensor] | None = None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    size, step = resolved.train.batch_size * resolved.train.accumulate, 0
    total = resolved.train.epochs * (len(data) // size)
    for epoch in range(resolved.train.epochs):
        for batch in epoch_plan(len(data), size, resolved.train.seed, epoch, shuffle=True, drop_last=True):
            samples = []
            for index, seed in batch:
                torch.manual_seed(seed)
                samples.append(data[index])
            rate = 0.1 * (1 + math.cos(math.pi * step / total)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            points = collate(samples)
            logits = model.head(model.backbone(points["point"]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, points["label"]).backward()
            if clip:
                norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
                for p in model.parameters():
                    p.grad.mul_(min(1.0, clip / (float(norm) + 1e-6)))
            optimizer.step()
            step += 1
            if average is None:
                average = {k: v.clone() for k, v in model.state_dict().items()}
            else:
                average = {k: decay * average[k] + (1 - decay) * v for k, v in model.state_dict().items()}
    assert average is not None
    return model.state_dict(), average


def plain(recipe: Recipe) -> Recipe:
    """What ``by_hand`` does: noise, SGD with momentum, one cosine, no weight decay."""
    recipe["optimizer"].update(momentum=0.9, weight_decay=0.0)
    return recipe


def test_training_is_the_loop_one_would_write_by_hand(tmp_path: Path, toy_recipe: Recipe) -> None:
    train(tmp_path / "run", plain(toy_recipe))
    assert_close(state(tmp_path / "run")["model"], by_hand(toy_recipe)[0])


def test_gradients_are_clipped_to_the_norm(tmp_path: Path, toy_recipe: Recipe) -> None:
    plain(toy_recipe)["train"]["clip_norm"] = 0.05
    train(tmp_path / "run", toy_recipe)
    assert_close(state(tmp_path / "run")["model"], by_hand(toy_recipe, clip=0.05)[0])
    with pytest.raises(AssertionError):
        assert_close(state(tmp_path / "run")["model"], by_hand(toy_recipe)[0])


def test_the_average_of_the_weights_is_validated_and_kept_as_best(tmp_path: Path, toy_recipe: Recipe) -> None:
    plain(toy_recipe)["train"].update(ema_decay=0.9, best="-val_loss")
    trained = train(tmp_path / "run", toy_recipe)
    weights, average = by_hand(toy_recipe, decay=0.9)
    last, best = state(tmp_path / "run"), state(tmp_path / "run", "best")
    assert_close(last["model"], weights)
    assert_close(last["ema"], average)
    assert last["position"]["best_epoch"] == 2  # so best.pt is of the last epoch
    assert_close(best["ema"], average)
    resolved = resolve(toy_recipe)
    model = resolved.task.build(classes=["left", "right"])
    losses = []
    for chosen in (average, weights):
        model.load_state_dict(chosen)
        val = datasets(resolved, ("train", "val"))["val"]
        with torch.no_grad():
            losses.append(float(model.predict(collate([val[i] for i in range(len(val))]))["loss"]))
    assert trained.scores["val_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert trained.scores["val_loss"] != pytest.approx(losses[1], rel=1e-5)
    found = tag_core.evaluate(tmp_path / "run", out=tmp_path / "eval")
    assert found.scores["val_loss"] == pytest.approx(losses[0], rel=1e-5)


# --- batches


@pytest.mark.parametrize("bad", [0, 3])
def test_accumulating_equals_one_larger_batch(tmp_path: Path, toy_recipe: Recipe, bad: int) -> None:
    # 33 samples: the last step has an incomplete micro-batch, and an empty one.
    write_points(tmp_path / "points", 41)
    toy_recipe["train"].update(drop_last=False)
    spoil(toy_recipe, *["unreadable"] * bad)
    for name, size, accumulate in (("large", 12, 1), ("small", 4, 3)):
        toy_recipe["train"].update(batch_size=size, accumulate=accumulate)
        train(tmp_path / name, toy_recipe)
    assert_close(state(tmp_path / "large")["model"], state(tmp_path / "small")["model"])
    for large, small in zip(rows(tmp_path / "large"), rows(tmp_path / "small"), strict=True):
        assert large == pytest.approx(small, rel=1e-4)


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 3), (False, 4)])
def test_the_last_incomplete_batch_is_dropped_or_not(
    tmp_path: Path, toy_recipe: Recipe, drop_last: bool, steps: int
) -> None:
    toy_recipe["train"].update(epochs=2, batch_size=10, drop_last=drop_last)
    train(tmp_path / "run", toy_recipe)
    assert state(tmp_path / "run")["position"]["step"] == 2 * steps


def test_a_data_set_smaller_than_a_batch_still_trains(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["train"].update(batch_size=1000)
    train(tmp_path / "run", toy_recipe)
    assert state(tmp_path / "run")["position"]["step"] == 3


def test_the_number_of_workers_changes_no_bit(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["task"]["backbone"]["dropout"] = 0.3
    for workers in (0, 2):
        toy_recipe["train"]["workers"] = toy_recipe["eval"]["workers"] = workers
        train(tmp_path / str(workers), toy_recipe)
    assert_equal(state(tmp_path / "0")["model"], state(tmp_path / "2")["model"])
    assert rows(tmp_path / "0") == rows(tmp_path / "2")


def test_validation_does_not_change_training(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["task"]["backbone"]["dropout"] = 0.3
    for every in (0, 1):
        toy_recipe["train"]["validate_every"] = every
        train(tmp_path / str(every), toy_recipe)
    assert_equal(state(tmp_path / "0")["model"], state(tmp_path / "1")["model"])


# --- arithmetic


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["train"].update(deterministic=True)
    try:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            toy_recipe["train"]["seed"] = seed
            train(tmp_path / name, toy_recipe)
            assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_equal(state(tmp_path / "a")["model"], state(tmp_path / "b")["model"])
    assert not torch.equal(state(tmp_path / "a")["model"]["head.weight"], state(tmp_path / "c")["model"]["head.weight"])


def test_bf16_on_the_cpu_is_near_fp32_and_weights_stay_fp32(tmp_path: Path, toy_recipe: Recipe) -> None:
    train(tmp_path / "fp32", toy_recipe)
    toy_recipe["train"]["precision"] = toy_recipe["eval"]["precision"] = "bf16"
    train(tmp_path / "bf16", toy_recipe)
    one, other = state(tmp_path / "fp32")["model"], state(tmp_path / "bf16")["model"]
    assert {value.dtype for value in other.values()} == {torch.float32}
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert_close(one, other, tolerance=0.05)


@pytest.mark.parametrize("option", ["channels_last", "compile"])
def test_faster_forms_of_a_model_give_the_same_weights(
    tmp_path: Path, toy_recipe: Recipe, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if option == "compile" and not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("torch.compile needs a C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    toy_recipe["task"]["backbone"] = {"name": "toy-plugin/conv"}
    toy_recipe["train"].update(epochs=1, batch_size=16)
    train(tmp_path / "plain", toy_recipe)
    toy_recipe["train"][option] = toy_recipe["eval"][option] = True
    trained = train(tmp_path / option, toy_recipe)
    assert_close(state(tmp_path / "plain")["model"], state(tmp_path / option)["model"])
    if option == "channels_last":
        assert any("conv" in key for key in state(tmp_path / option)["model"])
    plain_records, records = (
        list(
            tag_core.predict(toy_recipe | {"weights": str(trained.best)}, tmp_path / "points", [f"eval.{option}={on}"])
        )
        for on in ("false", "true")
    )
    for one, other in zip(plain_records, records, strict=True):
        assert one.scores == pytest.approx(other.scores, rel=1e-4)


def test_a_loss_that_is_not_a_number_ends_training_with_advice(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["optimizer"]["lr"] = 1e30
    with pytest.raises(ConfigError, match=r"the loss became nan .*step [0-9]+; try a smaller optimizer\.lr"):
        train(tmp_path / "run", toy_recipe)
    assert "NaN" not in (tmp_path / "run" / "scores.jsonl").read_text()


def test_weights_that_broke_do_not_replace_the_checkpoint_before(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["optimizer"]["lr"] = 1e30
    toy_recipe["train"].update(checkpoint_every=1, log_every=100)
    with pytest.raises(ConfigError, match=r"weights became infinite or nan before step [0-9]+; try a smaller"):
        train(tmp_path / "run", toy_recipe)
    assert all(value.isfinite().all() for value in state(tmp_path / "run")["model"].values())


# --- validation, best, early stopping


class Scripted:
    """Replaces validation by given scores."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **scores: list[float]) -> None:
        self.scores, self.calls = scores, 0
        monkeypatch.setattr("tag_core.engine.train.Trainer._validate", lambda trainer: self.next())
        monkeypatch.setattr("tag_core.api._score", lambda *_: None)

    def next(self) -> dict[str, float]:
        self.calls += 1
        return {name: values[self.calls - 1] for name, values in self.scores.items()}


@pytest.mark.parametrize(
    ("best", "epoch"), [("", 1), ("top1", 1), ("-val_loss", 2), ("val_loss", 0), ("-epoch_loss", 3), ("map", 3)]
)
def test_any_score_chooses_the_best_checkpoint(
    tmp_path: Path, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, best: str, epoch: int
) -> None:
    nan = math.nan
    Scripted(monkeypatch, val_loss=[0.9, 0.5, 0.3, 0.4], top1=[0.1, 0.8, 0.7, 0.8], map=[nan, nan, nan, 0.1])
    toy_recipe["train"].update(epochs=4, best=best)
    train(tmp_path / "run", toy_recipe)
    assert state(tmp_path / "run")["position"]["best_epoch"] == epoch
    toy_recipe["train"].update(epochs=epoch + 1)
    toy_recipe["schedule"] = "core/constant"
    kept = state(tmp_path / "run", "best")
    assert kept.keys() == {"format", "model", "classes", "recipe"}
    assert kept["recipe"]["train"]["best"] == best


def test_the_best_checkpoint_holds_the_weights_of_its_epoch(
    tmp_path: Path, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_recipe["schedule"] = "core/constant"
    Scripted(monkeypatch, top1=[0.1, 0.8, 0.2])
    train(tmp_path / "three", toy_recipe)
    toy_recipe["train"]["epochs"] = 2
    Scripted(monkeypatch, top1=[0.1, 0.8])
    train(tmp_path / "two", toy_recipe)
    assert_equal(state(tmp_path / "three", "best")["model"], state(tmp_path / "two")["model"])


def test_an_unknown_score_is_refused_with_the_known_ones(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["train"]["best"] = "top2"
    toy_recipe["train"].update(epochs=3, validate_every=2)
    with pytest.raises(ConfigError, match=r"train\.best: no score 'top2'; there are epoch_loss, val_loss, top1, top5"):
        train(tmp_path / "run", toy_recipe)
    kept = state(tmp_path / "run")
    kept["position"]["best"] = 1e9  # as if another score had been gone by
    torch.save(kept, tmp_path / "run" / "checkpoints" / "last.pt")
    toy_recipe["train"]["best"] = "top1"
    trained = tag_core.train(toy_recipe, out=tmp_path / "run", resume=True)
    assert len(epochs(tmp_path / "run")) == 3
    assert trained.best is not None


@pytest.mark.parametrize(
    ("patience", "every", "top1", "stops_at"),
    [
        (2, 1, [0.1, 0.5, 0.4, 0.5, 0.9, 0.9], 4),
        (1, 1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6),
        (1, 1, [0.5, 0.4, 0.9, 0.9, 0.9, 0.9], 2),
        (2, 2, [0.5, 0.4, 0.3], 6),
        (1, 2, [0.5, 0.4, 0.3], 4),
    ],
)
def test_training_stops_after_so_many_validations_without_a_better_score(
    tmp_path: Path,
    toy_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    patience: int,
    every: int,
    top1: list[float],
    stops_at: int,
) -> None:
    validation = Scripted(monkeypatch, top1=top1)
    toy_recipe["train"].update(epochs=6, patience=patience, validate_every=every)
    train(tmp_path / "run", toy_recipe)
    assert state(tmp_path / "run")["position"]["epoch"] == stops_at
    assert validation.calls == stops_at // every
    train(tmp_path / "run", toy_recipe, resume=True)
    assert state(tmp_path / "run")["position"]["epoch"] == stops_at, "resuming a training that has stopped goes on"


def test_validation_happens_every_so_many_epochs_and_at_the_end(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["train"].update(epochs=5, validate_every=2)
    train(tmp_path / "run", toy_recipe)
    assert ["val_loss" in row for row in epochs(tmp_path / "run")] == [False, True, False, True, True]


@pytest.mark.parametrize("how", ["never validated", "no validation data"])
def test_without_validation_the_last_weights_are_the_result(tmp_path: Path, toy_recipe: Recipe, how: str) -> None:
    if how == "never validated":
        toy_recipe["train"]["validate_every"] = 0
    else:
        toy_recipe["data"]["holdout"] = 0
    trained = train(tmp_path / "run", toy_recipe)
    assert trained.best is None
    assert len(list(tag_core.predict(tmp_path / "run", tmp_path / "points"))) == 40


def test_checkpoints_are_written_every_so_many_steps(
    tmp_path: Path, toy_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[str, int]] = []
    from tag_core.engine.train import Trainer

    whole = Trainer.save

    def save(trainer: Trainer, name: str) -> None:
        saved.append((name, trainer.position.step))
        whole(trainer, name)

    monkeypatch.setattr(Trainer, "save", save)
    toy_recipe["train"].update(epochs=2, checkpoint_every=3)  # 4 steps an epoch
    train(tmp_path / "run", toy_recipe)
    assert [step for name, step in saved if name == "last"] == [3, 4, 6, 8]


# --- files that cannot be read


def test_files_that_cannot_be_read_are_listed_with_their_reasons(tmp_path: Path, toy_recipe: Recipe) -> None:
    recipe = {**toy_recipe, "train": {**toy_recipe["train"], "workers": 2, "timeout": 2}}
    spoiled = spoil(recipe, "unreadable", "killed", "hang")
    val = datasets(resolve(copy.deepcopy(recipe)), ("train", "val"))["val"]
    Path(val.key(0)).write_text("unreadable")
    trained = train(tmp_path / "run", recipe)
    reasons = {record.source: record.error for record in read_records(tmp_path / "run" / "unreadable.jsonl")}
    assert set(reasons) == {*map(str, spoiled), val.key(0)}
    assert reasons[str(spoiled[0])] == "not a point"
    assert "SIGKILL" in str(reasons[str(spoiled[1])])
    assert "no answer after 2 s" in str(reasons[str(spoiled[2])])
    assert str(trained.coverage).startswith("read 36 of 40 inputs; 4 unreadable")
    assert "unreadable.jsonl" in (tmp_path / "run" / "log.txt").read_text()


def test_a_training_without_unreadable_files_lists_none(tmp_path: Path, toy_recipe: Recipe) -> None:
    trained = train(tmp_path / "run", toy_recipe)
    assert str(trained.coverage) == "read 40 of 40 inputs"
    assert not (tmp_path / "run" / "unreadable.jsonl").exists()


def test_nothing_readable_at_all_is_an_error_and_not_a_result(tmp_path: Path, toy_recipe: Recipe) -> None:
    spoil(toy_recipe, *["unreadable"] * 32)
    with pytest.raises(TagError, match=r"data\.train: not one sample could be read: .*32 x not a point"):
        train(tmp_path / "run", toy_recipe)
    assert not list(tmp_path.glob("run/checkpoints/*.pt"))
    assert len(list(read_records(tmp_path / "run" / "unreadable.jsonl"))) == 32


def test_validation_data_that_cannot_be_read_do_not_end_training(tmp_path: Path, toy_recipe: Recipe) -> None:
    val = datasets(resolve(copy.deepcopy(toy_recipe)), ("train", "val"))["val"]
    for index in range(len(val)):
        Path(val.key(index)).write_text("unreadable")
    trained = train(tmp_path / "run", toy_recipe)
    assert state(tmp_path / "run")["position"]["epoch"] == 3
    assert len(trained.coverage.unreadable) == 8


@pytest.mark.parametrize("where", ["train", "val"])
def test_strict_training_stops_at_the_first_unreadable_file(tmp_path: Path, toy_recipe: Recipe, where: str) -> None:
    part = datasets(resolve(copy.deepcopy(toy_recipe)), ("train", "val"))[where]
    Path(part.key(3)).write_text("unreadable")
    with pytest.raises(UnreadableInput, match=f"{part.key(3)}: not a point"):
        train(tmp_path / "run", toy_recipe, strict=True)
    assert not epochs(tmp_path / "run")


def test_strict_training_in_two_processes_ends_with_exit_code_3(
    tmp_path: Path, toy_recipe: Recipe, tag_run: Callable[..., Any]
) -> None:
    spoiled = spoil(toy_recipe, "unreadable")
    import tomli_w

    toy_recipe.pop("distribution")
    (tmp_path / "r.toml").write_text(tomli_w.dumps(toy_recipe))
    result = tag_run("train", tmp_path / "r.toml", "--out", tmp_path / "run", "--strict", "--procs", 2)
    assert result.returncode == 3, result.stderr
    assert f"error: {spoiled[0]}: not a point" in result.stderr
    assert "Traceback" not in result.stderr


# --- weights to start from, and parts that stay


def test_class_names_are_in_every_checkpoint(tmp_path: Path, toy_recipe: Recipe) -> None:
    trained = train(tmp_path / "run", toy_recipe)
    assert trained.classes == ["left", "right"]
    assert [state(tmp_path / "run", name)["classes"] for name in ("last", "best")] == [["left", "right"]] * 2


def folders(folder: Path, classes: str) -> str:
    for number, name in enumerate(classes):
        write_points(folder / name, 8 + number)
    return str(folder)


def test_fine_tuning_on_other_classes_keeps_all_but_the_head(tmp_path: Path, toy_recipe: Recipe) -> None:
    first = train(tmp_path / "first", toy_recipe)
    toy_recipe["weights"] = str(first.best)
    toy_recipe["data"]["train"].update(name="toy-plugin/named", source=folders(tmp_path / "three", "xyz"))
    toy_recipe["optimizer"]["lr_factors"] = {"backbone": 0}
    second = train(tmp_path / "second", toy_recipe)
    text = (tmp_path / "second" / "log.txt").read_text()
    assert "2 tensors loaded (layout tag); 2 mismatched: head." in text
    assert second.classes == ["x", "y", "z"]
    before, after = state(tmp_path / "first", "best")["model"], state(tmp_path / "second")["model"]
    assert after["head.weight"].shape == (3, 8)
    for key in ("backbone.layers.0.weight", "backbone.layers.0.bias"):
        assert torch.equal(before[key], after[key])
    labels = {
        record.labels[0] for record in tag_core.predict(tmp_path / "second", tmp_path / "points") if record.labels
    }
    assert labels <= {"x", "y", "z"}


def test_further_scalars_of_a_task_are_in_the_rows_of_scores(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["task"]["loss"] = "toy-plugin/counting"
    toy_recipe["train"].update(epochs=2, log_every=2)
    train(tmp_path / "run", toy_recipe)
    assert [row["seen"] for row in rows(tmp_path / "run") if "train_loss" in row] == [16, 32, 48, 64]


def test_what_a_loss_remembers_does_not_go_into_another_training(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["task"]["loss"] = "toy-plugin/counting"
    first = train(tmp_path / "first", toy_recipe)
    toy_recipe["weights"] = str(first.best)
    train(tmp_path / "second", toy_recipe)
    assert state(tmp_path / "first")["model"]["loss.seen"] == 3 * 32
    assert state(tmp_path / "second")["model"]["loss.seen"] == 3 * 32
    assert "unexpected" not in (tmp_path / "first" / "log.txt").read_text()


def test_frozen_stages_keep_every_bit_while_the_rest_trains(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["task"]["backbone"] = {"name": "toy-plugin/conv"}
    toy_recipe["optimizer"].update(lr_factors={"backbone": 0}, weight_decay=0.1)
    toy_recipe["train"].update(ema_decay=0.9)
    start = copy.deepcopy(toy_recipe)
    torch.manual_seed(0)
    fresh = resolve(start).task.build(classes=["left", "right"]).state_dict()
    train(tmp_path / "run", toy_recipe)
    for kept in (state(tmp_path / "run")["model"], state(tmp_path / "run")["ema"]):
        changed = {key for key in fresh if not torch.equal(fresh[key], kept[key])}
        assert changed == {"head.weight", "head.bias"}


# --- the run folder


def test_a_run_from_python_writes_its_log(tmp_path: Path, toy_recipe: Recipe) -> None:
    train(tmp_path / "run", toy_recipe)
    assert (tmp_path / "run" / "log.txt").read_text().count("epoch_loss") == 3


def test_a_stopped_process_leaves_no_half_checkpoint_behind(tmp_path: Path, toy_recipe: Recipe) -> None:
    train(tmp_path / "run", toy_recipe)
    left = tmp_path / "run" / "checkpoints" / ".tag-0123456789ab.tmp"
    left.write_bytes(b"half")
    (tmp_path / "run" / "checkpoints" / "last.pt").unlink()
    train(tmp_path / "run", toy_recipe)
    assert not left.exists()
