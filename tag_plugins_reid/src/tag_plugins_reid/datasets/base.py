"""What the picture data sets share: rows, roles, reading, transforms."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tag_core.errors import UnreadableInput, UserError
from tag_core.kinds import Transform
from tag_core.media.image import image_size, read_image
from tag_core.media.sources import IMAGE_SUFFIXES, as_list, expand_inputs, unique

QUERY, GALLERY, BOTH, JUNK = range(4)
"""Roles: of a query, of the gallery, of both (data without a split), of neither."""

log = logging.getLogger("tag")
Box = tuple[int, int, int, int]
Source = str | list[str]


@dataclass(frozen=True, slots=True)
class Row:
    """One picture, or one box in it, as a source lists it.

    ``camera`` is a number or name, empty where it is unknown. ``box`` is x1, y1, x2, y2 in pixels and ``picture_size``
    the height and width that it was drawn for, where that is told. ``role`` is None where the source decides.
    """

    path: str
    identity: str = ""
    camera: str = ""
    box: Box | None = None
    picture_size: tuple[int, int] | None = None
    role: int | None = None


Read = Callable[[str], Sequence[Row]]
"""From a folder or file to what it lists."""


class PictureDataset:
    """Pictures of identities, as samples for ``reid/embedding`` and the metric ``reid/market``.

    A sample holds ``image``, uint8 [3, H, W] as the transforms leave it; ``source``; ``damage``; where labelled
    also ``identity``, its name; ``label``, its index in ``classes``; ``camera``, -1 where unknown; ``role``: 0 query,
    1 gallery, 2 both, 3 junk; and ``box``, [x1, y1, x2, y2], where it was cut out. ``label`` is -1 for what has no
    class: identities that are not in ``classes``, and queries and galleries apart, whose identities are others than
    those of training even where their names are the same. A picture that cannot be read raises UnreadableInput.

    Args:
        source: what is read: both queries and gallery, or with gallery the queries alone.
        gallery: what is searched.
        labelled: False takes pictures, folders and patterns.
        classes: names in index order; default: the identities, sorted.
        transforms: applied in order to uint8 [3, H, W].
        read: lists one source.
        read_gallery: lists one gallery; default: read.
    """

    suffixes: ClassVar[frozenset[str]] = IMAGE_SUFFIXES
    preparation: ClassVar[tuple[str, ...]] = ("transforms",)

    def __init__(
        self,
        source: Source,
        gallery: Source | None,
        labelled: bool,
        classes: Sequence[str] | None,
        transforms: Sequence[Transform],
        read: Read,
        read_gallery: Read | None = None,
    ) -> None:
        self.labelled, self.transforms = labelled, list(transforms)
        if labelled:
            apart = gallery not in (None, source)  # two options, of which an error says which one it is about
            rows = _read_all(source, read, "source: " * apart)
            found = [(row, BOTH if gallery is None else QUERY) for row in rows]
            rows = _read_all(gallery or [], read_gallery or read, "gallery: " * apart)
            found += [(row, GALLERY) for row in rows]
            found = _once((row, role if row.role is None else row.role) for row, role in found)
        else:
            found = [(Row(path), BOTH) for path in self.expand(as_list(source))]
        self.rows = [row for row, _ in found]
        self.roles = [role for _, role in found]
        self.cameras = camera_numbers([row.camera for row in self.rows])
        if classes is None:
            classes = sorted({row.identity for row, role in zip(self.rows, self.roles, strict=True) if role != JUNK})
            if labelled and len(classes) == 1 and BOTH in self.roles:
                hint = "nothing is told apart from it; are the names of the identities elsewhere, as in a folder above?"
                log.warning("%s: has one identity alone (%s); %s", source, classes[0] or "without a name", hint)
        self._warn_of_pictures_in_both()
        if labelled:
            log.info("%s: %s", source, self._counts())
        self.classes = list(classes) if labelled else []
        self._index = {name: index for index, name in enumerate(self.classes)}
        self._keys = unique([row.path for row in self.rows])

    def _counts(self) -> str:
        """How the data were understood: ``3 queries, 5 in the gallery, 4 identities, no cameras``."""
        named = ((BOTH, "pictures"), (QUERY, "queries"), (GALLERY, "in the gallery"))
        counts = [f"{count} {name}" for role, name in named if (count := self.roles.count(role))]
        identities = {row.identity for row, role in zip(self.rows, self.roles, strict=True) if role != JUNK}
        cameras = len(set(self.cameras) - {-1}) or "no"
        return ", ".join([*counts, f"{len(identities)} identities", f"{cameras} cameras"])

    def _warn_of_pictures_in_both(self) -> None:
        sides: list[dict[tuple[str, Box | None], str]] = [{}, {}]
        for row, role, camera in zip(self.rows, self.roles, self.cameras, strict=True):
            if role in (QUERY, GALLERY) and camera < 0:  # what is from the same camera is no answer
                sides[role][os.path.abspath(row.path), row.box] = row.path
        if same := [path for key, path in sides[QUERY].items() if key in sides[GALLERY]]:
            told = "pictures are both query and gallery, and each finds itself as a right answer"
            log.warning("%d %s (such as %s); leave them out of one of the two", len(same), told, same[0])

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """What prediction reads for these files, folders and patterns."""
        return expand_inputs(inputs, cls.suffixes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, key = self.rows[index], self.key(index)
        image = read_image(row.path)
        if row.box is not None:
            image = crop(image, row, key)
        sample: dict[str, Any] = {"source": key, "image": self.prepare(image), "damage": None}
        if self.labelled:
            sample |= {"label": self.label(index), "identity": row.identity}
            sample |= {"camera": self.cameras[index], "role": self.roles[index]}
        if row.box is not None:
            sample["box"] = [float(edge) for edge in row.box]
        return sample

    def prepare(self, image: np.ndarray) -> Tensor:
        """From [H, W, 3] to the sample's tensor."""
        picture = torch.from_numpy(image).permute(2, 0, 1)
        for transform in self.transforms:
            picture = transform(picture)
        return picture.contiguous()

    def example(self) -> dict[str, Any]:
        """A sample of noise, prepared as a picture of 256x256 pixels."""
        noise = np.random.randint(0, 256, (256, 256, 3), dtype=np.uint8)
        return {"source": "example", "image": self.prepare(noise)}

    def key(self, index: int) -> str:
        """The path; of one that comes twice, or of boxes in one picture, the second has ``#2`` behind it, and so on."""
        return self._keys[index]

    def label(self, index: int) -> int:
        """The index of its class, or -1."""
        return self._index.get(self.rows[index].identity, -1) if self.roles[index] == BOTH else -1

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) before the transforms; of a file, its header alone is read."""
        row = self.rows[index]
        return image_size(row.path) if row.box is None else (row.box[3] - row.box[1], row.box[2] - row.box[0])


def _read_all(sources: Source, read: Read, option: str) -> list[Row]:
    try:
        return [row for each in as_list(sources) for row in read(each)]
    except UserError as error:
        raise UserError(f"{option}{error}") from error


def _once(found: Iterable[tuple[Row, int]]) -> list[tuple[Row, int]]:
    """Rows with their roles, without those that are listed again; a picture of two identities stays as both."""
    first: dict[tuple[str, Box | None, int], Row] = {}
    kept, again, two = dict[tuple[str, Box | None, int, str], Row](), list[str](), list[str]()
    for row, role in found:
        key = (os.path.abspath(row.path), row.box, role)
        if kept.setdefault((*key, row.identity), row) is not row:
            again.append(row.path)
        elif (before := first.setdefault(key, row)) is not row:
            two.append(f"{row.path} as {before.identity!r} and {row.identity!r}")
    if again:
        log.warning("pictures listed again: %d (such as %s); each counts once", len(again), again[0])
    if two:
        log.warning("pictures listed under two identities: %d (%s); both stay", len(two), two[0])
    return [(row, role) for (_, _, role, _), row in kept.items()]


def present(rows: list[Row], file: str) -> list[Row]:
    """The rows that a file lists.

    Raises:
        UserError: not one of the pictures is there.
    """
    if rows and not any(os.path.exists(row.path) for row in rows):
        hint = "; folders are separated by /, not by \\" * ("\\" in rows[0].path)
        raise UserError(
            f"{file}: its pictures are not there, the first as {rows[0].path}; paths are relative to the option root, "
            f"by default to the folder of this file{hint}"
        )
    return rows


def crop(image: np.ndarray, row: Row, key: str) -> np.ndarray:
    """The part of [H, W, 3] in the row's box.

    Raises:
        UnreadableInput: the picture has another size than the box was drawn for, or ends before it.
    """
    assert row.box is not None
    (height, width), (x1, y1, x2, y2) = image.shape[:2], row.box
    if row.picture_size is not None and row.picture_size != (height, width):
        told = f"{row.picture_size[1]}x{row.picture_size[0]}"
        raise UnreadableInput(key, f"it has {width}x{height} pixels, and its boxes are drawn for {told}")
    if x2 > width or y2 > height:
        raise UnreadableInput(key, f"its box reaches to {x2},{y2}, and it has {width}x{height} pixels")
    return image[y1:y2, x1:x2]


def camera_numbers(names: Sequence[str]) -> list[int]:
    """Numbers as they are, and -1 for none; if one is no number, the place of each among all names, sorted."""
    known = sorted(set(names) - {""})
    numbers = {name: int(name) for name in known if re.fullmatch(r"-1|\d{1,9}", name)}
    if len(numbers) < len(known):
        numbers = {name: place for place, name in enumerate(known)}
    return [numbers.get(name, -1) for name in names]


def pictures(folder: str) -> Iterator[str]:
    """Every picture in it and below, sorted; hidden folders and files are passed by.

    Raises:
        UserError: there is no such folder, or one without a picture.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: this folder cannot be read: {error.strerror}")

    for parent, below, names in os.walk(folder, onerror=refuse):
        below[:] = sorted(name for name in below if name[0] != ".")
        files = sorted(n for n in names if os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES and n[0] != ".")
        if not files and not below:
            some = ", ".join(sorted(IMAGE_SUFFIXES)[:4])
            raise UserError(f"{parent}: nothing in this folder ends in {some}, ...; fill it or remove it")
        yield from (os.path.join(parent, name) for name in files)


def compiled(option: str, pattern: str) -> re.Pattern[str]:
    """A regular expression that an option holds.

    Raises:
        ValueError: it is none, or has no group.
    """
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{option} is no regular expression: {error}, got {pattern!r}") from None
    if not found.groups:
        raise ValueError(f"{option} needs a group in parentheses around what is wanted, got {pattern!r}")
    return found


def camera_of(path: str, pattern: re.Pattern[str] | None) -> str:
    """What the group of the pattern holds in the file's name; nothing where there is no pattern.

    Raises:
        UserError: the name does not fit.
    """
    if pattern is None:
        return ""
    if not (found := pattern.search(os.path.basename(path))):
        raise UserError(f"{path}: the name does not fit camera={pattern.pattern} ; change that, or rename the file")
    return found[1] or ""


def read_json(path: str) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read, is no JSON, or has one name twice in an object.
    """
    try:
        return json.loads(Path(path).read_text("utf-8-sig"), object_pairs_hook=_unique_names)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read as JSON: {why}") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:40]!r} is there twice, and one would be lost; make it one")
        found[name] = value
    return found
