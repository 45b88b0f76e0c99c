"""``tag-run list`` and ``tag-run recipes``."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from tag_core.catalog import catalog, did_you_mean
from tag_core.cli.tables import columns, json_option
from tag_core.errors import UnknownName
from tag_core.kinds import KINDS


@click.command("list")
@click.argument("kind", required=False)
@json_option
def list_command(kind: str | None, as_json: bool) -> None:
    """Components that are installed, all or of one KIND (backbone or backbones, loss, dataset, ...)."""
    kinds = [*KINDS, "recipe"]
    plurals = {hook.removeprefix("tag_"): name for name, hook in KINDS.items()} | {"recipes": "recipe"}
    if kind and plurals.get(kind, kind) not in kinds:
        raise UnknownName(f"no kind {kind!r}{did_you_mean(kind, kinds)}; kinds: {', '.join(kinds)}")
    _print([plurals.get(kind, kind)] if kind else kinds, as_json)


@click.command()
@json_option
def recipes(as_json: bool) -> None:
    """Recipes that are installed; 'tag-run show NAME' prints one."""
    _print(["recipe"], as_json)


def _print(kinds: Iterable[str], as_json: bool) -> None:
    entries = [entry for kind in kinds for entry in catalog().entries[kind].values()]
    if as_json:
        listed = [{"kind": e.kind, "name": e.name, "summary": e.item.summary, "from": e.plugin.origin} for e in entries]
        click.echo(json.dumps(listed, indent=1))
    else:
        click.echo(columns([(e.kind, e.name, e.item.summary) for e in entries]))
    if broken := [record.name for record in catalog().plugins.records if record.status == "failed"]:
        click.echo(f"not listed: {', '.join(broken)} (see 'tag-run plugins')", err=True)
