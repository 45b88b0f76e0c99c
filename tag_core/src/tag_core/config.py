"""From a recipe's tables to validated components; see :mod:`tag_core.recipe` for the text side.

A component's typed signature is its configuration. All mistakes of a recipe are reported at once,
each with its key, what was expected, what was given, and the nearest right name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tag_core.catalog import Entry, catalog, did_you_mean
from tag_core.errors import ConfigError, PluginError, TagError, UnknownName
from tag_core.kinds import GIVEN
from tag_core.options import EvalOptions, TrainOptions
from tag_core.recipe import CliText, Inherited, Tree, merge, read_tree, scalar
from tag_core.typed import MISSING, check_type, nested_kind, show_value, signature


@dataclass(frozen=True)
class Spec:
    """A component with checked options, ready to build."""

    key: str
    entry: Entry
    target: Callable[..., Any]
    options: dict[str, Any]
    complete: bool

    def build(self, **given: Any) -> Any:
        """Build it, passing those of ``given`` that its signature has.

        Raises:
            ConfigError: a required option is missing, or the component refuses the combination.
        """
        parameters = inspect.signature(self.target).parameters
        if not self.complete:
            absent = [n for n, p in parameters.items() if p.default is MISSING and n not in self.options]
            absent = [f"{self.key}.{name}: required" for name in absent if name not in given]
            raise ConfigError(f"{self.entry.name}", absent)
        options = {name: _build(value) for name, value in self.options.items()}
        options.update({name: value for name, value in given.items() if name in parameters})
        try:
            return self.target(**options)
        except TagError:
            raise
        except ValueError as error:
            raise ConfigError(f"{self.entry.name}", [f"{self.key}: {error}"]) from error

    def takes(self, option: str) -> bool:
        return option in inspect.signature(self.target).parameters

    def with_options(self, **options: Any) -> Spec:
        """The same component with these options replaced; they are not checked again."""
        merged = {**self.options, **options}
        required = {n for n, (_, default) in signature(self.target, self.entry).items() if default is MISSING}
        complete = required <= {*merged, *GIVEN.get(self.entry.kind, ())}
        return Spec(self.key, self.entry, self.target, merged, complete)

    def to_dict(self) -> Tree:
        return {"name": self.entry.name, **{k: _plain(v) for k, v in self.options.items() if v is not None}}

    def walk(self) -> Iterator[Spec]:
        yield self
        for value in self.options.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Spec):
                    yield from item.walk()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with every name resolved and every option checked."""

    name: str
    summary: str = ""
    paper: str = ""
    weights: str = ""
    holdout: float = 0.2
    task: Spec
    data: dict[str, Spec]
    own_source: frozenset[str] = frozenset()
    """The data sets among val and test that name a source of their own."""
    optimizer: Spec | None
    schedule: Spec | None
    distribution: Spec
    metrics: list[Spec] = field(default_factory=list)
    sinks: list[Spec] = field(default_factory=list)
    train: TrainOptions = field(default_factory=TrainOptions)
    eval: EvalOptions = field(default_factory=EvalOptions)

    def to_dict(self) -> Tree:
        """Tables that resolve to this recipe again, every default written out."""
        data: Tree = {"holdout": self.holdout}
        for name, spec in self.data.items():
            data[name] = spec.to_dict()
            if name != "train" and name not in self.own_source:
                data[name].pop("source", None)
        tree: Tree = {"summary": self.summary, "paper": self.paper, "weights": self.weights}
        tree["metrics"] = [spec.to_dict() for spec in self.metrics]
        tree["sinks"] = [spec.to_dict() for spec in self.sinks]
        tree["task"], tree["data"] = self.task.to_dict(), data
        for key, optional in (("optimizer", self.optimizer), ("schedule", self.schedule)):
            if optional is not None:
                tree[key] = optional.to_dict()
        tree["distribution"] = self.distribution.to_dict()
        tree["train"], tree["eval"] = asdict(self.train), asdict(self.eval)
        return tree

    def specs(self) -> Iterator[Spec]:
        """Every component of the recipe, nested ones included."""
        tops: list[Spec | None] = [
            self.task,
            *self.data.values(),
            self.optimizer,
            self.schedule,
            self.distribution,
        ]
        for spec in [*tops, *self.metrics, *self.sinks]:
            if spec is not None:
                yield from spec.walk()


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
    return _Resolver(name, needs).recipe(tree)


def build_component(kind: str, name: str, options: Mapping[str, Any], **given: Any) -> Any:
    """One component by itself, its options checked.

    Raises:
        ConfigError: with every option that is wrong.
    """
    resolver = _Resolver(name, needs=("data.", "optimizer"))
    spec = resolver._component(kind, kind, {**options, "name": name})
    if resolver.problems or spec is None:
        raise ConfigError(name, resolver.problems)
    return spec.build(**given)


class _Resolver:
    def __init__(self, name: str, needs: Collection[str]) -> None:
        self.name, self.needs, self.problems = name, needs, list[str]()

    def recipe(self, tree: Tree) -> Recipe:
        known = ["summary", "paper", "weights", "task", "data", "optimizer", "schedule", "metrics", "sinks"]
        known += ["train", "eval", "distribution", "name"]
        for key in tree:
            if key not in known:
                self.problems.append(f"{key}: unknown{did_you_mean(key, known)}")
        data, holdout, own_source = self._data(tree.get("data", {}))
        texts = {key: self._value(key, str, tree.get(key, "")) for key in ("summary", "paper", "weights")}
        parts: dict[str, Any] = {
            "task": self._component("task", "task", tree.get("task", MISSING)),
            "optimizer": self._optional("optimizer", tree),
            "schedule": self._optional("schedule", tree),
            "distribution": self._component("distribution", "distribution", tree.get("distribution", "auto")),
            "metrics": self._components("metrics", "metric", tree.get("metrics", [])),
            "sinks": self._components("sinks", "sink", tree.get("sinks", [])),
            "train": self._table("train", TrainOptions, tree.get("train", {})),
            "eval": self._table("eval", EvalOptions, tree.get("eval", {})),
        }
        if "optimizer" in self.needs and "optimizer" not in tree:
            self.problems.append("optimizer: required")
        if self.problems:
            raise ConfigError(self.name, self.problems)
        return Recipe(name=self.name, holdout=holdout, own_source=own_source, data=data, **texts, **parts)

    def _data(self, tables: Any) -> tuple[dict[str, Spec], float, frozenset[str]]:
        if not isinstance(tables, Mapping):
            self.problems.append(f"data: expected a table, got {show_value(tables)}")
            return {}, 0.0, frozenset()
        for key in tables:
            if key not in ("holdout", "train", "val", "test"):
                self.problems.append(f"data.{key}: unknown{did_you_mean(key, ['holdout', 'train', 'val', 'test'])}")
        holdout = self._value("data.holdout", float, tables.get("holdout", 0.2))
        if isinstance(holdout, float) and not 0 <= holdout < 1:
            self.problems.append(f"data.holdout: expected a share in [0, 1), got {holdout}")
        specs: dict[str, Spec] = {}
        above: Any = {}
        own, said = set(), set[str]()
        for key in ("train", "val", "test"):
            table = tables.get(key, {})
            if isinstance(table, Mapping) and table.get("source"):
                own.add(key)
            above = merge({"data": {key: above}}, {"data": {key: table}})["data"][key]
            before = len(self.problems)
            if (above or f"data.{key}" in self.needs) and (spec := self._component(f"data.{key}", "dataset", above)):
                specs[key] = spec
            found = [problem.removeprefix(f"data.{key}") for problem in self.problems[before:]]
            self.problems[before:] = [f"data.{key}{text}" for text in found if text not in said]  # inherited ones once
            said.update(found)
        if "test" not in own and "val" in own:
            own.add("test")
        return specs, holdout, frozenset(own)

    def _optional(self, key: str, tree: Tree) -> Spec | None:
        return self._component(key, key, tree[key]) if key in tree else None

    def _components(self, key: str, kind: str, value: Any) -> list[Spec]:
        if not isinstance(value, list):
            self.problems.append(f"{key}: expected a list of {kind} components, got {show_value(value)}")
            return []
        found = [self._component(f"{key}.{i}", kind, item) for i, item in enumerate(value)]
        return [spec for spec in found if spec is not None]

    def _component(self, key: str, kind: str, table: Any) -> Spec | None:
        if isinstance(table, str):
            table = {"name": table}
        if table is MISSING or not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            given = "" if table is MISSING or isinstance(table, Mapping) else f", got {show_value(table)}"
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
        return self._spec(key, entry, target, parameters, options)

    def _spec(self, key: str, entry: Entry, target: Any, parameters: Mapping[str, Any], given: Tree) -> Spec:
        before = len(self.problems)
        options = self._options(key, parameters, given, entry.name, skip=GIVEN.get(entry.kind, ()))
        missing = [n for n, (_, d) in parameters.items() if d is MISSING and n not in given]
        missing = [n for n in missing if n not in GIVEN.get(entry.kind, ())]
        if missing and self._needed(key):
            self.problems.extend(f"{key}.{name}: required by {entry.name}" for name in missing)
        return Spec(key, entry, target, options, not missing and len(self.problems) == before)

    def _needed(self, key: str) -> bool:
        return not key.startswith(("data.", "optimizer")) or any(key.startswith(need) for need in self.needs)

    def _options(self, key: str, parameters: Mapping[str, Any], given: Tree, owner: str, skip: Collection[str]) -> Tree:
        options: Tree = {}
        names = [name for name in parameters if name not in skip]
        for name in given:
            if name not in names and not isinstance(given[name], Inherited):
                hint = did_you_mean(name, names) or f" (options: {', '.join(names) or 'none'})"
                self.problems.append(f"{key}.{name}: {owner} has no such option{hint}")
        for name in names:
            annotation, default = parameters[name]
            value = given.get(name, MISSING)
            if value is not MISSING:
                value = value.value if isinstance(value, Inherited) else value
                options[name] = self._value(f"{key}.{name}", annotation, value)
            elif default is not MISSING:
                nested = nested_kind(annotation)
                options[name] = self._value(f"{key}.{name}", annotation, default) if nested else default
        return options

    def _value(self, key: str, annotation: Any, value: Any) -> Any:
        nested = nested_kind(annotation)
        if nested and value is None:
            return None
        if nested:
            kind, many = nested
            return self._components(key, kind, value) if many else self._component(key, kind, value)
        if isinstance(value, CliText):
            return self._cli_value(key, annotation, value)
        try:
            return check_type(annotation, value)
        except ValueError as error:
            self.problems.append(f"{key}: {error}")
            return None

    def _cli_value(self, key: str, annotation: Any, text: CliText) -> Any:
        for candidate in (scalar(text), str(text)):
            try:
                return check_type(annotation, candidate)
            except ValueError:
                continue
        return self._value(key, annotation, scalar(text))

    def _table(self, key: str, options: Any, table: Any) -> Any:
        if not isinstance(table, Mapping):
            self.problems.append(f"{key}: expected a table, got {show_value(table)}")
            return options()
        before = len(self.problems)
        values = self._options(key, signature(options), dict(table), f"[{key}]", skip=())
        try:
            return options(**values) if len(self.problems) == before else options()
        except ValueError as error:
            self.problems.append(f"{key}.{error}")
            return options()


def _build(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.build()
    return [_build(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (bool, int, float, str)) else str(value)
