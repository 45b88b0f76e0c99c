"""A plugin for the tests: ``reid/embedding`` that notes which pictures each process trains on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from tag_core import Component, hookimpl
from tag_core.kinds import Backbone, Loss
from tag_plugins_reid.tasks.embedding import Embedding


@hookimpl
def tag_tasks() -> list[Component]:
    return [Component("embedding", "watching_plugin:Watching", "Notes what it is trained on")]


class Watching(Embedding):
    """One line a step in ``seen-RANK.jsonl``.

    Args:
        backbone: maps pictures to feature maps.
        loss: of logits.
        folder: for the notes.
    """

    def __init__(self, backbone: Backbone, loss: Loss, classes: list[str], folder: str) -> None:
        super().__init__(backbone, loss, classes)
        self.notes = Path(folder) / f"seen-{os.environ.get('RANK', '0')}.jsonl"

    def forward(self, batch: Any) -> dict[str, Tensor]:
        with self.notes.open("a") as file:
            file.write(json.dumps({"sources": batch["source"], "shape": list(batch["image"].shape)}) + "\n")
        return super().forward(batch)
