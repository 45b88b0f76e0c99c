"""Components whose code is wrong are named, with what is wrong about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_plugin import MLP, Points, PointTask

import tag_core
from tag_core.config import Recipe, resolve
from tag_core.engine.data import datasets
from tag_core.engine.distributed import Cpu
from tag_core.engine.run import Run
from tag_core.engine.train import Trainer
from tag_core.errors import ConfigError, PluginError


class Keyless(Points):
    key = property()  # type: ignore[assignment]


class Sizeless(MLP):
    def __setattr__(self, name: str, value: Any) -> None:
        if name != "feature_dim":
            super().__setattr__(name, value)


class Hasty(nn.Module):
    def __init__(self, classes: list[str]) -> None:
        self.layer = nn.Linear(1, 1)


class Summed(PointTask):
    def forward(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {"loss": super().forward(batch)["loss"].repeat(2)}


class Single:
    def __init__(self, classes: list[str]) -> None: ...
    def update(self, outputs: Any, batch: Any) -> None: ...
    def merge(self, other: Any) -> None: ...
    def reset(self) -> None: ...
    def compute(self) -> Any:
        return torch.tensor(0.5)


def flawed(recipe: Recipe, **targets: Any) -> Recipe:
    """The recipe with other code behind some of its components."""
    options = dict(recipe.task.options)
    if backbone := targets.get("backbone"):
        options["backbone"] = replace(options["backbone"], target=backbone)
    task = replace(recipe.task, target=targets.get("task", recipe.task.target), options=options)
    data = {name: replace(spec, target=targets.get("dataset", spec.target)) for name, spec in recipe.data.items()}
    metrics = [replace(spec, target=targets.get("metric", spec.target), options={}) for spec in recipe.metrics]
    return replace(recipe, task=task, data=data, metrics=metrics)


def fit(recipe: Recipe, folder: Path) -> None:
    with Run(folder, "train", recipe) as run:
        Trainer(recipe, run, Cpu(), None).fit()


def test_missing_methods_and_attributes_are_named_with_their_component(toy_recipe: dict[str, Any]) -> None:
    recipe = resolve(toy_recipe)
    with pytest.raises(PluginError, match=r"dataset toy-plugin/points .* has no key; see tag_core\.kinds\.Dataset"):
        datasets(flawed(recipe, dataset=Keyless), ("train",))
    with pytest.raises(PluginError, match="backbone toy-plugin/mlp .* has no feature_dim"):
        flawed(recipe, backbone=Sizeless).task.build(classes=["a"])


def test_an_exception_while_building_says_whose_fault_it_is(toy_recipe: dict[str, Any]) -> None:
    broken = replace(resolve(toy_recipe).task, target=Hasty, options={})
    with pytest.raises(AttributeError) as caught:
        broken.build(classes=["a"])
    assert caught.value.__notes__[0].startswith("This is a fault of task toy-plugin/points (from")


def test_a_loss_that_is_not_one_number_is_told_with_its_shape(toy_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task: its loss has shape \[2\]; give one number"):
        fit(flawed(resolve(toy_recipe), task=Summed), tmp_path / "run")


def test_a_metric_gives_named_values(toy_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"metric Single: compute must give named values, not tensor\(0\.5"):
        fit(flawed(resolve(toy_recipe), metric=Single), tmp_path / "run")


def test_a_data_set_that_makes_several_samples_of_an_input_cannot_predict(
    toy_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag_core.train(toy_recipe, out=tmp_path / "run")
    monkeypatch.setattr(Points, "__len__", lambda self: 3)
    with pytest.raises(ConfigError, match="data.test: 3 samples of 1 inputs"):
        list(tag_core.predict(tmp_path / "run", tmp_path / "points" / "p0000-0.txt"))
