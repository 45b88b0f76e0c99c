"""The plugin ``reid`` keeps the contract that every plugin is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from reid_pictures import smallest_data

from tag_core.testing import PluginContract

SMALL = {"name": "reid/small", "width": 4, "depth": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "backbone resnet": {"depth": 18},
    "backbone timm": {"model": "mobilenetv3_small_050"},
    "task embedding": {"backbone": SMALL, "loss": "core/cross-entropy"},
    "loss xbm": {"loss": "reid/contrastive", "dim": 5, "size": 8},
    "loss xbm-softmax": {"loss": "reid/arcface", "dim": 5, "size": 8},
    "loss sum": {"losses": ["core/cross-entropy", "reid/triplet"]},
    "transform resize": {"size": [32, 16]},
    "task pcb": {"backbone": SMALL, "loss": "core/cross-entropy", "parts": 2, "dim": 4},
}
"""``"kind name"`` -> the options that it cannot do without, or that make it small."""


class TestReid(PluginContract):
    plugin = "reid"

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        if kind == "dataset":
            return smallest_data(name, folder)
        return OPTIONS.get(f"{kind} {name}", {})

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        if kind == "task":
            pictures = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8)
            label = torch.tensor([0, 0, 1, 1])
            return {"image": pictures, "label": label, "source": list("abcd"), "damage": [None] * 4}
        if kind == "transform":
            return torch.randint(0, 256, (3, 64, 32), dtype=torch.uint8)
        if kind == "loss":  # in (-1, 1), as cosines are; two of each label, so that there are pairs
            return torch.rand(4, 5) * 2 - 1, torch.tensor([0, 0, 1, 1])
        if kind == "metric":
            return [_retrieved(1, [3, 3, 4, 5]), _retrieved(2, [4, 3, 5])]
        return None


def _retrieved(camera: int, identities: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Embeddings, and pictures of one camera that are queries and gallery."""
    number = len(identities)
    known = {"camera": torch.full((number,), camera), "role": torch.full((number,), 2)}
    names = {"identity": [f"{i:04d}" for i in identities], "source": [f"{camera}-{n}.jpg" for n in range(number)]}
    return {"embedding": torch.rand(number, 8)}, known | names
