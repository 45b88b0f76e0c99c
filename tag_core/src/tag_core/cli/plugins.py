"""``tag-run plugins``."""

from __future__ import annotations

import json

import click

from tag_core.catalog import missing_target
from tag_core.cli.tables import columns
from tag_core.plugins import PluginRecord, installed


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def plugins(as_json: bool) -> None:
    """Plugins that were found: working, disabled or set aside, with the reason."""
    records = installed().records
    if as_json:
        rows = [
            {
                "name": r.name,
                "package": r.package,
                "version": r.version,
                "status": _status(r),
                "reason": r.reason,
                "notes": notes(r),
            }
            for r in records
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(columns([(r.name, r.origin, _status(r), _what(r)) for r in records]))


def notes(record: PluginRecord) -> list[str]:
    """Remarks from loading, and targets that do not exist (told from the files, without importing)."""
    targets = [item.target for items in record.provides.values() for item in items if hasattr(item, "target")]
    return record.notes + [f"broken target {problem}" for t in targets if (problem := missing_target(t))]


def _status(record: PluginRecord) -> str:
    return "flawed" if record.status == "ok" and notes(record) else record.status


def _what(record: PluginRecord) -> str:
    if record.status != "ok":
        return record.reason
    count = sum(len(items) for items in record.provides.values())
    return "; ".join([f"{count} components, recipes and commands", *notes(record)])
