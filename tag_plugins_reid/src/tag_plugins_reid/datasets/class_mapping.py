"""Pictures listed in a JSON file by identity."""

from __future__ import annotations

import os
from functools import partial
from re import Pattern

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_plugins_reid.datasets.base import PictureDataset, Row, camera_of, compiled, present, read_json


class ClassMapping(PictureDataset):
    """Pictures by identity in a JSON file, ``{"identity": ["path", ...], ...}``, as pytorch-reid reads them.

    Args:
        source: the file, or the folder with a class_mapping.json in it, or several; with gallery, the queries'.
        gallery: the file of what is searched; default: every picture is searched for among all others.
        labelled: False takes pictures, folders or patterns without identities.
        root: folder that the paths are relative to; default: the file's.
        classes: identities in index order; default: those of the file, sorted.
        camera: regular expression with a group that finds the camera in a file's name; default: no cameras.
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        gallery: str | list[str] | None = None,
        labelled: bool = True,
        root: str | None = None,
        classes: list[str] | None = None,
        camera: str | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        read = partial(read_mapping, root=root, camera=compiled("camera", camera) if camera else None)
        super().__init__(source, gallery, labelled, classes, transforms, read)


def read_mapping(source: str, root: str | None, camera: Pattern[str] | None) -> list[Row]:
    """The rows of one file.

    Raises:
        UserError: it is missing, no such JSON, holds an identity without a picture, or none of its pictures is there.
    """
    file = os.path.join(source, "class_mapping.json") if os.path.isdir(source) else source
    mapping = read_json(file)
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f'{file}: expected {{"identity": ["path", ...], ...}}')
    folder, rows = os.path.dirname(file) if root is None else root, []
    for identity, paths in mapping.items():
        if not (isinstance(paths, list) and paths and all(isinstance(path, str) and path for path in paths)):
            raise UserError(f"{file}: identity {identity[:40]!r} needs a list of one path at least")
        whole = [os.path.join(folder, path) for path in paths]
        rows += [Row(path, identity, camera_of(path, camera)) for path in whole]
    return present(rows, file)
