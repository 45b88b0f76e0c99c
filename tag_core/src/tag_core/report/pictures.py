"""Drawing what a record says: contact sheets, boxes, captions."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tag_core.records import Record
from tag_core.report.charts import finite, percent
from tag_core.report.frames import clip_frames, one_frame

PALETTE = ("#ffb000", "#40b0ff", "#ff6e9c", "#3ddc84", "#c792ff", "#ff8a3d", "#35e0d8", "#f4f06a")
"""Light colours: black text is readable on them, and they stand out from most scenes."""
GROUND, TEXT, FAINT, BAR, GOOD, BAD, WARN = "#16181d", "#f2f3f5", "#a9afba", "#2f5f9e", "#5fd08a", "#ff8f80", "#ffc861"
FRAMES, CELL, GAP, LINE = 8, 128, 4, 26
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "PingFang.ttc", "DejaVuSans.ttf")
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
    return bool(record.labels) and record.labels[0] in (truth, *truth.split("; "))


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames of one size in one row, or two where they are wide."""
    width, height = max(f.width for f in frames), max(f.height for f in frames)
    columns = min(len(frames), FRAMES if height > width else FRAMES // 2)
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), GROUND)
    for i, frame in enumerate(frames):
        sheet.paste(frame, (i % columns * (width + GAP), i // columns * (height + GAP)))
    return sheet


def annotate(image: Image.Image, records: Sequence[Record], scale: float) -> None:
    """Draw boxes, keypoints, labels and scores onto a picture that is ``scale`` times the original."""
    draw, line = ImageDraw.Draw(image), max(2, min(image.size) // 200)
    for record in records:
        if record.boxes is None and record.keypoints is None:
            for row, (label, score) in enumerate(_best(record)):
                _tag(draw, 0, (row + 1) * LINE, f"{label} {percent(score)}", PALETTE[row])
        for i, points in enumerate(record.keypoints or []):
            for x, y in (point[:2] for point in points if all(map(finite, point[:2]))):
                draw.circle((x * scale, y * scale), 2 * line, _colour(record, i), "black")
        for i, box in enumerate(record.boxes or []):
            if all(map(finite, box)):
                x1, y1, x2, y2 = (min(max(value * scale, -line), max(image.size) + line) for value in box)
                draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), None, _colour(record, i), line)
                _tag(draw, min(x1, x2), min(y1, y2), _box_text(record, i), _colour(record, i))


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
        if share:
            draw.rectangle((8, y, 8 + share * (width - 16), y + LINE - 4), BAR)
        draw.text((14, y + 1), _cut(text, width - 28), colour, _font_for(text))
    return canvas


def _lines(record: Record, trouble: str | None) -> Iterator[tuple[str, str, float | None]]:
    """Text, its colour, and the length of the bar behind it as a share of the width."""
    yield _plain(Path(record.source).name), FAINT, None
    for label, score in _best(record) if record.boxes is None else ():
        yield f"{percent(score)}  {label}", TEXT, score
    if record.truth is not None:
        right = is_right(record)
        yield _plain(f"{'right' if right else 'wrong'}, truth: {record.truth}"), GOOD if right else BAD, None
    for what, why, colour in (
        ("cannot be read", record.error, BAD),
        ("damaged", record.damage, WARN),
        ("no picture", trouble, WARN),
    ):
        for line in textwrap.wrap(_plain(f"{what}: {why}"), 52)[:4] if why else ():
            yield line, colour, None


def _best(record: Record, count: int = 3) -> list[tuple[str, float]]:
    pairs = zip(record.labels or [], record.scores or [], strict=False)
    return [(_plain(label), score) for label, score in pairs][:count]


def _box_text(record: Record, i: int) -> str:
    track = f"#{record.track[i]}" if record.track else ""
    label = _plain(record.labels[i]) if record.labels else ""
    return " ".join(part for part in (track, label, percent(record.scores[i]) if record.scores else "") if part)


def _colour(record: Record, i: int) -> str:
    """The same for a track along time, else for a label, else for a place in the list."""
    if record.track:
        i = record.track[i]
    elif record.labels:
        i = zlib.crc32(record.labels[i].encode("utf-8", "replace"))
    return PALETTE[i % len(PALETTE)]


def _tag(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: str) -> None:
    """Black text on a coloured ground, its lower left corner at (x, y) or where it is inside the picture."""
    if not text:
        return
    font = _font_for(text)
    _, _, right, bottom = draw.textbbox((0, 0), text, font)
    x, y = max(0.0, min(x, draw.im.size[0] - right - 4)), max(bottom + 2.0, y)
    draw.rectangle((x, y - bottom - 2, x + right + 4, y), colour)
    draw.text((x + 2, y - bottom - 1), text, "black", font)


def _font_for(text: str) -> Font:
    """Pillow's own font; for what it cannot write, a wider one where this machine has one."""
    return _font(not text.isascii())


@cache
def _font(wide: bool, size: int = 17) -> Font:
    for name in _WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _plain(text: str) -> str:
    """One line that any font takes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _cut(text: str, width: float) -> str:
    font = _font_for(text)
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
