"""The plugin ``face`` keeps the contract that every plugin is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_pictures import write_labelled

from tag_core.testing import PluginContract
from tag_plugins_face.faces import Faces

OPTIONS: dict[str, dict[str, Any]] = {
    "task detection": {"backbone": "face/mobilenet0.25"},
}
"""``"kind name"`` -> the options that it cannot do without, or that make it small."""


class Sample(dict[str, Any]):
    clone = dict.copy


def faces() -> Faces:
    return Faces.of_rows(
        np.array([[8, 8, 40, 48, 16, 20, 32, 20, 24, 30, 18, 40, 30, 40], [50, 10, 60, 22, *[np.nan] * 10]])
    )


class TestFace(PluginContract):
    plugin = "face"

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        if kind == "dataset":
            return {"source": write_labelled(folder)}
        return OPTIONS.get(f"{kind} {name}", {})

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
        if kind == "transform":
            return Sample(source="a", image=picture, scale=1.0, damage=None, faces=faces(), label=0)
        if kind == "task":
            known = {"faces": [faces(), faces()], "source": ["a", "b"], "damage": [None] * 2, "scale": torch.ones(2)}
            return {"image": torch.stack([picture, picture.flip(2)]), **known}
        if kind == "metric":
            return [_found(["a", "b"], 0), _found(["c"], 1)]
        return None


def _found(sources: list[str], shift: int) -> tuple[dict[str, Any], dict[str, Any]]:
    boxes = faces().boxes.repeat(len(sources), 1, 1) + shift
    outputs = {"boxes": boxes, "scores": torch.rand(len(sources), 2), "count": torch.full((len(sources),), 2)}
    return outputs, {"faces": [faces()] * len(sources), "source": sources, "scale": torch.ones(len(sources))}
