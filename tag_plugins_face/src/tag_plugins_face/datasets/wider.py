"""Pictures and videos, with faces where a ``label.txt`` tells them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from tag_core.errors import UnreadableInput, UserError
from tag_core.kinds import Transform
from tag_core.media.image import read_image
from tag_core.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, as_list, expand_inputs, unique
from tag_core.media.video import open_video
from tag_plugins_face.datasets import stretches
from tag_plugins_face.datasets.label_file import Row, read_list
from tag_plugins_face.faces import Faces

log = logging.getLogger("tag")


class WiderFace:
    """Pictures with faces, as WIDER FACE comes with RetinaFace's labels; or pictures and videos without.

    A sample holds ``image``, uint8 RGB [3, H, W] as the transforms leave it; ``scale``, pixels of it per pixel of the
    original; ``source``; ``damage``; of a frame of a video ``frame``, its number, and ``time``, in seconds; where
    labelled ``faces``, :class:`~tag_plugins_face.faces.Faces` in pixels of ``image``, and ``label``, 0.
    A video is several items ``video.mp4#frames=0-7``, each a list of samples. What cannot be read raises
    UnreadableInput.

    Args:
        source: where labelled: a label.txt with pictures in images/ next to it; or, without faces, a folder of
            pictures or a plain list of them (.txt). Where not: pictures, videos, folders and lists (.txt) of them.
        labelled: False for what is to be predicted.
        classes: the one class's name; default: face.
        frame_interval: of a video, frame 0 and then every one at this distance is read.
        transforms: applied to a sample in order.
    """

    preparation: ClassVar[tuple[str, ...]] = ("transforms",)

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        classes: list[str] | None = None,
        frame_interval: int = 1,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if frame_interval < 1:
            raise ValueError(f"frame_interval must be at least 1, got {frame_interval}")
        self.labelled, self.frame_interval, self.transforms = labelled, frame_interval, list(transforms)
        self.classes = (classes or ["face"]) if labelled else []
        sources = as_list(source)
        self.rows = (
            [row for each in sources for row in _labelled(each)]
            if labelled
            else [Row(path) for path in self.expand(sources, frame_interval)]
        )
        if labelled and not any(len(row.faces) for row in self.rows):
            log.warning("%s: no face is labelled, so it is only for a metric that knows the faces", ", ".join(sources))
        self._keys = unique([row.path for row in self.rows])
        self._reader = stretches.StretchReader()

    @classmethod
    def expand(cls, inputs: Sequence[str], frame_interval: int = 1) -> list[str]:
        """What prediction reads: lists are opened, folders searched, and videos divided into stretches.

        A video that cannot be opened is one item. Doing it twice changes nothing.

        Args:
            frame_interval: a stretch holds 8 frames of this distance.

        Raises:
            UserError: a list that cannot be read, or names another list.
        """
        suffixes, found = IMAGE_SUFFIXES | VIDEO_SUFFIXES, list[str]()
        listed = [row.path for path in expand_inputs(inputs, suffixes) for row in _opened(path)]
        for path in expand_inputs(listed, suffixes):
            if _is_list(path):
                raise UserError(f"{path}: a list that another list names; name pictures, videos and folders there")
            found += stretches.divide(path, frame_interval) if _is_video(path) else [path]
        return list(dict.fromkeys(found))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | list[dict[str, Any]]:
        row, key = self.rows[index], self.key(index)
        if not self.labelled and (stretch := stretches.parse(row.path)):
            return self._frames(key, *stretch)
        if not self.labelled and _is_video(row.path):
            open_video(row.path).close()
            raise UnreadableInput(row.path, "it was unreadable when it was listed; start anew")
        if os.path.isdir(row.path):
            raise UnreadableInput(row.path, "no picture and no video is in this folder")
        sample = self._sample(key, read_image(row.path))
        if self.labelled:
            sample |= {"faces": Faces.of_rows(row.faces), "label": 0}
        return self.prepare(sample)

    def prepare(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample after the transforms."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample | {"image": sample["image"].contiguous()}

    def example(self) -> dict[str, Any]:
        """A sample of noise, prepared as a picture of 256x256 pixels."""
        return self.prepare(self._sample("example", np.random.randint(0, 256, (256, 256, 3), dtype=np.uint8)))

    def key(self, index: int) -> str:
        """The path, of a part of a video with its frames; where one comes twice, the second has ``#2`` behind it."""
        return self._keys[index]

    def file(self, index: int) -> str:
        """The key, but of a part of a video its path."""
        stretch = None if self.labelled else stretches.parse(self.rows[index].path)
        return stretch[0] if stretch else self.key(index)

    def label(self, index: int) -> int:
        """0: there is one class."""
        return 0

    def _frames(self, key: str, path: str, first: int, last: int) -> list[dict[str, Any]]:
        clip = self._reader.read(path, first, last, self.frame_interval)
        samples = [self._sample(key, image) | {"damage": clip.damage} for image in clip.frames]
        for sample, frame, time in zip(samples, clip.indices, clip.times, strict=True):
            sample |= {"frame": np.int64(frame), "time": np.float64(time)}  # with a shape: no picture joins their batch
        return [self.prepare(sample) for sample in samples]

    @staticmethod
    def _sample(key: str, image: np.ndarray) -> dict[str, Any]:
        return {"source": key, "image": torch.from_numpy(image).permute(2, 0, 1), "damage": None, "scale": 1.0}


def _labelled(source: str) -> list[Row]:
    if _is_list(source):
        return read_list(source)
    found = expand_inputs([source], IMAGE_SUFFIXES)
    if not os.path.isfile(found[0]):
        raise UserError(f"{source}: no label.txt, no list of pictures (.txt) and no folder with pictures")
    return [Row(path) for path in found]


def _opened(path: str) -> list[Row]:
    return read_list(path) if _is_list(path) else [Row(path)]


def _is_list(path: str) -> bool:
    return path.lower().endswith(".txt") and not os.path.isdir(path)


def _is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES and not os.path.isdir(path)
