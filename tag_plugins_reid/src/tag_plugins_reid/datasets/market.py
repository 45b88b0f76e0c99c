"""Market-1501 and the data sets that are laid out like it: the file's name says who and which camera."""

from __future__ import annotations

import os
from functools import partial
from re import Pattern
from typing import Literal

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_core.media.sources import read_lines
from tag_plugins_reid.datasets.base import GALLERY, JUNK, PictureDataset, Row, compiled, pictures

PATTERNS = {
    "market1501": r"^(?P<identity>-1|\d{4})_c(?P<camera>\d)s\d_",
    "dukemtmc": r"^(?P<identity>\d{4})_c(?P<camera>\d)_f\d",
    "msmt17": r"^(?P<identity>\d{4})_\d{3}_(?P<camera>\d{2})_",
    "veri": r"^(?P<identity>\d{4})_c(?P<camera>\d{3})_",
    "cuhk03-np": r"^(?P<identity>\d{4})_c(?P<camera>\d)_\d",
}
FOLDERS = {
    "train": ("bounding_box_train", "image_train"),
    "query": ("query", "image_query"),
    "gallery": ("bounding_box_test", "image_test", "gallery"),
}
"""Part -> the names that its folder has, but for MSMT17's, whose list files say which picture is of which part."""
PUBLISHED = frozenset(name for names in FOLDERS.values() for name in names)


class MarketPictures(PictureDataset):
    """Pictures whose names tell identity and camera: Market-1501, DukeMTMC-reID, MSMT17, VeRi, and CUHK03-NP.

    Market-1501's junk, ``-1``, is kept out of rankings and its distractors, ``0000``, are in the gallery only;
    neither is trained on. Patterns are market1501, dukemtmc, msmt17, veri and cuhk03-np.

    Args:
        source: the data set's folder as published, or a folder of such pictures; with gallery, the queries'.
        gallery: folder of what is searched, where the queries' is given as source.
        split: of a published folder: 'train', or 'test' for its queries and gallery.
        labelled: False takes pictures, folders or patterns without identities.
        classes: identities in index order; default: those found, sorted.
        pattern: whose names, or a regular expression with groups (?P<identity>...) and perhaps (?P<camera>...).
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        gallery: str | list[str] | None = None,
        split: Literal["train", "test"] = "train",
        labelled: bool = True,
        classes: list[str] | None = None,
        pattern: str = "market1501",
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if pattern not in PATTERNS and "(?P<identity>" not in pattern:
            known = ", ".join(PATTERNS)
            raise ValueError(f"pattern: expected {known}, or an expression with (?P<identity>...), got {pattern!r}")
        names = compiled("pattern", PATTERNS.get(pattern, pattern))
        read = partial(read_named, names=names, distractors=pattern == "market1501")
        if gallery is not None:
            super().__init__(source, gallery, labelled, classes, transforms, read)
        elif split == "train":
            super().__init__(source, None, labelled, classes, transforms, partial(read, part="train"))
        else:
            readers = [partial(read, part=part) for part in ("query", "gallery")]
            super().__init__(source, source, labelled, classes, transforms, *readers)


def read_named(source: str, names: Pattern[str], distractors: bool, part: str | None = None) -> list[Row]:
    """The rows of one folder, or of a part of a published data set; those of 'train' without junk and distractors.

    Args:
        names: what names look like.
        distractors: whether identity 0000 is nobody.
        part: 'train', 'query' or 'gallery'; None for the folder itself.

    Raises:
        UserError: nothing is there, or a name does not fit.
    """
    rows = []
    for path in paths_of(source, part):
        if not (found := names.search(os.path.basename(path))):
            raise UserError(
                f"{path}: the name does not fit {names.pattern} ; choose another pattern "
                f"({', '.join(PATTERNS)}, or one of your own), or remove the file"
            )
        named = found.groupdict()
        identity = named["identity"] or ""
        role = JUNK if identity == "-1" else GALLERY if distractors and identity == "0000" else None
        if role is None or part != "train":
            rows.append(Row(path, identity, named.get("camera") or "", role=role))
    return rows


def paths_of(source: str, part: str | None) -> list[str]:
    """The pictures of a part of a published data set, or of a folder; any folder is taken as one of training pictures.

    Raises:
        UserError: there is no such part, or the published folders lie deeper.
    """
    if part and os.path.isfile(file := os.path.join(source, f"list_{part}.txt")):
        return _listed(file, os.path.join(source, "train" if part == "train" else "test"))
    folders = [os.path.join(source, name) for name in FOLDERS.get(part or "", ())]
    folder = next(filter(os.path.isdir, folders), source)
    if folder == source and part in ("query", "gallery"):
        names = " or ".join(FOLDERS[part])
        raise UserError(f"{source}: no folder {names} in it; name the queries' with source, the other with gallery")
    paths = list(pictures(folder))
    for path in paths:
        if deeper := PUBLISHED.intersection(os.path.relpath(path, folder).split(os.sep)[:-1]):
            raise UserError(f"{folder}: {min(deeper)} lies deeper in it ({path}); name the folder that it lies in")
    return paths


def _listed(file: str, folder: str) -> list[str]:
    """The pictures of MSMT17's list, ``0000/0000_000_01_0303morning_0008_0.jpg 0`` a line.

    Args:
        folder: that the paths are relative to, as version 1 names it; version 2's is mask_<name>_v2.
    """
    if not os.path.isdir(folder):
        parent, name = os.path.split(folder)
        folder = os.path.join(parent, f"mask_{name}_v2")
    return [os.path.join(folder, line.rpartition(" ")[0] or line) for _, line in read_lines(file)]
