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

    as the published code trains and tests. A snippet is ``length`` consecutive frames; past the end the last
    frame repeats. Clip k of K takes the k-th of every K centres of N·K segments; random clips are independent.

    Returns:
        [num_clips, num_segments * length]
    """
    if random:
        first = np.zeros(num_segments, dtype=np.int64)
        starts = np.stack([_random_starts(num_frames, length, num_segments, first) for _ in range(num_clips)])
    else:
        parts = num_segments * num_clips
        tick = max(num_frames - length + 1, 0) / parts
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
    if random:
        span = clip_len * frame_interval
        spread = _spread(num_clips, max(num_frames - span + 1, 0) / num_clips)
        starts = _random_starts(num_frames, span, num_clips, spread)
    else:
        room = max(num_frames - (clip_len - 1) * frame_interval - 1, 0)
        starts = _spread(num_clips, room / (num_clips - 1)) if num_clips > 1 else np.array([room // 2])
    frames = starts[:, None] + np.arange(clip_len) * frame_interval
    if out_of_bound == "loop":
        return frames % num_frames
    last = np.where(frames < num_frames, frames, 0).max(axis=1, keepdims=True)
    return np.where(frames < num_frames, frames, last)


def _spread(count: int, step: float) -> Indices:
    return np.round(np.arange(count) * step).astype(np.int64)


def _random_starts(num_frames: int, span: int, count: int, otherwise: Indices) -> Indices:
    """One start from each of ``count`` equal parts, or sorted draws, or ``otherwise`` where there is no choice."""
    num_starts, starts = num_frames - span + 1, otherwise
    if (part := num_starts // count) > 0:
        starts = np.arange(count) * part + torch.randint(part, (count,)).numpy()
    elif num_frames > max(count, span):
        starts = np.sort(torch.randint(num_starts, (count,)).numpy())
    return starts
