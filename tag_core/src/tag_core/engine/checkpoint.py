"""Checkpoints: written whole or not at all, read without executing code, resumed exactly."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tag_core.config import Recipe
from tag_core.errors import CheckpointError
from tag_core.files import atomic

FORMAT = 1
FREE_KEYS: tuple[str, ...] = ("summary", "paper", "sinks", "eval.", "train.workers", "train.timeout", "train.log_every")
FREE_KEYS += ("train.checkpoint_every", "data.test.", "distribution.")
"""Options that change nothing about the weights, so a resumed run may set them anew."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` in place of ``path``; what a killed process left half-written beside it is removed.

    Raises:
        RunFolderError: disk full, not writable, ...; the previous file is untouched.
    """
    for left in path.parent.glob(".tag-*.tmp"):
        left.unlink(missing_ok=True)
    with atomic(path, "wb") as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:
            # torch's zip writer hides the operating system's error; writing once more shows it.
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
            raise OSError(5, f"torch could not write it: {error}") from error


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
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version of Tag")
    return state


def refuse_other_recipe(path: Path, saved: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises CheckpointError naming every option that differs and matters."""
    before, now = _flat(saved), _flat(recipe.to_dict())
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    differing = [key for key in keys if not key.startswith(FREE_KEYS)]
    if differing:
        listed = "; ".join(f"{key}: was {before.get(key)!r}, is {now.get(key)!r}" for key in differing)
        raise CheckpointError(f"{path} was made by another recipe ({listed}); use another --out to start anew")


def seed_everything(seed: int) -> None:
    """Seed every global generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Every global generator of this process, as plain tensors and numbers."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Leave torch's generators as they were, so that validation does not change training."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        items: Any = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, (Mapping, list)) for item in tree):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
