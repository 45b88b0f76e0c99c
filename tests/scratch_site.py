"""A folder of really installed packages, for tests that run ``tag-run`` with plugins of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

GOOD = """
from tag_core import Component, RecipeFile, hookimpl

@hookimpl
def tag_backbones():
    return [Component("net", "good_pkg.net:Net", "A small network")]

@hookimpl
def tag_tasks():
    return [Component("task", "good_pkg.task:Task", "A task")]

@hookimpl
def tag_recipes():
    return [RecipeFile("first", "good_pkg:first.toml", "A recipe")]
"""
GOOD_NET = """
import torch

class Net(torch.nn.Module):
    '''A small network.

    Args:
        width: number of features.
    '''

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.feature_dim = width
"""
GOOD_TASK = """
from tag_core.kinds import Backbone, Loss

class Task:
    '''A task.

    Args:
        backbone: any.
        loss: any.
    '''

    def __init__(self, backbone: Backbone, loss: Loss, classes: list[str]) -> None: ...
"""
GOOD_RECIPE = """
[task]
name = "good/task"
backbone = { name = "good/net" }
loss = "core/cross-entropy"
[optimizer]
name = "core/sgd"
"""


class ScratchSite:
    """Packages with dist-info and entry points, found because the folder is on ``PYTHONPATH``."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "site-packages"
        self.cwd = folder / "work"
        self.packages.mkdir(parents=True)
        self.cwd.mkdir()

    def install(
        self,
        dist: str,
        entry_points: Mapping[str, str],
        files: Mapping[str, str],
        requires: Sequence[str] = ("tag-core>=0.1",),
    ) -> None:
        info = self.packages / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        headers = ["Metadata-Version: 2.1", f"Name: {dist}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (info / "METADATA").write_text("\n".join(headers) + "\n\nSome text.\nRequires-Dist: not-a-header\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[tag.plugins]\n{lines}")
        for path, text in files.items():
            (self.packages / path).parent.mkdir(parents=True, exist_ok=True)
            (self.packages / path).write_text(text)

    def install_good(self) -> None:
        files = {"__init__.py": "", "plugin.py": GOOD, "net.py": GOOD_NET, "task.py": GOOD_TASK}
        files["first.toml"] = GOOD_RECIPE
        packed = {f"good_pkg/{name}": text for name, text in files.items()}
        self.install("tag-good", {"good": "good_pkg.plugin"}, packed)

    def run(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        """``tag-run`` with these arguments, in a folder of its own."""
        return self.python("-m", "tag_core.cli.main", *arguments, timeout=timeout, **environment)

    def python(self, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TAG_")}
        return subprocess.run(
            [sys.executable, *arguments],
            env={**kept, "PYTHONPATH": str(self.packages), "COLUMNS": "300", **environment},
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
