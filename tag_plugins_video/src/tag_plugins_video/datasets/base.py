"""What the video data sets share: sampling, reading, transforms, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tag_core.kinds import Transform
from tag_core.media import sampling
from tag_core.media.sources import VIDEO_SUFFIXES, Item, Listing, expand_inputs, unique
from tag_core.media.video import Clip, read_clip
from tag_plugins_video.datasets.paddle import paddle

SamplerName = Literal["segments", "dense", "paddle"]


@dataclass(frozen=True)
class Sampler:
    """Frame numbers of a video, [clips, frames per clip]; see :mod:`tag_core.media.sampling`."""

    name: SamplerName
    num_segments: int
    clip_len: int
    frame_interval: int
    num_clips: int
    random: bool
    out_of_bound: sampling.OutOfBound
    paddle_centre: Literal["frame", "snippet"] = "frame"

    def __post_init__(self) -> None:
        for name in ("num_segments", "clip_len", "frame_interval", "num_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.name == "paddle" and self.num_clips > 1:
            raise ValueError("sampler 'paddle' takes one clip; set num_clips = 1")
        if self.name != "dense" and self.frame_interval > 1:
            raise ValueError(f"frame_interval belongs to sampler 'dense', not to {self.name!r}")

    def __call__(self, num_frames: int) -> sampling.Indices:
        if self.name == "dense":
            return sampling.dense(
                num_frames,
                self.clip_len,
                self.frame_interval,
                self.num_clips,
                self.random,
                self.out_of_bound,
            )
        if self.name == "paddle":
            return paddle(num_frames, self.num_segments, self.clip_len, self.random, self.paddle_centre)
        return sampling.segments(num_frames, self.num_segments, self.clip_len, self.num_clips, self.random)


class ClipDataset:
    """Clips of the listed videos, as samples for the task ``video/classification``.

    A sample holds ``clip``, uint8 [T, C, H, W] or [V, T, C, H, W] where there are V views (clips times
    crops); ``source``; ``label`` (an int, or a 0/1 vector [classes]) where labelled; ``time``, the seconds
    (first, last) that were looked at; ``damage``. A video that cannot be read raises UnreadableInput.
    """

    suffixes: ClassVar[frozenset[str]] = VIDEO_SUFFIXES
    channels: ClassVar[int] = 3

    def __init__(
        self,
        listing: Listing,
        sampler: Sampler,
        short_side: int | None,
        transforms: Sequence[Transform],
        labelled: bool,
        multi_label: bool = False,
    ) -> None:
        self.items, self.classes = listing.items, listing.classes
        self.sampler, self.short_side = sampler, short_side
        self.transforms = list(transforms)
        self.labelled, self.multi_label = labelled, multi_label
        self._keys = unique([item.path for item in self.items])

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """What prediction reads for these files, folders and patterns."""
        return expand_inputs(inputs, cls.suffixes)

    @classmethod
    def unlabelled(cls, source: str | Sequence[str], classes: Sequence[str] | None) -> Listing:
        """Inputs without labels; ``classes`` are passed on."""
        paths = cls.expand([source] if isinstance(source, str) else source)
        return Listing(tuple(Item(path) for path in paths), list(classes or []))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        clip = self.read(item)
        sample: dict[str, Any] = {"source": self.key(index), "clip": self.prepare(clip.frames)}
        sample["damage"] = clip.damage
        if len(clip.times):
            sample["time"] = (float(np.min(clip.times)), float(np.max(clip.times)))
        if self.labelled:
            sample["label"] = target(item.labels, len(self.classes), self.multi_label)
        return sample

    def example(self) -> dict[str, Any]:
        """A sample of noise, prepared as frames of any video are: squares, 256 pixels wide without a short_side."""
        frames = len(self.choose(self.sampler.num_clips * self.sampler.num_segments * self.sampler.clip_len))
        shape = (frames, *[self.short_side or 256] * 2, self.channels)
        return {"source": "example", "clip": self.prepare(np.random.randint(0, 256, shape, dtype=np.uint8))}

    def read(self, item: Item) -> Clip:
        """The sampled frames of one video, clip after clip."""
        return read_clip(item.path, self.choose, self.short_side)

    def choose(self, num_frames: int) -> list[int]:
        """The frames to read of a video, clip after clip."""
        return [int(index) for index in self.sampler(num_frames).ravel()]

    def prepare(self, frames: np.ndarray) -> Tensor:
        """From [T, H, W, 3] of all clips in a row to the sample's tensor."""
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        if self.sampler.num_clips > 1:
            clip = clip.reshape(self.sampler.num_clips, -1, *clip.shape[1:])
        for transform in self.transforms:
            clip = transform(clip)
        return clip.contiguous()

    def key(self, index: int) -> str:
        """The path; where a list names one twice, the second has ``#2`` behind it, and so on."""
        return self._keys[index]

    def label(self, index: int) -> int | list[int]:
        """The class index, or all of them where a video has several."""
        labels = self.items[index].labels
        return list(labels) if self.multi_label else labels[0]


def target(labels: Sequence[int], num_classes: int, multi_label: bool) -> int | Tensor:
    """What a sample's ``label`` is: the one class number, or float [num_classes] of 0 and 1."""
    if not multi_label:
        return labels[0]
    vector = torch.zeros(num_classes)
    vector[list(labels)] = 1
    return vector
