"""The exact reader on PyAV: seek where the packet index allows it, count from the start where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count
from types import TracebackType
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
from tag_core.media.file_checks import cut_off, why_unreadable
from tag_core.media.packet_index import LIBAV_ERRORS, Trust, index_packets


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

    damage: str | None

    def __init__(self, path: str) -> None:
        self.path, self.damage, self.num_frames = path, None, 0
        self._container: InputContainer | None = None
        self._turns: int | None = None
        self._reformatter = VideoReformatter()
        self._cut_off: str | None = None
        reason = why_unreadable(path)
        if reason:
            raise UnreadableInput(path, reason)
        try:
            self._cut_off = cut_off(path)
            self._stream = self._open()
            self._begin(self._stream)
        except LIBAV_ERRORS as error:
            self.close()
            raise UnreadableInput(path, self._cut_off or "not a video, or damaged beyond reading") from error
        except BaseException:
            self.close()
            raise

    def _begin(self, stream: VideoStream) -> None:
        self._coded_size = (stream.codec_context.width, stream.codec_context.height)
        rate, base = stream.average_rate or stream.guessed_rate, stream.time_base
        self.fps = float(rate) if rate else 0.0
        self._time_base = float(base) if base else 0.0
        self._index = index_packets(self._opened(), stream)
        self._trust = self._index.trust
        self.num_frames = self._index.num_packets
        self._pts = self._index.pts if self._trust is Trust.PTS else None
        if self._trust is Trust.NOTHING or self._cut_off:
            self._count()

    @property
    def width(self) -> int:
        """Pixels, rotation metadata applied; so is `height`."""
        return self._displayed_size()[0]

    @property
    def height(self) -> int:
        return self._displayed_size()[1]

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last one."""
        last = float(self.times([self.num_frames - 1])[0])
        return last + (1 / self.fps if self.fps else 0.0)

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
        wanted, back = np.unique(chosen, return_inverse=True)
        pictures = self._read(wanted, short_side)
        return pictures if np.array_equal(wanted, chosen) else pictures[back]

    def close(self) -> None:
        """Free the decoder and the file handle."""
        if self._container is not None:
            self._container.close()
        self._container = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> InputContainer:
        if self._container is None:
            raise RuntimeError(f"{self.path} is closed")
        return self._container

    def _open(self) -> VideoStream:
        """Open the file with a fresh decoder, at its first packet."""
        self.close()
        container = self._container = av.open("file:" + self.path, metadata_errors="replace")
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise UnreadableInput(self.path, "not a video: a picture")
        videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not videos:
            only = " (audio only)" if container.streams.audio else ""
            raise UnreadableInput(self.path, self._cut_off or f"no video stream{only}")
        best = container.streams.best("video")
        stream = best if isinstance(best, VideoStream) and best in videos else videos[0]
        if getattr(stream, "codec_context", None) is None:
            raise UnreadableInput(self.path, "no decoder for its video codec")
        for other in container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        stream.codec_context.thread_count = 1
        return stream

    def _read(self, wanted: np.ndarray, short_side: int | None) -> np.ndarray:
        """Frames of these ascending numbers. What does not come out as promised is counted, then retried."""
        self._opened()
        if self._trust is not Trust.NOTHING:
            source = self._from_seek_points if self._trust is Trust.PTS else self._from_start
            try:
                return self._pictures(source(wanted), len(wanted), short_side)
            except (_Inexact, *LIBAV_ERRORS):
                self._count()
        if wanted[-1] >= self.num_frames:
            raise UnreadableInput(self.path, self.damage or f"only {self.num_frames} frames can be decoded")
        try:
            return self._pictures(self._from_start(wanted), len(wanted), short_side)
        except (_Inexact, *LIBAV_ERRORS) as error:
            raise UnreadableInput(self.path, "its frames cannot be decoded") from error

    def _from_seek_points(self, wanted: np.ndarray) -> Iterator[VideoFrame]:
        """Decode from the nearest seek point, matching by PTS, and jump whenever that skips packets."""
        todo = [int(pts) for pts in self._index.pts[wanted]]
        starts = self._index.seek_points_for(wanted)
        needed, done, context = set(todo), 0, self._stream.codec_context
        while done < len(todo):
            target = starts[done].order
            for order, packet in self._packets_from(target):
                if context.name == "h264":  # exact: drops only pictures that no other picture refers to
                    context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
                for frame in packet.decode():
                    if done == len(todo):
                        return
                    if frame.pts is None or frame.pts > todo[done] or frame.is_corrupt:
                        raise _Inexact
                    if frame.pts == todo[done]:
                        done += 1
                        yield frame
                if done == len(todo) or starts[done].order > max(order + 1, target):
                    break
            else:
                raise _Inexact

    def _packets_from(self, order: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """Packets with their place in decoding order, from this seek point or, if it is missed, an earlier one."""
        points = [point for point in self._index.seek_points if point.order <= order]
        orders = {point.pts: point.order for point in points}
        for point in reversed(points):
            self._opened().seek(point.pts, stream=self._stream)
            packets = self._opened().demux(self._stream)
            first = next(packets)
            if first.pts in orders:
                return zip(count(orders[first.pts]), chain([first], packets), strict=False)
        raise _Inexact

    def _from_start(self, wanted: np.ndarray) -> Iterator[VideoFrame]:
        self._stream = self._open()
        done = 0
        for number, frame in enumerate(self._opened().decode(self._stream)):
            if frame.is_corrupt and self._trust is not Trust.NOTHING:
                raise _Inexact
            if number == wanted[done]:
                done += 1
                yield frame
                if done == len(wanted):
                    return
        raise _Inexact

    def _count(self) -> None:
        """Decode everything: how many frames come before the first error, and when are they shown?"""
        self._trust, broken, incomplete = Trust.NOTHING, self._index.damaged, 0
        pts: list[int | None] = []
        self._stream = self._open()
        try:
            for frame in self._opened().decode(self._stream):
                pts.append(frame.pts)
                incomplete += frame.is_corrupt
        except LIBAV_ERRORS:
            broken = True
        self.num_frames = len(pts)
        what = self._cut_off or ("the video is damaged" if broken or incomplete else None)
        if not pts:
            raise UnreadableInput(self.path, f"{what or 'empty video'}: no frame can be decoded")
        known = np.array([p for p in pts if p is not None], np.int64)
        self._pts = known if len(known) == len(pts) and (np.diff(known) > 0).all() else None
        if what:
            flawed = f", {incomplete} of them with errors" if incomplete else ""
            total = max(self._index.num_packets, self._stream.frames if self._cut_off else 0)
            of_all = f" of {total}" if total > len(pts) else ""
            self.damage = f"{what}: {len(pts)}{of_all} frames are usable{flawed}"

    def _pictures(self, frames: Iterator[VideoFrame], number: int, short_side: int | None) -> np.ndarray:
        out = np.empty(0, np.uint8)
        for at, frame in enumerate(frames):
            picture = self._picture(frame, short_side)
            if at == 0:
                out = np.empty((number, *picture.shape), np.uint8)
            out[at] = picture
        return out

    def _picture(self, frame: VideoFrame, short_side: int | None) -> np.ndarray:
        """RGB [H, W, 3], upright; a view of the converter's buffer."""
        if not all(self._coded_size):
            self._coded_size = (frame.width, frame.height)
        if self._turns is None:
            self._turns = round(frame.rotation / 90) % 4
        width, height = self._scaled_size(short_side)
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, : width * 3]
        return np.rot90(rows.reshape(height, width, 3), self._turns)

    def _scaled_size(self, short_side: int | None) -> tuple[int, int]:
        scale = 1.0 if short_side is None else short_side / min(self._coded_size)
        width, height = self._coded_size
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _displayed_size(self) -> tuple[int, int]:
        if self._turns is None:
            self._read(np.zeros(1, np.int64), None)
        width, height = self._coded_size
        return (height, width) if self._turns in (1, 3) else (width, height)
