"""The plugin ``video`` keeps the contract that every plugin is held to."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tag_core.testing import PluginContract
from tag_plugins_video.feature_writer import FeatureWriter
from tag_plugins_video.flow_store import write_store
from tag_plugins_video.motion import write_clip

RGB = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


STREAM = {"name": "video/classification", "backbone": "video/c3d-tiny", "loss": "core/cross-entropy"}
SEQUENCES = {"modalities": {"rgb": 8, "audio": 4}}


def _sequences(count: int) -> dict[str, Any]:
    lengths = torch.arange(5, 5 - count, -1)
    return {"rgb": torch.rand(count, 5, 8), "audio": torch.rand(count, 5, 4), "length": lengths}


class TestVideo(PluginContract):
    plugin = "video"

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        if kind == "sink":
            (folder / "names.txt").write_text("a\nb\n")
            return {"label_map": str(folder / "names.txt")}
        if kind == "dataset" and name in ("youtube8m", "features"):
            return {"source": _data(name, folder), "random": True, "num_frames": 10}
        if kind == "dataset" and name == "two-stream":
            streams = {"rgb": "video/folder", "flow": "video/flow", "flow_source": str(folder)}
            return {"source": _data(name, folder), "random": True, **streams}
        if kind == "dataset":
            return {"source": _data(name, folder), "random": True}
        options: dict[str, dict[str, Any]] = {
            "task classification": {"backbone": "video/c3d-tiny", "loss": "core/cross-entropy"},
            "task two-stream": {"rgb": STREAM, "flow": STREAM | {"mean": [0.2] * 3}},
            "task tagging": {"backbone": {"name": "video/nextvlad", **SEQUENCES, "clusters": 2}, "loss": "core/bce"},
            "task moco": {"backbone": "video/c3d-tiny", "queue": 8},
            "task simclr": {"backbone": "video/c3d-tiny"},
            "task byol": {"backbone": "video/c3d-tiny", "hidden": 8},
            "task mae": {"backbone": {"name": "video/vit", "dim": 12, "depth": 1, "heads": 2}, "decoder_dim": 12},
            "task linear-probe": {"backbone": "video/c3d-tiny", "loss": "core/cross-entropy"},
            "task knn": {"backbone": "video/c3d-tiny"},
            "transform per-view": {"transforms": ["video/flip"]},
            "backbone vit": {"dim": 24, "depth": 2},
            "backbone c3d": {"width": 0.0625},
            "backbone stnet": {"snippet": 4},
            "backbone attention-cluster": SEQUENCES | {"clusters": 2, "hidden": [8, 8]},
            "backbone attention-lstm": SEQUENCES | {"embedding": 4, "lstm": 4, "hidden": [8, 8]},
            "backbone nextvlad": SEQUENCES | {"clusters": 2, "groups": 2, "hidden": 8},
            "transform resize": {"short_side": 32},
            "transform normalize": RGB,
            "transform three-crop": {"size": 32},
            "transform ten-crop": {"size": 32},
        }
        if kind == "transform" and name.endswith("crop") and f"{kind} {name}" not in options:
            return {"size": 32}
        return options.get(f"{kind} {name}", {})

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        if name in ("attention-cluster", "attention-lstm", "nextvlad"):
            return _sequences(4)
        if f"{kind} {name}" == "task tagging":
            return _sequences(4) | {"label": torch.arange(4), "source": list("abcd"), "damage": [None] * 4}
        if kind == "backbone":
            return torch.rand(2, 3, 16, 64, 64)
        if kind == "task" and name in ("moco", "simclr", "byol"):
            views = torch.randint(0, 256, (4, 2, 8, 3, 32, 32), dtype=torch.uint8)
            return {"clip": views, "source": list("abcd"), "damage": [None] * 4}
        if kind == "task":
            clips = torch.randint(0, 256, (4, 8, 3, 32, 32), dtype=torch.uint8)
            streams = {"clip": clips, "flow": clips.flip(0)}
            return {**streams, "label": torch.arange(4), "source": list("abcd"), "damage": [None] * 4}
        return None


def _data(name: str, folder: Path) -> str:
    """Two videos, or folders of frames, in two classes; and what lists them."""
    if name == "features":
        with FeatureWriter(folder / "store", {"dtype": "float16", "modality": "frames", "fingerprint": ""}) as writer:
            for label in ("cat", "dog"):
                writer.add(f"{label}/clip.mp4", np.ones((5, 8)), label, None)
            writer.finish()
        return str(folder / "store")
    if name == "youtube8m":
        video = {"feature": np.ones((5, 1024), np.uint8), "audio": np.ones((5, 128), np.uint8), "nframes": 5}
        records = [{**video, "video": "v1", "label": [0]}, {**video, "video": "v2", "label": [1, 3]}]
        (folder / "a.pkl").write_bytes(pickle.dumps(records))
        return str(folder / "a.pkl")
    if name == "kinetics-pickle":
        file = io.BytesIO()
        Image.new("RGB", (48, 32)).save(file, "JPEG")
        (folder / "a.pkl").write_bytes(pickle.dumps(("a", 1, [file.getvalue()] * 12)))
        return str(folder / "a.pkl")
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
            flow = frames[..., None].repeat(2, axis=-1)
            write_store(path.with_name("clip.mp4.flow"), flow[0], flow[1:], {"fps": 25.0, "bound": 20.0})
            write_clip(path, frames)
        paths.append(path)
    if name == "list":
        (folder / "list.txt").write_text("".join(f"{path} {i}\n" for i, path in enumerate(paths)))
        return str(folder / "list.txt")
    if name == "table":
        (folder / "table.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
        return str(folder / "table.csv")
    return str(folder)
