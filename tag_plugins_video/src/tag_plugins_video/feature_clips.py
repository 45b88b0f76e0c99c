"""The reading half of ``tag-run features``, in worker processes: clips at regular positions of videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tag_core.engine.pool import Failure
from tag_core.errors import UnreadableInput
from tag_core.media.sampling import Indices
from tag_core.media.video import Video, open_video
from tag_plugins_video.datasets.base import ClipDataset

MAX_POSITIONS = 1_000_000
_LATE = 1e-6  # seconds by which rounding may make a frame late


@dataclass(frozen=True)
class Positions:
    """Where the clips of a video are.

    Position k is the frame on screen after k * ``every`` seconds, or frame k * ``step``; its clip starts
    there: ``clip_len`` frames, each ``frame_interval`` after the one before. The last position is the last
    whose clip fits into the video; where not even the first does, the last frame repeats.
    """

    every: float | None
    step: int | None
    clip_len: int = 1
    frame_interval: int = 1

    def __post_init__(self) -> None:
        if (self.every is None) == (self.step is None):
            raise ValueError("give either every (seconds) or step (frames)")
        for name in ("every", "step", "clip_len", "frame_interval"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, got {value}")

    def __call__(self, times: np.ndarray) -> Indices:
        """Frame numbers [P, clip_len] in a video whose frames are shown at ``times`` [T], in seconds from 0.

        Raises:
            ValueError: the times tell nothing, or make no sense.
        """
        num_frames, span = len(times), (self.clip_len - 1) * self.frame_interval + 1
        if self.step is not None:
            starts = np.arange(0, num_frames, self.step)
        else:
            starts = np.searchsorted(times, self._seconds(times) + _LATE, side="right") - 1
        fitting = starts[starts + span <= num_frames]
        frames = (fitting if len(fitting) else starts[:1])[:, None] + np.arange(self.clip_len) * self.frame_interval
        inside: Indices = np.minimum(frames, num_frames - 1)
        return inside

    def _seconds(self, times: np.ndarray) -> np.ndarray:
        assert self.every is not None
        if len(times) > 1 and not times[-1] > 0:
            raise ValueError("it does not tell when its frames are shown; take --step")
        count = times[-1] / self.every + _LATE
        if count > MAX_POSITIONS:
            raise ValueError(f"more than {MAX_POSITIONS} positions in what it says are {times[-1]:.0f} s; take --step")
        return np.arange(int(count) + 1) * self.every


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a video to read: positions from ``start`` on."""

    number: int
    path: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """What was read: ``clips`` [p, ...], of ``total`` positions that the video has."""

    clips: Tensor
    total: int
    damage: str | None


class ClipReader:
    """Reads pieces one after another, until ``room`` positions are read; the pieces behind those are left.

    Of a video that has more than ``room`` positions left as many are read as there is room for.

    Args:
        videos: prepares the frames.
        room: positions per call, less than twice as many at most.
    """

    def __init__(self, videos: ClipDataset, positions: Positions, room: int) -> None:
        self.videos, self.positions, self.room = videos, positions, room
        self._video: Video | None = None  # the next call may go on with it

    def __call__(self, pieces: Sequence[Piece]) -> list[Part | Failure]:
        parts: list[Part | Failure] = []
        room = self.room
        for piece in pieces:
            if room <= 0:
                break
            try:
                part = self._read(piece, room)
                room -= len(part.clips)
                parts.append(part)
            except UnreadableInput as error:
                self._close()
                parts.append(Failure(error.reason))
        return parts

    def _read(self, piece: Piece, room: int) -> Part:
        video = self._open(piece.path)
        while True:
            num_frames = video.num_frames
            try:
                clips = self.positions(video.times(np.arange(num_frames)))
            except ValueError as error:
                raise UnreadableInput(piece.path, str(error)) from None
            wanted = clips[piece.start :]
            wanted = wanted if len(wanted) <= self.room else wanted[:room]
            if not len(wanted):  # it turned out shorter when other positions were read
                return Part(torch.empty(0), len(clips), video.damage)
            numbers, places = np.unique(wanted, return_inverse=True)
            try:
                frames = video.frames(numbers, self.videos.short_side)
            except UnreadableInput:
                if video.num_frames in (0, num_frames):
                    raise
                continue
            if video.num_frames == num_frames:
                break
        prepared = [self.videos.prepare(frames[clip]) for clip in places.reshape(wanted.shape)]
        return Part(torch.stack(prepared), len(clips), video.damage)

    def _open(self, path: str) -> Video:
        if self._video is None or self._video.path != path:
            self._close()
            self._video = open_video(path)
        return self._video

    def _close(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video = None
