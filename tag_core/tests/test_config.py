"""From tables to checked components: every mistake with its key, what was expected and what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_catalog import toy as _toy

from tag_core.config import Recipe, build_component, resolve
from tag_core.errors import ConfigError, TagError

toy = _toy
pytestmark = pytest.mark.usefixtures("toy")
BASE: dict[str, Any] = {
    "task": {"name": "toy/task", "backbone": {"name": "toy/net", "width": 4}, "loss": "core/cross-entropy"},
    "data": {"train": {"name": "toy/clips", "source": "clips", "random": True}, "val": {"random": False}},
    "optimizer": {"name": "core/sgd"},
    "metrics": ["core/top-k"],
    "distribution": "core/cpu",
}


def problems(*overrides: str, base: dict[str, Any] = BASE, **kwargs: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(base, overrides, **kwargs)
    return caught.value.problems


def test_defaults_give_way_to_the_recipe_and_the_recipe_to_the_command_line() -> None:
    recipe = resolve(BASE, ["optimizer.lr=0.5", "train.epochs=3", "task.backbone.rates=[1, 2.5]"])
    assert recipe.task.options["backbone"].options == {"width": 4, "rates": [1.0, 2.5]}
    assert recipe.optimizer is not None
    assert (recipe.optimizer.options["lr"], recipe.optimizer.options["momentum"]) == (0.5, 0.9)
    assert (recipe.train.epochs, recipe.train.batch_size) == (3, 16)


def test_one_entry_of_a_table_can_be_set_on_the_command_line() -> None:
    recipe = resolve({**BASE, "optimizer": {"name": "core/sgd", "lr_factors": {"head": 2.0}}},
                     ["optimizer.lr_factors.backbone=0.1"])  # fmt: skip
    assert recipe.optimizer is not None
    assert recipe.optimizer.options["lr_factors"] == {"head": 2.0, "backbone": 0.1}
    (problem,) = problems("optimizer.lr_factors.backbone=much")
    assert problem.startswith("optimizer.lr_factors")
    assert "'much'" in problem


def test_validation_data_start_from_the_training_data() -> None:
    recipe = resolve(BASE)
    assert recipe.data["val"].options["source"] == "clips"
    assert [recipe.data[part].options["random"] for part in ("train", "val", "test")] == [True, False, False]
    assert recipe.own_source == {"train"}
    assert resolve(BASE, ["data.val.source=other"]).own_source == {"train", "val", "test"}


def test_a_component_may_build_what_is_nested_in_it_with_values_of_its_own() -> None:
    both = {"train": {"name": "toy/both", "source": "clips", "inner": {"name": "toy/pictures", "size": 5}}}
    recipe = resolve({**BASE, "data": {**both, "val": {"inner": {"size": 6}}}})
    inner = recipe.data["val"].with_options(labelled=False).build().inner
    assert (inner.source, inner.labelled, inner.size) == ("clips/inner", False, 6)
    assert resolve(recipe.to_dict()).to_dict() == recipe.to_dict()
    (problem,) = problems("data.train.inner.sise=5", base={**BASE, "data": both})
    assert problem.startswith("data.train.inner.sise: toy/pictures has no such option; did you mean 'size'?")
    (problem,) = problems("data.train.inner=toy/clips", "data.train.inner.transforms=['toy/crops']",
                          base={**BASE, "data": both})  # fmt: skip
    assert "toy/crops" in problem


def test_another_data_set_keeps_the_options_that_both_have() -> None:
    recipe = resolve(BASE, ["data.test=toy/pictures", "data.test.size=5"])
    assert recipe.data["test"].options == {"source": "clips", "labelled": True, "size": 5}


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(
        "optmizer.lr=1",
        "optimizer.momentun=1",
        "task.backbone.zzz=1",
        "optimizer.nesterov=True",
        "train.precision=bf61",
        "train.epochs=many",
        "eval.batch_size=0",
        "data.holdout=2",
        "data.train.frames=[1]",
        "data.vall.source=x",
        "task.backbone.rates=[1, 'x']",
        "task.loss=core/cross-entrop",
        "metrics=core/top-k",
        "schedule=core/step",
    )
    assert found == [
        "data.vall: unknown; did you mean 'val'?",
        "data.holdout: expected a share in [0, 1), got 2.0",
        "data.train.frames: expected a valid integer, got [1]",
        "optmizer: a recipe has no such option; did you mean 'optimizer'?",
        "task.backbone.zzz: toy/net has no such option (options: width, rates)",
        "task.backbone.rates: expected a valid number, got [1, 'x'] (at 1)",
        "task.loss: no loss named 'core/cross-entrop'; did you mean 'core/cross-entropy' or 'cross-entropy'?; "
        "see 'tag-run list loss'",
        "optimizer.momentun: core/sgd has no such option; did you mean 'momentum'?",
        "optimizer.nesterov: expected a valid boolean, got 'True'",
        "schedule.every: required by core/step",
        "metrics: expected a list of metric components, got 'core/top-k'",
        "train.precision: expected 'fp32', 'bf16' or 'fp16', got 'bf61'; did you mean 'bf16'?",
        "train.epochs: expected a valid integer, got 'many'",
        "eval.batch_size must be at least 1, got 0",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("task=toy/untyped", "task: task toy/untyped (from --plugin): parameter 'backbone' needs a type and a keyword"),
        ("task={name = 'toy/arrays', thing = 1}", "task.thing: a recipe cannot set this option"),
        ("task.extra={}", "task.extra: required: the name of a backbone, or a table with 'name'"),
        ("task.extra=3", "task.extra: no backbone named '3'"),
        (
            "metrics=[{name='a'",
            "metrics: expected a list of metric components, got \"[{name='a'\" (text, no valid TOML)",
        ),
        ("data=[3]", "data: expected a table, got [3]"),
        ("train=[]", "train: expected a table, got []"),
        ("train.ema_decay=1", "train.ema_decay must be less than 1, got 1.0"),
        ("summary=[1]", "summary: expected a valid string, got [1]"),
        ("task.classes=['a']", "task.classes: toy/task has no such option"),
        ("data.train.sampler=dens", "data.train.sampler: expected 'segments' or 'dense', got 'dens'; did you mean 'd"),
        (
            "data.train.transforms=[{name='toy/crop', size=[1]}]",
            "data.train.transforms.0.size: Field required, got [1] (at 1)",
        ),
        ("weights=2020-01-01", ""),
    ],
)
def test_a_mistake_names_its_key_and_what_was_expected(override: str, problem: str) -> None:
    if not problem:
        assert resolve(BASE, [override]).weights == "2020-01-01"
        return
    (found,) = problems(override)
    assert found.startswith(problem)


def test_what_is_not_needed_may_still_be_missing() -> None:
    bare = {**BASE, "data": {"train": {"name": "toy/clips"}}}
    del bare["optimizer"]
    assert problems(base=bare) == ["data.train.source: required by toy/clips", "optimizer: required"]
    recipe = resolve(bare, needs=())
    assert recipe.data["train"].missing == ["source"]
    with pytest.raises(ConfigError, match=r"data\.train\.source: required"):
        recipe.data["train"].build()


def test_a_value_that_the_component_itself_refuses_is_told_with_its_key() -> None:
    recipe = resolve(BASE, ["task.backbone.width=3"])
    with pytest.raises(ConfigError, match=r"task\.backbone: width must be even, got 3"):
        recipe.task.build(classes=["a"])


def test_nested_components_are_built_inside_out() -> None:
    task = resolve(BASE, ["task.extra=toy/other", "task.extra.depth=3"]).task.build(classes=["a", "b"])
    assert (task.backbone.width, task.extra.depth, task.classes) == (4, 3, ["a", "b"])
    assert type(task.loss).__name__ == "CrossEntropy"


def test_a_component_by_itself_gets_the_same_checks() -> None:
    assert build_component("backbone", "toy/other", {"depth": 2, "names": {"a": 1}}).names == {"a": 1}
    with pytest.raises(ConfigError, match=r"backbone\.depth: required by toy/other"):
        build_component("backbone", "toy/other", {})


def test_options_at_their_defaults_can_be_left_out() -> None:
    tables = resolve(BASE, ["optimizer.momentum=0.9", "train.epochs=3"]).to_dict(defaults=False)
    assert tables["task"] == {**BASE["task"], "loss": {"name": "core/cross-entropy"}}
    assert tables["data"]["train"] == BASE["data"]["train"]
    assert (tables["optimizer"], tables["metrics"]) == ({"name": "core/sgd"}, [{"name": "core/top-k"}])
    assert (tables["train"], tables["eval"]) == ({"epochs": 3}, {})


def test_a_resolved_recipe_written_as_toml_resolves_to_itself(tmp_path: Path) -> None:
    recipe = resolve(BASE, ["data.val.transforms=[{name = 'toy/crop', size = [2, 3]}]", "task.loss.class_weights=[1]"])
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe.to_dict()))
    again = resolve(tmp_path)
    assert again.to_dict() == recipe.to_dict()
    assert again.own_source == recipe.own_source


fuzz = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ["toy/task", "toy/net", "toy/other", "toy/clips", "toy/pictures", "toy/crop", "toy/untyped"]
NAMES += ["core/top-k", "core/sgd", "core/step"]
KEYS = ["name", "task", "backbone", "loss", "extra", "width", "depth", "names", "rates", "data", "train", "val"]
KEYS += ["test", "holdout", "source", "transforms", "size", "share", "optimizer", "lr", "lr_factors"]
KEYS += ["schedule", "every", "milestones", "metrics", "sinks", "eval", "epochs", "precision", "weights"]
KEYS += ["summary", "distribution", "0", "1", "\u00b2"]
LEAVES = st.sampled_from(NAMES) | st.integers() | st.floats() | st.booleans() | st.text(max_size=5) | st.dates()
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.sampled_from(KEYS), t, max_size=4), max_leaves=12
)
VALUES = [
    "[]",
    "{}",
    "{name = 1}",
    "[{name = 'toy/flip'}]",
    "nan",
    "1e400",
    "9" * 5000,
    "[" * 300,
    "\udcff",
    "{a={b=1}}",
]


@fuzz
@given(
    st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4),
    st.lists(st.tuples(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4), st.sampled_from([*NAMES, *VALUES]))),
)
def test_any_tables_and_overrides_are_a_recipe_or_a_tag_error(tables: Any, overrides: Any) -> None:
    try:
        recipe = resolve({**BASE, **tables}, [f"{'.'.join(keys)}={value}" for keys, value in overrides])
    except TagError:
        return
    assert isinstance(recipe, Recipe)
    assert repr(resolve(recipe.to_dict()).to_dict()) == repr(recipe.to_dict())
    tomli_w.dumps(recipe.to_dict())
