"""Clips as pickles of JPEG frames, the input of Paddle's video library v1."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from tag_core.errors import UnreadableInput
from tag_core.kinds import Transform
from tag_core.media.sampling import OutOfBound
from tag_core.media.sources import Item, Listing, expand_inputs
from tag_core.media.video import Clip
from tag_plugins_video.datasets.base import ClipDataset, Sampler, SamplerName
from tag_plugins_video.datasets.pictures import clip_of_pictures, read_picture
from tag_plugins_video.datasets.records import PICKLE_SUFFIXES, class_names, listed_files, open_lists
from tag_plugins_video.unpickle import PickleFile


class KineticsPickle(ClipDataset):
    """Pickles of ``(id, label, [jpeg, jpeg, ...])``, one clip each, listed in a text file.

    Nothing in a pickle is run, and only the frames that are asked for are read and decoded. Labels are in the
    files: integers from 0, or names.

    Args:
        source: text files with the path of a pickle on every line, or pickles.
        labelled: False takes no labels.
        root: folder that the paths are relative to; default: the list file's.
        classes: names in index order; default: from label_map, or the numbers 0 to num_classes - 1.
        label_map: file of class names, one a line in index order or ``name index``.
        num_classes: how many there are, where neither names nor a map are given.
        fps: frames per second, for times.
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

    suffixes = PICKLE_SUFFIXES

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        root: str | None = None,
        classes: list[str] | None = None,
        label_map: str | None = None,
        num_classes: int = 400,
        fps: float = 25.0,
        sampler: SamplerName = "paddle",
        num_segments: int = 7,
        clip_len: int = 1,
        frame_interval: int = 1,
        num_clips: int = 1,
        random: bool = False,
        out_of_bound: OutOfBound = "loop",
        short_side: int | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if num_classes < 1 or fps <= 0:
            raise ValueError(f"num_classes must be at least 1 and fps above 0, got {num_classes} and {fps}")
        paths = listed_files(source, root) if labelled else self.expand([source] if isinstance(source, str) else source)
        listing = Listing(tuple(map(Item, paths)), class_names(classes, label_map, num_classes))
        frames = Sampler(sampler, num_segments, clip_len, frame_interval, num_clips, random, out_of_bound, "snippet")
        super().__init__(listing, frames, short_side, transforms, labelled=False)
        self.labels_in_files, self.fps = labelled, fps

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """The pickles of these files, folders, patterns and lists."""
        return list(dict.fromkeys(open_lists(expand_inputs(inputs, cls.suffixes))))

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return sample | {"label": self.label(index)} if self.labels_in_files else sample

    def label(self, index: int) -> int:
        """The class number, from the file.

        Raises:
            UnreadableInput: the file cannot be read, or its label is not one of the classes.
        """
        path = self.items[index].path
        with PickleFile(path) as file:
            label = file.read(_parts(file)[1])
        label = label.decode("utf-8", "backslashreplace") if isinstance(label, bytes) else label
        if isinstance(label, str) and label in self.classes:
            return self.classes.index(label)
        if isinstance(label, int) and 0 <= label < len(self.classes):
            return int(label)
        raise UnreadableInput(path, f"label {str(label)[:40]!r} is not one of the {len(self.classes)} classes")

    def read(self, item: Item) -> Clip:
        with PickleFile(item.path) as file:
            stored = _parts(file)[2]
            if not isinstance(stored, list | tuple) or not stored:
                raise UnreadableInput(item.path, "no frames in it")

            def read(number: int) -> np.ndarray:
                data = file.read(stored[number])
                if not isinstance(data, bytes):
                    reason = f"frame {number} is a {type(data).__name__}, not a picture's bytes"
                    raise UnreadableInput(item.path, reason)
                return read_picture(io.BytesIO(data), item.path, number, self.short_side)

            return clip_of_pictures(item.path, self.choose(len(stored)), read, len(stored), self.fps)


def _parts(file: PickleFile) -> Any:
    if not isinstance(file.tree, list | tuple) or len(file.tree) != 3:
        raise UnreadableInput(file.path, "not a pickled (id, label, [jpeg, ...])")
    return file.tree
