"""What a plugin's hooks return: small descriptions, so that listing imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import Any

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
TOML = re.compile(r"[^:]+:.*\.toml")


def _check(description: Any, where: re.Pattern[str], example: str) -> None:
    name, target, *texts = astuple(description)
    if not all(isinstance(text, str) for text in (name, target, *texts)):
        raise ValueError(f"every part must be text: {description}")
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: use lower-case letters, digits, '-', '_' and '.'")
    if not where.fullmatch(target):
        raise ValueError(f"{name!r}: {target!r} must read {example!r}")


@dataclass(frozen=True)
class Component:
    """A backbone, loss, dataset, ... that recipes can name.

    Args:
        name: its name inside the plugin; users write ``namespace/name``.
        target: ``package.module:attribute`` of a class or function; its typed signature is its
            configuration. Imported only when the component is built.
        summary: one line for listings.
        paper: title, venue and year, or a public address; empty for common knowledge.
    """

    name: str
    target: str
    summary: str
    paper: str = ""

    def __post_init__(self) -> None:
        _check(self, TARGET, "package.module:attribute")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that a plugin ships; ``file`` reads ``package:path/inside/package.toml``."""

    name: str
    file: str
    summary: str

    def __post_init__(self) -> None:
        _check(self, TOML, "package:folder/name.toml")


@dataclass(frozen=True)
class Command:
    """A sub-command of ``tag-run``; ``target`` is a click command, imported only when it is called."""

    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        _check(self, TARGET, "package.module:attribute")
