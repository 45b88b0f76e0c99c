"""The exact reader on PyAV: seek where the packet index allows it, count from the start where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from tag_core.errors import UnreadableInput
from tag_core.media.file_checks import cut_off, why_not_opened, why_unreadable
from tag_core.media.packet_index import LIBAV_ERRORS, index_packets

_WORTH_A_SEEK = 8  # frames to skip


class _Inexact(Exception):
    """The decoder did not give what the packet index promised."""


class Video:
    """One open video file; use it in a ``with`` statement. Not picklable: open it in the process that reads it.

    One decoder thread, because worker processes are parallel already.

    Attributes:
        path: the file, as the caller wrote it.
        num_frames: number of frames that can be read. Of a file that turns out damaged while it is being
            decoded, it shrinks to the usable number.
        fps: average frames per second; 0 when the file does not tell.
        damage: None, or one line that says what is damaged and how much is usable.
    """

    _stream: VideoStream

    def __init__(self, path: str) -> None:
        self.path = path
        self.damage: str | None = None
        self._container: InputContainer | None = None
        self._running: tuple[Iterator[VideoFrame], int] | None = None  # a decode, and the number of its next frame
        self._reformatter = VideoReformatter()
        self._turns: int | None = None  # by 90 degrees, to be shown upright; known once a frame is read
        if reason := why_unreadable(path):
            raise UnreadableInput(path, reason)
        self._cut_off = cut_off(path)
        try:
            container = self._open()
            self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            self._time_base = float(self._stream.time_base or 0)
            self._index = index_packets(container, self._stream)
            self.num_frames, self._counted = self._index.num_packets, False
            self._pts = self._index.pts  # of every frame, where known
            if self._cut_off or not self._index.countable:
                self._count()
        except BaseException as error:
            self.close()
            if isinstance(error, LIBAV_ERRORS):
                raise UnreadableInput(path, self._cut_off or why_not_opened(path)) from error
            raise

    @property
    def seekable(self) -> bool:
        """Whether frames are sought, not decoded from the first one on: those behind a damage may then be sound."""
        return self._index.seek_points is not None

    def times(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """When these frames are shown: float64 [T], seconds after the first frame."""
        chosen = np.asarray(indices, np.int64)
        if self._pts is None:
            return chosen / self.fps if self.fps else np.zeros(len(chosen))
        return np.asarray((self._pts[chosen] - self._pts[0]) * self._time_base)

    def frames(self, indices: Sequence[int] | np.ndarray, short_side: int | None = None) -> np.ndarray:
        """Decode frames: uint8 [T, H, W, 3] RGB, in the order asked, duplicates allowed.

        Args:
            indices: frame numbers from 0 to ``num_frames - 1``.
            short_side: resize (bilinear) so that the shorter side has this many pixels.

        Raises:
            IndexError: a number is out of range.
            UnreadableInput: nothing can be decoded, or the file is damaged before one of these frames;
                ``num_frames`` and ``damage`` then say how much is usable.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if not len(chosen):
            raise ValueError(f"{self.path}: no frame was asked for")
        if chosen.min() < 0 or chosen.max() >= self.num_frames:
            raise IndexError(f"{self.path} has frames 0 to {self.num_frames - 1}, not {chosen.tolist()}")
        self._opened()
        wanted, back = np.unique(chosen, return_inverse=True)
        pictures = self._read(wanted, short_side)
        return pictures if np.array_equal(wanted, chosen) else pictures[back]

    def close(self) -> None:
        """Free the decoder and the file handle."""
        if self._container is not None:
            self._container.close()
        self._container = self._running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise RuntimeError(f"{self.path} is closed")
        return self._container

    def _open(self) -> InputContainer:
        """Open the file with a fresh decoder, at its first packet."""
        self.close()
        container = self._container = av.open("file:" + self.path, metadata_errors="replace")
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise UnreadableInput(self.path, "not a video: a picture")
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            reason = "no video stream (audio only)" if container.streams.audio else self._cut_off
            raise UnreadableInput(self.path, reason or why_not_opened(self.path))
        if getattr(stream, "codec_context", None) is None:
            raise UnreadableInput(self.path, "no decoder for its video codec")
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        stream.codec_context.thread_count = 1
        self._stream = stream
        return container

    def _read(self, wanted: np.ndarray, short_side: int | None) -> np.ndarray:
        """Frames of these ascending numbers. What does not come out as promised is counted, then read again."""
        points, pts = self._index.seek_points, self._index.pts
        try:
            if points is None or pts is None or self._counted:
                frames = self._from_start(wanted)
            else:
                frames = self._from_seek_points(wanted, points, pts)
            return self._pictures(frames, len(wanted), short_side)
        except (_Inexact, *LIBAV_ERRORS) as error:
            if self._counted:
                raise UnreadableInput(self.path, "its frames cannot be decoded") from error
        self._count()
        if wanted[-1] >= self.num_frames:
            raise UnreadableInput(self.path, self.damage or f"only {self.num_frames} frames can be decoded")
        return self._read(wanted, short_side)

    def _from_seek_points(self, wanted: np.ndarray, points: np.ndarray, pts: np.ndarray) -> Iterator[VideoFrame]:
        """Decode from the last seek point before the first of them; seek again where that skips enough frames."""
        starts = np.searchsorted(points, wanted, side="right")
        jumps = np.flatnonzero(points[starts[1:] - 1] - wanted[:-1] > _WORTH_A_SEEK) + 1
        for start, numbers in zip(starts[[0, *jumps]], np.split(wanted, jumps), strict=True):
            yield from self._matching(self._packets_from(pts[points[:start]].tolist()), pts[numbers].tolist())

    def _packets_from(self, targets: list[int]) -> Iterator[Packet[VideoStream]]:
        """Packets from the last of these seek points that a seek hits, or from the start of the file."""
        container = self._opened()
        for target in reversed(targets):
            container.seek(target, stream=self._stream)
            packets = container.demux(self._stream)
            first = next(packets)
            if first.pts in targets:
                return chain([first], packets)
        return self._open().demux(self._stream)

    def _matching(self, packets: Iterator[Packet[VideoStream]], wanted: list[int]) -> Iterator[VideoFrame]:
        """Decode the frames with these ascending PTS."""
        context, needed, done = self._stream.codec_context, set(wanted), 0
        for packet in packets:
            if context.name == "h264":  # exact: drops only pictures that no other picture refers to
                context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
            for frame in packet.decode():
                if frame.pts is None or frame.pts > wanted[done] or frame.is_corrupt:
                    raise _Inexact
                if frame.pts == wanted[done]:
                    done += 1
                    yield frame
                    if done == len(wanted):
                        return
        raise _Inexact

    def _from_start(self, wanted: np.ndarray) -> Iterator[VideoFrame]:
        """Decode from the first frame, or go on behind those of the last call."""
        if self._running is None or self._running[1] > wanted[0]:
            self._running = self._open().decode(self._stream), 0
        (frames, first), self._running, done = self._running, None, 0
        for number, frame in enumerate(frames, first):
            if frame.is_corrupt and not self._counted:
                raise _Inexact
            if number == wanted[done]:
                done += 1
                yield frame
                if done == len(wanted):
                    self._running = frames, number + 1
                    return
        raise _Inexact

    def _count(self) -> None:
        """Decode everything: how many frames come before the first error, and when are they shown?"""
        self._counted, broken, incomplete = True, False, 0
        pts: list[int | None] = []
        try:
            for frame in self._open().decode(self._stream):
                pts.append(frame.pts)
                incomplete += frame.is_corrupt
        except LIBAV_ERRORS:
            broken = True
        self.num_frames = len(pts)
        what = self._cut_off or self._index.damage or ("the video is damaged" if broken or incomplete else None)
        if not pts:
            raise UnreadableInput(self.path, f"{what or 'empty video'}: no frame can be decoded")
        known = np.array([p for p in pts if p is not None], np.int64)
        self._pts = known if len(known) == len(pts) and (np.diff(known) > 0).all() else None
        if what:
            total = max(self._index.num_packets, self._stream.frames if self._cut_off else 0)
            of_all = f" of {total}" if total > len(pts) else ""
            flawed = f", {incomplete} of them with errors" if incomplete else ""
            self.damage = f"{what}: {len(pts)}{of_all} frames are usable{flawed}"

    def _pictures(self, frames: Iterator[VideoFrame], number: int, short_side: int | None) -> np.ndarray:
        """RGB [T, H, W, 3], upright, all of the size of the first one."""
        out = np.empty(0, np.uint8)
        for at, frame in enumerate(frames):
            if at == 0:
                width, height = scaled(frame.width, frame.height, short_side)
                turns = self._turns = round(frame.rotation / 90) % 4
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
            picture = np.rot90(rgb.to_ndarray(), turns)
            if at == 0:
                out = np.empty((number, *picture.shape), np.uint8)
            out[at] = picture
        return out


def scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with a shorter side of this many pixels."""
    scale = 1.0 if short_side is None else short_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
