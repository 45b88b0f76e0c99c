"""Drawing what records say: contact sheets, boxes, captions."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tag_core.media.sampling import segments
from tag_core.records import Record
from tag_core.report.frames import read_frames

FRAMES, CELL, GAP, CANVAS, LINE = 8, 224, 4, 960, 26
PALETTE = ("#ffb000", "#40b0ff", "#ff6e9c", "#3ddc84", "#c792ff", "#ff8a3d", "#35e0d8", "#f4f06a")  # for black text
GROUND, GAPS, TEXT, BAR = "#16181d", "#4a505c", "#f2f3f5", "#2f5f9e"


def look(record: Record) -> Image.Image:
    """What there is to see: the frame or picture with its boxes, or a contact sheet of the clip.

    Raises:
        UnreadableInput: the source has moved, or cannot be read.
    """
    if record.frame is None and record.boxes is None:
        return _contact_sheet(read_frames(record.source, lambda total: segments(total, min(total, FRAMES))[0].tolist()))
    (frame,) = read_frames(record.source, lambda total: [record.frame or 0])
    return annotated(frame, [record])


def file_stem(source: str) -> str:
    """For the name of a file about this source."""
    return re.sub(r"[^\w.-]", "_", Path(source).stem)[:60]


def best_labels(record: Record) -> list[tuple[str, float]]:
    """The three best labels of the whole picture and their scores; none where labels belong to boxes."""
    return [] if record.boxes is not None else list(zip(record.labels or (), record.scores or (), strict=False))[:3]


def percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames in one row, or two where they are wide."""
    cells = [_resized(frame, CELL if len(frames) > 1 else 2 * CELL) for frame in frames]
    width, height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    columns = min(len(cells), FRAMES if height > width else FRAMES // 2)
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), GAPS)
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i % columns * (width + GAP), i // columns * (height + GAP)))
    return sheet


def annotated(frame: Image.Image, records: Iterable[Record]) -> Image.Image:
    """The frame at a size to draw upon, with boxes, tracks, labels, scores and keypoints."""
    canvas = _resized(frame, CANVAS)
    for record in records:
        _annotate(canvas, record, canvas.width / frame.width)
    return canvas


def _annotate(canvas: Image.Image, record: Record, scale: float) -> None:
    draw, font = ImageDraw.Draw(canvas), _font()
    for i, box in enumerate(record.boxes or ()):
        label = _plain(record.labels[i]) if record.labels else ""
        track = f"#{record.track[i]}" if record.track else ""
        text = " ".join(filter(None, (track, label, percent(record.scores[i]) if record.scores else "")))
        colour = PALETTE[zlib.crc32((track or label).encode()) % len(PALETTE)]
        x1, y1, x2, y2 = (value * scale for value in box)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=3 if x2 - x1 > 40 else 1)
        if not label and not track and x2 - x1 < font.getlength(text) / 2:
            continue  # a score alone is not worth what it would hide
        corner = max(0, min(x1, canvas.width - font.getlength(text))), max(LINE, y1)
        draw.rectangle(draw.textbbox(corner, text, font, "ld"), colour)
        draw.text(corner, text, "black", font, "ld")
    for points in record.keypoints or ():
        extent = max(max(axis) - min(axis) for axis in zip(*points, strict=True)) * scale if points else 0
        for x, y in points:
            draw.circle((x * scale, y * scale), min(5, max(1, extent / 10)), PALETTE[0], "black")


def captioned(image: Image.Image, record: Record) -> Image.Image:
    """The picture above its best labels, each before a bar as long as its score."""
    best = best_labels(record)
    canvas = Image.new("RGB", (max(image.width, 480), image.height + LINE * len(best)), GROUND)
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for row, (label, score) in enumerate(best):
        y = image.height + LINE * row
        draw.rectangle((0, y + 2, (score or 0) * canvas.width, y + LINE - 2), BAR)
        draw.text((8, y + LINE / 2), f"{percent(score)}  {_plain(label)}", TEXT, _font(), "lm")
    return canvas


def _resized(image: Image.Image, long_side: int) -> Image.Image:
    scale = long_side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One that writes most languages where this machine has it, else Pillow's own."""
    for name in ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "DejaVuSans.ttf"):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, 17)
    return ImageFont.load_default(17)


def _plain(text: str) -> str:
    """One line that any font takes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
