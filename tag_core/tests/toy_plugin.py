"""A plugin for the engine's tests: points in a plane, a linear task, and files that misbehave."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tag_core import Component, hookimpl
from tag_core.errors import UnreadableInput
from tag_core.kinds import Backbone, Loss, Task
from tag_core.media.sources import expand_inputs
from tag_core.records import Record


@hookimpl
def tag_datasets() -> list[Component]:
    return [
        Component("points", "toy_plugin:Points", "Text files that hold a point and a label"),
        Component("named", "toy_plugin:Named", "The same, one folder per class"),
        Component("stretches", "toy_finder:Stretches", "Videos, four frames at a time"),
    ]


@hookimpl
def tag_backbones() -> list[Component]:
    return [
        Component("mlp", "toy_plugin:MLP", "Two layers"),
        Component("conv", "toy_plugin:Conv", "Points painted on a small picture"),
    ]


@hookimpl
def tag_tasks() -> list[Component]:
    return [
        Component("points", "toy_plugin:PointTask", "Which side of the line"),
        Component("pair", "toy_plugin:Pair", "Two opinions on that"),
        Component("bright", "toy_finder:Bright", "Finds what is bright"),
    ]


@hookimpl
def tag_losses() -> list[Component]:
    return [Component("counting", "toy_plugin:Counting", "Cross-entropy that remembers how much it saw")]


@hookimpl
def tag_samplers() -> list[Component]:
    return [Component("repeating", "toy_plugin:Repeating", "The same few samples again and again")]


class Repeating:
    """Every batch holds one sample, as often as it has room.

    Args:
        batches: of an epoch.
    """

    def __init__(self, dataset: Any, batch_size: int, seed: int, batches: int = 4) -> None:
        self.total, self.size, self.start, self.count = len(dataset), batch_size, seed, batches

    def batches(self, epoch: int) -> list[list[int]]:
        return [[(self.start + epoch + 7 * i) % self.total] * self.size for i in range(self.count)]


class Counting(nn.Module):
    """Cross-entropy; ``seen`` counts samples."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            self.seen += len(targets)
        return nn.functional.cross_entropy(logits, targets)


class Points:
    """Files ``<x> <y> <label>``; or one of the words crash, killed, hang, unreadable, bug.

    Args:
        source: a folder of files, or files.
        labelled: whether the label is read.
        noise: standard deviation of noise on the points.
    """

    classes = ("left", "right")
    suffixes = frozenset({".txt"})

    def __init__(self, source: str | list[str], labelled: bool = True, noise: float = 0.0) -> None:
        self.files = sorted(map(str, Path(source).glob("*.txt"))) if isinstance(source, str) else list(source)
        self.labelled, self.noise = labelled, noise

    @classmethod
    def expand(cls, inputs: list[str]) -> list[str]:
        return expand_inputs(inputs, cls.suffixes)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        return self.files[index]

    def label(self, index: int) -> int:
        return int(Path(self.files[index]).stem.rpartition("-")[2])

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = Path(self.files[index])
        try:
            words = path.read_text().split()
        except OSError as error:
            raise UnreadableInput(str(path), str(error.strerror)) from error
        misbehave(words[0], str(path))
        point = torch.tensor([float(words[0]), float(words[1])])
        sample: dict[str, Any] = {"source": str(path), "point": point + self.noise * torch.randn(2)}
        if self.labelled:
            sample["label"] = int(words[2])
        return sample


class Named(Points):
    """Points in one folder per class.

    Args:
        source: the folder that holds the class folders, or files.
        labelled: whether the label is read.
        noise: standard deviation of noise on the points.
        classes: names in index order; default: the folders, sorted.
    """

    def __init__(
        self, source: str | list[str], labelled: bool = True, noise: float = 0.0, classes: list[str] = []
    ) -> None:
        super().__init__(list_inputs(source), labelled, noise)
        self.classes = classes or sorted({Path(file).parent.name for file in self.files})

    def label(self, index: int) -> int:
        return self.classes.index(Path(self.files[index]).parent.name)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "label": self.label(index)} if self.labelled else sample


def list_inputs(source: str | list[str]) -> list[str]:
    return Points.expand([source] if isinstance(source, str) else source)


def misbehave(word: str, source: str) -> None:
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        time.sleep(3600)
    if word == "unreadable":
        raise UnreadableInput(source, "not a point")
    if word == "bug":
        raise ZeroDivisionError("a bug in the data set")


class MLP(nn.Module):
    """Two layers.

    Args:
        width: of the hidden layer.
        dropout: share of hidden units dropped in training.
    """

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_dim = width
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(dropout))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Conv(nn.Module):
    """A convolution and batch norm over the outer product of the point with itself."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        picture = (inputs.unsqueeze(2) + inputs.unsqueeze(1)).unsqueeze(1)
        return self.norm(self.conv(picture)).relu().mean(dim=(2, 3))


class PointTask(nn.Module):
    """A linear layer over the backbone.

    Args:
        classes: names.
        backbone: of points.
        loss: of logits.
        die_at: rank 1 raises after that many training batches; -1 never.
    """

    def __init__(self, classes: list[str], backbone: Backbone, loss: Loss, die_at: int = -1) -> None:
        super().__init__()
        self.backbone, self.loss, self.classes = backbone, loss, classes
        self.head = nn.Linear(backbone.feature_dim, len(classes))
        self.die_at, self.seen = die_at, 0

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        self.seen += 1
        if self.seen == self.die_at + 1 and os.environ.get("RANK") == "1":
            raise RuntimeError("rank one has had enough")
        told = {"loss": self.loss(self.head(self.backbone(batch["point"])), batch["label"])}
        return told | ({"seen": self.loss.seen} if hasattr(self.loss, "seen") else {})

    def predict(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        features = self.backbone(batch["point"])
        logits = self.head(features)
        outputs: dict[str, Any] = {"logits": logits, "scores": logits.softmax(-1), "embedding": features}
        if "label" in batch:
            outputs["loss"] = self.loss(logits, batch["label"])
        return outputs

    def records(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Iterable[Record]:
        for number, (source, scores) in enumerate(zip(batch["source"], outputs["scores"].tolist(), strict=True)):
            order = sorted(range(len(scores)), key=lambda i: -scores[i])
            truth = self.classes[int(batch["label"][number])] if "label" in batch else None
            yield Record(
                source=source,
                labels=[self.classes[i] for i in order],
                scores=[scores[i] for i in order],
                truth=truth,
            )


class Pair(nn.Module):
    """Mean scores of two tasks.

    Args:
        left: one of them.
        right: the other.
        classes: names.
    """

    def __init__(self, left: Callable[..., Task], right: Callable[..., Task], classes: list[str]) -> None:
        super().__init__()
        self.left, self.right = left(classes=classes), right(classes=classes)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.left(batch)["loss"] + self.right(batch)["loss"]}

    def predict(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"scores": (self.left.predict(batch)["scores"] + self.right.predict(batch)["scores"]) / 2}

    def records(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Iterable[Record]:
        return self.left.records(outputs, batch)


def write_points(folder: Path, count: int, odd: Mapping[int, str] = {}) -> Path:
    """``count`` files, the class given by the sign of x; ``odd`` replaces the text of some."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    for index in range(count):
        x, y = torch.randn(2, generator=generator).tolist()
        label = int(x > 0)
        (folder / f"p{index:04d}-{label}.txt").write_text(odd.get(index, f"{x} {y} {label}"))
    return folder
