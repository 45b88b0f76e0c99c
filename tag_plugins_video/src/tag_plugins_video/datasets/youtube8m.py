"""YouTube-8M's frame features: pickles and TFRecord files of quantised records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tag_core.errors import UnreadableInput, UserError
from tag_core.media.sources import expand_inputs
from tag_plugins_video.datasets.frame_choice import FrameChoice
from tag_plugins_video.datasets.records import (
    PICKLE_SUFFIXES,
    TFRECORD_SUFFIXES,
    Entry,
    class_names,
    index_file,
    listed_files,
    open_lists,
)
from tag_plugins_video.feature_store import is_store


class YouTube8M:
    """Frame features of YouTube-8M (2018 frame-level set), as Paddle's video library v1 reads them.

    A sample holds ``rgb`` float [T, 1024] and ``audio`` float [T, 128], zeros after the first ``length``
    frames; ``source``, the file and behind ``#`` the record's id; ``label``, float [classes] of 0 and 1,
    where labelled; ``damage``. Pickles are lists of dicts with ``video``, ``feature``, ``audio``, ``label``
    and ``nframes``, read without running them; TFRecord files hold a SequenceExample for each video. Which
    records the files hold is found out at first use, without reading frames. Of a store of ``tag-run features``
    a sample holds the one modality that it has, float [T, D]; its labels are names of classes.

    Args:
        source: pickles, TFRecord files, stores of 'tag-run features', or text files with one such path a line.
        labelled: False takes no labels.
        root: folder that the paths in a list are relative to; default: the list's.
        classes: names in index order; default: from label_map, or the numbers 0 to num_classes - 1.
        label_map: file of class names, one a line in index order or ``name index``.
        num_classes: how many there are, where neither names nor a map are given.
        max_frames: T; longer videos lose their end. Of no effect with num_frames.
        num_frames: take this many frames, T, one of each equal part of the video (100 in AttentionCluster).
        random: frames of ``num_frames`` at a random place of their part (training), else at its middle.
        dequantize: to numbers from -2 to 2. False keeps bytes, a quarter of the memory, for the task to do.
        eigenvalues: .npy file of PCA eigenvalues [1024 or more, 1]; undoes the whitening of rgb, as NeXtVLAD
            wants.
    """

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        root: str | None = None,
        classes: list[str] | None = None,
        label_map: str | None = None,
        num_classes: int = 3862,
        max_frames: int = 300,
        num_frames: int | None = None,
        random: bool = False,
        dequantize: bool = True,
        eigenvalues: str | None = None,
    ) -> None:
        if num_classes < 1:
            raise ValueError("num_classes must be at least 1")
        if eigenvalues and not dequantize:
            raise ValueError("eigenvalues re-scale dequantised features; set dequantize = true")
        self.labelled, self.choose = labelled, FrameChoice(max_frames, num_frames, random)
        self.classes = class_names(classes, label_map, num_classes)
        self.numbers = {name: number for number, name in enumerate(self.classes)}
        self.dequantize, self.scale = dequantize, rgb_scale(eigenvalues) if eigenvalues else None
        self.sources = open_lists(source) if not labelled else listed_files(source, root)

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """The records, ``file#id``, of these files, folders, patterns and lists."""
        files = open_lists(expand_inputs(inputs, PICKLE_SUFFIXES | TFRECORD_SUFFIXES))
        keys = ([file] if _record(file) else [entry.key for entry in index_file(file)] for file in files)
        return list(dict.fromkeys(chain.from_iterable(keys)))

    @cached_property
    def entries(self) -> list[Entry]:
        """All records, found at first use."""
        indexed: dict[str, dict[str, Entry]] = {}
        found: list[Entry] = []
        for source in self.sources:
            path, record = _record(source) or (source, None)
            if path not in indexed:
                indexed[path] = {entry.id: entry for entry in index_file(path)}
            records = indexed[path]
            if record is None:
                found += records.values()
            else:
                found.append(records.get(record) or Entry(path, record, error=_whole(records)))
        return found

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """The file and, behind ``#``, the record's id; a second record of that id has ``#2`` behind it."""
        return self.entries[index].key

    def label(self, index: int) -> list[int]:
        """The class numbers, -1 for a name that is not among the classes."""
        return sorted(set(self._labels(self.entries[index])))

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        modalities = entry.frames()
        chosen = self.choose(len(next(iter(modalities.values()))))
        sample: dict[str, Any] = {"source": entry.key, "length": len(chosen), "damage": entry.damage}
        for name, frames in modalities.items():
            sample[name] = self._features(frames[chosen], self.scale if name == "rgb" else None)
        if self.labelled:
            sample["label"] = self._target(entry)
        return sample

    def example(self) -> dict[str, Any]:
        """YouTube-8M's features of noise, as long as they may be."""
        count = self.choose.num_frames or self.choose.max_frames
        rgb, audio = (np.random.randint(0, 256, (count, size), dtype=np.uint8) for size in (1024, 128))
        features = {"rgb": self._features(rgb, self.scale), "audio": self._features(audio)}
        return {"source": "example", **features, "length": count}

    def _features(self, frames: np.ndarray, scale: np.ndarray | None = None) -> Tensor:
        if frames.dtype != np.uint8:  # not YouTube-8M's own
            return self.choose.pad(frames)
        values = dequantize(frames) if self.dequantize else frames
        if scale is not None:
            values = (values - np.float32(4 / 512)) * scale[: values.shape[1]]
        return self.choose.pad(values)

    def _labels(self, entry: Entry) -> list[int]:
        return [self.numbers.get(label, -1) if isinstance(label, str) else label for label in entry.labels]

    def _target(self, entry: Entry) -> Tensor:
        target = torch.zeros(len(self.classes))
        for label, number in zip(entry.labels, self._labels(entry), strict=True):
            if not 0 <= number < len(target):
                raise UnreadableInput(entry.key, f"label {label} is not one of the {len(target)} classes")
            target[number] = 1
        return target


def dequantize(frames: np.ndarray) -> np.ndarray:
    """YouTube-8M's bytes as float32 from -2 to 2: the middle of each of 256 steps."""
    return frames.astype(np.float32) * np.float32(4 / 255) + np.float32(4 / 512 - 2)


def rgb_scale(path: str) -> np.ndarray:
    """float32 [1024]: sqrt(eigenvalue) + 1e-4 of each dimension, from a .npy file.

    Raises:
        UserError: no such file, or not of numbers of 0 and above.
    """
    try:
        with open(path, "rb") as file:
            values = np.lib.format.read_array(file).reshape(-1)[:1024].astype(np.float32)
    except (OSError, ValueError, TypeError, EOFError, MemoryError, SyntaxError, TokenError) as error:
        raise UserError(f"eigenvalues {path}: no .npy file of numbers: {error}") from None
    if len(values) < 1024 or not (values >= 0).all():
        raise UserError(f"eigenvalues {path}: 1024 or more numbers of at least 0 are needed")
    scale: np.ndarray = np.sqrt(values) + np.float32(1e-4)
    return scale


def _record(source: str) -> tuple[str, str] | None:
    """(file, record) of ``file#record``, None for a file. Names of files and of records may have a ``#`` too."""
    hashes = [place for place, letter in enumerate(source[:-1]) if letter == "#"]
    if not hashes or os.path.exists(source):
        return None
    files = (at for at in hashes if os.path.isfile(source[:at]) or is_store(source[:at]))
    return next(((source[:at], source[at + 1 :]) for at in files), None)


def _whole(records: dict[str, Entry]) -> str | None:
    """Why the file as a whole cannot be read."""
    return records[""].error if "" in records else None
