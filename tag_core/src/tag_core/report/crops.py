"""``tag-run predict --crops``: what boxes hold, as pictures of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from PIL import Image

from tag_core.errors import RunFolderError, UnreadableInput
from tag_core.files import atomic
from tag_core.media.image import read_image
from tag_core.media.video import Video, open_video
from tag_core.records import Record
from tag_core.report.pictures import file_stem

CHUNK = 16  # frames of a video in memory at once
Cut = Callable[[np.ndarray, Record], Sequence[np.ndarray]]

log = logging.getLogger("tag")


def rectangles(image: np.ndarray, record: Record) -> list[np.ndarray]:
    """The part of [H, W, 3] in each box of the record; without pixels where a box lies outside."""
    corners = np.asarray(record.boxes, np.float64).reshape(-1, 4).round().astype(int).clip(0)
    return [image[y1:y2, x1:x2] for x1, y1, x2, y2 in corners]


def with_crops(records: Iterable[Record], folder: Path, cut: Cut, min_score: float) -> Iterator[Record]:
    """Pass records on, and write what their boxes hold into ``folder``, where they score enough.

    A crop is named after the number of its record, the source, and its place among the record's crops. Their list
    is ``crops.jsonl``: a record for each, whose ``extra`` says what source, frame, time, box and score it is from.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: crops cannot be written: {error.strerror}; choose another --crops") from error
    with atomic(folder / "crops.jsonl") as listing:
        for source, group in groupby(enumerate(records, 1), key=lambda numbered: numbered[1].source):
            with contextlib.ExitStack() as opened:
                read = _Reader(source, opened)
                while chunk := list(islice(group, CHUNK)):
                    found = {number: record.confident(min_score) for number, record in chunk}
                    found = {number: record for number, record in found.items() if record.boxes}
                    try:
                        for (number, record), image in zip(found.items(), read(list(found.values())), strict=True):
                            for crop in _write(
                                folder / f"{number:06d}-{file_stem(source)}", record, cut(image, record)
                            ):
                                listing.write(f"{crop.to_json()}\n")
                    except UnreadableInput as error:  # it has moved, or is another video now
                        log.warning("no crops of %s", error)
                    yield from (record for _, record in chunk)


class _Reader:
    """The pictures [H, W, 3] that records of one source are about."""

    def __init__(self, source: str, opened: contextlib.ExitStack) -> None:
        self.source, self.opened = source, opened
        self.video: Video | None = None

    def __call__(self, records: Sequence[Record]) -> Iterable[np.ndarray]:
        frames = [record.frame for record in records if record.frame is not None]
        if not frames:
            return (read_image(record.source) for record in records)
        if self.video is None:
            self.video = self.opened.enter_context(open_video(self.source))
        if max(frames) >= self.video.num_frames:
            raise UnreadableInput(self.source, f"it has only {self.video.num_frames} frames")
        return self.video.frames(frames)


def _write(path: Path, record: Record, crops: Sequence[np.ndarray]) -> Iterator[Record]:
    """Each crop as a PNG, and the record of it."""
    for place, (crop, box) in enumerate(zip(crops, record.boxes or (), strict=True)):
        if crop.size:
            file = path.with_name(f"{path.name}-{place}.png")
            with atomic(file, "wb") as out:
                Image.fromarray(np.ascontiguousarray(crop)).save(out, "PNG")
            known = {"of": record.source, "frame": record.frame, "time": record.time, "box": box}
            lists = {"label": record.labels, "score": record.scores, "track": record.track}
            known |= {name: values[place] for name, values in lists.items() if values}
            yield Record(source=str(file), extra={name: value for name, value in known.items() if value is not None})
