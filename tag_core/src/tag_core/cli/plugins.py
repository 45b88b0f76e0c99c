"""``tag-run plugins``."""

from __future__ import annotations

import json

import click

from tag_core.catalog import catalog, missing_target
from tag_core.cli.main import COMMANDS
from tag_core.cli.tables import columns
from tag_core.errors import UserError
from tag_core.plugins import PluginRecord, installed
from tag_core.recipe import parse_toml


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def plugins(as_json: bool) -> None:
    """Plugins that were found: working, disabled or set aside, with the reason."""
    found = [(record, notes(record)) for record in installed().records]
    if as_json:
        keys = ("name", "package", "version", "reason")
        rows = [{key: getattr(r, key) for key in keys} | {"status": _status(r, n), "notes": n} for r, n in found]
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(columns([(r.name, r.origin, _status(r, n), _what(r, n)) for r, n in found]))


def notes(record: PluginRecord) -> list[str]:
    """Remarks from loading, and what is registered but not there (told from the files, without importing)."""
    items = [item for registered in record.provides.values() for item in registered]
    targets = dict.fromkeys(item.target for item in items if hasattr(item, "target"))
    broken = [f"broken target {problem}" for target in targets if (problem := missing_target(target))]
    for entry in catalog().entries["recipe"].values():
        if entry.plugin is record:
            try:
                parse_toml(catalog().recipe_text(entry), entry.name)
            except UserError as error:
                broken.append(" ".join(str(error).split()))
    hidden = [item.name for item in record.provides.get("tag_commands", ()) if item.name in COMMANDS]
    return record.notes + broken + [f"its command {name!r} is hidden by tag-run's own" for name in hidden]


def _status(record: PluginRecord, remarks: list[str]) -> str:
    return "flawed" if record.status == "ok" and remarks else record.status


def _what(record: PluginRecord, remarks: list[str]) -> str:
    registered = {hook: len(items) for hook, items in record.provides.items() if items}
    counts = [f"{count} {hook.removeprefix('tag_')}" for hook, count in registered.items()]
    return "; ".join([record.reason or ", ".join(counts) or "events only", *remarks])
