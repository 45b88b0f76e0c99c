"""Recipes as text: extends, overrides, and whatever bytes a file may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tag_core.errors import ConfigError, TagError, UnknownName
from tag_core.recipe import Inherited, merge, parse_toml, read_tree

fuzz = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tree(overrides: list[str], base: dict[str, Any] | None = None) -> dict[str, Any]:
    return read_tree(base or {}, overrides)[1]


def problems(*arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_tree(*arguments)
    return caught.value.problems


def test_a_child_replaces_values_and_keeps_the_rest_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('summary = "base"\n[train]\nepochs = 3\nseed = 7\n')
    child = tmp_path / "child.toml"
    child.write_text('extends = "base.toml"\n[train]\nepochs = 5\n')
    assert read_tree(child) == (str(child), {"summary": "base", "train": {"epochs": 5, "seed": 7}})


def test_extends_goes_one_level_only(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("self", "self")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{parent}.toml"\n')
    assert problems(tmp_path / "a.toml") == ["extends: b.toml itself extends c.toml; one level only"]
    assert problems(tmp_path / "self.toml") == ["extends: self.toml itself extends self.toml; one level only"]


def test_extends_must_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("extends = 3\n")
    assert problems(tmp_path / "a.toml") == ["extends: expected the name of a recipe, got 3"]


@pytest.mark.parametrize("parent", ["absent.toml", "\\u0000.toml", "a" * 5000])
def test_a_parent_that_cannot_be_read_is_one_problem(parent: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f'extends = "{parent}"\n')
    assert problems(tmp_path / "a.toml")[0].startswith("cannot be read: ")


def test_a_run_folder_stands_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[train]\nseed = 1\n")
    assert read_tree(tmp_path)[1] == {"train": {"seed": 1}}


def test_a_name_that_is_nothing_says_what_a_recipe_may_be() -> None:
    with pytest.raises(UnknownName, match=r"a name from 'tag-run recipes', a \.toml file, or a run folder"):
        read_tree("no-such-recipe")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a = ", "not valid TOML: Invalid value (at end of document)"),
        (b"a = 1\na = 2", "not valid TOML: Cannot overwrite a value (at end of document)"),
        (b"caf\xe9 = 1", "not UTF-8 text (byte 3)"),
        (b"a = " + b"[" * 400 + b"]" * 400, "nested too deeply"),
        (b"[" + b"a." * 3000 + b"a]", "nested too deeply"),
        (b"#" * 1_000_001, "not valid TOML: larger than 1000000 bytes; not a recipe"),
    ],
)
def test_a_file_that_is_no_toml_gives_one_problem(text: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    assert problems(path) == [problem]


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert parse_toml(b"\xef\xbb\xbfa = 1\r\n", "x") == {"a": 1}


def test_overrides_make_tables_lists_and_text() -> None:
    found = tree(["task.backbone.depth=18", "task.backbone=net", "a.b=[1, 2]", 'c={d = "e"}', "f=g=h"])
    assert found == {
        "task": {"backbone": {"depth": "18", "name": "net"}},
        "a": {"b": [1, 2]},
        "c": {"d": "e"},
        "f": "g=h",
    }


def test_a_name_after_its_options_and_before_them_means_the_same() -> None:
    assert tree(["loss=focal", "loss.gamma=1"]) == tree(["loss.gamma=1", "loss=focal"])


def test_an_item_of_a_list_can_be_changed_or_added() -> None:
    base = {"metrics": ["a", {"name": "b", "k": 1}]}
    found = tree(["metrics.0.k=3", "metrics.1=c", "metrics.2=d"], base)
    assert found == {"metrics": [{"name": "a", "k": "3"}, {"name": "c"}, "d"]}
    assert problems(base, ["metrics.5=d"]) == ["metrics.5: the list has 2 items"]


@pytest.mark.parametrize("text", ["lr", "=1", "a b=1", "a..b=1", ".=1", "a." * 40 + "a=1"])
def test_an_override_without_a_key_is_refused(text: str) -> None:
    assert problems({}, ["ok=1", text, text]) == [f"{text!r}: write key=value, such as optimizer.lr=0.01"] * 2


def test_another_component_starts_from_its_own_defaults() -> None:
    base = {"optimizer": {"name": "core/sgd", "momentum": 0.5}}
    assert merge(base, {"optimizer": {"name": "core/adam"}}) == {"optimizer": {"name": "core/adam"}}
    assert merge(base, {"optimizer": {"name": "core/sgd", "lr": 1}})["optimizer"]["momentum"] == 0.5


def test_another_data_set_keeps_options_as_inherited() -> None:
    merged = merge({"data": {"train": {"name": "a", "source": "x"}}}, {"data": {"train": {"name": "b"}}})
    assert merged["data"]["train"] == {"name": "b", "source": Inherited("x")}


@fuzz
@given(st.binary(max_size=80) | st.text("[]{}=.,'\"\n\t #ab01-_:", max_size=60).map(str.encode))
def test_any_bytes_are_tables_or_a_tag_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz.toml"
    path.write_bytes(data)
    with contextlib.suppress(TagError):
        assert isinstance(read_tree(path)[1], dict)


@fuzz
@given(st.lists(st.text(max_size=20) | st.from_regex(r"[a-z0-9.]{1,8}=.{0,12}", fullmatch=True), max_size=6))
def test_any_overrides_are_tables_or_a_tag_error(texts: list[str]) -> None:
    with contextlib.suppress(TagError):
        assert isinstance(tree(texts, {"a": ["x"], "b": {"name": "y"}}), dict)
