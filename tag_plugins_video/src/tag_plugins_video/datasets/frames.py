"""Videos stored as folders of pictures."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tag_core.errors import UnreadableInput
from tag_core.kinds import Transform
from tag_core.media.sampling import OutOfBound
from tag_core.media.sources import IMAGE_SUFFIXES, Item, expand_inputs, list_file, list_folders
from tag_core.media.video import Clip
from tag_plugins_video.datasets.base import ClipDataset, Sampler, SamplerName
from tag_plugins_video.datasets.pictures import clip_of_pictures, read_picture


class FrameFolders(ClipDataset):
    """Folders of pictures, one a frame: ``source/<class>/<video>/<frame>.jpg``, or listed in a file.

    Args:
        source: the folder that holds the class folders; or with ``layout = "list"`` a file with lines of
            ``folder num_frames label``; or several.
        labelled: False takes frame folders without labels.
        layout: how ``source`` is organised.
        template: names of the frames, such as ``img_{:05d}.jpg``; empty takes every picture, sorted by
            name (numbers by value).
        first: number of the first frame in ``template``.
        fps: frames per second, for times.
        root: of 'list': folder that the paths are relative to; default: the list file's.
        label_map: of 'list': file of class names, one a line in index order or ``name index``.
        multi_label: of 'list': lines of ``folder num_frames label label ...``.
        classes: names in index order; default: from the source.
        sampler: 'segments' (sparse, one snippet per equal part), 'dense' (clips of equally spaced
            frames) or 'paddle' (as Paddle's video library v1, for stored frames).
        num_segments: of 'segments' and 'paddle': equal parts of the video.
        clip_len: frames per snippet of a segment, or per clip of 'dense'.
        frame_interval: of 'dense': step from frame to frame.
        num_clips: clips taken from each video, as views of it.
        random: choose frames at random (training), else centred or evenly spread.
        out_of_bound: of 'dense': what follows the last frame of a short video.
        short_side: resize to this short side, in pixels.
        transforms: applied in order to uint8 [..., T, C, H, W].
    """

    suffixes = IMAGE_SUFFIXES

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        layout: Literal["folders", "list"] = "folders",
        template: str = "",
        first: int = 1,
        fps: float = 25.0,
        root: str | None = None,
        label_map: str | None = None,
        multi_label: bool = False,
        classes: list[str] | None = None,
        sampler: SamplerName = "segments",
        num_segments: int = 8,
        clip_len: int = 1,
        frame_interval: int = 1,
        num_clips: int = 1,
        random: bool = False,
        out_of_bound: OutOfBound = "loop",
        short_side: int | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if template and template.format(first) == template:
            raise ValueError(f"template {template!r} has no place for a number, such as img_{{:05d}}.jpg")
        if fps <= 0:
            raise ValueError(f"fps must be positive, got {fps}")
        if not labelled:
            listing = self.unlabelled(source, classes)
        elif layout == "list":
            listing = list_file(source, root, classes, label_map, multi_label, num_frames=True)
        else:
            listing = list_folders(source, IMAGE_SUFFIXES, classes, folders=True)
        frames = Sampler(sampler, num_segments, clip_len, frame_interval, num_clips, random, out_of_bound, "snippet")
        super().__init__(listing, frames, short_side, transforms, labelled, multi_label)
        self.template, self.first, self.fps = template, first, fps

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """The folders with pictures in them, under the folders given."""
        return expand_inputs(inputs, cls.suffixes, folders=True)

    def read(self, item: Item) -> Clip:
        paths = self._frame_paths(item)

        def read(number: int) -> np.ndarray:
            name = os.path.basename(paths[number])
            return read_picture(paths[number], item.path, name, self.short_side)

        return clip_of_pictures(item.path, self.choose(len(paths)), read, len(paths), self.fps)

    def _frame_paths(self, item: Item) -> list[str]:
        names = self._names(item)
        if not names:
            raise UnreadableInput(item.path, "no frames in this folder")
        return [os.path.join(item.path, name) for name in names]

    def _names(self, item: Item) -> list[str]:
        if self.template and item.num_frames:
            return [self.template.format(self.first + i) for i in range(item.num_frames)]
        try:
            found = os.listdir(item.path)
        except (OSError, ValueError) as error:
            raise UnreadableInput(item.path, f"not a folder of frames: {getattr(error, 'strerror', error)}") from error
        if self.template:
            numbered = (self.template.format(number) for number in itertools.count(self.first))
            return list(itertools.takewhile(set(found).__contains__, numbered))
        pictures = [name for name in found if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        return sorted(pictures, key=_natural)[: item.num_frames]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``frame2`` before ``frame10``."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
