"""Names: kind -> name -> component, with help for names that are not there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from tag_core.component import Component, RecipeFile
from tag_core.errors import PluginError, UnknownName
from tag_core.kinds import KINDS
from tag_core.plugins import FIRST_PARTY, PluginRecord, Plugins, installed

if TYPE_CHECKING:
    from pathlib import Path

LISTED = ("recipe", *KINDS)


@dataclass(frozen=True)
class Entry:
    """A component or recipe under its full name, with the plugin that brought it."""

    kind: str
    name: str
    item: Any
    plugin: PluginRecord

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (from {self.plugin.origin})"

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
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is data
                module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self}: importing {module_name} failed: {reason}") from error
        if not callable(found := getattr(module, attribute, None)):
            hint = did_you_mean(attribute, vars(module)) if found is None else " that can be called"
            raise PluginError(f"{self}: {module_name} has no {attribute!r}{hint}; the plugin needs repair")
        return found


class Catalog:
    """Everything that working plugins registered."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.entries: dict[str, dict[str, Entry]] = {}
        """Kind -> full name -> entry."""
        for kind, hook in {**KINDS, "recipe": "tag_recipes", "command": "tag_commands"}.items():
            found = [Entry(kind, f"{record.name}/{item.name}", item, record) for record, item in plugins.provided(hook)]
            self.entries[kind] = {entry.name: entry for entry in found}

    def get(self, kind: str, name: str) -> Entry:
        """The entry of this kind under its full name, or its bare name where that is unique.

        Raises:
            UnknownName: with the nearest names, or how to install what is missing.
            PluginError: the name belongs to a plugin that failed to load.
        """
        found = self._matches(kind, name)
        if not found:
            raise self._unknown(name, kind, [kind])
        if len(found) > 1:
            names = sorted(entry.name for entry in found)
            raise UnknownName(f"{kind} {name!r} is in several plugins: write {' or '.join(names)}")
        return found[0]

    def find(self, name: str) -> list[Entry]:
        """Entries of any kind under this name (a recipe and a backbone often share one)."""
        kinds = [kind for kind in LISTED if self._matches(kind, name)]
        if not kinds:
            raise self._unknown(name, "component or recipe", LISTED)
        return [self.get(kind, name) for kind in kinds]

    def _matches(self, kind: str, name: str) -> list[Entry]:
        entries = self.entries[kind]
        return [entries[name]] if name in entries else [e for e in entries.values() if e.item.name == name]

    def _unknown(self, name: str, what: str, kinds: Iterable[str]) -> UnknownName | PluginError:
        namespace, slash, _ = name.partition("/")
        owners = [record for record in self.plugins.records if slash and record.name == namespace]
        for record in owners:
            if record.status != "ok":
                return PluginError(f"{name}: plugin {namespace} is {record.status}: {record.reason}")
        if slash and not owners and namespace in FIRST_PARTY:
            install = f"pip install {FIRST_PARTY[namespace]}"
            return UnknownName(f"{what} {name!r}: plugin {namespace!r} is not installed; {install}")
        if others := [kind for kind in LISTED if self._matches(kind, name)]:
            return UnknownName(f"{name!r} is a {' and a '.join(others)}, not a {what}; see 'tag-run list {what}'")
        entries = [entry for kind in kinds for entry in self.entries[kind].values()]
        hint = did_you_mean(name, [*(entry.name for entry in entries), *(entry.item.name for entry in entries)])
        listing = f"tag-run list {what}" if what in self.entries else "tag-run list"
        return UnknownName(f"no {what} named {name!r}{hint}; see '{listing}'")

    def recipe_text(self, entry: Entry) -> str:
        """The text of a shipped recipe.

        Raises:
            PluginError: the package does not contain the file.
        """
        assert isinstance(entry.item, RecipeFile)
        package, _, inside = entry.item.file.partition(":")
        if (source := source_file(package)) is None:
            raise PluginError(f"{entry}: there is no package {package}; the plugin needs repair")
        try:
            return (source.parent / inside).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise PluginError(f"{entry}: {entry.item.file} cannot be read: {error}; the plugin needs repair") from error


@cache
def catalog() -> Catalog:
    """The catalog of this process's installed plugins."""
    return Catalog(installed())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    import difflib

    near = difflib.get_close_matches(word.lower(), list(dict.fromkeys(known)), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def source_file(module: str) -> Path | None:
    """Where a module's file lies, told without importing the packages that it is in; None if it cannot be told."""
    from pathlib import Path  # slow to import, and not needed to list

    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for name in rest:
        spec = spec and PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations or [])
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def missing_target(target: str) -> str | None:
    """Why a target cannot be imported, told from the files alone, or None where it looks right."""
    module, _, attribute = target.partition(":")
    path = source_file(module)
    if path is None:
        return f"{target}: there is no module {module}"
    if path.suffix != ".py":
        return None
    text = path.read_text("utf-8", errors="replace")
    found = re.search(rf"\b{attribute}\b|import \*|def __getattr__", text)
    return None if found else f"{target}: {module} has no {attribute!r}"
