"""Fetching a library's published weights."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tag_core.errors import WeightsError


def fetch(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """A model with the weights that its library publishes.

    Raises:
        WeightsError: they cannot be fetched, or there are none.
    """
    try:
        return build()
    except Exception as error:  # each library and its HTTP client have errors of their own
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"published weights of {name}: cannot be fetched ({reason}); go online once, or set "
            "task.backbone.pretrained=false and give weights=FILE"
        ) from error
