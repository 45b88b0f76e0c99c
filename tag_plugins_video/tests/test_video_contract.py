"""The plugin ``video`` keeps the contract that every plugin is held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tag_core.testing import PluginContract
from tag_plugins_video.motion import write_clip

RGB = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


class TestVideo(PluginContract):
    plugin = "video"

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        if kind == "dataset":
            return {"source": _data(name, folder), "random": True}
        options: dict[str, dict[str, Any]] = {
            "task classification": {"backbone": "video/c3d-tiny", "loss": "core/cross-entropy"},
            "transform resize": {"short_side": 32},
            "transform normalize": RGB,
            "transform three-crop": {"size": 32},
            "transform ten-crop": {"size": 32},
        }
        if kind == "transform" and name.endswith("crop") and f"{kind} {name}" not in options:
            return {"size": 32}
        return options.get(f"{kind} {name}", {})

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        if kind == "backbone":
            return torch.rand(2, 3, 16, 64, 64)
        if kind == "task":
            clips = torch.randint(0, 256, (4, 8, 3, 32, 32), dtype=torch.uint8)
            return {"clip": clips, "label": torch.arange(4), "source": list("abcd"), "damage": [None] * 4}
        return None


def _data(name: str, folder: Path) -> str:
    """Two videos, or folders of frames, in two classes; and what lists them."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 48), dtype=np.uint8)
    paths = []
    for label in ("cat", "dog"):
        path = folder / label / ("frames" if name == "frames" else "clip.mp4")
        path.parent.mkdir()
        if name == "frames":
            path.mkdir()
            for number, frame in enumerate(frames, 1):
                Image.fromarray(frame).convert("RGB").save(path / f"{number:05d}.jpg")
        else:
            write_clip(path, frames)
        paths.append(path)
    if name == "list":
        (folder / "list.txt").write_text("".join(f"{path} {i}\n" for i, path in enumerate(paths)))
        return str(folder / "list.txt")
    if name == "table":
        (folder / "table.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
        return str(folder / "table.csv")
    return str(folder)
