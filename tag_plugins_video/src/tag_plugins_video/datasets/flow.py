"""Optical flow made by ``tag-run flow``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tag_core.kinds import Transform
from tag_core.media.sampling import OutOfBound
from tag_core.media.sources import Item, list_folders
from tag_core.media.video import Clip
from tag_plugins_video.datasets.base import ClipDataset, Sampler, SamplerName
from tag_plugins_video.flow_store import SUFFIX, FlowStore


class FlowFolder(ClipDataset):
    """Flow in one folder per class: ``source/<class>/**/<video>.flow``; clips float [T, 2, H, W], x and y.

    Args:
        source: the folder that holds the class folders; several share their classes.
        labelled: False takes flow files, folders or patterns without labels.
        classes: names in index order; default: the class folders, sorted.
        sampler: 'segments' (sparse, one snippet per equal part), 'dense' (clips of equally spaced
            frames) or 'paddle' (as Paddle's video library v1, for stored frames).
        num_segments: of 'segments' and 'paddle': equal parts of the video.
        clip_len: frames per snippet of a segment, or per clip of 'dense'.
        frame_interval: of 'dense': step from frame to frame.
        num_clips: clips taken from each video, as views of it.
        random: choose frames at random (training), else centred or evenly spread.
        out_of_bound: of 'dense': what follows the last frame of a short video.
        flip: how often a clip is mirrored at random, with its horizontal motion turned round.
        mean: taken off the flow, which is 0.5 where nothing moves and 0 or 1 at the bound.
        std: that it is divided by then.
        transforms: applied in order to uint8 [..., T, 2, H, W].
    """

    suffixes = frozenset([SUFFIX])
    channels = 2

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        classes: list[str] | None = None,
        sampler: SamplerName = "segments",
        num_segments: int = 8,
        clip_len: int = 1,
        frame_interval: int = 1,
        num_clips: int = 1,
        random: bool = False,
        out_of_bound: OutOfBound = "loop",
        flip: float = 0.0,
        mean: float = 0.5,
        std: float = 0.226,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if not 0 <= flip <= 1 or std <= 0:
            raise ValueError(f"flip must lie in [0, 1] and std be positive, got {flip} and {std}")
        listing = list_folders(source, self.suffixes, classes) if labelled else self.unlabelled(source, classes)
        frames = Sampler(sampler, num_segments, clip_len, frame_interval, num_clips, random, out_of_bound, "snippet")
        super().__init__(listing, frames, None, transforms, labelled)
        self.flip, self.mean, self.std = flip, mean, std

    def origin(self, index: int) -> str:
        """The video's path within the folder of flow: pictures and flow are held out alike."""
        return self.items[index].path.removesuffix(SUFFIX)

    def read(self, item: Item) -> Clip:
        with FlowStore(item.path) as store:
            indices = self.choose(store.num_frames)
            times = np.array(indices) / (store.fps or 1.0)
            return Clip(store.frames(indices), tuple(indices), times, store.num_frames, store.fps, store.damage)

    def prepare(self, frames: np.ndarray) -> Tensor:
        clip = super().prepare(frames).to(torch.float32) / 255
        if self.flip and torch.rand(()) < self.flip:
            clip = clip.flip(-1)
            clip[..., 0, :, :] = 1 - clip[..., 0, :, :]
        return (clip - self.mean) / self.std
