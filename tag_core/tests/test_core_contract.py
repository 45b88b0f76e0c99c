"""The built-in plugins keep the contract that every plugin is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tag_core.testing import PluginContract


class TestCore(PluginContract):
    plugin = "core"

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        return {"schedule step": {"every": 2}, "schedule multi-step": {"milestones": [1, 3]}}.get(f"{kind} {name}", {})

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        if (kind, name) != ("metric", "multilabel-map"):
            return None
        scores, labels = torch.rand(6, 5), torch.eye(5)[[0, 1, 2, 3, 4, 0]]
        return [({"scores": scores[:4]}, {"label": labels[:4]}), ({"scores": scores[4:]}, {"label": labels[4:]})]


class TestTensorBoard(PluginContract):
    plugin = "tensorboard"
