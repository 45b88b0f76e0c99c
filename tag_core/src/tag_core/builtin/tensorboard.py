"""The event plugin ``tensorboard``: numeric scores of a training as curves, if tensorboard is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from tag_core.engine.run import Run

_writers: dict[Path, Any] = {}


@hookimpl
def tag_epoch_finished(run: Run, scores: Mapping[str, Any]) -> None:
    if run.kind != "train" or find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    step = int(scores["step"])
    if run.folder not in _writers:  # a resumed run hides what its predecessor wrote from here on
        _writers[run.folder] = SummaryWriter(run.folder / "tensorboard", purge_step=step)
    for name, value in scores.items():
        if name not in ("epoch", "step") and type(value) in (int, float):
            _writers[run.folder].add_scalar(name, value, step)
    _writers[run.folder].flush()


@hookimpl
def tag_run_finished(run: Run) -> None:
    if run.folder in _writers:
        _writers.pop(run.folder).close()
