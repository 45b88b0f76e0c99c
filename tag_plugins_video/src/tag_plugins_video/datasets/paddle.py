"""Which frames the list reader of Paddle's video library v1 takes."""

from __future__ import annotations

import numpy as np
import torch

from tag_core.media.sampling import Indices


def paddle(num_frames: int, num_segments: int, length: int = 1, random: bool = False, centre: str = "frame") -> Indices:
    """Snippets of consecutive frames from equal parts of the video (``kinetics_reader.py``).

    With d = num_frames // num_segments, segment i starts at i if d = 0, at i·d if d < length, else at
    i·d + U{0..d-length} (random), i·d + (d-1)//2 (``centre="frame"``: its reader of video files) or
    i·d + (d-length)//2 (``centre="snippet"``: its reader of stored frames). ``length`` consecutive
    frames follow, modulo num_frames.

    Returns:
        [1, num_segments * length]
    """
    step = num_frames // num_segments
    starts = np.arange(num_segments, dtype=np.int64) * max(step, 1)
    if step >= length and random:
        starts = starts + torch.randint(step - length + 1, (num_segments,)).numpy()
    elif step >= length:
        starts = starts + ((step - 1) // 2 if centre == "frame" else (step - length) // 2)
    return (starts[:, None] + np.arange(length)).reshape(1, -1) % num_frames
