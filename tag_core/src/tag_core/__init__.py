"""Tag: classify, detect, track, recognise and search what is in videos and images, with plugins."""

from typing import TYPE_CHECKING, Any

from tag_core.component import Command, Component, RecipeFile
from tag_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from tag_core.api import evaluate, export, load, predict, train

__all__ = ["Command", "Component", "RecipeFile", "evaluate", "export", "hookimpl", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    """The verbs import torch, so they are fetched when first used."""
    if name in ("evaluate", "export", "load", "predict", "train"):
        from tag_core import api

        return getattr(api, name)
    raise AttributeError(f"module 'tag_core' has no attribute {name!r}")
