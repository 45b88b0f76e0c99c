"""``tag-run eval``."""

from __future__ import annotations

import json

import click

from tag_core.cli import options


@click.command("eval")
@options.recipe_argument
@options.overrides_argument
@options.out_option
@options.procs_option
@options.strict_option
@options.json_option
def evaluate(recipe: str, overrides: tuple[str, ...], out: str | None, procs: int, strict: bool, as_json: bool) -> int:
    """Score weights on test data: RECIPE weights=FILE data.test.source=FOLDER, or the folder of a run."""
    options.check_early(recipe, overrides)
    if procs > 1:
        from tag_core.engine.launch import launch

        return launch(procs)
    from tag_core import api

    options.talk()
    result = api.evaluate(recipe, list(overrides), out=out, strict=strict)
    if not options.is_main():
        return 0
    click.echo(f"{result.coverage}", err=True)
    if as_json:
        click.echo(json.dumps({"scores": result.scores, "tables": result.tables}))
    else:
        from tag_core.engine.run import table

        click.echo(table(result.scores.items()))
    return 3 if result.coverage.unreadable else 0
