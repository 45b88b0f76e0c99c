"""The plugin's sub-commands of ``tag-run``."""

from __future__ import annotations

import click


@click.command("motion-data")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--train", default=2000, show_default=True, help="Clips to train on.")
@click.option("--val", default=400, show_default=True, help="Clips to validate on.")
@click.option("--test", default=400, show_default=True, help="Clips held out until the end.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives other clips.")
def motion_data(folder: str, train: int, val: int, test: int, seed: int) -> None:
    """Make the moving-digits data set in FOLDER.

    Handwritten digits move in one of eight directions, the class. FOLDER/train, FOLDER/val and
    FOLDER/test get a folder of mp4 files per direction; no digit picture is in two of them.
    """
    from tqdm import tqdm

    from tag_plugins_video.motion import make_motion_data

    counts = {"train": train, "val": val, "test": test}
    clips = make_motion_data(folder, counts, seed)
    written = sum(1 for _ in tqdm(clips, total=sum(counts.values()), unit="clip", disable=None))
    click.echo(f"{folder}: {written} clips written" if written else f"{folder}: already complete", err=True)
