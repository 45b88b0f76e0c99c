"""The plugin's sub-commands: ``tag-run face ...``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tag_core.cli.tables import json_option, values


@click.group("face")
def face() -> None:
    """Tools for face detectors."""


@face.command("wider")
@click.argument("predictions", type=click.Path(path_type=Path), metavar="PREDICTIONS_FOLDER")
@click.argument("ground_truth", type=click.Path(path_type=Path), metavar="GROUND_TRUTH_FOLDER")
@json_option
def wider(predictions: Path, ground_truth: Path, as_json: bool) -> None:
    """Average precision of result files on WIDER FACE: easy, medium, hard.

    PREDICTIONS_FOLDER holds <event>/<picture>.txt, as the sink face/wider-text writes them; GROUND_TRUTH_FOLDER the
    four wider_*_val.mat of WIDER FACE's eval_tools.
    """
    from tag_core.records import finite
    from tag_plugins_face.wider import evaluate, read_ground_truth
    from tag_plugins_face.wider_text import read_folder

    truth = read_ground_truth(ground_truth)
    found = read_folder(predictions)
    scores = evaluate(found, truth)
    if extra := sorted(found.keys() - truth.keys()):
        click.echo(f"not in the ground truth, left out: {len(extra)}, the first is {extra[0]}.txt", err=True)
    click.echo(json.dumps(finite(scores)) if as_json else values(scores))
