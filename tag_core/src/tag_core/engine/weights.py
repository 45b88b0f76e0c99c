"""Weights from a file, an address or a published name, into a task; with a report of every key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tag_core.engine.download import download
from tag_core.errors import WeightsError

StateDict = dict[str, Tensor]
Layout = Callable[[StateDict], StateDict]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights at a stable public address.

    Args:
        url: where they are.
        sha256: of the file, in hexadecimal; its first eight digits or more.
        summary: data, accuracy and licence in one line.
        classes: the class names, in the order of the logits.
    """

    url: str
    sha256: str
    summary: str = ""
    classes: tuple[str, ...] = ()


@dataclass
class LoadReport:
    """What became of every key."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    layout: str = "tag"

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded (layout {self.layout})"
        for name in ("missing", "unexpected", "mismatched"):
            if keys := getattr(self, name):
                more = ", ..." if len(keys) > 3 else ""
                text += f"; {len(keys)} {name}: {', '.join(keys[:3])}{more}"
        return text


@dataclass
class Weights:
    """A state dict with the class names that came along, if any."""

    source: str
    state: StateDict
    classes: list[str] | None = None


def read_weights(source: str, task_class: object, backbone_class: object) -> Weights:
    """Weights by file, address (``https://...#sha256=...``) or published name.

    Raises:
        WeightsError: not found, not reachable, damaged, or not a state dict.
    """
    published: dict[str, PublishedWeights] = {}
    for owner in (task_class, backbone_class):
        published.update(getattr(owner, "published_weights", None) or {})
    classes: list[str] | None = None
    if source in published:
        entry = published[source]
        path, classes = download(entry.url, entry.sha256), list(entry.classes) or None
    elif source.startswith(("http://", "https://", "file://")):
        url, _, digest = source.partition("#sha256=")
        if not digest:
            raise WeightsError(f"weights {source}: add '#sha256=<digest>' so that the file can be checked")
        path = download(url, digest)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            what = "is a folder, not a weights file" if path.is_dir() else "no such file"
            inside = sorted(path.glob("**/*.pt"))[:3] if path.is_dir() else []
            hint = f"; in it: {', '.join(map(str, inside))}" if inside else ""
            names = f"; published names: {', '.join(published)}" if published else ""
            raise WeightsError(f"weights {source}: {what}{hint}{names}")
    found = read_file(path)
    if classes:
        found.classes = classes
    return found


def read_file(path: Path) -> Weights:
    """A Tag checkpoint, a plain state dict (also under ``state_dict`` or ``model``), or safetensors.

    Raises:
        WeightsError: the file cannot be read without executing code, or holds no tensors.
    """
    data = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    classes = data.get("classes") if isinstance(data, Mapping) else None
    for key in ("ema", "model", "state_dict"):
        if isinstance(data, Mapping) and _holds_tensors(data.get(key)):
            data = data[key]
            break
    if not _holds_tensors(data):
        raise WeightsError(f"weights {path}: holds no state dict (a table of tensors by name)")
    state = {str(k).removeprefix("module."): v for k, v in data.items() if isinstance(v, Tensor)}
    return Weights(str(path), state, list(classes) if isinstance(classes, (list, tuple)) else None)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"weights {path}: {_why_not(path, error)}") from error


def _why_not(path: Path, error: Exception) -> str:
    """Torch's own text would advise to load the file unsafely."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return f"holds Python objects ({found[1]}), which Tag does not load; save its state_dict() instead"
    if path.stat().st_size == 0:
        return "an empty file (0 bytes)"
    return "damaged or cut off, or not a weights file of PyTorch"


def _read_safetensors(path: Path) -> StateDict:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise WeightsError(f"weights {path}: needs safetensors; type: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:
        raise WeightsError(f"weights {path}: damaged or cut off, or not a safetensors file ({error})") from error


def _holds_tensors(data: object) -> bool:
    return isinstance(data, Mapping) and any(isinstance(value, Tensor) for value in data.values())


def fit(weights: Weights, task: nn.Module) -> tuple[StateDict, str]:
    """The state dict in the task's own keys, and the name of the layout that it came in.

    Tag's own layout first, then the backbone's and the task's named key mappings; the one that
    gives the most keys of the right name wins.
    """
    expected = task.state_dict().keys()
    best, name = weights.state, "tag"
    for owner in (task, getattr(task, "backbone", None)):
        for layout, mapping in (getattr(owner, "layouts", None) or {}).items():
            try:
                converted = mapping(dict(weights.state))
            except KeyError:
                continue
            if len(converted.keys() & expected) > len(best.keys() & expected):
                best, name = converted, layout
    return best, name


def load_weights(weights: Weights, task: nn.Module, *, strict: bool) -> LoadReport:
    """Copy weights into the task.

    Args:
        strict: every tensor of the task must be given in its shape (evaluation, prediction);
            otherwise what does not fit keeps its fresh values (fine-tuning on other classes).

    Raises:
        WeightsError: nothing fits, or with ``strict`` anything is missing or of another shape.
    """
    state, layout = fit(weights, task)
    own = task.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    report = LoadReport(
        loaded=sorted(fitting),
        missing=sorted(key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked")),
        unexpected=sorted(state.keys() - own.keys()),
        mismatched=sorted(key for key in state.keys() & own.keys() if key not in fitting),
        layout=layout,
    )
    if not fitting or (strict and (report.missing or report.mismatched)):
        raise WeightsError(f"weights {weights.source} do not fit this model: {report}")
    task.load_state_dict({**own, **fitting})
    return report
