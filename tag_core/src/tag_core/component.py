"""What a plugin's hooks return: small descriptions, so that listing imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _check(what: str, name: str, target: str, *texts: str) -> None:
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise ValueError(f"{what} name {name!r}: use lower-case letters, digits, '-' and '.'")
    if not (isinstance(target, str) and TARGET.fullmatch(target)):
        raise ValueError(f"{what} {name!r}: target {target!r} must read 'package.module:attribute'")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{what} {name!r}: summary and paper must be text, not {texts!r}")


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
        _check("component", self.name, self.target, self.summary, self.paper)


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that a plugin ships.

    Args:
        name: its name inside the plugin; users write ``namespace/name``.
        file: ``package:path/inside/package.toml``.
        summary: one line for listings.
    """

    name: str
    file: str
    summary: str

    def __post_init__(self) -> None:
        _check("recipe", self.name, "package:attribute", self.summary)
        package, colon, path = self.file.partition(":")
        if not (package and colon and path.endswith(".toml")):
            raise ValueError(f"recipe {self.name!r}: file {self.file!r} must read 'package:folder/name.toml'")


@dataclass(frozen=True)
class Command:
    """A sub-command of ``tag-run``, a click command imported only when it is called."""

    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        _check("command", self.name, self.target, self.summary)
