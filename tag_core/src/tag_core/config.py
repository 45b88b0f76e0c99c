"""From a recipe's tables to validated components; see :mod:`tag_core.recipe` for the text side.

A component's typed signature is its configuration. All mistakes of a recipe are reported at once,
each with its key, what was expected, what was given, and the nearest right name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tag_core.catalog import Entry, catalog, did_you_mean
from tag_core.errors import ConfigError, PluginError, TagError, UnknownName
from tag_core.kinds import GIVEN, Distribution, Metric, Optimizer, Sampler, Schedule, Sink, Task, missing_members
from tag_core.options import EvalOptions, TrainOptions
from tag_core.recipe import CliText, Inherited, Tree, merge_value, read_tree, scalar
from tag_core.typed import MISSING, check_type, is_factory, nested_kind, show_value, signature

TABLES: dict[str, tuple[Any, Any]] = {
    "summary": (str, ""),
    "paper": (str, ""),
    "weights": (str | dict[str, str], ""),
    "output": (Literal["", "embedding"], ""),
    "task": (Task, MISSING),
    "data": (dict, {}),
    "optimizer": (Optimizer | None, None),
    "sampler": (Sampler | None, None),
    "schedule": (Schedule | None, None),
    "distribution": (Distribution, "auto"),
    "metrics": (list[Metric], []),
    "sinks": (list[Sink], []),
    "train": (TrainOptions, TrainOptions()),
    "eval": (EvalOptions, EvalOptions()),
}
"""Key of a recipe -> (type, default)."""
DATA = ("train", "val", "test")


@dataclass(frozen=True)
class Spec:
    """A component with checked options, ready to build."""

    key: str
    entry: Entry
    target: Callable[..., Any]
    options: dict[str, Any]

    @property
    def missing(self) -> list[str]:
        """Required options that are not set."""
        parameters, given = signature(self.target), GIVEN.get(self.entry.kind, ())
        names = [name for name, (_, default) in parameters.items() if default is MISSING]
        return [name for name in names if name not in self.options and name not in given]

    def build(self, **given: Any) -> Any:
        """Build it, passing those of ``given`` that its signature has.

        Raises:
            ConfigError: a required option is missing, or the component refuses the combination.
            PluginError: what it builds lacks a method of its kind.
        """
        if absent := [name for name in self.missing if name not in given]:
            raise ConfigError(self.entry.name, [f"{self.key}.{name}: required" for name in absent])
        factories = {name for name, (annotation, _) in signature(self.target).items() if is_factory(annotation)}
        options = {n: value.build if n in factories else _build(value) for n, value in self.options.items()}
        options.update({name: value for name, value in given.items() if self.takes(name)})
        try:
            component = self.target(**options)
        except TagError:
            raise
        except ValueError as error:
            raise ConfigError(self.entry.name, [f"{self.key}: {error}"]) from error
        except Exception as error:
            error.add_note(f"This is a fault of {self.entry}.")
            raise
        if absent := missing_members(self.entry.kind, component):
            raise PluginError(f"{self.entry} has no {', '.join(absent)}; see tag_core.kinds.{self.entry.kind.title()}")
        return component

    def takes(self, option: str) -> bool:
        return option in inspect.signature(self.target).parameters

    def with_options(self, **options: Any) -> Spec:
        """The same component with these options replaced; they are not checked again."""
        return replace(self, options={**self.options, **options})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with every name resolved and every option checked."""

    name: str
    summary: str
    paper: str
    weights: str | dict[str, str]
    output: str
    task: Spec
    data: dict[str, Spec]
    holdout: float
    own_source: frozenset[str]
    """The data sets that name a source of their own; val and test are otherwise held out of train."""
    optimizer: Spec | None
    sampler: Spec | None
    schedule: Spec | None
    distribution: Spec
    metrics: list[Spec]
    sinks: list[Spec]
    train: TrainOptions
    eval: EvalOptions

    def to_dict(self, defaults: bool = True) -> Tree:
        """Tables that resolve to this recipe again, every component's defaults written out or left out."""
        tree = {key: _plain(getattr(self, key), defaults) for key in TABLES if getattr(self, key) is not None}
        for name in {"val", "test"}.intersection(self.data) - self.own_source:
            tree["data"][name].pop("source", None)
        tree["data"]["holdout"] = self.holdout
        return tree

    def specs(self) -> Iterator[Spec]:
        """Every component of the recipe, nested ones included."""
        return _specs(vars(self))


def resolve(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    needs: Collection[str] = ("data.train", "optimizer"),
) -> Recipe:
    """Read, look up and check a recipe.

    Args:
        recipe: see :func:`tag_core.recipe.read_tree`.
        overrides: ``key=value`` each, laid upon it.
        needs: the parts that must be complete; elsewhere a required option may still be missing.

    Raises:
        ConfigError: with all mistakes at once.
        UnknownName: no such recipe.
    """
    name, tree = read_tree(recipe, overrides)
    return _Resolver(needs).recipe(name, tree)


def build_component(kind: str, name: str, options: Mapping[str, Any], **given: Any) -> Any:
    """One component by itself, its options checked.

    Raises:
        ConfigError: with every option that is wrong.
    """
    resolver = _Resolver(needs=("optimizer",))
    spec = resolver.component(kind, kind, {**options, "name": name})
    if resolver.problems or spec is None:
        raise ConfigError(name, resolver.problems)
    return spec.build(**given)


class _Resolver:
    """Checks tables against signatures; what is wrong goes into ``problems``, and the rest is checked all the same."""

    def __init__(self, needs: Collection[str]) -> None:
        self.needs, self.problems = needs, list[str]()

    def recipe(self, name: str, tree: Tree) -> Recipe:
        data, holdout, own_source = self._data(tree.get("data", {}))
        tree = {key: {} if key == "data" else value for key, value in tree.items() if key != "name"}
        values = self._options("", TABLES, tree, "a recipe")
        if "task" not in tree:
            self.problems.append("task: required")
        if "optimizer" in self.needs and "optimizer" not in tree:
            self.problems.append("optimizer: required")
        if self.problems:
            told = dict[str, str]()  # what val and test inherit is told once
            for problem in self.problems:
                told.setdefault(re.sub(r"^data\.(train|val|test)", "", problem), problem)
            raise ConfigError(name, list(told.values()))
        return Recipe(**{**values, "data": data}, name=name, holdout=holdout, own_source=own_source)

    def _data(self, tables: Any) -> tuple[dict[str, Spec], float, frozenset[str]]:
        """The data sets, each starting from the one before; the share held out; which name their own source."""
        if not isinstance(tables, Mapping):
            self.problems.append(f"data: expected a table, got {show_value(tables)}")
            return {}, 0.0, frozenset()
        for key in tables:
            if key not in ("holdout", *DATA):
                self.problems.append(f"data.{key}: unknown{did_you_mean(key, ['holdout', *DATA])}")
        holdout = self._value("data.holdout", float, tables.get("holdout", 0.2))
        if isinstance(holdout, float) and not 0 <= holdout < 1:
            self.problems.append(f"data.holdout: expected a share in [0, 1), got {holdout}")
        own = {key for key in DATA if isinstance(tables.get(key), Mapping) and tables[key].get("source")}
        specs: dict[str, Spec] = {}
        above: Any = {}
        for key in DATA:
            above = merge_value(above, tables.get(key, {}), ("data", key))
            if (above or f"data.{key}" in self.needs) and (spec := self.component(f"data.{key}", "dataset", above)):
                specs[key] = spec
        return specs, holdout, frozenset(own | {"test"} if "val" in own else own)

    def component(self, key: str, kind: str, table: Any) -> Spec | None:
        if isinstance(table, str):
            table = {"name": table}
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            given = "" if isinstance(table, Mapping) else f", got {show_value(table)}"
            self.problems.append(f"{key}: required: the name of a {kind}, or a table with 'name'{given}")
            return None
        try:
            entry = catalog().get(kind, str(table["name"]))
            target = entry.load()
            parameters = signature(target, entry)
        except (UnknownName, PluginError) as error:
            self.problems.append(f"{key}: {error}")
            return None
        options = {name: value for name, value in table.items() if name != "name"}
        parameters = {name: parameter for name, parameter in parameters.items() if name not in GIVEN.get(kind, ())}
        spec = Spec(key, entry, target, self._options(key, parameters, options, entry.name))
        inside = kind == "dataset" and key.rpartition(".")[2] not in (*DATA, kind)  # its owner gives it a source
        if not inside and (not key.startswith(("data.", "optimizer")) or key.startswith(tuple(self.needs))):
            self.problems += [f"{key}.{name}: required by {entry.name}" for name in spec.missing]
        return spec

    def _options(
        self, key: str, parameters: Mapping[str, tuple[Any, Any]], given: Mapping[str, Any], owner: str
    ) -> Tree:
        """Checked values of ``given``, and defaults; components among them become Specs."""
        options: Tree = {}
        prefix = f"{key}." if key else ""
        for name, value in given.items():
            if name not in parameters and not isinstance(value, Inherited):
                hint = did_you_mean(name, parameters) or f" (options: {', '.join(parameters) or 'none'})"
                self.problems.append(f"{prefix}{name}: {owner} has no such option{hint}")
        for name, (annotation, default) in parameters.items():
            if name in given or (default is not MISSING and nested_kind(annotation)):
                options[name] = self._value(prefix + name, annotation, given.get(name, default))
            elif default is not MISSING:
                options[name] = default
        return options

    def _value(self, key: str, annotation: Any, value: Any) -> Any:
        value = value.value if isinstance(value, Inherited) else value
        if nested := nested_kind(annotation):
            return None if value is None else self._components(key, *nested, value)
        if annotation in (TrainOptions, EvalOptions):
            return self._table(key, annotation, value)
        reasons = []
        for read in (scalar, str):
            try:
                return check_type(annotation, _typed(value, read))
            except ValueError as error:
                reasons.append(str(error))
        self.problems.append(f"{key}: {reasons[0]}")
        return None

    def _components(self, key: str, kind: str, many: bool, value: Any) -> Any:
        if not many:
            return self.component(key, kind, value)
        if isinstance(value, list):
            return [self.component(f"{key}.{i}", kind, item) for i, item in enumerate(value)]
        self.problems.append(f"{key}: expected a list of {kind} components, got {show_value(value)}")
        return []

    def _table(self, key: str, options: Any, table: Any) -> Any:
        if not isinstance(table, Mapping):
            self.problems.append(f"{key}: expected a table, got {show_value(table)}")
            return None
        before = len(self.problems)
        values = self._options(key, signature(options), table, f"[{key}]")
        try:
            return options(**values) if len(self.problems) == before else None
        except ValueError as error:
            self.problems.append(f"{key}.{error}")
            return None


def _typed(value: Any, read: Callable[[str], Any]) -> Any:
    """The value with what was typed on the command line read, in tables and lists too."""
    if isinstance(value, Mapping):
        return {key: _typed(item, read) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, read) for item in value]
    return read(value) if isinstance(value, CliText) else value


def _build(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.build()
    return [_build(item) for item in value] if isinstance(value, list) else value


def _specs(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield value
        value = value.options
    inside = value.values() if isinstance(value, Mapping) else value
    for item in inside if isinstance(value, (Mapping, list)) else ():
        yield from _specs(item)


def _plain(value: Any, defaults: bool = True) -> Any:
    """What TOML can say."""
    if isinstance(value, Spec):
        return {"name": value.entry.name, **_plain_options(value.target, value.options, defaults)}
    if isinstance(value, (TrainOptions, EvalOptions)):
        return _plain_options(type(value), asdict(value), defaults)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, defaults) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item, defaults) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _plain_options(target: Any, options: Mapping[str, Any], defaults: bool) -> Tree:
    plain = {name: _plain(option, defaults) for name, option in options.items() if option is not None}
    if defaults:
        return plain
    standard = {name: default for name, (_, default) in signature(target).items()}
    return {n: option for n, option in plain.items() if option not in (_plain(standard[n]), {"name": standard[n]})}
