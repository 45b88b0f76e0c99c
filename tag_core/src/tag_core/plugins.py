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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from tag_core import hookspecs
from tag_core.component import NAME, Command, Component, RecipeFile
from tag_core.discovery import Claim, find_claims
from tag_core.errors import PluginError

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
                with contextlib.redirect_stdout(sys.stderr):  # stdout is data
                    implementation.function(**wanted)
            except (Exception, SystemExit) as error:
                print(f"warning: plugin {implementation.plugin_name}: {hook}: {_describe(error)}", file=sys.stderr)

    def add(
        self, record: PluginRecord, load: Callable[[], Any], refuse: Callable[[], str | None] = lambda: None
    ) -> None:
        """Import and register one plugin, leaving its failure in ``record``.

        Args:
            record: of the plugin; becomes one of ``records`` whatever happens.
            load: imports it.
            refuse: the reason not to, if there is one.
        """
        self.records.append(record)
        if record.name in _disabled():
            record.status, record.reason = "disabled", "switched off by TAG_DISABLE"
            return
        cause = None
        try:
            if reason := refuse():
                record.failed(reason)
            else:
                self._register(record, load)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            cause = error
            record.failed(_describe(error))
        if record.status == "failed" and os.environ.get("TAG_STRICT", "0") not in ("", "0"):
            raise PluginError(f"plugin {record.name} ({record.origin}): {record.reason}") from cause

    def _register(self, record: PluginRecord, load: Callable[[], Any]) -> None:
        with _noting(record):
            module = load()
            if not isinstance(module, ModuleType):
                raise TypeError(f"the entry point names {module!r}, not a module")
            self._check_hooks(record, module)
            try:
                self.manager.register(module, name=record.name)
                self.manager.check_pending()
                record.provides = {hook: self._collect(hook, module) for hook in RESULT_OF_HOOK}
            except BaseException:
                if self.manager.get_plugin(record.name) is module:
                    self.manager.unregister(name=record.name)
                raise

    def _check_hooks(self, record: PluginRecord, module: ModuleType) -> None:
        """Name the misspelt hook (pluggy's own text does not say what is right) and unmarked ones."""
        known = [name for name in vars(hookspecs) if name.startswith("tag_")]
        for name, value in vars(module).items():
            options = self.manager.parse_hookimpl_opts(module, name)
            if options is None:
                if name in known and callable(value):
                    record.notes.append(f"{name} is not marked @hookimpl, so it is never called")
            elif (hook := options.get("specname") or name) not in known:
                from tag_core.catalog import did_you_mean

                raise PluginError(f"there is no hook {hook!r}{did_you_mean(hook, known)}")

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
    claims: dict[str, list[Claim]] = {}
    for claim in find_claims():
        claims.setdefault(claim.name, []).append(claim)
    for _, rivals in sorted(claims.items(), key=lambda item: (item[0] != "core", item[0])):
        for claim in rivals:
            record = PluginRecord(claim.name, claim.value, claim.package, claim.version)
            plugins.add(record, claim.load, lambda c=claim, all_=rivals: _refuse(c, all_))  # type: ignore[misc]
    for source in extra:
        _add_extra(plugins, source)
    return plugins


@cache
def installed() -> Plugins:
    """The installed plugins and those of ``TAG_PLUGINS`` (``--plugin`` sets it for child processes too)."""
    return load_plugins([source for source in os.environ.get("TAG_PLUGINS", "").split(os.pathsep) if source])


def _refuse(claim: Claim, rivals: Sequence[Claim]) -> str | None:
    """Why a plugin must not be loaded, told before importing it."""
    if not NAME.fullmatch(claim.name):
        return f"namespace {claim.name!r}: use lower-case letters, digits, '-' and '.'"
    if len(rivals) > 1:
        owners = sorted({rival.package for rival in rivals})
        return f"the name {claim.name!r} is claimed by {' and by '.join(owners)}; uninstall one of them"
    return claim.misfit()


def _add_extra(plugins: Plugins, source: str) -> None:
    path = Path(source)
    is_file = path.suffix == ".py"
    name = namespace_of(source)
    if is_file and not path.is_file():
        raise PluginError(f"--plugin {source}: no such file")
    if not NAME.fullmatch(name):
        raise PluginError(f"--plugin {source}: {name!r} cannot be a namespace; rename it")
    if any(record.name == name and record.status == "ok" for record in plugins.records):
        raise PluginError(f"--plugin {source}: the name {name!r} is taken by an installed plugin; rename it")
    record = PluginRecord(name, source, "--plugin", "")
    plugins.add(record, lambda: _load_file(path) if is_file else _load_module(source))
    if record.status == "failed":
        raise PluginError(f"--plugin {source}: {record.reason}")


def namespace_of(source: str) -> str:
    """The namespace of ``--plugin``: of a file its stem; of ``my_pkg.plugin`` and of ``my_pkg``, ``my-pkg``."""
    stem = Path(source).stem if source.endswith(".py") else source.removesuffix(".plugin").rpartition(".")[2]
    return stem.removeprefix("tag_plugins_").replace("_", "-").lower()


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    name = path.stem.replace("-", "_")  # "name:attribute" targets and pickling find it in sys.modules
    known = importlib.util.find_spec(name)
    if known is not None and not (known.origin and os.path.exists(known.origin) and path.samefile(known.origin)):
        raise PluginError(f"a module {name!r} exists already; rename the file")
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
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


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("TAG_DISABLE", "").split(",") if name.strip()}
