"""Pictures sorted into one folder per identity."""

from __future__ import annotations

import os
from functools import partial
from re import Pattern

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_plugins_reid.datasets.base import PictureDataset, Row, camera_of, compiled, pictures


class IdentityFolders(PictureDataset):
    """Pictures in one folder per identity: ``source/<identity>/<picture>``, with further folders between or not.

    Args:
        source: the folder that holds the identities' folders, or several; with gallery, that of the queries.
        gallery: the folder that is searched; default: every picture is searched for among all others.
        labelled: False takes pictures, folders or patterns without identities.
        classes: identities in index order; default: the folders, sorted.
        depth: folders below source that name the identity; default: all of them, down to the picture.
        camera: regular expression with a group that finds the camera in a file's name; default: no cameras.
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        gallery: str | list[str] | None = None,
        labelled: bool = True,
        classes: list[str] | None = None,
        depth: int | None = None,
        camera: str | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if depth is not None and depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        read = partial(read_folders, depth=depth, camera=compiled("camera", camera) if camera else None)
        super().__init__(source, gallery, labelled, classes, transforms, read)


def read_folders(root: str, depth: int | None, camera: Pattern[str] | None) -> list[Row]:
    """Identities are the names of the folders between ``root`` and the picture, joined by slashes.

    Raises:
        UserError: no such folder, one without a picture, a picture beside the folders, or a name without a camera.
    """
    rows = []
    for path in pictures(root):
        folders = os.path.relpath(path, root).split(os.sep)[:-1]
        if not folders:
            raise UserError(f"{path}: it lies in no identity's folder; expected {root}/<identity>/<picture>")
        rows.append(Row(path, "/".join(folders[:depth]), camera_of(path, camera)))
    return rows
