"""``tag-run predict --visualize``: every prediction as an annotated picture or video."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, groupby, islice
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.files import atomic
from tag_core.media.video import open_video
from tag_core.records import Record, read_records
from tag_core.report.frames import CHUNK, is_video, video_frames
from tag_core.report.pictures import annotate, captioned, look

CLOCK = Fraction(1, 90_000)


def draw_records(folder: Path) -> int:
    """Draw ``predictions.jsonl`` into ``pictures/``: files named after the line there and the source.

    A clip becomes a contact sheet with its best labels, an image itself with its boxes, a video with
    records of several frames an mp4 of these frames at their own times. An unreadable input becomes
    a card that says why.

    Returns:
        Number of files written.
    """
    path, drawn = folder / "predictions.jsonl", 0
    if not path.is_file():
        return 0
    (folder / "pictures").mkdir(exist_ok=True)
    for source, group in groupby(enumerate(read_records(path), 1), key=lambda item: item[1].source):
        items = iter(group)
        start = list(islice(items, 2))
        stem = re.sub(r"[^\w.-]", "_", Path(source).stem)[:60]
        if len(start) == 2 and start[0][1].frame is not None and is_video(source):
            target = folder / "pictures" / f"{start[0][0]:05d}-{stem}.mp4"
            _draw_video(target, source, (record for _, record in chain(start, items)))
            drawn += 1
        else:
            for number, record in chain(start, items):
                _draw_picture(folder / "pictures" / f"{number:05d}-{stem}.jpg", record)
                drawn += 1
    return drawn


def _draw_picture(path: Path, record: Record, trouble: str | None = None) -> None:
    image: Image.Image | None = None
    try:
        image = None if record.error or trouble else look(record)
    except UnreadableInput as error:
        trouble = error.reason
    with atomic(path, "wb") as file:
        captioned(image, record, trouble).save(file, "JPEG", quality=88)


def _draw_video(path: Path, source: str, records: Iterable[Record]) -> None:
    """The frames that have records, each shown from its own time on; a chunk of them in memory at once."""
    try:
        with open_video(source) as video, atomic(path, "wb") as file, av.open(file, "w", format="mp4") as out:
            stream: VideoStream | None = None
            frames = _by_frame(records, video.num_frames)
            while chunk := list(islice(frames, CHUNK)):
                wanted = [index for index, _ in chunk]
                shown = zip(video_frames(video, wanted), chunk, video.times(wanted), strict=True)
                for (image, scale), (_, found), seconds in shown:
                    annotate(image, found, scale)
                    stream = stream or _stream(out, image, video.fps)
                    picture = np.asarray(image.crop((0, 0, stream.width, stream.height)))
                    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                    frame.pts, frame.time_base = round(seconds / CLOCK), CLOCK
                    out.mux(stream.encode(frame))
            if stream is None:
                raise UnreadableInput(source, f"none of the recorded frames is among its {video.num_frames}")
            out.mux(stream.encode())
    except UnreadableInput as error:
        _draw_picture(path.with_suffix(".jpg"), Record(source=source), error.reason)


def _by_frame(records: Iterable[Record], num_frames: int) -> Iterator[tuple[int, list[Record]]]:
    """Ascending frame numbers with their records; what the video does not have is left out."""
    last = -1
    for index, found in groupby(records, key=lambda record: record.frame):
        if index is not None and last < index < num_frames:
            last = index
            yield index, list(found)


def _stream(out: av.container.OutputContainer, image: Image.Image, fps: float) -> VideoStream:
    """H.264 with even sides, as its 4:2:0 pictures need."""
    rate, options = Fraction(fps or 25).limit_denominator(1001), {"crf": "20", "preset": "veryfast"}
    stream = out.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = image.width + image.width % 2, image.height + image.height % 2
    stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", CLOCK, CLOCK
    return stream
