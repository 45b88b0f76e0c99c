"""Recipes as text: TOML, one level of ``extends``, and overrides from the command line.

Everything here is plain data (tables, lists, strings, numbers); names are looked up and values
checked in :mod:`tag_core.config`. Nothing in a recipe is ever executed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag_core.catalog import catalog
from tag_core.errors import ConfigError, UnknownName

KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_/-]+)*")
INDEX = re.compile(r"[0-9]{1,6}")
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
    overlay, problems = _overlay(overrides)
    if problems:
        raise ConfigError("command line", problems)
    for key, value in overlay.items():
        tree = merge(tree, {key: value})
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
    """Levels of nested tables and lists, found without recursion."""
    depth, level = 0, [value]
    while level := [item for outer in level for item in _inside(outer)]:
        depth += 1
    return depth


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def merge(base: Mapping[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> Tree:
    """``over`` laid upon ``base``; tables merge, everything else is replaced.

    A table that names another component starts from that component's defaults; only a data set
    keeps the options that both have.
    """
    result = dict(base)
    for key, value in over.items():
        below, old = (*path, key), result.get(key)
        if isinstance(old, list) and isinstance(value, Mapping) and value and all(INDEX.fullmatch(k) for k in value):
            result[key] = _merge_list(old, value, below)
        elif isinstance(old, (Mapping, str)) and isinstance(value, (Mapping, str)):
            result[key] = _merge_value(old, value, below)
        else:
            result[key] = value
    return result


def _merge_value(old: Mapping[str, Any] | str, new: Mapping[str, Any] | str, path: tuple[str, ...]) -> Any:
    if isinstance(old, str) and isinstance(new, str):
        return new
    old_table = {"name": old} if isinstance(old, str) else old
    new_table = {"name": new} if isinstance(new, str) else new
    if "name" in old_table and "name" in new_table and str(old_table["name"]) != str(new_table["name"]):
        if path[0] != "data" or len(path) != 2:
            return new_table
        old_table = {k: v if isinstance(v, Inherited) else Inherited(v) for k, v in old_table.items()}
    return merge(old_table, new_table, path)


def _merge_list(old: list[Any], changes: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    result = list(old)
    for index, value in changes.items():
        if int(index) < len(result):
            result[int(index)] = merge({"item": result[int(index)]}, {"item": value}, path)["item"]
        elif int(index) == len(result):
            result.append(value)
        else:
            raise ConfigError("command line", [f"{'.'.join(path)}.{index}: the list has {len(old)} items"])
    return result


def _read_named(name: str, beside: Path | None = None) -> tuple[str, Tree]:
    try:
        path = Path(name)
        if path.is_dir() and (path / "recipe.toml").is_file():
            path = path / "recipe.toml"
        elif beside is not None and name.endswith(".toml") and not path.is_absolute():
            path = beside / path
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


def _overlay(overrides: Sequence[str]) -> tuple[Tree, list[str]]:
    tree: Tree = {}
    problems = []
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not KEY.fullmatch(key) or key.count(".") > MAX_DEPTH:
            problems.append(f"{text!r}: write key=value, such as optimizer.lr=0.01")
            continue
        *tables, last = key.split(".")
        node = tree
        for part in tables:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                below = node[part] = {"name": below}
            node = below
        value = _typed(raw)
        if isinstance(node.get(last), dict) and isinstance(value, str):
            node[last]["name"] = value
        else:
            node[last] = value
    return tree, problems


def _typed(raw: str) -> Any:
    """Tables and lists as TOML; scalars stay text until the option's type is known."""
    value = scalar(raw)
    return value if isinstance(value, (dict, list)) else CliText(raw)


def scalar(raw: str) -> Any:
    """A TOML value, or the text itself (a plain str, even of CliText) where it is none."""
    try:
        tables = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return str(raw)
    return tables["value"] if len(tables) == 1 and _depth(tables) <= MAX_DEPTH else str(raw)
