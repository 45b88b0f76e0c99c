"""Exact reading of video frames.

Frame i is the i-th frame of a sequential decode of the best video stream, on every file. A damaged file gives
its good part and says so; it is never replaced by another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tag_core.errors import UnreadableInput
from tag_core.media.pyav_reader import Video

__all__ = ["Clip", "Reader", "Video", "open_video", "read_clip"]

Reader = Literal["auto", "pyav", "decord"]


@dataclass(frozen=True)
class Clip:
    """Frames read from one video."""

    frames: np.ndarray  # uint8 [T, H, W, 3] RGB
    indices: tuple[int, ...]  # their frame numbers
    times: np.ndarray  # float64 [T], seconds after the video's first frame
    num_frames: int  # usable frames of the whole video
    fps: float  # average frames per second of the video
    damage: str | None  # what is damaged, None for a sound file


def open_video(path: str | os.PathLike[str], reader: Reader = "auto") -> Video:
    """Open a video file. Both readers return the same frames.

    ``auto`` is PyAV: measured against decord it was never slower (benchmarks/video_reading.py). ``decord``
    uses decord where the structure of the stream makes it exact, and PyAV everywhere else.

    Raises:
        UnreadableInput: the file is missing, unreadable, no video, or without a decodable frame.
        UserError: ``decord`` is asked for and not installed.
    """
    if reader == "decord":
        from tag_core.media.decord_reader import DecordVideo

        return DecordVideo(os.fspath(path))
    if reader not in ("auto", "pyav"):
        raise ValueError(f"reader is 'auto', 'pyav' or 'decord', not {reader!r}")
    return Video(os.fspath(path))


def read_clip(
    path: str | os.PathLike[str],
    sample: Callable[[int], Sequence[int]],
    short_side: int | None = None,
    reader: Reader = "auto",
) -> Clip:
    """Open a video, choose frames by ``sample(num_frames)``, decode them and close it.

    When damage shows only while decoding, ``sample`` is asked again with the usable number of frames.

    Raises:
        UnreadableInput: as for `open_video`.
    """
    with open_video(path, reader) as video:
        while True:
            num_frames = video.num_frames
            indices = tuple(int(i) for i in sample(num_frames))
            try:
                frames = video.frames(indices, short_side)
            except UnreadableInput:
                if video.num_frames in (0, num_frames):
                    raise
                continue
            if video.num_frames == num_frames:
                break
        return Clip(frames, indices, video.times(indices), num_frames, video.fps, video.damage)
