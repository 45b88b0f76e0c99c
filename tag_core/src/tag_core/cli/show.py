"""``tag-run show NAME``, told from source files: nothing of the plugin's is imported."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click

from tag_core.catalog import Entry, catalog
from tag_core.cli.source import Option, read_options
from tag_core.cli.tables import columns
from tag_core.component import RecipeFile
from tag_core.errors import TagError
from tag_core.kinds import GIVEN
from tag_core.recipe import parse_toml


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def show(name: str, as_json: bool) -> None:
    """Origin, summary, paper, every option with type and default, and a recipe that runs."""
    entries = catalog().find(name)
    if as_json:
        click.echo(json.dumps([_describe(entry) for entry in entries], indent=1))
        return
    for number, entry in enumerate(entries):
        click.echo(("\n" if number else "") + _text(entry))


def _describe(entry: Entry) -> dict[str, Any]:
    about: dict[str, Any] = {"kind": entry.kind, "name": entry.name, "summary": entry.item.summary}
    about["from"] = entry.plugin.origin
    if isinstance(entry.item, RecipeFile):
        return {**about, "recipe": catalog().recipe_text(entry)}
    options = [vars(option) for option in _options(entry)]
    return {**about, "paper": entry.item.paper, "target": entry.item.target, "options": options}


def _options(entry: Entry) -> list[Option]:
    return [o for o in read_options(entry.component.target) if o.name not in GIVEN.get(entry.kind, ())]


def _text(entry: Entry) -> str:
    lines = [click.style(f"{entry.kind} {entry.name}", bold=True), f"  {entry.item.summary}"]
    lines.append(f"  from {entry.plugin.origin}")
    if isinstance(entry.item, RecipeFile):
        return "\n".join([*lines, f"  run: tag-run train {entry.name} data.train.source=FOLDER", "", _recipe(entry)])
    if entry.item.paper:
        lines.append(f"  paper: {entry.item.paper}")
    rows = [(o.name, o.type, "required" if o.default is None else f"= {o.default}", o.help) for o in _options(entry)]
    lines += ["", "  options", columns(rows, indent=4) if rows else "    (none)", "", *_example(entry)]
    return "\n".join(lines)


def _recipe(entry: Entry) -> str:
    return catalog().recipe_text(entry).rstrip()


def _example(entry: Entry) -> list[str]:
    """A command that runs with this component: a recipe that names it, else one that can."""
    key = {"backbone": "task.backbone", "loss": "task.loss", "metric": "metrics", "sink": "sinks"}.get(
        entry.kind, "data.train" if entry.kind == "dataset" else entry.kind
    )
    users, able = [], []
    for recipe in catalog().entries["recipe"].values():
        with contextlib.suppress(TagError):  # another plugin's recipe may be broken
            text = catalog().recipe_text(recipe)
            if f'"{entry.name}"' in text:
                users.append(recipe.name)
            elif _has(parse_toml(text, recipe.name), key.split(".")):
                able.append(recipe.name)
    if users:
        return [f"  in the recipe{'s' if len(users) > 1 else ''} {', '.join(users)}: 'tag-run show {users[0]}'"]
    if able and entry.kind not in ("transform", "index"):
        value = f"'[\"{entry.name}\"]'" if key in ("metrics", "sinks") else entry.name
        return ["  try it", f"    tag-run train {able[0]} data.train.source=FOLDER {key}={value}"]
    return []


def _has(tree: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return path[0] in ("metrics", "sinks", "distribution", "schedule", "optimizer")
        tree = tree[key]
    return True
