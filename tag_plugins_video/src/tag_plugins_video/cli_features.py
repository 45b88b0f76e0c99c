"""``tag-run features``: features of videos along time into a store."""

from __future__ import annotations

from typing import Any

import click

from tag_core.cli.run import finish, is_override, start


@click.command("features")
@click.argument("recipe")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]... INPUT... OUT")
@click.option("--every", type=float, help="Seconds from one position to the next; 1 by default.")
@click.option("--step", type=int, help="Frames from one position to the next, in the place of --every.")
@click.option("--clip-len", type=int, help="Frames per position, 1 for frame features; the recipe's by default.")
@click.option("--frame-interval", type=int, help="From frame to frame of a position; the recipe's by default.")
@click.option("--dtype", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
@click.option("--modality", default="frames", show_default=True, help="What models are to call these features.")
def features(recipe: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Append features of INPUTs (videos, folders, patterns) to the store OUT, by RECIPE's backbone.

    RECIPE is a run folder, or a recipe with weights=FILE, or with weights=fresh: untrained, or from
    ImageNet where the recipe says so. Sub-folders of an INPUT are the labels of what is in them.

    The same command goes on where it was stopped. Videos that cannot be read are listed in
    OUT/unreadable.jsonl. Train on OUT with the data set video/features.
    """
    overrides = [argument for argument in arguments if is_override(argument)]
    *inputs, out = [argument for argument in arguments if not is_override(argument)] or [""]
    if not inputs:
        raise click.UsageError("name at least one INPUT (a video, a folder or a pattern), and then OUT, a folder")
    if options["every"] is not None and options["step"] is not None:
        raise click.UsageError("give either --every or --step")
    start(recipe, overrides)
    from tag_plugins_video.features import extract_features

    return finish(extract_features(recipe, inputs, out, overrides, **options), out)
