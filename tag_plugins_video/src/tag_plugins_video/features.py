"""Features of videos along time, from any recipe's backbone into a feature store."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from tag_core.api import RecipeLike, resolve_with_weights, started
from tag_core.config import Recipe
from tag_core.engine.data import Coverage, Item, Loaded
from tag_core.engine.distributed import Distribution
from tag_core.engine.pool import WorkerPool
from tag_core.engine.predict import fingerprint
from tag_core.engine.progress import Progress
from tag_core.engine.run import log
from tag_core.engine.session import channels_last, predict_batches, task_with_weights
from tag_core.errors import ConfigError, UnreadableInput, UserError, WeightsError
from tag_core.media.sources import VIDEO_SUFFIXES, expand_inputs
from tag_plugins_video.datasets.base import ClipDataset
from tag_plugins_video.feature_clips import ClipReader, Positions
from tag_plugins_video.feature_stream import FeatureStream, VideoFeatures
from tag_plugins_video.feature_writer import FeatureWriter
from tag_plugins_video.models.sequences import check_sizes

T = TypeVar("T")
R = TypeVar("R")
FRESH = "fresh"
MODELS = 2  # batches at a time, on a CPU
FRAMES, FULL_SIZE_FRAMES, MOST_POSITIONS = 256, 64, 64  # that a worker reads at a time


def extract_features(
    recipe: RecipeLike,
    inputs: Sequence[str],
    folder: str | Path,
    overrides: Sequence[str] = (),
    *,
    every: float | None = None,
    step: int | None = None,
    clip_len: int | None = None,
    frame_interval: int | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    modality: str = "frames",
) -> Coverage:
    """Append the features of videos to a store, going on where a killed run left off.

    The frames of each position are prepared as the recipe's ``data.test`` says, and its features are the
    ``embedding`` that the recipe's task predicts from them: the mean over crops, if it makes several.

    Args:
        recipe: a name, a TOML file, a run folder, or the tables; with weights, or ``weights=fresh``.
        inputs: videos, folders and patterns. In a folder, a sub-folder is the label of what is in it.
        every: seconds from one position to the next; 1 where neither it nor ``step`` is given.
        step: frames from one position to the next.
        clip_len: frames per position; default: as many as the recipe tests on.
        frame_interval: from frame to frame; default: the recipe's.
        modality: what models and data sets call these features.

    Returns:
        How many of the inputs could be read, the resumed part included.

    Raises:
        ConfigError, WeightsError: of the recipe.
        RunFolderError: the folder holds something else, or cannot be written.
        UnreadableInput: not one of the inputs can be read.
        UserError: options that make no sense, or features that ``dtype`` cannot hold.
    """
    resolved = resolve_with_weights(recipe, overrides)
    labels = label_inputs(inputs)
    videos = _videos(resolved)
    try:
        check_sizes({modality: 1})
        positions = _positions(videos, every, step, clip_len, frame_interval)
    except ValueError as error:
        raise UserError(f"features: {error}") from None
    with started(resolved) as distribution:
        task = _task(resolved, distribution)
        settings = asdict(positions) | {"dtype": dtype, "modality": modality}
        log.info("features of %s", ", ".join(f"{k} {v}" for k, v in settings.items() if v is not None))
        settings["fingerprint"] = fingerprint(resolved, task, resolved.eval.precision)
        told = {"recipe": resolved.name, "weights": resolved.weights}
        with FeatureWriter(Path(folder), settings, told) as writer:
            todo = [path for path in labels if path not in writer.done and path not in writer.unreadable]
            found = contextlib.closing(_features(resolved, task, videos, positions, todo, distribution))
            with found as features, Progress("features", len(labels), len(labels) - len(todo)) as bar:
                for path, video in features:
                    if video.error is None:
                        writer.add(path, np.stack(video.rows), labels[path], video.damage)
                    else:
                        writer.refuse(path, video.error)
                    bar.advance(1)
            coverage = _coverage(labels, writer)
            if not writer.done:
                source, reason = next(iter(writer.unreadable.items()))
                raise UnreadableInput(source, f"{reason} (and so for every input)")
            writer.finish()
    return coverage


def label_inputs(inputs: Iterable[str]) -> dict[str, str | None]:
    """Each video that the inputs stand for, with the name of the folder it is in, below the input."""
    found: dict[str, str | None] = {}
    for given in inputs:
        for path in expand_inputs([given], VIDEO_SUFFIXES):
            inside = Path(os.path.relpath(path, given)).parts if os.path.isdir(given) else ()
            found.setdefault(path, inside[0] if len(inside) > 1 else None)
    return found


def _videos(recipe: Recipe) -> ClipDataset:
    """The recipe's test data, without any videos: it prepares frames."""
    spec = recipe.data.get("test")
    options: dict[str, Any] = {"source": [], "labelled": False, "num_clips": 1}
    if spec is not None and all(spec.takes(name) for name in options):
        dataset = spec.with_options(**options).build()
        if isinstance(dataset, ClipDataset) and type(dataset).read is ClipDataset.read:
            return dataset
    problem = "data.test: features are made of video files; take video/folder, video/list or video/table"
    raise ConfigError(recipe.name, [problem])


def _positions(
    videos: ClipDataset, every: float | None, step: int | None, clip_len: int | None, frame_interval: int | None
) -> Positions:
    """As told, else one a second, of a clip like those of the recipe's test data."""
    sampler = videos.sampler
    own_len = sampler.clip_len * (1 if sampler.name == "dense" else sampler.num_segments)
    return Positions(
        1.0 if every is None and step is None else every,
        step,
        own_len if clip_len is None else clip_len,
        sampler.frame_interval if frame_interval is None else frame_interval,
    )


def _task(recipe: Recipe, distribution: Distribution) -> nn.Module:
    """The task in evaluation mode; with ``weights=fresh`` as a training would start."""
    if not recipe.weights:
        hint = f"add weights=FILE, or weights={FRESH} for those that a training would start from"
        raise WeightsError(f"{recipe.name}: no weights; {hint}")
    if recipe.weights != FRESH:
        return task_with_weights(recipe, distribution)[0]
    torch.manual_seed(recipe.train.seed)
    task: nn.Module = recipe.task.build(classes=["0"])
    if initialize := getattr(getattr(task, "backbone", None), "initialize", None):
        initialize()
    log.info("weights %s: as a training with train.seed=%d would start, untrained", FRESH, recipe.train.seed)
    task.to(distribution.device).eval()
    channels_last(task, recipe.eval.channels_last, distribution.device)
    return task


def _features(
    recipe: Recipe,
    task: nn.Module,
    videos: ClipDataset,
    positions: Positions,
    paths: Sequence[str],
    distribution: Distribution,
) -> Generator[tuple[str, VideoFeatures], None, None]:
    """Each video with its rows, in order."""
    options, frames = recipe.eval, FRAMES if videos.short_side else FULL_SIZE_FRAMES
    room = max(1, min(MOST_POSITIONS, frames // positions.clip_len))
    ahead = 2 * options.workers + -(-2 * options.batch_size // room)

    def embed(loaded: Loaded) -> list[tuple[list[int], np.ndarray]]:
        once: Any = _Once(loaded)
        reads = list(predict_batches(task, once, (), distribution, options.precision))
        if any("embedding" not in read.outputs for read in reads):
            raise UserError(f"{recipe.task.entry.name} predicts no embedding; take a task that does")
        return [(read.indices, read.outputs["embedding"].float().cpu().numpy()) for read in reads]

    reader = ClipReader(videos, positions, room)
    with WorkerPool(reader, options.workers, timeout=options.timeout) as pool:
        stream = FeatureStream(pool, paths, room, options.batch_size, ahead)
        for rows in _at_once(embed, stream.batches(), MODELS if distribution.device.type == "cpu" else 1):
            for numbers, values in rows:
                stream.add(numbers, values)
            yield from stream.finished()
        yield from stream.finished()


def _at_once(function: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """The function of each item in order, ``count`` at a time.

    Batches of their own keep all cores busy whatever share of the work is reading; threads within a batch
    would wait for the one whose core is reading.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count) as threads:
        for item in items:
            running.append(threads.submit(function, item))
            if len(running) > count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


@dataclass(frozen=True)
class _Once:
    """A batch that is read already, in the place of a Loader."""

    loaded: Loaded

    def read(self, plan: Iterable[Sequence[Item]]) -> Iterator[Loaded]:
        yield self.loaded


def _coverage(labels: Iterable[str], writer: FeatureWriter) -> Coverage:
    coverage = Coverage()
    for path in labels:
        coverage.total += 1
        if path in writer.unreadable:
            coverage.unreadable[path] = writer.unreadable[path]
        elif damage := writer.done[path]:
            coverage.damaged[path] = damage
    return coverage
