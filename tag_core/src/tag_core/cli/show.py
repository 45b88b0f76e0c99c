"""``tag-run show NAME``."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click

from tag_core.catalog import Entry, catalog
from tag_core.cli.source import read_options
from tag_core.cli.tables import columns, json_option
from tag_core.component import RecipeFile
from tag_core.errors import TagError
from tag_core.kinds import GIVEN
from tag_core.recipe import parse_toml


@click.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Origin, summary, paper, every option with type and default, and a recipe that runs."""
    found = [_describe(entry) for entry in catalog().find(name)]
    click.echo(json.dumps(found, indent=1) if as_json else "\n\n".join(map(_text, found)))


def _describe(entry: Entry) -> dict[str, Any]:
    about = {"kind": entry.kind, "name": entry.name, "summary": entry.item.summary, "from": entry.plugin.origin}
    if isinstance(entry.item, RecipeFile):
        text = catalog().recipe_text(entry)
        return {**about, "example": _train(entry, text), "recipe": text}
    options = [vars(o) for o in read_options(entry.item.target) if o.name not in GIVEN.get(entry.kind, ())]
    origin = {"paper": entry.item.paper, "target": entry.item.target}
    return {**about, **origin, "example": _example(entry), "options": options}


def _text(about: dict[str, Any]) -> str:
    lines = [click.style(f"{about['kind']} {about['name']}", bold=True), f"  {about['summary']}"]
    labels = {"from": "from ", "paper": "paper: ", "example": "try it: "}
    lines += [f"  {label}{about[key]}" for key, label in labels.items() if about.get(key)]
    if "recipe" in about:
        return "\n".join([*lines, "", about["recipe"].rstrip()])
    defaults = ["required" if o["default"] is None else f"= {o['default']}" for o in about["options"]]
    rows = [(o["name"], o["type"], d, o["help"]) for o, d in zip(about["options"], defaults, strict=True)]
    return "\n".join([*lines, "", "  options", columns(rows, indent=4)])


def _example(entry: Entry) -> str:
    """A command that runs with this component: a recipe that names it, else the first that has a place for it."""
    nested = {"backbone": "task.backbone", "loss": "task.loss", "dataset": "data.train"}
    key, value = nested.get(entry.kind, entry.kind), entry.name
    if entry.kind in ("metric", "sink"):
        key, value = f"{entry.kind}s", f"'[\"{entry.name}\"]'"
    table, _, place = key.rpartition(".")
    able = ""
    for recipe in sorted(catalog().entries["recipe"].values(), key=lambda each: each.plugin != entry.plugin):
        with contextlib.suppress(TagError, TypeError):  # another plugin's recipe may be broken
            text = catalog().recipe_text(recipe)
            command = _train(recipe, text)
            if f'"{entry.name}"' in text:
                return command
            if not able and place in parse_toml(text, recipe.name).get(table, [place]):
                able = f"{command} {key}={value}"
    return "" if entry.kind in ("transform", "index") else able


def _train(recipe: Entry, text: str) -> str:
    """The command that trains a recipe, with a place for the user's data where it names none."""
    with contextlib.suppress(TagError, AttributeError):
        if "source" in parse_toml(text, recipe.name).get("data", {}).get("train", {}):
            return f"tag-run train {recipe.name}"
    return f"tag-run train {recipe.name} data.train.source=FOLDER"
