"""Plugins for a while; ``toy``: a fixture that adds ``toy.py`` to this process's catalog."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tag_core.catalog import catalog
from tag_core.plugins import installed

TOY = str(Path(__file__).with_name("toy.py"))


@pytest.fixture(scope="module")
def toy() -> Iterator[None]:
    with plugged(TOY):
        yield


@contextmanager
def plugged(plugin: str) -> Iterator[None]:
    """This plugin and no other beside the installed ones, here and in new processes."""
    before = os.environ.get("TAG_PLUGINS")
    os.environ["TAG_PLUGINS"] = plugin
    _forget()
    yield
    os.environ.pop("TAG_PLUGINS") if before is None else os.environ.update(TAG_PLUGINS=before)
    _forget()


def _forget() -> None:
    installed.cache_clear()
    catalog.cache_clear()
