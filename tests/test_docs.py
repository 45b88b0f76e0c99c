"""The pages in docs/ say what the code does."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scratch_site import ScratchSite

import tag_core
from tag_core import hookspecs
from tag_core.cli.main import cli
from tag_core.cli.new_plugin import write_plugin
from tag_core.cli.source import read_options
from tag_core.config import Recipe
from tag_core.errors import UserError
from tag_core.options import EvalOptions, TrainOptions
from tag_core.plugins import RESULT_OF_HOOK, Plugins

DOCS = Path(__file__).resolve().parents[1] / "docs"
HOOKS, RECIPES, GUIDE = ((DOCS / f"{name}.md").read_text() for name in ("hooks", "recipes", "write-a-plugin"))
SPECS = {name: value for name, value in vars(hookspecs).items() if name.startswith("tag_")}


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_hooks_page_has_every_hook_with_its_arguments_and_no_other() -> None:
    headings = re.findall(r"^### `(\w+)\((.*)\)`$", HOOKS, re.MULTILINE)
    assert headings == [(name, ", ".join(inspect.signature(spec).parameters)) for name, spec in SPECS.items()]
    assert set(re.findall(r"\btag_[a-z_]+s\b", HOOKS)) - set(SPECS) <= {"tag_plugins"}


def test_every_example_on_the_hooks_page_is_one_that_tag_accepts() -> None:
    blocks = code_blocks(HOOKS, "python")
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    for block in blocks[1:]:
        exec(block, names)
    module = type(sys)("page")
    vars(module).update({name: value for name, value in names.items() if name in SPECS})
    assert set(vars(module)) >= set(SPECS)
    plugins = Plugins()
    plugins.manager.register(module)
    plugins.manager.check_pending()
    for hook, expected in RESULT_OF_HOOK.items():
        assert all(isinstance(item, expected) for item in names[hook]())


def test_every_docstring_example_is_on_the_page() -> None:
    for name, spec in SPECS.items():
        section = HOOKS.split(f"### `{name}(")[1].split("\n### ")[0]
        example = re.search(r"``(.*)``", inspect.getdoc(spec).split("Example:")[1])  # type: ignore[union-attr]
        assert example is not None
        if name in RESULT_OF_HOOK:
            assert example[1] in section


@pytest.mark.parametrize(("table", "options"), [("train", TrainOptions), ("eval", EvalOptions)])
def test_the_option_tables_are_those_of_the_dataclasses(table: str, options: Any) -> None:
    section = RECIPES.split(f"## `[{table}]`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", section, re.MULTILINE)
    told = {name: tomllib.loads(f"x = {default}")["x"] for name, default in rows}
    assert told == {field.name: field.default for field in dataclasses.fields(options)}
    assert [name for name, _ in rows] == [field.name for field in dataclasses.fields(options)]


def test_every_option_has_a_description_in_its_docstring() -> None:
    for options in (TrainOptions, EvalOptions):
        described = read_options(f"tag_core.options:{options.__name__}")
        assert {o.name for o in described if o.help} == {field.name for field in dataclasses.fields(options)}


def test_the_tables_of_a_recipe_are_all_named() -> None:
    named = set(re.findall(r"[\w.]+", " ".join(re.findall(r"^\| (.*?) \|", RECIPES, re.MULTILINE))))
    keys = {field.name for field in dataclasses.fields(Recipe)} - {"name", "own_source", "data"}
    assert keys <= named | {"holdout"}
    assert {"data.train", "data.val", "data.test", "data.holdout"} <= named


def test_the_recipes_on_the_page_are_toml() -> None:
    blocks = code_blocks(RECIPES, "toml")
    assert [set(tomllib.loads(block)) >= {"optimizer"} for block in blocks] == [True, True]


def test_exit_codes_are_those_of_the_errors_and_the_help() -> None:
    codes = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", RECIPES, re.MULTILINE))
    assert set(codes) == {"0", "1", "2", "3", "130"}
    assert UserError.exit_code == 2
    help_text = " ".join((cli.help or "").split())
    for code in codes:
        assert re.search(rf"\b{code} ", help_text)


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_guide_followed_literally_gives_a_plugin_that_passes_and_trains(tmp_path: Path) -> None:
    """Everything but pip: the package's folder is put on the path instead."""
    site = ScratchSite(tmp_path)
    folder = write_plugin("flowers", site.cwd)
    source = folder / "src" / "tag_plugins_flowers"
    backbone, line, mine = code_blocks(GUIDE, "python")
    with open(source / "backbone.py", "a") as file:
        file.write(f"\n\n{backbone}")
    text = (source / "plugin.py").read_text()
    marker = 'return [Component("small"'
    assert text.count(marker) == 1
    (source / "plugin.py").write_text(text.replace(marker, f'return [{line.strip()} Component("small"'))
    ast.parse((source / "plugin.py").read_text())
    site.install("tag-plugins-flowers", {"flowers": "tag_plugins_flowers.plugin"}, {})
    environment = {"PYTHONPATH": os.pathsep.join([str(site.packages), str(folder / "src")])}
    tests = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), **environment)
    assert "9 passed" in tests.stdout, tests.stdout
    (command,) = re.findall(r"^    tag-run (train flowers/first task\.backbone=flowers/wide .*)$", GUIDE, re.MULTILINE)
    fast = ["train.epochs=1", "data.train.source=draw:80", "--out", "run"]
    done = site.run(*shlex.split(command), *fast, **environment)
    assert done.returncode == 0, done.stderr
    (site.cwd / "mine.py").write_text(mine)
    wrong = ["task.backbone.kernl_size=4", "task.loss=mine/hinge", "task.loss.margn=1", "--plugin", "mine.py"]
    told = site.run(*shlex.split(command), *wrong, **environment)
    assert told.returncode == 2, told.stderr
    assert "task.backbone.kernl_size: flowers/wide has no such option; did you mean 'kernel_size'" in told.stderr
    assert "task.loss.margn: mine/hinge has no such option; did you mean 'margin'" in told.stderr


def test_every_tag_run_command_in_the_docs_exists() -> None:
    for page in DOCS.glob("*.md"):
        for line in re.findall(r"^    tag-run (.*)$", page.read_text(), re.MULTILINE):
            words = [word for word in line.split() if not word.startswith("--plugin") and not word.endswith(".py")]
            assert words[0] in cli.list_commands(None), f"{page.name}: tag-run {line}"  # type: ignore[arg-type]


def test_the_public_names_of_the_package_are_few() -> None:
    assert sorted(tag_core.__all__) == sorted(
        ["Command", "Component", "RecipeFile", "evaluate", "export", "hookimpl", "load", "predict", "train"]
    )
