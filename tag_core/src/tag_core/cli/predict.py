"""``tag-run predict``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from tag_core.cli import options


@click.command()
@options.recipe_argument
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]... INPUT...")
@click.option("--out", type=click.Path(), help="Write predictions.jsonl into this folder; resumable.")
@click.option("--visualize", is_flag=True, help="Also draw the results onto pictures, into --out.")
@options.procs_option
@options.strict_option
def predict(recipe: str, arguments: tuple[str, ...], out: str | None, visualize: bool, procs: int, strict: bool) -> int:
    """Predict on INPUTs: files, folders and patterns; one JSON record a line.

    Without --out, records go to standard output as they come. With --out, a killed run goes on where
    it was when the same command is given again.
    """
    overrides, inputs = options.split_overrides(arguments)
    if not inputs:
        raise click.UsageError("name at least one INPUT: a file, a folder or a pattern")
    if out is None and (visualize or procs > 1):
        raise click.UsageError("--visualize and --procs write files: choose a folder with --out")
    options.check_early(recipe, overrides)
    if procs > 1:
        from tag_core.engine.launch import launch

        return launch(procs)
    options.talk()
    return (
        _to_folder(recipe, overrides, inputs, Path(out), visualize, strict)
        if out
        else _to_stdout(recipe, overrides, inputs, strict)
    )


def _to_stdout(recipe: str, overrides: list[str], inputs: list[str], strict: bool) -> int:
    from tag_core import api
    from tag_core.engine.data import Coverage

    coverage, sources = Coverage(), set()
    data = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a component prints is not data
        for record in api.predict(recipe, inputs, overrides, strict=strict):
            click.echo(record.to_json().encode(), file=data)
            sources.add(record.source)
            if record.error is not None:
                coverage.unreadable[record.source] = record.error
            elif record.damage:
                coverage.damaged[record.source] = record.damage
    coverage.total = len(sources)
    click.echo(f"{coverage}", err=True)
    return 3 if coverage.unreadable else 0


def _to_folder(
    recipe: str, overrides: list[str], inputs: list[str], folder: Path, visualize: bool, strict: bool
) -> int:
    from tag_core import api

    coverage = api.predict_to_folder(recipe, inputs, overrides, out=folder, strict=strict, visualize=visualize)
    if options.is_main():
        click.echo(f"{coverage}", err=True)
        click.echo(str(folder / "predictions.jsonl"))
    return 3 if coverage.unreadable else 0
