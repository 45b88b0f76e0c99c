"""``tag-run flow``: optical flow of many videos, in parallel, resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

from tag_core.errors import UnreadableInput, UserError
from tag_core.files import write_json, write_text


@dataclass(frozen=True)
class Done:
    """What became of one video: the number of flow pictures, or why there are none."""

    source: str
    count: int
    reason: str | None = None


@click.command("flow")
@click.argument("inputs", nargs=-1, required=True)
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--method", type=click.Choice(["farneback", "tvl1"]), default="farneback", show_default=True)
@click.option("--bound", default=20.0, show_default=True, help="Pixels per frame at which flow is clipped.")
@click.option("--short-side", default=256, show_default=True, help="Of the frames, in pixels; 0 keeps their size.")
@click.option("--workers", default=os.cpu_count() or 1, show_default=True, help="Videos at a time.")
def flow(inputs: tuple[str, ...], folder: str, method: Any, bound: float, short_side: int, workers: int) -> None:
    """Make optical flow of INPUTS (videos, folders, patterns) in FOLDER.

    Folders keep their sub-folders, so class folders stay class folders: video/p3d-flow trains on FOLDER.
    Flow that is there already is kept, so the same command goes on where it was stopped. Videos that
    cannot be read are listed in FOLDER/unreadable.jsonl. TV-L1 needs opencv-contrib-python-headless.
    """
    from tqdm import tqdm

    from tag_plugins_video.flow import FlowSettings, estimator

    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    settings = FlowSettings(method, bound, short_side)
    estimator(settings.method)
    jobs = plan(inputs, Path(folder))
    _note(Path(folder), asdict(settings))
    todo = [(source, target) for source, target in jobs if not target.exists()]
    done = list(tqdm(make_all(todo, settings, workers), total=len(todo), unit="video", disable=None))
    bad = sorted((result for result in done if result.reason), key=lambda result: result.source)
    lines = [json.dumps({"source": result.source, "reason": result.reason}) + "\n" for result in bad]
    write_text(Path(folder) / "unreadable.jsonl", "".join(lines))
    made = len(done) - len(bad)
    click.echo(f"{folder}: {made} made, {len(jobs) - len(todo)} there already, {len(bad)} unreadable", err=True)
    if bad and len(bad) == len(jobs):
        raise UnreadableInput(bad[0].source, f"{bad[0].reason} (and so for every input)")


def plan(inputs: Sequence[str], folder: Path) -> list[tuple[str, Path]]:
    """Each video and its flow file; no video is opened.

    Raises:
        UserError: two videos would have the same file.
    """
    from tag_core.media.sources import VIDEO_SUFFIXES, expand_inputs
    from tag_plugins_video.flow_store import SUFFIX

    jobs: dict[Path, str] = {}
    for given in inputs:
        for source in expand_inputs([given], VIDEO_SUFFIXES):
            inside = os.path.relpath(source, given) if os.path.isdir(given) and source != given else ""
            target = folder / f"{inside or os.path.basename(os.path.normpath(source))}{SUFFIX}"
            if jobs.setdefault(target, source) != source:
                raise UserError(f"{jobs[target]} and {source} would both be {target}; give them folders of their own")
    return [(source, target) for target, source in jobs.items()]


def make_all(jobs: Sequence[tuple[str, Path]], settings: Any, workers: int) -> Iterator[Done]:
    """Results as they come.

    Raises:
        UserError: a worker process died.
    """
    if workers == 1 or len(jobs) < 2:
        yield from (make_one(source, target, settings) for source, target in jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"))
    try:
        for future in as_completed([pool.submit(make_one, source, target, settings) for source, target in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process died (out of memory?); start again to go on, with fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def make_one(source: str, target: Path, settings: Any) -> Done:
    from tag_plugins_video.flow import write_flow

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Done(source, write_flow(source, target, settings))
    except UnreadableInput as error:
        return Done(source, 0, error.reason)


def _note(folder: Path, settings: dict[str, Any]) -> None:
    """Flow of different settings does not mix in one folder."""
    note = folder / "flow.json"
    if note.exists():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != settings:
            raise UserError(f"{folder}: holds flow made with other settings ({found}); delete it or name another one")
        return
    if folder.is_dir() and os.listdir(folder):
        raise UserError(f"{folder}: holds something else; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, settings)
