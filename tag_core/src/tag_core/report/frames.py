"""Frames of a source to show to people: a video, a folder of pictures, or one picture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from tag_core.errors import UnreadableInput
from tag_core.media.sampling import segments
from tag_core.media.sources import IMAGE_SUFFIXES
from tag_core.media.video import Video, open_video, read_clip

CHUNK = 16  # frames of a video in memory at once
SMALL, LARGE, LONGEST = 360, 720, 2048  # pixels: short side of a picture to draw upon, from and to; any long side
Scaled = tuple[Image.Image, float]


def is_video(source: str) -> bool:
    return not os.path.isdir(source) and Path(source).suffix.lower() not in IMAGE_SUFFIXES


def clip_frames(source: str, count: int, short_side: int) -> list[Image.Image]:
    """``count`` frames from equal parts of the source, or all where it has fewer.

    Raises:
        UnreadableInput: it has moved, or cannot be read.
    """
    if not is_video(source):
        paths = _pictures(source)
        return [_open(paths[i], short_side, short_side)[0] for i in _uniform(len(paths), count)]
    with open_video(source) as video:
        side = _fitting(video.width, video.height, short_side, short_side)
    return [Image.fromarray(f) for f in read_clip(source, lambda total: _uniform(total, count), side).frames]


def one_frame(source: str, index: int) -> Scaled:
    """A frame at a size to draw upon, and how much larger it is than the original.

    Raises:
        UnreadableInput: the source has moved, cannot be read, or has no such frame.
    """
    try:
        if not is_video(source):
            return _open(_pictures(source)[index], SMALL, LARGE)
        with open_video(source) as video:
            return next(video_frames(video, [index]))
    except IndexError as error:
        raise UnreadableInput(source, f"it has no frame {index} any more") from error


def video_frames(video: Video, indices: Sequence[int]) -> Iterator[Scaled]:
    """These frames as :func:`one_frame` gives them."""
    side = _fitting(video.width, video.height, SMALL, LARGE)
    for frame in video.frames(indices, side):
        yield Image.fromarray(frame), frame.shape[1] / video.width


def _uniform(total: int, count: int) -> list[int]:
    return [int(i) for i in segments(total, min(total, count))[0]]


def _fitting(width: int, height: int, low: int, high: int) -> int:
    """The short side in pixels: from ``low`` to ``high``, unless the long one would grow out of bounds."""
    short, long = min(width, height), max(width, height)
    return max(1, min(max(short, low), high, LONGEST * short // long))


def _pictures(source: str) -> list[Path]:
    if not os.path.isdir(source):
        return [Path(source)]
    found = [path for path in Path(source).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise UnreadableInput(source, "no pictures in this folder")
    return sorted(found, key=lambda path: [part.zfill(9) for part in re.split(r"(\d+)", path.name)])


def _open(path: Path, low: int, high: int) -> Scaled:
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableInput(str(path), getattr(error, "strerror", None) or "not a readable picture") from error
    scale = _fitting(*image.size, low, high) / min(image.size)
    return ImageOps.scale(image, scale), scale
