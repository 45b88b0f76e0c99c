"""Drawing what a record says: contact sheets, boxes, captions."""

from __future__ import annotations

import contextlib
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tag_core.records import Record
from tag_core.report.charts import finite, percent
from tag_core.report.frames import clip_frames, one_frame

PALETTE = ("#ffb000", "#40b0ff", "#ff6e9c", "#3ddc84", "#c792ff", "#ff8a3d", "#35e0d8", "#f4f06a")  # for black text
GROUND, GAPS, TEXT, FAINT, BAR = "#16181d", "#4a505c", "#f2f3f5", "#a9afba", "#2f5f9e"
GOOD, BAD, WARN = "#5fd08a", "#ff8f80", "#ffc861"
FRAMES, CELL, GAP, LINE = 8, 128, 4, 26
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "PingFang.ttc", "DejaVuSans.ttf")


def look(record: Record) -> Image.Image:
    """What there is to see: the annotated frame or picture, or a contact sheet of the clip.

    Raises:
        UnreadableInput: the source has moved, or cannot be read.
    """
    if record.frame is None and record.boxes is None and record.keypoints is None:
        return contact_sheet(clip_frames(record.source, FRAMES, CELL))
    image, scale = one_frame(record.source, record.frame or 0)
    annotate(image, [record], scale)
    return image


def is_right(record: Record) -> bool:
    """Whether the best label is the true one, or one of them."""
    truth = str(record.truth)
    return any(label in (truth, *truth.split("; ")) for label in (record.labels or [])[:1])


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames in one row, or two where they are wide."""
    width, height = max(f.width for f in frames), max(f.height for f in frames)
    columns = min(len(frames), FRAMES if height > width else FRAMES // 2)
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), GAPS)
    for i, frame in enumerate(frames):
        sheet.paste(frame, (i % columns * (width + GAP), i // columns * (height + GAP)))
    return sheet


def annotate(image: Image.Image, records: Sequence[Record], scale: float) -> None:
    """Draw boxes, keypoints, labels and scores onto a picture that is ``scale`` times the original."""
    draw, line = ImageDraw.Draw(image), max(2, min(image.size) // 150)
    for record in records:
        for i, points in enumerate(record.keypoints or []):
            for x, y in (point[:2] for point in points if all(map(finite, point[:2]))):
                draw.circle((x * scale, y * scale), 2 * line, _colour(record, i), "black")
        for i, box in enumerate(record.boxes or []):
            if all(map(finite, box)):
                x1, y1, x2, y2 = (min(max(value * scale, -line), max(image.size) + line) for value in box)
                corner = min(x1, x2), min(y1, y2)
                draw.rectangle((corner, (max(x1, x2), max(y1, y2))), None, _colour(record, i), line)
                _tag(draw, corner, image.width, _box_text(record, i), _colour(record, i))
        for row, (label, score) in enumerate(_best(record)):
            _tag(draw, (0, (row + 1) * LINE), image.width, f"{label} {percent(score)}", PALETTE[row])


def captioned(image: Image.Image | None, record: Record, trouble: str | None = None) -> Image.Image:
    """The picture, if there is one, above what the record says and what kept it from being drawn."""
    lines = list(_lines(record, trouble))
    above, width = (image.height if image else 0), max(image.width if image else 0, 480)
    canvas = Image.new("RGB", (width, above + 16 + LINE * len(lines)), GROUND)
    if image:
        canvas.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (text, colour, share) in enumerate(lines):
        y = above + 8 + LINE * row
        draw.rectangle((8, y, 8 + share * (width - 16), y + LINE - 4), BAR if share else GROUND)
        draw.text((14, y + 1), _cut(text, width - 28), colour, _font(text.isascii()))
    return canvas


def _lines(record: Record, trouble: str | None) -> Iterator[tuple[str, str, float]]:
    """Text, its colour, and the length of the bar behind it as a share of the width."""
    yield _plain(Path(record.source).name), FAINT, 0
    for label, score in _best(record):
        yield f"{percent(score)}  {label}", TEXT, score if finite(score) else 0
    if record.truth is not None:
        right, colour = ("right", GOOD) if is_right(record) else ("wrong", BAD)
        yield _plain(f"{right}, truth: {record.truth}"), colour, 0
    for what, why in (("cannot be read", record.error), ("damaged", record.damage), ("no picture", trouble)):
        for text in textwrap.wrap(_plain(f"{what}: {why}"), 52)[:4] if why else ():
            yield text, WARN, 0


def _best(record: Record) -> list[tuple[str, float]]:
    """The three best labels of the whole picture; none where labels belong to boxes."""
    pairs = zip(record.labels or [], record.scores or [], strict=False)
    return [(_plain(label), score) for label, score in pairs][:3] if record.boxes is None else []


def _box_text(record: Record, i: int) -> str:
    track = f"#{record.track[i]}" if record.track else ""
    label = _plain(record.labels[i]) if record.labels else ""
    return f"{track} {label} {percent(record.scores[i]) if record.scores else ''}".strip()


def _colour(record: Record, i: int) -> str:
    """The same for a track along time, else for a label, else for a place in the list."""
    named = record.boxes is not None and record.labels is not None
    code = zlib.crc32(record.labels[i].encode("utf-8", "replace")) if named and record.labels else i
    return PALETTE[(record.track[i] if record.track else code) % len(PALETTE)]


def _tag(draw: ImageDraw.ImageDraw, corner: tuple[float, float], width: int, text: str, colour: str) -> None:
    """Black text on a coloured ground, its lower left corner here or where it is inside the picture."""
    font = _font(text.isascii())
    long = font.getlength(text) + 4
    x, y = max(0.0, min(corner[0], width - long)), max(LINE - 4.0, corner[1])
    if text:
        draw.rectangle((x, y - LINE + 4, x + long, y), colour)
        draw.text((x + 2, y), text, "black", font, "ld")


@cache
def _font(is_ascii: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font; for what it cannot write, a wider one where this machine has one."""
    for name in () if is_ascii else _WIDE_FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, 17)
    return ImageFont.load_default(17)


def _plain(text: str) -> str:
    """One line that any font takes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _cut(text: str, width: float) -> str:
    font = _font(text.isascii())
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
