"""Weights from a file, an address or a published name, into a task; with a report of every key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tag_core.engine.download import download
from tag_core.errors import WeightsError

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights at a stable public address."""

    url: str
    sha256: str  # of the file, in hexadecimal; its first eight digits or more
    summary: str = ""  # data, accuracy and licence in one line
    classes: tuple[str, ...] = ()  # their names, in the order of the logits


@dataclass
class Weights:
    """A state dict with the class names that came along, if any."""

    source: str
    state: StateDict
    classes: list[str] | None = None


def read_weights(source: str, task_class: object, backbone_class: object) -> Weights:
    """Weights by file, run folder, address (``https://...#sha256=...``) or published name.

    Raises:
        WeightsError: not found, not reachable, damaged, or not a state dict.
    """
    known = published(task_class, backbone_class)
    if source in known:
        entry = known[source]
        found = read_file(download(entry.url, entry.sha256))
        return replace(found, classes=list(entry.classes) or found.classes)
    if source.startswith(("http://", "https://")):
        url, _, digest = source.partition("#sha256=")
        if not digest:
            raise WeightsError(f"weights {source}: add '#sha256=<digest>' so that the file can be checked")
        return read_file(download(url, digest))
    path = Path(source).expanduser()
    path = weights_of_run(path) or path
    if path.is_dir():
        inside = ", ".join(map(str, sorted(path.glob("**/*.pt"))[:3])) or "no .pt file"
        raise WeightsError(f"weights {source}: is a folder, not a weights file; in it: {inside}")
    if not path.is_file():
        names = f"; published names: {', '.join(known)}" if known else ""
        raise WeightsError(f"weights {source}: no such file{names}")
    return read_file(path)


def published(*owners: object) -> dict[str, PublishedWeights]:
    """Those that components name, a task and its backbone."""
    return {
        name: entry for owner in owners for name, entry in (getattr(owner, "published_weights", None) or {}).items()
    }


def weights_of_run(folder: Path) -> Path | None:
    """The best weights of a run folder, else the last; None where it holds neither."""
    found = [folder / "checkpoints" / name for name in ("best.pt", "last.pt")]
    return next((path for path in found if path.is_file()), None)


def read_file(path: Path) -> Weights:
    """A Tag checkpoint, a plain state dict (also under ``state_dict`` or ``model``), or safetensors.

    Raises:
        WeightsError: the file cannot be read without executing code, or holds no tensors.
    """
    if path.suffix == ".onnx":
        raise WeightsError(f"weights {path}: a graph cannot be trained on; it is for tag-run eval and predict")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"weights {path}: {_why_not(error)}") from error
    classes = data.get("classes") if isinstance(data, Mapping) else None
    for key in ("ema", "model", "state_dict"):
        if isinstance(data, Mapping) and _holds_tensors(data.get(key)):
            data = data[key]
            break
    if not _holds_tensors(data):
        raise WeightsError(f"weights {path}: holds no state dict (a table of tensors by name)")
    state = {str(k).removeprefix("module."): v for k, v in data.items() if isinstance(v, Tensor)}
    return Weights(str(path), state, list(classes) if isinstance(classes, (list, tuple)) else None)


def _why_not(error: Exception) -> str:
    """Torch's own text would advise to load the file unsafely."""
    if isinstance(error, ImportError):
        return "needs safetensors; type: pip install safetensors"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return f"holds Python objects ({found[1]}), which Tag does not load; save its state_dict() instead"
    return "damaged or cut off, or not a weights file"


def _holds_tensors(data: object) -> bool:
    return isinstance(data, Mapping) and any(isinstance(value, Tensor) for value in data.values())


def fit(weights: Weights, task: nn.Module) -> tuple[StateDict, str]:
    """The state dict in the task's own keys, and the name of the layout that it came in.

    Tag's own layout first, then that of a backbone alone, then the task's and the backbone's named key
    mappings; the one that gives the most keys of the right name wins.
    """
    expected = task.state_dict().keys()
    best, name = weights.state, "tag"
    layouts: dict[str, Any] = {"backbone": lambda state: {f"backbone.{key}": value for key, value in state.items()}}
    for owner in (task, getattr(task, "backbone", None)):
        layouts |= getattr(owner, "layouts", None) or {}
    for layout, mapping in layouts.items():
        try:
            converted = mapping(dict(weights.state))
        except KeyError:
            continue
        if len(converted.keys() & expected) > len(best.keys() & expected):
            best, name = converted, layout
    return best, name


def load_weights(weights: Weights, task: nn.Module, *, strict: bool, spare: tuple[str, ...] = ()) -> str:
    """Copy weights into the task, and report what became of the keys.

    Args:
        strict: every tensor of the task must be given in its shape (evaluation, prediction);
            otherwise what does not fit, and what a loss remembers, keeps its fresh values (fine-tuning).
        spare: with ``strict``, tensors whose names start so may be missing or of another shape all the same.

    Raises:
        WeightsError: nothing fits, or with ``strict`` anything is missing or of another shape.
    """
    state, layout = fit(weights, task)
    if not strict:
        remembered = {name for name, _ in task.named_buffers() if name.startswith("loss.")}
        state = {key: value for key, value in state.items() if key not in remembered}
    own = task.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    mismatched = [key for key in own if key in state and key not in fitting]
    unexpected = [key for key in state if key not in own]
    report = f"{len(fitting)} tensors loaded (layout {layout})"
    for what, keys in (("missing", missing), ("unexpected", unexpected), ("mismatched", mismatched)):
        if keys:
            report += f"; {len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
    needed = [key for key in missing + mismatched if not key.startswith(spare)]
    if not fitting or (strict and needed):
        raise WeightsError(f"weights {weights.source} do not fit this model: {report}")
    task.load_state_dict({**own, **fitting})
    return report
