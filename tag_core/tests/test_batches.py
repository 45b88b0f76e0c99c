"""Which samples training takes together, where a recipe names a sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tag_core
from tag_core.config import resolve
from tag_core.engine.data import datasets
from tag_core.engine.train import Trainer
from tag_core.errors import ConfigError

Recipe = dict[str, Any]
Steps = list[list[list[Any]]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The micro-batches of every optimizer step that is taken."""
    taken: Steps = []
    whole = Trainer.step

    def step(trainer: Trainer, micro_batches: list[list[Any]], stop: bool = False) -> bool:
        taken.append(micro_batches)
        return whole(trainer, micro_batches, stop)

    monkeypatch.setattr(Trainer, "step", step)
    return taken


def sources(batch: list[Any]) -> list[str]:
    return [sample["source"] for sample in batch]


def test_training_takes_the_batches_of_the_sampler(tmp_path: Path, toy_recipe: Recipe, steps: Steps) -> None:
    toy_recipe["sampler"] = {"name": "toy-plugin/repeating", "batches": 3}
    toy_recipe["train"].update(epochs=2, batch_size=5)
    tag_core.train(toy_recipe, out=tmp_path / "run")
    data = datasets(resolve(toy_recipe), ("train",))["train"]
    expected = [[data.key((epoch + 7 * i) % len(data))] * 5 for epoch in range(2) for i in range(3)]
    assert [sources(batch) for (batch,) in steps] == expected


def test_a_sample_that_comes_again_in_an_epoch_gets_random_choices_of_its_own(
    tmp_path: Path, toy_recipe: Recipe, steps: Steps
) -> None:
    toy_recipe["sampler"] = "toy-plugin/repeating"
    tag_core.train(toy_recipe, out=tmp_path / "run")
    points = torch.stack([sample["point"] for sample in steps[0][0]])
    assert len(points.unique(dim=0)) == 8


def test_accumulation_takes_several_batches_of_the_sampler_a_step(
    tmp_path: Path, toy_recipe: Recipe, steps: Steps
) -> None:
    toy_recipe["sampler"] = {"name": "toy-plugin/repeating", "batches": 3}
    toy_recipe["train"].update(epochs=1, accumulate=2)
    tag_core.train(toy_recipe, out=tmp_path / "run")
    assert [[len(batch) for batch in step] for step in steps] == [[8, 8], [8, 0]]


def test_the_schedule_counts_the_steps_of_the_sampler(tmp_path: Path, toy_recipe: Recipe, steps: Steps) -> None:
    toy_recipe["sampler"] = {"name": "toy-plugin/repeating", "batches": 9}
    toy_recipe["train"].update(epochs=2)
    trained = tag_core.train(toy_recipe, out=tmp_path / "run")
    assert len(steps) == 18
    assert trained.scores["step"] == 18


def test_a_sampler_without_a_batch_is_refused(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["sampler"] = {"name": "toy-plugin/repeating", "batches": 0}
    with pytest.raises(ConfigError, match="sampler: not one batch"):
        tag_core.train(toy_recipe, out=tmp_path / "run")


def test_the_sampler_is_written_into_the_resolved_recipe(tmp_path: Path, toy_recipe: Recipe) -> None:
    toy_recipe["sampler"] = "toy-plugin/repeating"
    tag_core.train(toy_recipe, out=tmp_path / "run")
    assert resolve(tmp_path / "run").to_dict()["sampler"] == {"name": "toy-plugin/repeating", "batches": 4}
