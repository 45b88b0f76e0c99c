"""Files that hold many records: what is in them, and one record at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tag_core.errors import UnreadableInput, UserError
from tag_core.media.sources import read_label_map
from tag_plugins_video import tfrecord
from tag_plugins_video.example_proto import frame_matrix, parse
from tag_plugins_video.feature_store import FeatureStore, StoredVideo, is_store
from tag_plugins_video.pickle_globals import Array
from tag_plugins_video.unpickle import GZIP, PickleFile, map_file

PICKLE_SUFFIXES = frozenset([".pkl", ".pickle", ".p"])
TFRECORD_SUFFIXES = frozenset([".tfrecord", ".tfrecords"])


@dataclass(frozen=True, slots=True)
class PickledFrames:
    """A record of a pickle: its matrices are left in the file."""

    rgb: Array
    audio: Array
    num_frames: int | None


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """A video of a store of ``tag-run features``."""

    store: FeatureStore
    video: StoredVideo


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a file.

    Attributes:
        path: the file.
        id: of the record, unique in the file; empty where the file as a whole cannot be read.
        labels: class numbers; of a store the name of the class.
        place: where it is: in a pickle, in a store, or (number, offset, length) in a TFRecord file.
        error: why it cannot be read.
    """

    path: str
    id: str
    labels: tuple[int | str, ...] = ()
    place: PickledFrames | StoredFrames | tuple[int, int, int] | None = None
    error: str | None = None

    @property
    def damage(self) -> str | None:
        """Of the video that a store's features are of."""
        return self.place.video.damage if isinstance(self.place, StoredFrames) else None

    @property
    def key(self) -> str:
        return f"{self.path}#{self.id}" if self.id else self.path

    def frames(self) -> dict[str, np.ndarray]:
        """``rgb`` [T, 1024] and ``audio`` [T, 128], uint8, of the frames that the record counts.

        Of a store its one modality, float [T, D].

        Raises:
            UnreadableInput: naming the record.
        """
        try:
            if self.place is None:
                raise UnreadableInput(self.key, self.error or "no such record in this file")
            if isinstance(self.place, StoredFrames):
                return {self.place.store.modality: self.place.store.read(self.place.video).astype(np.float32)}
            rgb, audio = _pickled(self.path, self.place) if isinstance(self.place, PickledFrames) else self._parsed()
        except UnreadableInput as error:
            raise UnreadableInput(self.key, error.reason) from error
        if not len(rgb) or len(rgb) != len(audio):
            raise UnreadableInput(self.key, f"{len(rgb)} frames of rgb and {len(audio)} of audio")
        return {"rgb": rgb, "audio": audio}

    def _parsed(self) -> tuple[np.ndarray, np.ndarray]:
        number, offset, length = self.place  # type: ignore[misc]
        data = map_file(self.path)
        record = tfrecord.read_piece(self.path, data, (offset, length), number)
        steps = parse(record, self.path).frames
        return frame_matrix(steps, "rgb", self.path), frame_matrix(steps, "audio", self.path)


def index_file(path: str) -> list[Entry]:
    """The records of a pickle, TFRecord file or store, without their frames.

    What cannot be read is an entry too, so that it is counted: a whole file, a record, or ``#rest``, what
    is missing or damaged at the end of a file.
    """
    try:
        records = {"tfrecord": _tfrecords, "store": _stored_videos}.get(file_format(path), _pickled_records)
        entries = list(records(path))
    except UnreadableInput as error:
        return [Entry(path, "", error=error.reason)]
    seen: Counter[str] = Counter()
    for position, entry in enumerate(entries):
        seen[entry.id] += 1
        if seen[entry.id] > 1:
            entries[position] = replace(entry, id=f"{entry.id}#{seen[entry.id]}")
    return entries or [Entry(path, "", error="no records in it")]


def file_format(path: str) -> Literal["pickle", "tfrecord", "store", "list"]:
    """By the suffix, else by the first bytes: what begins as no pickle, TFRecord or gzip file does is a text file."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PICKLE_SUFFIXES | TFRECORD_SUFFIXES:
        return "pickle" if suffix in PICKLE_SUFFIXES else "tfrecord"
    if is_store(path):
        return "store"
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except (OSError, ValueError) as error:
        raise UnreadableInput(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    checked = len(start) == 12 and tfrecord.masked(start[:8]) == int.from_bytes(start[8:], "little")
    if checked or start.startswith(GZIP):
        return "tfrecord"  # which says that gzip is not read
    return "pickle" if start[:1] == b"\x80" else "list"


def listed_files(source: str | Sequence[str], root: str | None = None) -> list[str]:
    """Record files, and in place of a list file the paths in it, one a line; each once.

    Paths in a list are relative to its folder unless ``root`` says otherwise.

    Raises:
        UserError: a list file that cannot be read or is empty.
    """
    found: list[str] = []
    for path in [source] if isinstance(source, str) else source:
        try:
            is_list = file_format(path) == "list"
        except UnreadableInput as error:
            raise UserError(f"{error}; give pickles, TFRecord files, feature stores or a list of them") from None
        found += _lines(path, root) if is_list else [path]
    return list(dict.fromkeys(found))


def open_lists(source: str | Sequence[str]) -> list[str]:
    """Lists replaced by what they list; what cannot be read stays, to be recorded as such."""
    found: list[str] = []
    for item in [source] if isinstance(source, str) else source:
        is_list = os.path.isfile(item) and file_format(item) == "list"
        found += listed_files(item) if is_list else [item]
    return found


def class_names(classes: Sequence[str] | None, label_map: str | None, num_classes: int) -> list[str]:
    """The names given, those of the map, or the numbers 0 to ``num_classes`` - 1."""
    names = classes or (read_label_map(label_map) if label_map else None)
    return list(names or map(str, range(num_classes)))


def _lines(path: str, root: str | None) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no list of files: {error}") from None
    if not any(lines):
        raise UserError(f"{path}: nothing is listed in it")
    return [os.path.join(os.path.dirname(path) if root is None else root, line) for line in lines if line]


def _tfrecords(path: str) -> Iterator[Entry]:
    with closing(tfrecord.TFRecordFile(path)) as file:
        for number, (offset, length) in enumerate(file.pieces):
            place = (number, offset, length)
            try:
                part = memoryview(file.data[offset : offset + min(length, 65536)])
                context = parse(part, path, context_only=True).context
            except UnreadableInput:  # reading it will say more: the checksum comes first
                context = {}
            name = (context.get("id") or context.get("video_id") or [str(number)])[0]
            labels = tuple(label for label in context.get("labels", []) if isinstance(label, int))
            yield Entry(path, _text(name), labels, place)
        if file.damage:
            yield Entry(path, "rest", error=file.damage)


def _stored_videos(path: str) -> Iterator[Entry]:
    store = FeatureStore(path)
    for video in store.videos:
        yield Entry(path, video.source, (video.label,) if video.label else (), StoredFrames(store, video))


def _pickled_records(path: str) -> Iterator[Entry]:
    with PickleFile(path) as file:
        tree = [file.tree] if isinstance(file.tree, dict) else file.tree
        if not isinstance(tree, list | tuple):
            raise UnreadableInput(path, f"a pickled {type(tree).__name__}, not a list of records")
        for number, record in enumerate(tree):
            yield _pickled_record(path, number, record)


def _pickled_record(path: str, number: int, record: Any) -> Entry:
    values = {_text(name): value for name, value in record.items()} if isinstance(record, dict) else {}
    rgb, audio = values.get("feature"), values.get("audio")
    labels, num_frames = values.get("label", []), values.get("nframes")
    name = _text(values.get("video", number))
    if not (isinstance(rgb, Array) and isinstance(audio, Array)):
        return Entry(path, name, error=f"record {number} has no arrays 'feature' and 'audio'")
    if num_frames is not None and not isinstance(num_frames, int):
        return Entry(path, name, error=f"record {number}: nframes is {str(num_frames)[:20]!r}")
    if not isinstance(labels, list | tuple) or not all(isinstance(label, int) for label in labels):
        return Entry(path, name, error=f"record {number}: label is no list of class numbers")
    return Entry(path, name, tuple(labels), PickledFrames(rgb, audio, num_frames))


def _pickled(path: str, place: PickledFrames) -> tuple[np.ndarray, np.ndarray]:
    data = map_file(path)
    try:
        rgb, audio = place.rgb.read(data), place.audio.read(data)
    except ValueError as error:  # the file has changed, or says what is not so
        raise UnreadableInput(path, str(error)) from error
    for array in (rgb, audio):
        if array.dtype != np.uint8 or array.ndim != 2:
            raise UnreadableInput(path, f"frames of {array.dtype} {list(array.shape)}, not of uint8 [T, D]")
    end = len(rgb) if place.num_frames is None else max(place.num_frames, 0)
    return rgb[:end], audio[:end]


def _text(name: Any) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
