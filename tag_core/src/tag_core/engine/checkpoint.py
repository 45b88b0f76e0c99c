"""Checkpoints: written whole or not at all, read without executing code, resumed exactly."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tag_core.config import Recipe
from tag_core.errors import CheckpointError
from tag_core.files import atomic

_FORMAT = 1
# What changes nothing about the weights, so that a resumed run may set it anew.
_FREE = ("summary", "paper", "sinks", "eval.", "data.test.", "distribution.")
_FREE_TRAIN = (
    "train.workers",
    "train.timeout",
    "train.log_every",
    "train.checkpoint_every",
    "train.best",
    "train.patience",
)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` in place of ``path``; what a killed process left half-written beside it is removed.

    Raises:
        RunFolderError: disk full, not writable, ...; the previous file is untouched.
    """
    for left in path.parent.glob(".tag-*.tmp"):
        left.unlink(missing_ok=True)
    buffer = io.BytesIO()  # torch would hide the operating system's error
    torch.save({"format": _FORMAT, **state}, buffer)
    with atomic(path, "wb") as file:
        file.write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        CheckpointError: missing, truncated, or not written by this version of Tag.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint here; start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        others = [p.name for p in sorted(path.parent.glob("*.pt")) if p != path]
        reason = " ".join(str(error).split())[:120]
        advice = f"; {', '.join(others)} beside it can be used with weights=" if others else ""
        raise CheckpointError(f"{path}: damaged or truncated ({reason}){advice}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version of Tag")
    return state


def refuse_other_recipe(path: Path, saved: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises CheckpointError naming every option that differs and matters; a new one at its default does not."""
    before, now, chosen = _flat(saved), _flat(recipe.to_dict()), _flat(recipe.to_dict(defaults=False))
    differing = [key for key in sorted(before.keys() | chosen.keys()) if before.get(key) != now.get(key)]
    differing = [key for key in differing if not key.startswith(_FREE + _FREE_TRAIN)]
    if differing:
        listed = "; ".join(f"{key}: was {before.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise CheckpointError(f"{path} was made by another recipe ({listed}); use another --out to start anew")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def seed_everything(seed: int) -> None:
    """Seed every global generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Every global generator of this process, in types that a checkpoint may hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Leave all generators as they were, so that reading or validating here does not change training."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
