"""Which frames of a video to read: pure functions from its number of frames to indices.

Each returns int64 [clips, frames per clip], every index in [0, num_frames). With ``random`` the
choices come from torch's global generator; without it they depend on the arguments alone.
``//`` rounds down, U{a..b} is a uniform integer with both ends, round() is to the nearest even.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]
OutOfBound = Literal["loop", "repeat_last"]


def segments(num_frames: int, num_segments: int, length: int = 1, num_clips: int = 1, random: bool = False) -> Indices:
    """TSN's sparse sampling (Wang et al., ECCV 2016): one snippet from each equal part of the video.

    With n = num_frames - length + 1 possible starts and N = num_segments, segment i = 0..N-1 starts at

    * random: i·d + U{0..d-1} with d = n // N; where d = 0, N sorted draws of U{0..n-1} if
      num_frames > N, else all 0;
    * centre: int(n/N/2 + n/N·i), also where n < N; all 0 where n <= 0.

    This is the published code's rule for training and for testing (in validation it takes frame 0 N times
    where n <= N). A snippet is ``length`` consecutive frames; past the end the last frame repeats.
    Several clips: clip k of K takes the k-th of every K centres of N·K segments; random clips are
    independent draws.

    Returns:
        [num_clips, num_segments * length]
    """
    _check(num_frames, num_segments=num_segments, length=length, num_clips=num_clips)
    n = num_frames - length + 1
    if random:
        starts = np.stack([_random_segments(num_frames, n, num_segments) for _ in range(num_clips)])
    else:
        parts = num_segments * num_clips
        tick = max(n, 0) / parts
        centres = np.array([int(tick / 2 + tick * i) for i in range(parts)], dtype=np.int64)
        starts = centres.reshape(num_segments, num_clips).T
    frames = starts[:, :, None] + np.arange(length)
    inside: Indices = np.minimum(frames, num_frames - 1)
    return inside.reshape(num_clips, -1)


def dense(
    num_frames: int,
    clip_len: int,
    frame_interval: int = 1,
    num_clips: int = 1,
    random: bool = False,
    out_of_bound: OutOfBound = "loop",
) -> Indices:
    """Clips of equally spaced frames, as MMAction2's ``SampleFrames`` (1.x, its defaults) takes them.

    A clip that starts at s reads s + j·frame_interval, j = 0..clip_len-1. With K = num_clips:

    * random: n = num_frames - clip_len·frame_interval + 1, d = n // K. d > 0: k·d + U{0..d-1}; else
      if num_frames > max(K, clip_len·frame_interval): K sorted draws of U{0..n-1}; else if d = 0:
      round(k·n/K); else 0.
    * test: m = max(num_frames - (clip_len-1)·frame_interval - 1, 0): round(k·m/(K-1)), or m // 2
      for one clip. (The two modes count the length of a clip differently, as published.)

    Frames past the end: ``loop`` takes them modulo num_frames; ``repeat_last`` repeats the last frame
    of the clip that exists.

    Returns:
        [num_clips, clip_len]
    """
    _check(num_frames, clip_len=clip_len, frame_interval=frame_interval, num_clips=num_clips)
    if random:
        starts = _random_clips(num_frames, clip_len * frame_interval, num_clips)
    else:
        room = max(num_frames - (clip_len - 1) * frame_interval - 1, 0)
        starts = np.array([room // 2])
        if num_clips > 1:
            starts = np.round(np.arange(num_clips) * (room / (num_clips - 1))).astype(np.int64)
    frames = starts[:, None] + np.arange(clip_len) * frame_interval
    if out_of_bound == "loop":
        return frames % num_frames
    last = np.where(frames < num_frames, frames, 0).max(axis=1, keepdims=True)
    return np.where(frames < num_frames, frames, last)


def paddle(num_frames: int, num_segments: int, length: int = 1, random: bool = False, centre: str = "frame") -> Indices:
    """The list reader of Paddle's video library v1 (``kinetics_reader.py``).

    With d = num_frames // num_segments, segment i starts at i if d = 0, at i·d if d < length, else at
    i·d + U{0..d-length} (random), i·d + (d-1)//2 (``centre="frame"``: its reader of video files) or
    i·d + (d-length)//2 (``centre="snippet"``: its reader of stored frames). ``length`` consecutive
    frames follow, modulo num_frames.

    Returns:
        [1, num_segments * length]
    """
    _check(num_frames, num_segments=num_segments, length=length)
    step = num_frames // num_segments
    starts = np.arange(num_segments, dtype=np.int64) * max(step, 1)
    if step >= length and random:
        starts = starts + _draw(step - length + 1, num_segments)
    elif step >= length:
        starts = starts + ((step - 1) // 2 if centre == "frame" else (step - length) // 2)
    return (starts[:, None] + np.arange(length)).reshape(1, -1) % num_frames


def _random_segments(num_frames: int, n: int, num_segments: int) -> Indices:
    if (step := n // num_segments) > 0:
        return np.arange(num_segments) * step + _draw(step, num_segments)
    if n > 0 and num_frames > num_segments:
        return np.sort(_draw(n, num_segments))
    return np.zeros(num_segments, dtype=np.int64)


def _random_clips(num_frames: int, span: int, num_clips: int) -> Indices:
    n = num_frames - span + 1
    if (step := n // num_clips) > 0:
        return np.arange(num_clips) * step + _draw(step, num_clips)
    if num_frames > max(num_clips, span):
        return np.sort(_draw(n, num_clips))
    if step == 0:
        return np.around(np.arange(num_clips) * (n / num_clips)).astype(np.int64)
    return np.zeros(num_clips, dtype=np.int64)


def _draw(high: int, count: int) -> Indices:
    """``count`` integers below ``high`` from torch's global generator."""
    drawn: Indices = torch.randint(high, (count,)).numpy()
    return drawn


def _check(num_frames: int, **counts: int) -> None:
    for name, value in {"num_frames": num_frames, **counts}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
