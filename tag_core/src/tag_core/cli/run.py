"""The commands that run a recipe: ``tag-run check``, ``train``, ``eval`` and ``predict``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tag_core.cli.tables import json_option, values
from tag_core.recipe import KEY, read_tree
from tag_core.records import MIN_SCORE, finite

if TYPE_CHECKING:
    from tag_core.engine.data import Coverage
    from tag_core.records import Record

recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
out_option = click.option("--out", type=click.Path(), help="Run folder; a new one under runs/ by default.")
procs_option = click.option("--procs", type=click.IntRange(1), default=1, help="Processes, one per GPU or CPU share.")
strict_option = click.option("--strict", is_flag=True, help="Stop at the first unreadable input.")


@click.command()
@recipe_argument
@overrides_argument
@json_option
def check(recipe: str, overrides: tuple[str, ...], as_json: bool) -> int:
    """Resolve RECIPE, build everything and run two batches forward and backward; write nothing."""
    start(recipe, overrides)
    from tag_core import api

    found, coverage = api.check(recipe, overrides)
    return finish(coverage, json.dumps(found) if as_json else values(found))


@click.command()
@recipe_argument
@overrides_argument
@out_option
@click.option("--resume", is_flag=True, help="Go on from the run folder's last checkpoint.")
@procs_option
@strict_option
@json_option
def train(
    recipe: str, overrides: tuple[str, ...], out: str | None, resume: bool, procs: int, strict: bool, as_json: bool
) -> int:
    """Train RECIPE, with options set by key=value.

    Your own clips, one folder per class: tag-run train video/tsn data.train.source=FOLDER
    """
    start(recipe, overrides, procs)
    from tag_core import api

    trained = api.train(recipe, overrides, out=out, resume=resume, strict=strict)
    best = trained.best or trained.folder / "checkpoints" / "last.pt"
    epochs = trained.scores.get("epoch", -1) + 1
    table = {**trained.scores, "epoch": epochs, "weights": best, "report": trained.folder / "report.html"}
    result = {"folder": str(trained.folder), "scores": trained.scores}
    return finish(trained.coverage, json.dumps(finite(result)) if as_json else values(table))


@click.command("eval")
@recipe_argument
@overrides_argument
@out_option
@procs_option
@strict_option
@json_option
def evaluate(recipe: str, overrides: tuple[str, ...], out: str | None, procs: int, strict: bool, as_json: bool) -> int:
    """Score weights on test data: RECIPE weights=FILE data.test.source=FOLDER, or the folder of a run."""
    start(recipe, overrides, procs)
    from tag_core import api

    done = api.evaluate(recipe, overrides, out=out, strict=strict)
    result = {"scores": done.scores, "tables": done.tables}
    return finish(done.coverage, json.dumps(finite(result)) if as_json else values(done.scores))


@click.command()
@recipe_argument
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]... INPUT...")
@click.option("--out", type=click.Path(), help="Write predictions.jsonl into this folder; resumable.")
@click.option("--visualize", is_flag=True, help="Also draw the results onto pictures, into --out.")
@click.option("--crops", type=click.Path(), help="Also cut out what boxes hold, as pictures into this folder.")
@click.option("--min-score", type=float, default=MIN_SCORE, help="Of boxes to draw or cut out.", show_default=True)
@procs_option
@strict_option
def predict(
    recipe: str,
    arguments: tuple[str, ...],
    out: str | None,
    visualize: bool,
    crops: str | None,
    min_score: float,
    procs: int,
    strict: bool,
) -> int:
    """Predict on INPUTs: files, folders and patterns; one JSON record a line.

    Without --out, records go to standard output as they come. With --out, a killed run goes on where
    it was when the same command is given again.
    """
    overrides = [argument for argument in arguments if is_override(argument)]
    inputs = [argument for argument in arguments if not is_override(argument)]
    if not inputs:
        raise click.UsageError("name at least one INPUT: a file, a folder or a pattern")
    if out is None and (visualize or procs > 1):
        raise click.UsageError("--visualize and --procs write files: choose a folder with --out")
    start(recipe, overrides, procs)
    from tag_core import api
    from tag_core.engine.predict import coverage_of

    cut: Any = {"strict": strict, "crops": crops, "min_score": min_score}
    if out:
        coverage = api.predict_to_folder(recipe, inputs, overrides, out=out, visualize=visualize, **cut)
        return finish(coverage, str(Path(out) / "predictions.jsonl"))
    return finish(coverage_of(_printed(api.predict(recipe, inputs, overrides, **cut))))


def start(recipe: str, overrides: Sequence[str], procs: int = 1) -> None:
    """Tell a wrong name or key before torch is imported; leave the work to processes where there are several."""
    read_tree(recipe, overrides)
    if procs > 1 and "RANK" not in os.environ:
        from tag_core.engine.launch import launch

        raise click.exceptions.Exit(launch(procs))
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tag").setLevel(logging.INFO if _is_main() else logging.WARNING)


def finish(coverage: Coverage, result: str = "") -> int:
    """In the first process, print the outcome; returns the exit code."""
    if not _is_main():
        return 0
    click.echo(str(coverage), err=True)
    if result:
        click.echo(result)
    return 3 if coverage.unreadable else 0


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def is_override(argument: str) -> bool:
    """Whether it is ``key=value``; the name of a file may hold '=' too."""
    key, equals, _ = argument.partition("=")
    return bool(equals and KEY.fullmatch(key)) and not os.path.lexists(argument)


def _printed(records: Iterator[Record]) -> Iterator[Record]:
    """The records, each printed as it passes."""
    data = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a component prints is not data
        for record in records:
            click.echo(record.to_json().encode(), file=data)
            yield record
