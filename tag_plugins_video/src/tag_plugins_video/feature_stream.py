"""Clips of many videos as one stream of batches, and the features that come of them, video by video again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tag_core.engine.data import Loaded
from tag_core.engine.pool import Failure, WorkerPool
from tag_core.kinds import Sample
from tag_plugins_video.feature_clips import Part, Piece

VIDEOS = 16  # that a worker is given at a time; those for which there is no room it gives back


@dataclass
class VideoFeatures:
    """One video on its way."""

    total: int
    damage: str | None = None
    error: str | None = None
    read: int = 0
    rows: list[np.ndarray] = field(default_factory=list)

    @property
    def is_read(self) -> bool:
        return self.error is not None or self.read == self.total


class FeatureStream:
    """Clips of videos as batches, across videos; and the features that come of them, put together again."""

    def __init__(
        self, pool: WorkerPool[Any, Any], paths: Sequence[str], room: int, batch_size: int, ahead: int
    ) -> None:
        self.pool, self.paths, self.room, self.batch_size, self.ahead = pool, paths, room, batch_size, ahead
        self.videos: dict[int, VideoFeatures] = {}
        self.next = 0  # the first that is not finished

    def batches(self) -> Iterator[Loaded]:
        """The clips; the indices are those of their videos."""
        samples: list[Sample] = []
        numbers: list[int] = []
        for piece, part in self._parts():
            for clip in self._clips(piece, part):
                samples.append({"clip": clip})
                numbers.append(piece.number)
                if len(samples) == self.batch_size:
                    yield Loaded(samples, numbers, {})
                    samples, numbers = [], []
        if samples:
            yield Loaded(samples, numbers, {})

    def add(self, numbers: Sequence[int], rows: np.ndarray) -> None:
        for number, row in zip(numbers, rows, strict=True):
            if number in self.videos:  # and did not turn out unreadable
                self.videos[number].rows.append(row)

    def finished(self) -> Iterator[tuple[str, VideoFeatures]]:
        """The next videos in order, those that are complete."""
        while video := self.videos.get(self.next):
            if not video.is_read or (video.error is None and len(video.rows) < video.total):
                return
            self.next += 1
            yield self.paths[self.next - 1], self.videos.pop(self.next - 1)

    def _parts(self) -> Iterator[tuple[Piece, Part | Failure]]:
        """First pieces of all videos in order, and as soon as their length is known the rest of the longer ones."""
        all_first = [Piece(number, path) for number, path in enumerate(self.paths)]
        first = deque(all_first[i : i + VIDEOS] for i in range(0, len(all_first), VIDEOS))
        rest: deque[list[Piece]] = deque()

        def tasks() -> Iterator[list[Piece]]:
            while rest or first:
                yield rest.popleft() if rest else first.popleft()

        while rest or first:  # what the last results add comes too late for the tasks() that led to them
            for pieces, parts in self.pool.map(tasks(), self.ahead):
                if isinstance(parts, Failure) and len(pieces) > 1:  # the worker died or stalled, of which one?
                    rest.extend([piece] for piece in pieces)
                    continue
                parts = [parts] if isinstance(parts, Failure) else parts
                if left := pieces[len(parts) :]:
                    first.appendleft(left)
                for piece, part in zip(pieces, parts, strict=False):
                    if isinstance(part, Part) and not piece.start:
                        starts = range(len(part.clips), part.total, self.room)
                        rest.extend([Piece(piece.number, piece.path, start)] for start in starts)
                    yield piece, part

    def _clips(self, piece: Piece, part: Part | Failure) -> Iterable[torch.Tensor]:
        """The clips of a part, which is entered into its video."""
        if piece.number < self.next:  # done with: unreadable
            return ()
        video = self.videos.setdefault(piece.number, VideoFeatures(-1 if isinstance(part, Failure) else part.total))
        if video.is_read:  # cut off before this piece
            return ()
        if isinstance(part, Failure):
            video.error = part.reason
            return ()
        video.damage = part.damage or video.damage
        video.read += len(part.clips)
        if part.total < video.total:  # it is damaged from here on
            video.total = video.read
        return part.clips
