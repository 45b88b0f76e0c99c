"""Features of one's own videos, made by ``tag-run features``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tag_core.errors import UnreadableInput, UserError
from tag_core.media.sources import Item, expand_inputs, list_file, read_label_map, unique
from tag_plugins_video.datasets.base import target
from tag_plugins_video.datasets.frame_choice import FrameChoice
from tag_plugins_video.feature_store import FeatureStore, StoredVideo, is_store


@dataclass(frozen=True, slots=True)
class _Item:
    """A video of a store; ``error`` says why there is none."""

    source: str
    store: FeatureStore | None = None
    video: StoredVideo | None = None
    labels: tuple[int, ...] = ()
    error: str = ""


class VideoFeatures:
    """Sequences of features from stores of ``tag-run features``, as samples for the task ``video/tagging``.

    A sample holds the features under the name that the store gives them, ``frames`` by default, float
    [T, D] with zeros after the first ``length`` positions; ``source``, the video; ``label``, an int or a
    0/1 vector [classes], where labelled; ``damage``.

    Args:
        source: a store, the folder that 'tag-run features' wrote; or several made alike.
        labelled: False takes no labels.
        labels: file of 'path label' lines that labels the videos and says which to take; default: all, labelled
            by the class folders that they were in.
        root: of labels: folder that its paths are relative to; default: the file's.
        classes: names in index order; default: from label_map, or the labels, sorted.
        label_map: file of class names, one a line in index order or ``name index``.
        multi_label: labels are 0/1 vectors; lines of ``labels`` may have several.
        modality: another name for the features than the store's.
        max_frames: the longest T; longer videos lose their end. Of no effect with num_frames.
        num_frames: take this many positions, T, one of each equal part of the video.
        random: positions of ``num_frames`` at a random place of their part (training), else at its middle.
    """

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        labels: str | None = None,
        root: str | None = None,
        classes: list[str] | None = None,
        label_map: str | None = None,
        multi_label: bool = False,
        modality: str | None = None,
        max_frames: int = 300,
        num_frames: int | None = None,
        random: bool = False,
    ) -> None:
        FrameChoice(max_frames, num_frames, random)
        sources = [source] if isinstance(source, str) else source
        self.labelled, self.multi_label = labelled, multi_label
        self.classes = list(classes or (read_label_map(label_map) if label_map else []))
        if not labelled:
            self.items = _unlabelled(self.expand(sources))
        elif labels:
            listing = list_file(labels, root, self.classes or None, None, multi_label)
            self.items, self.classes = _listed(sources, listing.items), listing.classes
        else:
            self.items, self.classes = _in_folders(sources, self.classes)
        store = _one_kind(item.store for item in self.items if item.store)
        self.modality = modality or (store.modality if store else "")
        longest = max((item.video.length for item in self.items if item.video), default=1)
        self.choose = FrameChoice(min(max_frames, longest), num_frames, random)
        self._keys = unique([item.source for item in self.items])

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """The videos, ``store#video``, of these stores and patterns."""
        found: list[str] = []
        for path in expand_inputs(inputs, frozenset()):
            try:
                found += [f"{path}#{video.source}" for video in FeatureStore(path).videos] if is_store(path) else [path]
            except UnreadableInput:  # to be recorded as such
                found.append(path)
        return list(dict.fromkeys(found))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item, key = self.items[index], self.key(index)
        if item.store is None or item.video is None:
            raise UnreadableInput(key, item.error)
        try:
            rows = item.store.read(item.video).astype(np.float32)
        except UnreadableInput as error:
            raise UnreadableInput(key, error.reason) from error
        chosen = self.choose(len(rows))
        sample = {"source": key, self.modality: self.choose.pad(rows[chosen]), "length": len(chosen)}
        sample["damage"] = item.video.damage
        if self.labelled:
            sample["label"] = target(item.labels, len(self.classes), self.multi_label)
        return sample

    def key(self, index: int) -> str:
        """The video's path, as it was given to ``tag-run features``; the second of that name has ``#2`` behind it."""
        return self._keys[index]

    def label(self, index: int) -> int | list[int]:
        """The class index, or all of them where a video may have several."""
        labels = self.items[index].labels
        return list(labels) if self.multi_label else labels[0]


def _videos(sources: Iterable[str]) -> Iterator[tuple[FeatureStore, StoredVideo]]:
    """Raises UserError for what is no finished store."""
    for path in sources:
        try:
            store = FeatureStore(path)
        except UnreadableInput as error:
            raise UserError(f"{error}; make it with: tag-run features RECIPE VIDEOS {path}") from None
        yield from ((store, video) for video in store.videos)


def _in_folders(sources: Sequence[str], classes: list[str]) -> tuple[list[_Item], list[str]]:
    """All videos, labelled by their class folders; and the classes, by default those."""
    videos = list(_videos(sources))
    if unlabelled := [video.source for _, video in videos if video.label is None]:
        hint = "give a file of 'path label' lines as labels"
        raise UserError(
            f"{unlabelled[0]} was in no class folder, like {len(unlabelled)} of {len(videos)} videos; {hint}"
        )
    names = {str(video.label) for _, video in videos}
    classes = classes or sorted(names)
    if unknown := sorted(names - set(classes)):
        raise UserError(f"{sources[0]}: label {unknown[0]!r} is not one of the {len(classes)} classes")
    number = {name: index for index, name in enumerate(classes)}
    return [_Item(video.source, store, video, (number[str(video.label)],)) for store, video in videos], classes


def _listed(sources: Sequence[str], items: Iterable[Item]) -> list[_Item]:
    """The videos of a list; those that the stores do not have are recorded as unreadable."""
    found = {os.path.abspath(video.source): (store, video) for store, video in _videos(sources)}
    missing = f"no features of it in {', '.join(sources)}"
    located = ((item, *found.get(os.path.abspath(item.path), (None, None))) for item in items)
    return [_Item(item.path, store, video, item.labels, missing) for item, store, video in located]


def _unlabelled(sources: Iterable[str]) -> list[_Item]:
    """The videos that ``expand`` names."""
    stores: dict[str, tuple[FeatureStore | None, dict[str, StoredVideo], str]] = {}
    items = []
    for source in sources:
        hashes = [place for place, letter in enumerate(source) if letter == "#"]
        at = next((at for at in hashes if source[:at] in stores or is_store(source[:at])), len(source))
        path, name = source[:at], source[at + 1 :] or source
        if path not in stores:
            stores[path] = _opened(path)
        store, videos, error = stores[path]
        items.append(_Item(name, store, videos.get(name), error=error or "no features of it in the store"))
    return items


def _opened(path: str) -> tuple[FeatureStore | None, dict[str, StoredVideo], str]:
    try:
        store = FeatureStore(path)
    except UnreadableInput as error:
        return None, {}, error.reason
    return store, {video.source: video for video in store.videos}, ""


def _one_kind(stores: Iterable[FeatureStore]) -> FeatureStore | None:
    """One of the stores, if there is any.

    Raises:
        UserError: they were made in different ways.
    """
    kinds = {store.about["fingerprint"]: store for store in stores}
    if len(kinds) > 1:
        first, second, *_ = (store.path for store in kinds.values())
        raise UserError(f"{first} and {second} hold features of different models or settings; take stores made alike")
    return next(iter(kinds.values()), None)
