"""Which packets a video stream has, and what may be concluded from them about its frames.

"Frame i" is the i-th frame of a sequential decode. Packets tell which one that is only where the structure
is simple; the rules below err on the side of decoding everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

LIBAV_ERRORS = (av.FFmpegError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, ValueError)

_ALWAYS_ONE_FRAME = {"mpeg4", "mjpeg"}
_PTS_IS_TRUE = {"h264", "hevc", "vp9", "av1"}
_NOT_CODED = 16  # bytes; an MPEG-4 packet this small may be an N-VOP, which shows no new frame
_RANDOM_ACCESS = {"h264": {5}, "hevc": {16, 17, 18, 19, 20, 21}}  # NAL unit types: IDR; IRAP (table 7-1 of each)
_HEVC_BLA, _HEVC_END = {16, 17, 18}, {36, 37}


@dataclass(frozen=True)
class PacketIndex:
    """What one pass over the packets tells."""

    num_packets: int  # those that the file announces but lacks included
    damage: str | None  # what is wrong, where packets are missing or marked corrupt
    countable: bool = False  # there are as many frames as packets; otherwise only a full decode tells how many
    pts: np.ndarray | None = None  # sorted: frame i has the i-th smallest PTS; None where that is not sure
    seek_points: np.ndarray | None = None  # frame numbers, with ``pts``: from each on, all frames decode exactly
    closed: bool = False  # every key frame that the container names is a seek point (no open GOP)


class _Packet(NamedTuple):
    pts: int | None
    size: int
    key: bool
    random_access: bool
    irregular: bool  # here the decoder may drop pictures
    corrupt: bool


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Demux the stream once, without decoding, and judge its structure."""
    found: list[_Packet] = []
    previous, broken = None, False
    packets = container.demux(stream)
    try:
        for packet in packets:
            if packet.size:
                found.append(_describe(packet, previous, stream))
                previous = packet
    except LIBAV_ERRORS:
        broken = True
    finally:
        packets.close()  # type: ignore[attr-defined]  # it is a generator and holds the file
    return _judge(found, broken, container.format.name, stream)


def _describe(packet: Packet[VideoStream], previous: Packet[VideoStream] | None, stream: VideoStream) -> _Packet:
    codec, random_access, irregular = stream.codec_context.codec.canonical_name, packet.is_keyframe, packet.is_discard
    if random_access and codec in _RANDOM_ACCESS:
        types = _nal_types(packet, stream)
        random_access = bool(types & _RANDOM_ACCESS[codec])
        if codec == "hevc":
            after_end = previous is not None and _nal_types(previous, stream) & _HEVC_END
            irregular = bool(irregular or after_end or types & _HEVC_BLA)
    return _Packet(packet.pts, packet.size, packet.is_keyframe, random_access, irregular, packet.is_corrupt)


def _nal_types(packet: Packet[VideoStream], stream: VideoStream) -> set[int]:
    data, extradata = bytes(packet), stream.codec_context.extradata or b""
    hevc = stream.codec_context.codec.canonical_name == "hevc"
    if extradata[:1] != b"\1":
        first_bytes = [unit[0] for unit in data.split(b"\0\0\1")[1:] if unit]
    else:  # length-prefixed, as in MP4 and Matroska
        width, at, first_bytes = (extradata[21 if hevc else 4] & 3) + 1, 0, []
        while at + width < len(data):
            first_bytes.append(data[at + width])
            at += width + int.from_bytes(data[at : at + width])
    return {(byte >> 1) & 63 if hevc else byte & 31 for byte in first_bytes}


def _judge(packets: list[_Packet], broken: bool, container_format: str, stream: VideoStream) -> PacketIndex:
    context, codec = stream.codec_context, stream.codec_context.codec.canonical_name
    expected = stream.frames if "mp4" in container_format else 0
    total, damage = max(expected, len(packets)), None
    if len(packets) < expected:
        damage = "the file is cut off"
    elif broken or any(packet.corrupt for packet in packets):
        damage = "the video is damaged"
    if damage or any(packet.irregular for packet in packets):
        return PacketIndex(total, damage)
    if codec in _ALWAYS_ONE_FRAME and context.reorder_depth == 0:
        return PacketIndex(total, damage, bool(packets) and all(packet.size > _NOT_CODED for packet in packets))
    if codec in _PTS_IS_TRUE and container_format != "avi" and context.field_order in (0, 1):  # progressive
        pts = np.array([packet.pts for packet in packets if packet.pts is not None], np.int64)
        keys = np.flatnonzero([packet.random_access for packet in packets])
        if len(pts) == len(packets) and _in_order(pts, keys):
            closed = len(keys) == sum(packet.key for packet in packets)
            ordered = np.sort(pts)
            return PacketIndex(total, damage, True, ordered, np.searchsorted(ordered, pts[keys]), closed)
    return PacketIndex(total, damage)


def _in_order(pts: np.ndarray, keys: np.ndarray) -> bool:
    """Whether PTS, here in decoding order, give the order of frames, and time never runs back over a key frame."""
    if len(np.unique(pts)) < len(pts) or not len(keys) or keys[0] != 0 or pts[0] != pts.min():
        return False
    return bool((np.maximum.accumulate(pts)[keys[1:] - 1] < pts[keys[1:]]).all())
