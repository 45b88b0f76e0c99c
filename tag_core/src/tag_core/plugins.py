"""Finding plugins: each one in isolation, every failure kept with its cause.

pluggy's own entry-point loader stops at the first plugin that fails and silently keeps one of two
that claim the same name; this loop does neither. Nothing here imports torch or a plugin's models.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from tag_core import hookspecs
from tag_core.component import NAME, Command, Component, RecipeFile
from tag_core.errors import PluginError

GROUP = "tag.plugins"
SLOW_IMPORT_SECONDS = 1.0
FIRST_PARTY = {
    "video": "tag-plugins-video",
    "reid": "tag-plugins-reid",
    "face": "tag-plugins-face",
    "detection": "tag-plugins-detection",
    "search": "tag-plugins-search",
    "track": "tag-plugins-track",
    "ebiz": "tag-plugins-ebiz",
}
HOOK_OF_KIND = {
    "dataset": "tag_datasets",
    "transform": "tag_transforms",
    "backbone": "tag_backbones",
    "task": "tag_tasks",
    "loss": "tag_losses",
    "optimizer": "tag_optimizers",
    "schedule": "tag_schedules",
    "metric": "tag_metrics",
    "distribution": "tag_distributions",
    "index": "tag_indexes",
    "sink": "tag_sinks",
}
RESULT_OF_HOOK: dict[str, type] = {
    **dict.fromkeys(HOOK_OF_KIND.values(), Component),
    "tag_recipes": RecipeFile,
    "tag_commands": Command,
}


@dataclass
class PluginRecord:
    """One plugin as found: working, switched off or set aside, and why."""

    name: str
    module: str
    package: str
    version: str
    status: Literal["ok", "disabled", "failed"] = "ok"
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    provides: dict[str, list[Any]] = field(default_factory=dict)
    """Registration hook -> what it returned."""

    def failed(self, reason: str) -> None:
        self.status, self.reason, self.provides = "failed", reason, {}

    @property
    def origin(self) -> str:
        return f"{self.package} {self.version}".strip()


class Plugins:
    """All plugins of this process; see :func:`load_plugins`."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("tag")
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []

    def provided(self, hook: str) -> Iterator[tuple[PluginRecord, Any]]:
        """What working plugins returned from this registration hook, in order of discovery."""
        for record in self.records:
            for item in record.provides.get(hook, ()):
                yield record, item

    def event(self, hook: str, **arguments: object) -> None:
        """Call an event hook; a listener's failure is reported and does not stop the run."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            wanted = {name: arguments[name] for name in implementation.argnames}
            try:
                implementation.function(**wanted)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                print(f"warning: plugin {implementation.plugin_name}: {hook}: {reason}", file=sys.stderr)

    def add(self, record: PluginRecord, requirement: str | None, load: Any) -> None:
        """Import and register one plugin, leaving its failure in ``record``."""
        self.records.append(record)
        if record.status == "ok" and record.name in _disabled():
            record.status, record.reason = "disabled", "switched off by TAG_DISABLE"
        if record.status == "ok" and requirement:
            record.failed(requirement)
        if record.status == "ok":
            try:
                module = _import_quietly(record, load)
                self._register(record, module)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                record.failed(_describe(error))
                _strict(record, error)
        elif record.status == "failed":
            _strict(record, None)

    def _register(self, record: PluginRecord, module: ModuleType) -> None:
        self.manager.register(module, name=record.name)
        try:
            self.manager.check_pending()
            record.provides = {hook: self._collect(hook, module) for hook in RESULT_OF_HOOK}
        except BaseException:
            self.manager.unregister(name=record.name)
            raise

    def _collect(self, hook: str, module: ModuleType) -> list[Any]:
        implementations = [i for i in getattr(self.manager.hook, hook).get_hookimpls() if i.plugin is module]
        if not implementations:
            return []
        items = list(implementations[0].function() or ())
        expected = RESULT_OF_HOOK[hook]
        for item in items:
            if not isinstance(item, expected):
                raise TypeError(f"{hook} must return {expected.__name__} objects, not {item!r}")
        names = [item.name for item in items]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"{hook} returns {', '.join(twice)} more than once")
        return items


def load_plugins(extra: Sequence[str] = ()) -> Plugins:
    """Discover installed plugins, and add those named in ``extra`` (a file or a dotted module).

    Raises:
        PluginError: at the first failure when ``TAG_STRICT`` is set; for an unusable ``extra``.
    """
    plugins = Plugins()
    claims: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        claims.setdefault(point.name, []).append(point)
    for name, points in sorted(claims.items(), key=lambda item: (item[0] != "core", item[0])):
        for point in points:
            record = PluginRecord(name, point.value, *_package(point))
            if not NAME.fullmatch(name):
                record.failed(f"namespace {name!r}: use lower-case letters, digits, '-' and '.'")
            elif len(points) > 1:
                owners = " and ".join(sorted({_package(p)[0] for p in points}))
                record.failed(f"the name {name!r} is claimed by {owners}; uninstall one of them")
            plugins.add(record, _misfit(point), point.load)
    for source in extra:
        _add_extra(plugins, source)
    return plugins


@cache
def installed() -> Plugins:
    """The installed plugins and those of ``TAG_PLUGINS`` (``--plugin`` sets it for child processes too)."""
    return load_plugins([source for source in os.environ.get("TAG_PLUGINS", "").split(os.pathsep) if source])


def _add_extra(plugins: Plugins, source: str) -> None:
    path = Path(source)
    is_file = path.suffix == ".py"
    name = (path.stem if is_file else source.rpartition(".")[2]).replace("_", "-").lower()
    if is_file and not path.is_file():
        raise PluginError(f"--plugin {source}: no such file")
    if any(record.name == name and record.status == "ok" for record in plugins.records):
        raise PluginError(f"--plugin {source}: the name {name!r} is taken by an installed plugin; rename it")
    record = PluginRecord(name, source, "--plugin", "")
    plugins.add(record, None, lambda: _load_file(path) if is_file else importlib.import_module(source))
    if record.status == "failed":
        raise PluginError(f"--plugin {source}: {record.reason}")


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that "stem:attribute" targets and pickling find it
    spec.loader.exec_module(module)
    return module


def _package(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "")


def _misfit(point: EntryPoint) -> str | None:
    """Why this package is not for the running tag-core, from its own requirements."""
    requires: Iterable[str] = (point.dist.requires if point.dist else None) or ()
    for text in requires:
        if not text.replace("_", "-").lower().startswith("tag-core"):
            continue
        from packaging.requirements import Requirement

        requirement, mine = Requirement(text), version("tag-core")
        extra_only = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if requirement.name.replace("_", "-").lower() != "tag-core" or extra_only:
            continue
        if not requirement.specifier.contains(mine, prereleases=True):
            return f"needs tag-core {requirement.specifier}, this is tag-core {mine}; upgrade one of them"
    return None


def _import_quietly(record: PluginRecord, load: Any) -> ModuleType:
    """Import a plugin; what it prints becomes a note, for stdout is data."""
    printed, started = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(printed):
        module = load()
    seconds = time.perf_counter() - started
    if seconds > SLOW_IMPORT_SECONDS:
        record.notes.append(f"took {seconds:.1f} s to import; keep plugin modules light")
    if text := printed.getvalue().strip():
        record.notes.append(f"prints on import: {text.splitlines()[0][:60]!r}")
    if not isinstance(module, ModuleType):
        raise TypeError(f"the entry point names {module!r}, not a module")
    return module


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("TAG_DISABLE", "").split(",") if name.strip()}


def _strict(record: PluginRecord, cause: BaseException | None) -> None:
    if os.environ.get("TAG_STRICT", "0") not in ("", "0"):
        raise PluginError(f"plugin {record.name} ({record.origin}): {record.reason}") from cause
