"""Finding plugins: each one in isolation, every failure kept with its cause.

pluggy's own entry-point loader stops at the first plugin that fails and silently keeps one of two
that claim the same name; this loop does neither. Nothing here imports torch or a plugin's models.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import ModuleType
from typing import Any, Literal

import pluggy

from tag_core import hookspecs
from tag_core.component import NAME, Command, Component, RecipeFile
from tag_core.discovery import Claim, find_claims, misfit
from tag_core.errors import PluginError
from tag_core.kinds import KINDS

SLOW_IMPORT_SECONDS = 1.0
EXTRA = "--plugin"
"""The package of a plugin that is not installed."""
FIRST_PARTY = {
    name: f"tag-plugins-{name}" for name in ("video", "reid", "face", "detection", "search", "track", "ebiz")
}
"""Namespace -> package to install."""
HOOKS = [name for name in vars(hookspecs) if name.startswith("tag_")]
COMPONENTS: dict[str, type] = dict.fromkeys(KINDS.values(), Component)
RESULT_OF_HOOK = {**COMPONENTS, "tag_recipes": RecipeFile, "tag_commands": Command}


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
                with contextlib.redirect_stdout(sys.stderr):  # stdout is data
                    implementation.function(**wanted)
            except (Exception, SystemExit) as error:
                print(f"warning: plugin {implementation.plugin_name}: {hook}: {_describe(error)}", file=sys.stderr)

    def add(self, record: PluginRecord, load: Callable[[], ModuleType]) -> None:
        """Import and register one plugin; ``record`` takes its failure, or with TAG_STRICT PluginError is raised."""
        self.records.append(record)
        if record.name in os.environ.get("TAG_DISABLE", "").replace(" ", "").split(","):
            record.status, record.reason = "disabled", "switched off by TAG_DISABLE"
            return
        try:
            with _noting(record):
                self._register(record, load())
        except (Exception, SystemExit) as error:
            record.status, record.reason = "failed", _describe(error)
            if os.environ.get("TAG_STRICT", "0") not in ("", "0"):
                raise PluginError(f"plugin {record.name} ({record.origin}): {record.reason}") from error

    def _register(self, record: PluginRecord, module: ModuleType) -> None:
        if other := self.manager.get_name(module):
            raise PluginError(f"its module is already plugin {other!r}")
        self._check_names(record, module)
        try:
            self.manager.register(module, name=record.name)
            self.manager.check_pending()
            record.provides = {hook: self._collect(hook, module) for hook in RESULT_OF_HOOK}
        except BaseException:
            if self.manager.is_registered(module):
                self.manager.unregister(module)
            raise

    def _check_names(self, record: PluginRecord, module: ModuleType) -> None:
        """Name misspelt hooks (pluggy does not say what is right) and those that nobody will call."""
        from tag_core.catalog import did_you_mean

        for name in vars(module):
            marked = self.manager.parse_hookimpl_opts(module, name) is not None
            if marked and name not in HOOKS:
                raise PluginError(f"there is no hook {name!r}{did_you_mean(name, HOOKS)}")
            if name in HOOKS and not marked:
                record.notes.append(f"{name} is not marked @hookimpl, so it is never called")

    def _collect(self, hook: str, module: ModuleType) -> list[Any]:
        expected, items = RESULT_OF_HOOK[hook], list[Any]()
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is module:
                try:
                    items += implementation.function() or ()
                except Exception as error:
                    raise PluginError(f"{hook} failed: {_describe(error)}") from error
        for item in items:
            if not isinstance(item, expected):
                raise PluginError(f"{hook} must return {expected.__name__} objects, not {item!r}")
        names = [item.name for item in items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise PluginError(f"{hook} returns {', '.join(twice)} more than once")
        return items


def load_plugins(extra: Sequence[str] = ()) -> Plugins:
    """Discover installed plugins, and add those named in ``extra`` (a file or a dotted module).

    Raises:
        PluginError: at the first failure when ``TAG_STRICT`` is set; for an unusable ``extra``.
    """
    plugins = Plugins()
    claims = [*find_claims(), *(Claim(namespace_of(source), source, EXTRA, "") for source in extra)]
    for claim in sorted(claims, key=lambda claim: (claim.name != "core", claim.name)):
        record = PluginRecord(*claim[:4])
        plugins.add(record, partial(_load, claim, [rival for rival in claims if rival.name == claim.name]))
        if record.status == "failed" and claim.package == EXTRA:
            raise PluginError(f"{EXTRA} {claim.module}: {record.reason}")
    return plugins


@cache
def installed() -> Plugins:
    """The installed plugins and those of ``TAG_PLUGINS`` (``--plugin`` sets it for child processes too)."""
    return load_plugins([source for source in os.environ.get("TAG_PLUGINS", "").split(os.pathsep) if source])


def namespace_of(source: str) -> str:
    """The namespace of ``--plugin``: of a file its stem; of ``my_pkg.plugin`` and of ``my_pkg``, ``my-pkg``."""
    dotted = source.removesuffix(".plugin")
    stem = os.path.basename(source)[:-3] if source.endswith(".py") else dotted.rpartition(".")[2]
    return stem.removeprefix("tag_plugins_").replace("_", "-").lower()


def _load(claim: Claim, rivals: Sequence[Claim]) -> ModuleType:
    """Import a plugin, unless what is known of it forbids that."""
    if not NAME.fullmatch(claim.name):
        raise PluginError(f"namespace {claim.name!r}: use lower-case letters, digits, '-', '_' and '.'")
    if len(rivals) > 1:
        owners = sorted({rival.package for rival in rivals})
        raise PluginError(
            f"the name {claim.name!r} is claimed by {' and by '.join(owners)}; uninstall or rename one of them"
        )
    if reason := misfit(claim.requires):
        raise PluginError(reason)
    return _import_extra(claim.module) if claim.package == EXTRA else importlib.import_module(claim.module)


def _import_extra(source: str) -> ModuleType:
    """Import a file or dotted module; its folder goes last on the path, where "name:attribute" targets find it."""
    from pathlib import Path  # slow to import

    file = Path(source).resolve(strict=True) if source.endswith(".py") else None
    sys.path.append(str(file.parent if file else Path.cwd()))
    module = importlib.import_module(file.stem if file else source)
    if file and not (module.__file__ and file.samefile(module.__file__)):
        raise PluginError(f"a module {file.stem!r} exists already; rename the file")
    return module


@contextlib.contextmanager
def _noting(record: PluginRecord) -> Iterator[None]:
    """Around importing a plugin: what it prints and how long it takes become notes, for stdout is data."""
    printed, started = io.StringIO(), time.perf_counter()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        seconds = time.perf_counter() - started
        if seconds > SLOW_IMPORT_SECONDS:
            record.notes.append(f"took {seconds:.1f} s to import; keep plugin modules light")
        if text := printed.getvalue().strip():
            record.notes.append(f"prints on import: {text.splitlines()[0][:60]!r}")


def _describe(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
