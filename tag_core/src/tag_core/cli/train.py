"""``tag-run train``."""

from __future__ import annotations

import json

import click

from tag_core.cli import options


@click.command()
@options.recipe_argument
@options.overrides_argument
@options.out_option
@click.option("--resume", is_flag=True, help="Go on from the run folder's last checkpoint.")
@options.procs_option
@options.strict_option
@options.json_option
def train(
    recipe: str, overrides: tuple[str, ...], out: str | None, resume: bool, procs: int, strict: bool, as_json: bool
) -> int:
    """Train RECIPE, with options set by key=value.

    Your own clips, one folder per class: tag-run train video/tsn data.train.source=FOLDER
    """
    options.check_early(recipe, overrides)
    if procs > 1:
        from tag_core.engine.launch import launch

        return launch(procs)
    from tag_core import api

    options.talk()
    trained = api.train(recipe, list(overrides), out=out, resume=resume, strict=strict)
    if not options.is_main():
        return 0
    click.echo(f"{trained.coverage}", err=True)
    if as_json:
        click.echo(json.dumps({"folder": str(trained.folder), "scores": trained.scores}))
    else:
        from tag_core.engine.run import table

        best = trained.best or trained.folder / "checkpoints" / "last.pt"
        click.echo(table([*trained.scores.items(), ("weights", best), ("report", trained.folder / "report.html")]))
    return 3 if trained.coverage.unreadable else 0
