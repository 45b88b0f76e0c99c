"""Stored pictures as the frames of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.media.image import read_image
from tag_core.media.video import Clip


def read_picture(file: str | IO[bytes], source: str, name: object, short_side: int | None) -> np.ndarray:
    """RGB uint8 [H, W, 3], upright, resized (bilinear) to ``short_side``.

    Raises:
        UnreadableInput: naming the frame of ``source`` that is no picture.
    """
    try:
        picture = read_image(file, source)
    except UnreadableInput as error:
        raise UnreadableInput(source, f"frame {name}: {error.reason}") from error
    if short_side is None:
        return picture
    factor = short_side / min(picture.shape[:2])
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def clip_of_pictures(
    source: str, indices: Sequence[int], read: Callable[[int], np.ndarray], num_frames: int, fps: float
) -> Clip:
    """These of ``num_frames`` pictures, each read once.

    Raises:
        UnreadableInput: they differ in size.
    """
    pictures = {i: read(i) for i in set(indices)}
    if len(shapes := {picture.shape for picture in pictures.values()}) > 1:
        raise UnreadableInput(source, f"frames of different sizes: {sorted(shapes)[:2]}")
    frames = np.stack([pictures[i] for i in indices])
    return Clip(frames, tuple(indices), np.array(indices) / fps, num_frames, fps, damage=None)
