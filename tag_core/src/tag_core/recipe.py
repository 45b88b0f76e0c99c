"""Recipes as text: TOML, one level of ``extends``, and overrides from the command line.

Everything here is plain data (tables, lists, strings, numbers); names are looked up and values
checked in :mod:`tag_core.config`. Nothing in a recipe is ever executed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag_core.catalog import catalog
from tag_core.errors import ConfigError, UnknownName

KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_/-]+)*")
MAX_BYTES = 1_000_000
MAX_DEPTH = 32
Tree = dict[str, Any]


class CliText(str):
    """A value typed on the command line: TOML if that fits the option, else the text itself."""

    __slots__ = ()


@dataclass(frozen=True)
class Inherited:
    """An option taken over from another component; dropped where the new one does not have it."""

    value: Any


def read_tree(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[str, Tree]:
    """The recipe's name and its tables after ``extends`` and ``overrides``.

    Args:
        recipe: a name (``video/tsn``), a TOML file, a run folder, or the tables themselves.
        overrides: ``key.sub=value`` each.

    Raises:
        ConfigError: unreadable TOML, or overrides that cannot be applied; all mistakes at once.
        UnknownName: nothing of that name.
    """
    if isinstance(recipe, Mapping):
        name, tree = str(recipe.get("name", "recipe")), dict(recipe)
    else:
        name, tree = _read_named(str(recipe))
    if parent := tree.pop("extends", None):
        if not isinstance(parent, str):
            raise ConfigError(name, [f"extends: expected the name of a recipe, got {parent!r}"])
        _, base = _read_named(parent, beside=Path(str(recipe)).parent)
        if "extends" in base:
            raise ConfigError(name, [f"extends: {parent} itself extends {base['extends']}; one level only"])
        tree = merge(base, tree)
    problems = [f"{text!r}: write key=value, such as optimizer.lr=0.01" for text in overrides if not _is_override(text)]
    if problems:
        raise ConfigError("command line", problems)
    for text in sorted(overrides, key=_depth_of_key):
        tree = merge(tree, _branch(text))
    return name, tree


def parse_toml(text: str | bytes, where: str) -> Tree:
    """TOML to tables; whatever is wrong with it becomes one ConfigError."""
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes; not a recipe")
        tree = tomllib.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
        if _depth(tree) > MAX_DEPTH:
            raise RecursionError
    except UnicodeDecodeError as error:
        raise ConfigError(where, [f"not UTF-8 text (byte {error.start})"]) from None
    except RecursionError:
        raise ConfigError(where, ["nested too deeply"]) from None
    except ValueError as error:
        raise ConfigError(where, [f"not valid TOML: {error}"]) from None
    return tree


def _depth(value: Any) -> int:
    """Levels of nested tables and lists."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside)) if inside else 0


def merge(base: Mapping[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> Tree:
    """``over`` laid upon ``base``; tables merge, everything else is replaced.

    A table that names another component starts from that component's defaults; only a data set
    keeps the options that both have.
    """
    both = {key: merge_value(base[key], value, (*path, key)) for key, value in over.items() if key in base}
    return {**base, **over, **both}


def merge_value(old: Any, new: Any, path: tuple[str, ...]) -> Any:
    """What ``merge`` makes of two values found at ``path``."""
    if isinstance(old, list) and isinstance(new, Mapping) and new and all(key.isdecimal() for key in new):
        items = {str(index): item for index, item in enumerate(old)}
        if unknown := new.keys() - {*items, str(len(old))}:
            raise ConfigError("command line", [f"{'.'.join(path)}.{min(unknown)}: the list has {len(old)} items"])
        return list(merge(items, new, path).values())
    if path == ("weights",) and (isinstance(old, str) or isinstance(new, str)):
        return new
    tables = [{"name": value} if isinstance(value, str) else value for value in (old, new)]
    if not all(isinstance(table, Mapping) for table in tables) or (isinstance(old, str) and isinstance(new, str)):
        return new
    below, above = tables
    if "name" in below and "name" in above and str(below["name"]) != str(above["name"]):
        if path[0] != "data" or len(path) != 2:
            return above
        below = {key: value if isinstance(value, Inherited) else Inherited(value) for key, value in below.items()}
    return merge(below, above, path)


def _read_named(name: str, beside: Path = Path()) -> tuple[str, Tree]:
    try:
        path = beside / name if name.endswith(".toml") else Path(name)
        if (path / "recipe.toml").is_file():
            path = path / "recipe.toml"
        if name.endswith(".toml") or path.is_file():
            with open(path, "rb") as file:
                return name, parse_toml(file.read(MAX_BYTES + 1), name)
    except (OSError, ValueError) as error:
        raise ConfigError(name, [f"cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    try:
        entry = catalog().get("recipe", name)
    except UnknownName as error:
        hint = "a recipe is a name from 'tag-run recipes', a .toml file, or a run folder"
        raise UnknownName(f"{error}; {hint}") from None
    return entry.name, parse_toml(catalog().recipe_text(entry), entry.name)


def _is_override(text: str) -> bool:
    key, equals, _ = text.partition("=")
    return bool(equals and KEY.fullmatch(key)) and key.count(".") < MAX_DEPTH


def _depth_of_key(override: str) -> int:
    """Names of components come before their options, however they are written."""
    return override.partition("=")[0].removesuffix(".name").count(".")


def _branch(override: str) -> Tree:
    """``a.b=1`` -> {"a": {"b": 1}}; scalars stay text until the option's type is known."""
    key, _, text = override.partition("=")
    typed = scalar(text)
    value = typed if isinstance(typed, (dict, list)) else CliText(text)
    *tables, last = key.split(".")
    tree: Tree = {last: value}
    for table in reversed(tables):
        tree = {table: tree}
    return tree


def scalar(text: str) -> Any:
    """A TOML value, or the text itself (a plain str, even of CliText) where it is none."""
    try:
        tables = tomllib.loads(f"value = {text}")
        if len(tables) == 1 and _depth(tables) <= MAX_DEPTH:
            return tables["value"]
    except (ValueError, RecursionError):
        pass
    return str(text)
