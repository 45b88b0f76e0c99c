"""Small pictures of what entries and queries are about, as data addresses for a page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tag_core.errors import UnreadableInput
from tag_core.media.sources import IMAGE_SUFFIXES, file_of
from tag_core.media.video import open_video
from tag_core.report.frames import read_frames

SIDE, GAP, MARGIN, COLOUR = 176, 2, 0.15, "#ffb000"


def thumbnail(about: Mapping[str, Any], folders: Sequence[str] = ("",)) -> str:
    """A JPEG as a data address: a picture, or frames of a video; cut around a box, which is drawn.

    Args:
        about: ``source``, and where known ``frame``, ``time`` (seconds, or [start, end]) and ``box``.
        folders: where a relative source is looked for, in this order; "" is the current one.

    Raises:
        UnreadableInput: with the whole path: the source has moved, or cannot be read.
    """
    source, time, box = str(about["source"]), about.get("time"), about.get("box")
    paths = [os.path.abspath(os.path.join(folder, name)) for folder in folders for name in (source, file_of(source))]
    path = next(filter(os.path.lexists, paths), paths[0])
    span = tuple(time) if isinstance(time, (list, tuple)) else time
    try:
        return _drawn(path, about.get("frame"), span, tuple(box) if box else None)
    except UnreadableInput as error:
        raise UnreadableInput(path, error.reason) from error


@lru_cache(4096)
def _drawn(source: str, frame: int | None, time: Any, box: tuple[float, ...] | None) -> str:
    frames = _frames(source, frame, time)
    cells = [_cut(cell, box) if box else cell for cell in frames]
    side = SIDE if len(cells) == 1 else (SIDE - GAP) // 2
    for cell in cells:
        cell.thumbnail((side, side))
    if len(cells) == 1:
        sheet = cells[0]
    else:
        width, height = cells[0].width + GAP, cells[0].height + GAP
        rows = -(-len(cells) // 2)
        sheet = Image.new("RGB", (2 * width - GAP, rows * height - GAP), "#4a505c")
        for number, cell in enumerate(cells):
            sheet.paste(cell, (number % 2 * width, number // 2 * height))
    jpeg = io.BytesIO()
    sheet.save(jpeg, "JPEG", quality=82, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"


def _frames(source: str, frame: int | None, time: Any) -> list[Image.Image]:
    """One picture, or four of a video or of the part of it that was looked at."""
    if frame is not None:
        return read_frames(source, lambda total: [frame])
    if Path(source).suffix.lower() in IMAGE_SUFFIXES or Path(source).is_dir():
        return read_frames(source, lambda total: sorted({total * i // 8 for i in (1, 3, 5, 7)}))
    with open_video(source) as video:
        rate, last = video.fps or 25, video.num_frames - 1
        start, end = time if isinstance(time, tuple) else (time, time) if time is not None else (0, last / rate)
        seconds = [start + (end - start) * share for share in (0, 1 / 3, 2 / 3, 1)]
        chosen = sorted({min(last, max(0, round(second * rate))) for second in seconds})
        return [Image.fromarray(picture) for picture in video.frames(chosen)]


def _cut(frame: Image.Image, box: tuple[float, ...]) -> Image.Image:
    """What is around the box, with the box drawn.

    Raises:
        UnreadableInput: it lies outside of the picture, which then is another one.
    """
    x1, y1, x2, y2 = box
    more = MARGIN * max(x2 - x1, y2 - y1)
    left, top = max(0, round(x1 - more)), max(0, round(y1 - more))
    right, bottom = min(frame.width, round(x2 + more)), min(frame.height, round(y2 + more))
    if right - left < 1 or bottom - top < 1:
        raise UnreadableInput("box", "outside of its picture, which is another one now")
    part = frame.crop((left, top, right, bottom))
    corners = (x1 - left, y1 - top, max(x1, x2 - 1) - left, max(y1, y2 - 1) - top)
    ImageDraw.Draw(part).rectangle(corners, outline=COLOUR, width=max(1, round(max(part.size) / SIDE * 2)))
    return part
