"""Everything that users and plugin authors rely on, written out: a change here must be meant."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

import tag_core
from tag_core import errors, hookspecs, kinds
from tag_core.cli.main import COMMANDS, cli
from tag_core.component import Command, Component, RecipeFile
from tag_core.options import EvalOptions, TrainOptions
from tag_core.records import Record

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "command-line.md").read_text("utf-8")
HOOKS = {
    "tag_datasets": [],
    "tag_transforms": [],
    "tag_backbones": [],
    "tag_tasks": [],
    "tag_losses": [],
    "tag_optimizers": [],
    "tag_samplers": [],
    "tag_schedules": [],
    "tag_metrics": [],
    "tag_distributions": [],
    "tag_indexes": [],
    "tag_sinks": [],
    "tag_recipes": [],
    "tag_commands": [],
    "tag_run_started": ["run"],
    "tag_epoch_finished": ["run", "scores"],
    "tag_run_finished": ["run", "outcome"],
}
KINDS = [
    "dataset",
    "transform",
    "backbone",
    "task",
    "loss",
    "optimizer",
    "sampler",
    "schedule",
    "metric",
    "distribution",
    "index",
    "sink",
]
GIVEN = {
    "task": ("classes",),
    "optimizer": ("model",),
    "sampler": ("dataset", "batch_size", "seed", "processes"),
    "schedule": ("total_steps", "steps_per_epoch"),
    "metric": ("classes",),
    "sink": ("path",),
}
COMMAND_LINE: dict[str, tuple[list[str], list[str]]] = {
    "list": (["kind"], ["--json"]),
    "show": (["name"], ["--json"]),
    "plugins": ([], ["--json"]),
    "recipes": ([], ["--json"]),
    "doctor": ([], ["--json"]),
    "check": (["recipe", "overrides"], ["--json"]),
    "train": (["recipe", "overrides"], ["--out", "--resume", "--procs", "--strict", "--json"]),
    "eval": (["recipe", "overrides"], ["--out", "--procs", "--strict", "--json"]),
    "predict": (["recipe", "arguments"], ["--out", "--visualize", "--crops", "--min-score", "--procs", "--strict"]),
    "export": (["recipe", "arguments"], ["--out", "--format", "--tolerance", "--json"]),
    "new-plugin": (["name"], ["--out"]),
}
"""Command -> (arguments, options)."""
SEARCH: dict[str, tuple[list[str], list[str]]] = {
    "build": (["options"], ["--embeddings", "--index", "--metric", "--labels", "--replace", "--json"]),
    "add": (["index"], ["--embeddings", "--labels", "--json"]),
    "remove": (["index", "names"], ["--json"]),
    "compact": (["index"], ["--json"]),
    "show": (["index"], ["--json"]),
    "verify": (["index"], []),
    "query": (["index", "arguments"], ["--k", "--expand", "--alpha", "--rerank", "--labels", "--html"]),
    "eval": (["index", "records"], ["--k", "--expand", "--alpha", "--rerank", "--labels", "--json"]),
}
"""Of ``tag-run search``."""
GLOBAL_OPTIONS = ["--version", "--plugin", "--traceback"]
EXIT_CODES = {
    "TagError": 1,
    "UserError": 2,
    "ConfigError": 2,
    "UnknownName": 2,
    "PluginError": 2,
    "WeightsError": 2,
    "CheckpointError": 2,
    "RunFolderError": 2,
    "UnreadableInput": 3,
}
RECORD = {
    "source": dataclasses.MISSING,
    "frame": None,
    "time": None,
    "labels": None,
    "scores": None,
    "boxes": None,
    "keypoints": None,
    "masks": None,
    "embedding": None,
    "track": None,
    "truth": None,
    "damage": None,
    "error": None,
    "extra": {},
    "version": 1,
}
TRAIN = {
    "epochs": 10,
    "batch_size": 16,
    "accumulate": 1,
    "workers": 2,
    "timeout": 60.0,
    "seed": 0,
    "precision": "fp32",
    "channels_last": False,
    "compile": False,
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "validate_every": 1,
    "checkpoint_every": 0,
    "best": "",
    "patience": 0,
    "deterministic": False,
    "drop_last": True,
    "log_every": 10,
}
EVAL = {
    "batch_size": 16,
    "workers": 2,
    "timeout": 60.0,
    "precision": "fp32",
    "channels_last": "auto",
    "compile": False,
    "shard_size": 64,
}
CORE = {
    "loss": ["bce", "cross-entropy", "focal"],
    "optimizer": ["adam", "adamw", "rmsprop", "sgd"],
    "schedule": ["constant", "cosine", "multi-step", "one-cycle", "polynomial", "step"],
    "metric": ["confusion-matrix", "mean-class-accuracy", "multilabel-map", "top-k"],
    "distribution": ["auto", "cpu", "cuda", "ddp", "fsdp"],
    "sink": ["csv", "jsonl", "parquet", "pickle"],
}
VERBS = {
    "load": ["name", "kind", "options"],
    "train": ["recipe", "overrides", "out", "resume", "strict"],
    "evaluate": ["recipe", "overrides", "out", "strict"],
    "predict": ["recipe", "inputs", "overrides", "strict", "crops", "min_score"],
    "export": ["recipe", "inputs", "overrides", "out", "file_format", "tolerance"],
}


def python(script: str, **environment: str) -> str:
    """Standard output of a fresh interpreter."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TAG_", "_TAG"))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options_of(command: click.Command) -> list[str]:
    return [name for p in command.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")]


def defaults(cls: Any) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}


def test_names_of_the_package() -> None:
    expected = ["Command", "Component", "RecipeFile", "evaluate", "export", "hookimpl", "load", "predict", "train"]
    assert sorted(tag_core.__all__) == expected
    for name in expected:
        assert getattr(tag_core, name)


@pytest.mark.parametrize("verb", VERBS)
def test_parameters_of_the_verbs(verb: str) -> None:
    assert list(inspect.signature(getattr(tag_core, verb)).parameters) == VERBS[verb]


def test_hooks_and_their_arguments() -> None:
    found = {name: value for name, value in vars(hookspecs).items() if name.startswith("tag_")}
    assert {name: list(inspect.signature(hook).parameters) for name, hook in found.items()} == HOOKS


def test_what_hooks_return() -> None:
    described = {cls: [field.name for field in dataclasses.fields(cls)] for cls in (Component, RecipeFile, Command)}
    assert described == {
        Component: ["name", "target", "summary", "paper"],
        RecipeFile: ["name", "file", "summary"],
        Command: ["name", "target", "summary"],
    }


def test_kinds_and_what_the_engine_gives_them() -> None:
    assert list(kinds.KINDS) == KINDS
    assert kinds.GIVEN == GIVEN


def test_commands_with_their_arguments_and_options() -> None:
    assert list(COMMANDS) == list(COMMAND_LINE)
    context = click.Context(cli)
    for name, (arguments, options) in COMMAND_LINE.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert [p.name for p in command.params if isinstance(p, click.Argument)] == arguments
        assert options_of(command) == options, name
    assert sorted(options_of(cli)) == sorted(GLOBAL_OPTIONS)


def test_commands_of_search_as_the_page_has_them() -> None:
    group = cli.get_command(click.Context(cli), "search")
    assert isinstance(group, click.Group)
    assert list(group.commands) == list(SEARCH)
    section = PAGE.split("## Search")[1].split("\n## ")[0]
    rows = {
        name: (u, told)
        for name, u, told in re.findall(r"^\| `search (\w+)(.*?)` \| .* \|(.*)\|$", section, re.MULTILINE)
    }
    for name, (arguments, options) in SEARCH.items():
        command = group.commands[name]
        assert [p.name for p in command.params if isinstance(p, click.Argument)] == arguments
        assert options_of(command) == options, name
        words = [piece for piece in command.collect_usage_pieces(click.Context(command)) if piece != "[OPTIONS]"]
        assert rows[name][0].split() == " ".join(words).split(), name
        assert re.findall(r"--[\w-]+", rows[name][1]) == options


def test_errors_and_their_exit_codes() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert {cls.__name__: cls.exit_code for cls in classes} == EXIT_CODES


def test_fields_of_a_record() -> None:
    assert defaults(Record) == RECORD


@pytest.mark.parametrize(("options", "expected"), [(TrainOptions, TRAIN), (EvalOptions, EVAL)])
def test_options_of_train_and_eval(options: Any, expected: dict[str, Any]) -> None:
    assert defaults(options) == expected


def test_built_in_components() -> None:
    script = "from tag_core.cli.main import main; main(['list', '--json'])"
    found: dict[str, list[str]] = {}
    for entry in json.loads(python(script, TAG_DISABLE="video,reid,face,search")):
        found.setdefault(entry["kind"], []).append(entry["name"].removeprefix("core/"))
    assert {kind: sorted(names) for kind, names in found.items()} == CORE


@pytest.mark.parametrize("module", ["tag_core", "tag_core.hookspecs", "tag_core.errors", "tag_core.records"])
def test_importing_it_imports_neither_torch_nor_numpy(module: str) -> None:
    loaded = python(f"import {module}, sys; print(*sys.modules)").split()
    assert not {"torch", "numpy", "pydantic", "av", "PIL"} & set(loaded)
    assert "tag_core" in loaded


def test_the_version_is_the_package_s() -> None:
    script = "from tag_core.cli.main import main; main(['--version'])"
    assert version("tag-core") in python(script)


def test_the_command_line_page_has_every_command_and_option() -> None:
    section = PAGE.split("## Commands")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)(.*?)` \| .* \|(.*)\|$", section, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(COMMAND_LINE)
    context = click.Context(cli)
    for name, usage, options in rows:
        assert re.findall(r"--[\w-]+", options) == COMMAND_LINE[name][1], name
        command = cli.get_command(context, name)
        assert command is not None
        words = [piece for piece in command.collect_usage_pieces(click.Context(command)) if piece != "[OPTIONS]"]
        assert usage.split() == " ".join(words).split(), name
    told = re.findall(r"^\| `(--[\w-]+)", PAGE.split("## Options")[1].split("\n## ")[0], re.MULTILINE)
    everything = {option for _, options in COMMAND_LINE.values() for option in options} | set(GLOBAL_OPTIONS)
    assert sorted(told) == sorted(everything)


def test_the_command_line_page_has_every_exit_code_and_variable() -> None:
    codes = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert {int(code) for code in codes} == {0, 130, *EXIT_CODES.values()}
    source = Path(tag_core.__file__).parent
    read = {name for path in source.rglob("*.py") for name in re.findall(r'"((?:TAG|NO)_[A-Z]+)"', path.read_text())}
    read |= set(re.findall(r"\b(TAG_[A-Z]+)=", (source / "engine" / "launch.py").read_text()))
    told = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert set(told) == read - {"TAG_LAUNCHED"}, "TAG_LAUNCHED is between the launcher and its processes"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tag-run tra", {"train"}),
        ("tag-run train --", {"--out", "--resume", "--procs", "--strict", "--json", "--help"}),
    ],
)
def test_completion_works_as_the_page_says(line: str, expected: set[str]) -> None:
    assert "_TAG_RUN_COMPLETE=bash_source tag-run" in PAGE
    words = len(line.split()) - 1
    script = "import sys; sys.argv[0] = 'tag-run'; from tag_core.cli.main import run; run()"
    answer = python(script, _TAG_RUN_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(words))
    assert {item.partition(",")[2] for item in answer.split()} == expected
