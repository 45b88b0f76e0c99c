"""Pictures in a list or table, with identity and camera."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_core.media.sources import read_lines, read_table
from tag_plugins_reid.datasets.base import PictureDataset, Row, present

TABLES = (".csv", ".tsv", ".jsonl", ".json")
SEPARATOR = re.compile(r"\t|, ")


class PictureList(PictureDataset):
    """Pictures in a list file, ``path identity camera`` a line, or in a table with a header.

    Tables are ``.csv`` and ``.tsv`` with a header and ``.jsonl`` with an object a line. Fields of a list are
    separated by tabs or by a comma and a blank, or else by blanks. Cameras may be left out.

    Args:
        source: the list or table, or several; with gallery, that of the queries.
        gallery: list or table of what is searched; default: every picture is searched for among all others.
        labelled: False takes pictures, folders or patterns without identities.
        root: folder that the paths are relative to; default: the list's.
        classes: identities in index order; default: those listed, sorted.
        path_column: of a table: the column with the picture's path.
        identity_column: of a table: the column with its identity.
        camera_column: of a table: the column with its camera; 'camera' need not be there; empty: no cameras, from a
            list either.
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        gallery: str | list[str] | None = None,
        labelled: bool = True,
        root: str | None = None,
        classes: list[str] | None = None,
        path_column: str = "path",
        identity_column: str = "identity",
        camera_column: str = "camera",
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        read = partial(read_list, root=root, columns=(path_column, identity_column, camera_column))
        super().__init__(source, gallery, labelled, classes, transforms, read)


def read_list(file: str, root: str | None, columns: tuple[str, str, str]) -> list[Row]:
    """The rows of one file.

    Raises:
        UserError: naming the line that is malformed, or the column that is missing.
    """
    found = _rows_of_table(file, columns) if file.endswith(TABLES) else _rows_of_list(file)
    folder = os.path.dirname(file) if root is None else root
    rows = [Row(os.path.join(folder, path), who, where if columns[2] else "") for path, who, where in found]
    if not rows:
        raise UserError(f"{file}: nothing is listed in it")
    return present(rows, file)


def _rows_of_list(file: str) -> Iterator[tuple[str, str, str]]:
    for where, line in read_lines(file):
        fields = [field.strip() for field in SEPARATOR.split(line)] if SEPARATOR.search(line) else line.split()
        if len(fields) not in (2, 3) or not all(fields[:2]):
            raise UserError(f"{where}: expected 'path identity' or 'path identity camera', got {line[:60]!r}")
        yield fields[0], fields[1], fields[2] if len(fields) == 3 else ""


def _rows_of_table(file: str, columns: tuple[str, str, str]) -> Iterator[tuple[str, str, str]]:
    lacking = columns[2] not in ("", "camera")
    for where, row in read_table(file):
        path, identity, camera = ("" if row.get(name) is None else str(row[name]).strip() for name in columns)
        for option, name, value in zip(("path", "identity"), columns, (path, identity), strict=False):
            if not value:
                have = ", ".join(map(str, row))
                raise UserError(f"{where}: no value in column {name!r}; choose {option}_column among {have}")
        lacking = lacking and not camera
        yield path, identity, camera
    if lacking:
        have = ", ".join(map(str, row))
        raise UserError(
            f"{file}: no value in column {columns[2]!r}; choose camera_column among {have}, or leave it out"
        )
