"""Names: kind -> name -> component, with help for names that are not there."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tag_core.component import Component, RecipeFile
from tag_core.errors import PluginError, UnknownName
from tag_core.kinds import KINDS
from tag_core.plugins import FIRST_PARTY, HOOK_OF_KIND, PluginRecord, Plugins, installed


@dataclass(frozen=True)
class Entry:
    """A component or recipe under its full name, with the plugin that brought it."""

    kind: str
    name: str
    item: Any
    plugin: PluginRecord

    @property
    def component(self) -> Component:
        assert isinstance(self.item, Component)
        return self.item

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginError: the module or attribute is missing, or importing it fails.
        """
        module, _, attribute = self.component.target.partition(":")
        where = f"{self.kind} {self.name} (from {self.plugin.origin})"
        try:
            return getattr(importlib.import_module(module), attribute)
        except AttributeError as error:
            raise PluginError(f"{where}: {module} has no {attribute!r}; the plugin needs repair") from error
        except Exception as error:
            raise PluginError(f"{where}: importing {module} failed: {error!r}") from error


class Catalog:
    """Everything that working plugins registered."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        hooks = {**HOOK_OF_KIND, "recipe": "tag_recipes", "command": "tag_commands"}
        self.entries: dict[str, dict[str, Entry]] = {
            kind: {
                f"{record.name}/{item.name}": Entry(kind, f"{record.name}/{item.name}", item, record)
                for record, item in plugins.provided(hook)
            }
            for kind, hook in hooks.items()
        }

    def get(self, kind: str, name: str) -> Entry:
        """The entry of this kind under its full name, or its bare name where that is unique.

        Raises:
            UnknownName: with the nearest names, or how to install what is missing.
            PluginError: the name belongs to a plugin that failed to load.
        """
        return self._find(self.entries[kind], name, kind)

    def find(self, name: str) -> list[Entry]:
        """Entries of any kind under this name (a recipe and a backbone often share one)."""
        kinds = [kind for kind in ("recipe", *KINDS) if self._candidates(self.entries[kind], name)]
        if not kinds:
            everything = {key: e for k in ("recipe", *KINDS) for key, e in self.entries[k].items()}
            self._find(everything, name, "component or recipe")
        return [self._find(self.entries[kind], name, kind) for kind in kinds]

    @staticmethod
    def _candidates(entries: dict[str, Entry], name: str) -> list[str]:
        if name in entries:
            return [name]
        return [full for full in entries if full.partition("/")[2] == name]

    def _find(self, entries: dict[str, Entry], name: str, what: str) -> Entry:
        found = self._candidates(entries, name)
        if len(found) == 1:
            return entries[found[0]]
        if found:
            raise UnknownName(f"{what} {name!r} is in several plugins: write {' or '.join(sorted(found))}")
        raise self._unknown(entries, name, what)

    def _unknown(self, entries: dict[str, Entry], name: str, what: str) -> UnknownName | PluginError:
        namespace, slash, _ = name.partition("/")
        owners = [record for record in self.plugins.records if record.name == namespace] if slash else []
        for record in owners:
            if record.status != "ok":
                return PluginError(f"{name}: plugin {namespace} is {record.status}: {record.reason}")
        if slash and not owners and namespace in FIRST_PARTY:
            return UnknownName(
                f"{what} {name!r}: plugin {namespace!r} is not installed; pip install {FIRST_PARTY[namespace]}"
            )
        hint = did_you_mean(name, [*entries, *(full.partition("/")[2] for full in entries)])
        listing = f"tag-run list {what}" if what in KINDS else "tag-run list"
        return UnknownName(f"no {what} named {name!r}{hint}; see '{listing}'")

    def recipe_text(self, entry: Entry) -> str:
        """The text of a shipped recipe.

        Raises:
            PluginError: the package does not contain the file.
        """
        assert isinstance(entry.item, RecipeFile)
        package, _, inside = entry.item.file.partition(":")
        spec = importlib.util.find_spec(package)
        folders = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
        for folder in folders:
            if (folder / inside).is_file():
                return (folder / inside).read_text("utf-8")
        raise PluginError(f"recipe {entry.name} (from {entry.plugin.origin}): {entry.item.file} does not exist")


@cache
def catalog() -> Catalog:
    """The catalog of this process's installed plugins."""
    return Catalog(installed())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    near = difflib.get_close_matches(word.lower(), list(dict.fromkeys(known)), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def source_file(module: str) -> Path | None:
    """Where a module's source lies, found without importing anything; None if it cannot be told."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def missing_target(target: str) -> str | None:
    """Why a target cannot be imported, told from the files alone, or None where it looks right."""
    module, _, attribute = target.partition(":")
    path = source_file(module)
    if path is None:
        known = importlib.util.find_spec(module.partition(".")[0]) is not None
        return None if known and "." not in module else f"{target}: there is no module {module}"
    if path.suffix != ".py":
        return None
    text = path.read_text("utf-8", errors="replace")
    defined = rf"^\s*((async\s+)?def|class)\s+{attribute}\b|^{attribute}\s*[:=]"
    pattern = rf"{defined}|\bimport\b.*\b{attribute}\b|^\s+{attribute},?$"
    return None if re.search(pattern, text, re.MULTILINE) else f"{target}: {module} has no {attribute!r}"
