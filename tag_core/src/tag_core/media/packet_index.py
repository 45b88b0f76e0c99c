"""Which packets a video stream has, and what may be concluded from them about its frames.

"Frame i" is the i-th frame of a sequential decode. Packets tell which one that is only where the structure
is simple; the rules below err on the side of decoding everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

LIBAV_ERRORS = (av.FFmpegError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, ValueError)

_ALWAYS_ONE_FRAME = {"mpeg4", "mjpeg"}
_PTS_IS_TRUE = {"h264", "hevc", "vp9", "av1"}
_NOT_CODED = 16  # bytes; an MPEG-4 packet this small may be an N-VOP, which shows no new frame


class Trust(Enum):
    """How far the packets can stand for the frames."""

    PTS = "frame i has the i-th smallest PTS, and decoding may start at any seek point"
    COUNT = "as many frames as packets, but they must be counted from the start"
    NOTHING = "only a full decode tells how many frames there are"


@dataclass(frozen=True)
class SeekPoint:
    """A random access packet: every frame from number ``frame`` on decodes exactly from here."""

    frame: int
    order: int  # position in decoding order
    pts: int


@dataclass(frozen=True)
class PacketIndex:
    """Result of one pass over the packets.

    Attributes:
        num_packets: packets whose frames are to be shown, those that the file announces but lacks included.
        pts: sorted; empty unless ``trust`` is PTS.
        closed: every key frame that the container names is a seek point (no open GOP).
        damaged: packets are missing or marked corrupt.
    """

    trust: Trust
    num_packets: int
    pts: np.ndarray
    seek_points: tuple[SeekPoint, ...]
    closed: bool
    damaged: bool

    def seek_points_for(self, frames: np.ndarray) -> list[SeekPoint]:
        """For each of these frame numbers the last seek point from which it can be decoded."""
        nearest = np.searchsorted([point.frame for point in self.seek_points], frames, side="right") - 1
        return [self.seek_points[at] for at in nearest]


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Demux the stream once, without decoding, and judge its structure."""
    scan = _Scan(stream)
    packets = container.demux(stream)
    try:
        for packet in packets:
            if packet.size:
                scan.add(packet)
    except LIBAV_ERRORS:
        scan.damaged = True
    finally:
        packets.close()  # type: ignore[attr-defined]  # it is a generator and holds the file
    return scan.judge(container.format.name)


class _Scan:
    def __init__(self, stream: VideoStream) -> None:
        self.stream = stream
        self.codec = stream.codec_context.codec.canonical_name
        self.extradata = stream.codec_context.extradata or b""
        self.pts: list[int | None] = []
        self.keys: list[tuple[int, int]] = []  # order, PTS
        self.discarded, self.num_keys, self.smallest = 0, 0, 1 << 30
        self.odd = self.damaged = False
        self.previous: Packet[VideoStream] | None = None

    def add(self, packet: Packet[VideoStream]) -> None:
        self.num_keys += packet.is_keyframe
        if packet.is_keyframe and packet.pts is not None and self._is_random_access(packet):
            self.keys.append((len(self.pts), packet.pts))
        self.pts.append(packet.pts)
        self.discarded += packet.is_discard
        self.damaged |= packet.is_corrupt
        self.smallest = min(self.smallest, packet.size)
        self.previous = packet

    def _is_random_access(self, packet: Packet[VideoStream]) -> bool:
        """Whether nothing shown after this packet needs anything before it (H.264 IDR, H.265 IRAP)."""
        if self.codec == "h264":
            return 5 in self._nal_types(packet)
        if self.codec != "hevc":
            return True
        types = self._nal_types(packet)
        after_end = self.previous is not None and self._nal_types(self.previous) & {36, 37}
        if after_end or types & {16, 17, 18}:  # here the decoder drops leading pictures: count them
            self.odd = True
        return bool(types & {16, 17, 18, 19, 20, 21})

    def _nal_types(self, packet: Packet[VideoStream]) -> set[int]:
        data = bytes(packet)
        hevc = self.codec == "hevc"
        starts = [at + 3 for at in _find_all(data, b"\0\0\1")]
        if self.extradata[:1] == b"\1":  # length-prefixed, as in MP4 and Matroska
            starts = _prefixed(data, (self.extradata[21 if hevc else 4] & 3) + 1)
        return {(data[at] >> 1) & 63 if hevc else data[at] & 31 for at in starts if at < len(data)}

    def judge(self, container_format: str) -> PacketIndex:
        expected = self.stream.frames if "mp4" in container_format else 0
        damaged = self.damaged or len(self.pts) < expected
        trust, pts, points = Trust.NOTHING, np.empty(0, np.int64), tuple[SeekPoint, ...]()
        context = self.stream.codec_context
        if damaged or self.discarded or self.odd:
            pass
        elif self.codec in _ALWAYS_ONE_FRAME:
            if context.reorder_depth == 0 and self.smallest > _NOT_CODED:
                trust = Trust.COUNT
        elif self.codec in _PTS_IS_TRUE and container_format != "avi" and context.field_order in (0, 1):
            pts = np.array([p for p in self.pts if p is not None], np.int64)
            points = self._seek_points(pts)
            trust = Trust.PTS if points else Trust.NOTHING
            pts.sort()
        total = max(expected, len(self.pts)) - self.discarded
        return PacketIndex(trust, total, pts, points, len(points) == self.num_keys, damaged)

    def _seek_points(self, pts: np.ndarray) -> tuple[SeekPoint, ...]:
        """Seek points, or nothing where PTS do not give the order of frames."""
        ordered = np.unique(pts)
        starts_clean = self.keys and self.keys[0][0] == 0 and self.keys[0][1] == ordered[0]
        if len(pts) != len(self.pts) or len(ordered) != len(pts) or not starts_clean:
            return ()
        highest = np.maximum.accumulate(pts)
        if any(order and highest[order - 1] >= key for order, key in self.keys):
            return ()  # time runs backwards over a key frame: edited or joined
        frames = np.searchsorted(ordered, [key for _, key in self.keys])
        return tuple(SeekPoint(int(f), *key) for f, key in zip(frames, self.keys, strict=True))


def _find_all(data: bytes, pattern: bytes) -> list[int]:
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + len(pattern))
    return found


def _prefixed(data: bytes, width: int) -> list[int]:
    starts, at = [], 0
    while at + width < len(data):
        starts.append(at + width)
        at += width + int.from_bytes(data[at : at + width])
    return starts
