"""List files of pictures: with faces in the layout of RetinaFace's ``label.txt``, or plain."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tag_core.errors import UserError
from tag_core.media.sources import read_lines

BOX, LANDMARKS = 4, 15  # numbers of a face: x y w h, then five times x y v, then one of blur
EMPTY = np.zeros((0, 14), np.float32)


@dataclass(frozen=True, slots=True)
class Row:
    """One input: its path, and float32 [M, 14] of its faces: x1, y1, x2, y2, then x and y of five landmarks."""

    path: str
    faces: np.ndarray = field(default_factory=lambda: EMPTY)


def read_list(file: str) -> list[Row]:
    """The inputs that a file lists, one a line; if its first line begins with ``#``, it is a ``label.txt``.

    There a line ``# path`` names a picture in ``images/`` next to the file. The lines below it are its faces:
    ``x y w h``, then for five landmarks ``x y v``, then ``blur``; v and blur are not used. Where the first landmark's x
    is negative, none is labelled; they may be left out, and blur too. A face without width or height is left out.
    Paths of a plain list are relative to the file's folder or, where they are not there, to ``images/`` in it.

    Raises:
        UserError: the file cannot be read or lists nothing, or naming the line that is malformed.
    """
    lines = read_lines(file, comments=True)
    folder = os.path.dirname(file)
    if lines[0][1].startswith("#"):
        return [Row(os.path.join(folder, "images", path), faces) for path, faces in _pictures(lines)]
    return [Row(_located(folder, path)) for _, path in lines]


def _pictures(lines: list[tuple[str, str]]) -> Iterator[tuple[str, np.ndarray]]:
    """(path, faces) of a ``label.txt``, whose first line names a picture."""
    path, faces = "", list[list[float]]()
    for where, line in lines:
        if not line.startswith("#"):
            face = _face(where, line)
            faces += [face] if face[0] < face[2] and face[1] < face[3] else []
            continue
        if path:
            yield path, np.array(faces or EMPTY, np.float32)
        path, faces = line[1:].strip(), []
        if not path:
            raise UserError(f"{where}: expected '# path' of a picture, got {line!r}")
    yield path, np.array(faces or EMPTY, np.float32)


def _face(where: str, line: str) -> list[float]:
    try:
        numbers = [float(field) for field in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (BOX, BOX + LANDMARKS, BOX + LANDMARKS + 1) or not all(map(math.isfinite, numbers)):
        told = "expected a face, 'x y w h' and five times 'x y v' and 'blur' (20 numbers, or the first 4)"
        raise UserError(f"{where}: {told}, got {line[:60]!r}; a plain list of pictures has no line that begins with #")
    x, y, width, height, *points = numbers
    if not points or points[0] < 0:
        points = [math.nan] * LANDMARKS
    return [x, y, x + width, y + height, *(points[i] for i in range(LANDMARKS) if i % 3 < 2)]


def _located(folder: str, path: str) -> str:
    """WIDER FACE's own lists name pictures by ``/event/picture.jpg`` in ``images/``."""
    found, inside = os.path.join(folder, path), os.path.join(folder, "images", path.lstrip("/"))
    return inside if not os.path.exists(found) and os.path.exists(inside) else found
