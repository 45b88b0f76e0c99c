"""Commands that only tell names never import torch; ``benchmarks/start_up.py`` measures what that is worth."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "torchvision", "timm", "av", "decord", "PIL", "pydantic", "tqdm", "sklearn", "packaging"}
SLOW_STDLIB = {"importlib.metadata", "email.message"}
PROGRAM = """
import json, sys
from tag_core.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
LIGHT = ["--help", "list", "list backbone --json", "show core/sgd", "show core/sgd --json", "plugins", "plugins --json"]
LIGHT += ["recipes", "recipes --json", "train --help", "predict --help", "new-plugin --help"]


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TAG_")}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", LIGHT)
def test_a_command_that_tells_names_imports_nothing_heavy(arguments: str) -> None:
    done = python(PROGRAM, *arguments.split())
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert done.stdout
    assert not (HEAVY | SLOW_STDLIB) & set(modules)


@pytest.mark.parametrize("name", ["core/nothing", "video/nothing", "nothing"])
def test_a_wrong_name_is_told_without_importing_torch(name: str) -> None:
    done = python(PROGRAM, "show", name)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 2
    assert "torch" not in modules


def test_importing_the_package_leaves_its_verbs_for_later() -> None:
    program = "import sys, tag_core; print('torch' in sys.modules, callable(tag_core.train), 'torch' in sys.modules)"
    done = python(program)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr
