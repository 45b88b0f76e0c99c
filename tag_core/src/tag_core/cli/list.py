"""``tag-run list`` and ``tag-run recipes``."""

from __future__ import annotations

import json

import click

from tag_core.catalog import Entry, catalog, did_you_mean
from tag_core.cli.tables import columns, plural
from tag_core.errors import UnknownName
from tag_core.kinds import KINDS


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def list_command(kind: str | None, as_json: bool) -> None:
    """Components that are installed, all or of one KIND (backbone, loss, dataset, ...)."""
    kinds = [*KINDS, "recipe"]
    if kind is not None:
        single = {plural(name): name for name in kinds}.get(kind, kind)
        if single not in kinds:
            raise UnknownName(f"no kind {kind!r}{did_you_mean(kind, kinds)}; kinds: {', '.join(kinds)}")
        kinds = [single]
    entries = [entry for name in kinds for entry in catalog().entries[name].values()]
    _print(entries, as_json, headings=True)
    _mention_broken()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of a table.")
def recipes(as_json: bool) -> None:
    """Recipes that are installed; 'tag-run show NAME' prints one."""
    _print(list(catalog().entries["recipe"].values()), as_json, headings=False)
    _mention_broken()


def _print(entries: list[Entry], as_json: bool, headings: bool) -> None:
    if as_json:
        listed = [{"kind": e.kind, "name": e.name, "summary": e.item.summary, "from": e.plugin.origin} for e in entries]
        click.echo(json.dumps(listed, indent=1))
        return
    kinds = list(dict.fromkeys(entry.kind for entry in entries))
    for number, kind in enumerate(kinds):
        rows = [(e.name, e.item.summary) for e in entries if e.kind == kind]
        if headings:
            click.echo(("\n" if number else "") + click.style(plural(kind), bold=True))
        click.echo(columns(rows, indent=2 if headings else 0))


def _mention_broken() -> None:
    records = catalog().plugins.records
    if broken := [record.name for record in records if record.status == "failed"]:
        click.echo(f"not listed: {', '.join(broken)} (see 'tag-run plugins')", err=True)
    for record in records:
        for note in record.notes if record.status == "ok" else ():
            click.echo(f"plugin {record.name}: {note}", err=True)
