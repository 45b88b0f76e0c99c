"""Stretches of videos: a few frames each, so that a long video is many small items."""

from __future__ import annotations

import os
import re
from typing import Any

from tag_core.errors import UnreadableInput
from tag_core.media.video import Clip, Video, open_video

FRAMES = 8
"""Chosen frames of a stretch: few enough to keep several stretches in memory."""
_NAME = re.compile(r"(.+)#frames=(\d{1,12})-(\d{1,12})", re.DOTALL)


def divide(path: str, frame_interval: int) -> list[str]:
    """The stretches of a video, as ``video.mp4#frames=0-7``; of one that cannot be opened, its path.

    Args:
        frame_interval: the distance of chosen frames.
    """
    try:
        with open_video(path) as video:
            count = video.num_frames
    except UnreadableInput:  # reading it will tell
        return [path]
    length = FRAMES * frame_interval
    return [f"{path}#frames={start}-{min(start + length, count) - 1}" for start in range(0, count, length)]


def parse(name: str) -> tuple[str, int, int] | None:
    """(video, first frame, last frame) of a stretch; None of anything else, and of a file of such a name."""
    found = _NAME.fullmatch(name)
    return None if found is None or os.path.lexists(name) else (found[1], int(found[2]), int(found[3]))


class StretchReader:
    """Reads stretches, and leaves the last one's video open for the next; pickles without it."""

    def __init__(self) -> None:
        self._last: tuple[int, Video] | None = None

    def read(self, path: str, first: int, last: int, frame_interval: int) -> Clip:
        """The frames from ``first`` to ``last`` that ``frame_interval`` divides, as far as the video is sound.

        Raises:
            UnreadableInput: the video cannot be read, or is damaged before the first of them, or there is none.
        """
        start = -(-first // frame_interval) * frame_interval
        if start > last:
            raise UnreadableInput(path, f"no frame from {first} to {last} is a multiple of {frame_interval}")
        video = self._open(path)
        told = video.num_frames, video.damage
        try:
            return _clip(video, range(start, last + 1, frame_interval))
        finally:
            # Where frames are sought, those behind a damage may be sound: whether a stretch is read must not depend
            # on those read before. Otherwise each would be decoded from the start, only to find the same.
            if (video.num_frames, video.damage) != told and video.seekable:
                self._last = None

    def _open(self, path: str) -> Video:
        if self._last is None or self._last[0] != os.getpid() or self._last[1].path != path:
            self._last = os.getpid(), open_video(path)  # a fork would share the place in the file
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"_last": None}


def _clip(video: Video, wanted: range) -> Clip:
    known = video.num_frames
    chosen = tuple(frame for frame in wanted if frame < known)
    if not chosen:
        raise UnreadableInput(video.path, video.damage or f"only {known} frames can be decoded")
    try:
        return Clip(video.frames(chosen), chosen, video.times(chosen), known, video.fps, video.damage)
    except UnreadableInput:
        if video.num_frames in (0, known):
            raise
        return _clip(video, wanted)  # how many are usable is known now
