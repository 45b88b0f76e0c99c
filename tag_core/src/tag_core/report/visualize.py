"""``tag-run predict --visualize``: every prediction as an annotated picture or video."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.files import atomic
from tag_core.media.video import Video, open_video
from tag_core.records import MIN_SCORE, Record, read_records
from tag_core.report.pictures import annotated, captioned, file_stem, look

CHUNK, CLOCK = 16, Fraction(1, 90_000)  # frames in memory at once, seconds

log = logging.getLogger("tag")


def draw_records(folder: Path, min_score: float = MIN_SCORE) -> None:
    """Draw ``predictions.jsonl`` into ``pictures/``: files named after the line there and the source.

    A clip becomes a contact sheet with its best labels, a picture itself with its boxes, a video with records of
    several frames an mp4 of these frames at their own times. What cannot be read is left out, and so are boxes
    that score less than ``min_score``.
    """
    (folder / "pictures").mkdir(exist_ok=True)
    numbered = enumerate(read_records(folder / "predictions.jsonl"), 1)
    for source, group in groupby(numbered, key=lambda item: item[1].source):
        records = {number: record.confident(min_score) for number, record in group if record.error is None}
        frames = {record.frame for record in records.values()}
        stem = file_stem(source)
        try:
            if len(frames) > 1 and None not in frames:
                path = folder / "pictures" / f"{min(records):05d}-{stem}.mp4"
                _draw_video(path, source, records.values())
                continue
            for number, record in records.items():
                picture = captioned(look(record), record)
                with atomic(folder / "pictures" / f"{number:05d}-{stem}.jpg", "wb") as file:
                    picture.save(file, "JPEG", quality=88)
        except UnreadableInput as error:  # it has moved, or is another video now
            log.warning("no picture of %s", error)


def _draw_video(path: Path, source: str, records: Iterable[Record]) -> None:
    with open_video(source) as video, atomic(path, "wb") as file, av.open(file, "w", format="mp4") as out:
        rate = Fraction(video.fps or 25).limit_denominator(1001)
        stream = out.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", CLOCK, CLOCK
        stream.width = 0
        for seconds, image in _frames(video, records):
            if not stream.width:  # even sides, as 4:2:0 pictures need
                stream.width, stream.height = image.width + image.width % 2, image.height + image.height % 2
            frame = av.VideoFrame.from_ndarray(np.asarray(image.crop((0, 0, stream.width, stream.height))), "rgb24")
            frame.pts, frame.time_base = round(seconds / CLOCK), CLOCK
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def _frames(video: Video, records: Iterable[Record]) -> Iterator[tuple[float, Image.Image]]:
    """The frames that have records, annotated, each with its time in seconds."""
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.frame or 0, []).append(record)
    indices = [index for index in sorted(found) if index < video.num_frames]
    if not indices:
        raise UnreadableInput(video.path, f"it has only {video.num_frames} frames")
    for start in range(0, len(indices), CHUNK):
        chunk = indices[start : start + CHUNK]
        for index, seconds, frame in zip(chunk, video.times(chunk), video.frames(chunk), strict=True):
            yield float(seconds), annotated(Image.fromarray(frame), found[index])
