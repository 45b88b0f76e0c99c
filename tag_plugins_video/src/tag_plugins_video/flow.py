"""Optical flow of videos, estimated with OpenCV and kept as 8-bit pictures.

Flow in pixels per frame is cut to ``[-bound, bound]`` and rounded to 0..255: at the default bound of 20 in
steps of 0.157 pixels, no motion being 128. Faster motion counts as the bound, so larger pictures want a larger one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tag_core.errors import UnreadableInput, UserError
from tag_core.media.video import Video, open_video
from tag_plugins_video.flow_store import write_store

Method = Literal["farneback", "tvl1"]
Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
CHUNK = 32


@dataclass(frozen=True)
class FlowSettings:
    """How flow is made; the files of one folder share them.

    Args:
        method: 'farneback' (Farnebäck, SCIA 2003) or 'tvl1' (Zach, Pock, Bischof, DAGM 2007), the slower and
            better one that published two-stream models are trained on.
        bound: pixels per frame at which flow is clipped.
        short_side: of the frames, before the flow is estimated; 0 leaves them as they are.
    """

    method: Method = "farneback"
    bound: float = 20.0
    short_side: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.bound < 1e6 or self.short_side < 0:
            raise UserError(f"bound must be above 0 and short_side 0 or more, got {self.bound} and {self.short_side}")


def write_flow(source: str, target: Path, settings: FlowSettings) -> int:
    """The flow of a video into a store file, whole or not at all; the number of flow pictures.

    Raises:
        UnreadableInput: the video cannot be read, or has a single frame.
        UserError: OpenCV, or the part of it that this method needs, is not installed.
        RunFolderError: ``target`` cannot be written.
    """
    estimate = estimator(settings.method)
    with open_video(source) as video:
        flows = (quantise(flow, settings.bound) for flow in flow_of(grey_frames(video, settings.short_side), estimate))
        first = next(flows, None)
        if first is None:
            raise UnreadableInput(source, video.damage or "a single frame has no motion")
        about = {**asdict(settings), "fps": video.fps, "video_bytes": os.path.getsize(source)}
        return write_store(target, first, flows, about, lambda: video.damage)


def quantise(flow: np.ndarray, bound: float) -> np.ndarray:
    """Pixels to uint8; what is not a number counts as no motion."""
    bounded: np.ndarray = np.clip(np.nan_to_num(flow, posinf=bound, neginf=-bound), -bound, bound)
    levels: np.ndarray = np.rint((bounded + bound) * (255 / (2 * bound))).astype(np.uint8)
    return levels


def restore(levels: np.ndarray, bound: float) -> np.ndarray:
    """uint8 to pixels, float32, within ``bound / 255`` of the bounded flow; 128 is bound / 255."""
    pixels: np.ndarray = levels.astype(np.float32) * np.float32(2 * bound / 255) - np.float32(bound)
    return pixels


def flow_of(frames: Iterator[np.ndarray], estimate: Estimator) -> Iterator[np.ndarray]:
    """From each frame to the next: T grey frames [H, W] give T - 1 flows [H, W, 2], x first, in pixels."""
    before: np.ndarray | None = None
    for frame in frames:
        if before is not None:
            yield estimate(before, frame)
        before = frame


def grey_frames(video: Video, short_side: int) -> Iterator[np.ndarray]:
    """All usable frames in order, uint8 [H, W]; of a damaged video its good part."""
    cv2, at = _opencv(), 0
    while at < video.num_frames:
        usable = video.num_frames
        try:
            frames = video.frames(range(at, min(at + CHUNK, usable)), short_side or None)
        except UnreadableInput:
            if video.num_frames in (0, usable):
                raise
            continue
        for frame in frames:
            yield cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        at += len(frames)


def estimator(method: Method) -> Estimator:
    """A function from two grey frames, uint8 [H, W], to the flow between them, float32 [H, W, 2].

    Raises:
        UserError: OpenCV, or its contributed part for 'tvl1', is not installed.
    """
    cv2 = _opencv()
    if method == "farneback":
        return lambda a, b: np.asarray(cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0))
    if not hasattr(cv2, "optflow"):
        raise UserError(
            "method 'tvl1' is in OpenCV's contributed modules, which are not installed. Put "
            "opencv-contrib-python-headless in the place of opencv-python-headless, or use --method farneback."
        )
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    return lambda a, b: np.asarray(tvl1.calc(a, b, None))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError("optical flow needs OpenCV; type: pip install 'tag-plugins-video[flow]'") from error
    cv2.setNumThreads(1)  # the videos are parallel already
    return cv2
