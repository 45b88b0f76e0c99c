"""Names: kind -> name -> component, with help for names that are not there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tag_core.component import Component, RecipeFile
from tag_core.errors import PluginError, UnknownName
from tag_core.kinds import KINDS
from tag_core.plugins import FIRST_PARTY, HOOK_OF_KIND, PluginRecord, Plugins, installed

SUFFIXES = importlib.machinery.all_suffixes()


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
        module_name, _, attribute = self.item.target.partition(":")
        where = f"{self.kind} {self.name} (from {self.plugin.origin})"
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is data
                module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{where}: importing {module_name} failed: {reason}") from error
        if not callable(found := getattr(module, attribute, None)):
            hint = did_you_mean(attribute, vars(module)) if found is None else " that can be called"
            raise PluginError(f"{where}: {module_name} has no {attribute!r}{hint}; the plugin needs repair")
        return found


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
        others = [kind for kind in ("recipe", *KINDS) if self._candidates(self.entries[kind], name)]
        if others:
            return UnknownName(f"{name!r} is a {' and a '.join(others)}, not a {what}; see 'tag-run list {what}'")
        hint = did_you_mean(name, [*entries, *(full.partition("/")[2] for full in entries)])
        listing = f"tag-run list {what}" if what in self.entries else "tag-run list"
        broken = [record.name for record in self.plugins.records if record.status == "failed"]
        missing = f"; not loaded: {', '.join(broken)} (see 'tag-run plugins')" if broken else ""
        return UnknownName(f"no {what} named {name!r}{hint}; see '{listing}'{missing}")

    def recipe_text(self, entry: Entry) -> str:
        """The text of a shipped recipe.

        Raises:
            PluginError: the package does not contain the file.
        """
        assert isinstance(entry.item, RecipeFile)
        where = f"recipe {entry.name} (from {entry.plugin.origin})"
        package, _, inside = entry.item.file.partition(":")
        path = next((folder / inside for folder in package_folders(package) if (folder / inside).is_file()), None)
        if path is None:
            raise PluginError(f"{where}: {entry.item.file} does not exist; the plugin needs repair")
        try:
            return path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise PluginError(f"{where}: {entry.item.file} cannot be read: {error}") from error


@cache
def catalog() -> Catalog:
    """The catalog of this process's installed plugins."""
    return Catalog(installed())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    import difflib

    near = difflib.get_close_matches(word.lower(), list(dict.fromkeys(known)), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def package_folders(package: str) -> list[Path]:
    """The folders of a package, or the one that a top-level module is in; nothing is imported."""
    top, *rest = package.split(".")
    spec = _find_spec(top)
    if spec is None or (spec.submodule_search_locations is None and rest):
        return []
    if spec.submodule_search_locations is None:
        return [Path(spec.origin).parent] if spec.origin else []
    return [Path(folder, *rest) for folder in spec.submodule_search_locations]


def source_file(module: str) -> Path | None:
    """Where a module's file lies, found without importing anything; None if it cannot be told."""
    parent, _, last = module.rpartition(".")
    if not parent:
        spec = _find_spec(module)
        return Path(spec.origin) if spec and spec.origin else None
    inside = [folder / "__init__.py" for folder in package_folders(module)]
    beside = [folder / f"{last}{suffix}" for folder in package_folders(parent) for suffix in SUFFIXES]
    return next((file for file in [*inside, *beside] if file.is_file()), None)


def _find_spec(top: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def missing_target(target: str) -> str | None:
    """Why a target cannot be imported, told from the files alone, or None where it looks right."""
    module, _, attribute = target.partition(":")
    path = source_file(module)
    if path is None:
        return f"{target}: there is no module {module}"
    if path.suffix != ".py":
        return None
    text = path.read_text("utf-8", errors="replace")
    defined = rf"\b(def|class|import|as)\s+{attribute}\b|^\s*{attribute}\s*[:=,]|,\s*{attribute}\b"
    found = re.search(rf"{defined}|^\s*{attribute}\s*$|import \*|def __getattr__", text, re.MULTILINE)
    return None if found else f"{target}: {module} has no {attribute!r}"
