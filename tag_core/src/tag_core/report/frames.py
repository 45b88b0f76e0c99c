"""Frames of a source to show to people: a video, a folder of pictures, or one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.media.image import read_image
from tag_core.media.sources import IMAGE_SUFFIXES, file_of
from tag_core.media.video import read_clip


def read_frames(source: str, choose: Callable[[int], Sequence[int]]) -> list[Image.Image]:
    """The frames that ``choose(number of frames)`` names; of a folder, in the order of the numbers in its names.

    A source such as ``a.jpg#2`` is the second sample of a file.

    Raises:
        UnreadableInput: the source has moved, cannot be read, or has no such frame.
    """
    path = Path(source) if Path(source).exists() else Path(file_of(source))
    try:
        if path.is_dir():
            pictures = [picture for picture in path.iterdir() if picture.suffix.lower() in IMAGE_SUFFIXES]
            pictures.sort(key=lambda picture: (len(picture.name), picture.name))
            return [Image.fromarray(read_image(pictures[i])) for i in choose(len(pictures))]
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return [Image.fromarray(read_image(path))]
        return [Image.fromarray(frame) for frame in read_clip(str(path), choose).frames]
    except IndexError as error:
        raise UnreadableInput(source, "it has no such frame any more") from error
