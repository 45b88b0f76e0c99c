"""WIDER FACE's result files: ``<event>/<picture>.txt`` has the picture's name, a number, and so many lines of faces.

A line is ``x y width height score``, in pixels of the original picture.
"""

from __future__ import annotations

import os
import tempfile
from itertools import chain
from math import isfinite, trunc
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tag_core.errors import RunFolderError, UserError
from tag_core.records import Record
from tag_plugins_face.wider import picture_name


class WiderText:
    """A folder of result files as WIDER FACE's evaluation reads them: ``<event>/<picture>.txt`` for every picture.

    The event is the folder that the picture is in. A frame of a video is ``<folder>/<video>_<frame>.txt``. Inputs that
    could not be read have no file: the format has no place for them. A folder of an earlier run is replaced as a whole.

    Args:
        decimals: of x, y, width and height, the rest is cut off; 0 gives whole pixels, as RetinaFace's own code writes
            them and its published figures are computed from.
    """

    suffix: ClassVar[str] = "wider"

    def __init__(self, path: Path, decimals: int = 0) -> None:
        if decimals < 0:
            raise ValueError(f"decimals must not be negative, not {decimals}")
        self.path, self.decimals = Path(path), decimals
        self.sources: dict[str, str] = {}
        self.scratch = tempfile.TemporaryDirectory(prefix=".tag-", dir=self.path.parent, ignore_cleanup_errors=True)
        self.folder = Path(self.scratch.name, "new")
        self.folder.mkdir()

    def write(self, record: Record) -> None:
        """Raises UserError for a record without scored boxes or a second picture of one name, RunFolderError."""
        if record.error is not None:
            return
        if record.boxes is None or record.scores is None or len(record.boxes) != len(record.scores):
            raise UserError(f"{record.source}: face/wider-text needs a score for each box; this task gives none")
        if None in (numbers := [*record.scores, *chain(*record.boxes)]) or not all(map(isfinite, numbers)):
            raise UserError(f"{record.source}: a box or score is infinite or nan, which face/wider-text cannot hold")
        name = picture_name(record.source) + (f"_{record.frame:06d}" if record.frame is not None else "")
        if name in self.sources:
            raise UserError(f"{self.sources[name]} and {record.source} would both be {name}.txt; predict them apart")
        self.sources[name] = record.source
        file = self.folder / f"{name}.txt"
        lines = [self._line(box, score) for box, score in zip(record.boxes, record.scores, strict=True)]
        text = "\n".join([file.stem, str(len(lines)), *lines, ""])
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(text.encode(errors="backslashreplace"))
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self.path}/{name}.txt: {error.strerror}; has its disk room?"
            ) from error

    def close(self) -> None:
        """The folder takes its name, whole."""
        if self.path.exists():
            os.replace(self.path, Path(self.scratch.name, "old"))
        os.replace(self.folder, self.path)
        self.scratch.cleanup()

    def _line(self, box: list[float], score: float) -> str:
        x1, y1, x2, y2 = (trunc(value * 10**self.decimals) / 10**self.decimals for value in box)
        numbers = (f"{value:.{self.decimals}f}" for value in (x1, y1, x2 - x1, y2 - y1))
        return f"{' '.join(numbers)} {score:.9g}"  # nine digits tell any float32


def read_folder(folder: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """``<event>/<picture>`` -> float64 [N, 5], x1 y1 x2 y2 score.

    Raises:
        UserError: there are no such files, or one is not in the format; it names the line.
    """
    files = sorted(Path(folder).glob("*/*.txt"))
    if not files:
        raise UserError(
            f"{folder}: there is no <event>/<picture>.txt in it; "
            "give the folder that holds the folders of events, with the sink face/wider-text it is predictions.wider"
        )
    return {f"{file.parent.name}/{file.stem}": read_file(file) for file in files}


def read_file(file: Path) -> np.ndarray[Any, Any]:
    """As :func:`read_folder`, of one picture."""
    try:
        _, number, *lines = (*file.read_text("utf-8", errors="replace").splitlines(), "", "")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    rows = {place: line.split() for place, line in enumerate(lines, 3) if line.strip()}
    if not number.strip().isdecimal() or int(number) != len(rows):
        raise UserError(f"{file}, line 2: the number of faces is {number.strip()!r}, and {len(rows)} lines follow")
    try:
        found = np.array([*rows.values()], np.float64).reshape(len(rows), 5)
        if not np.isfinite(found).all():
            raise ValueError
    except ValueError:
        place, line = next((place, line) for place, line in rows.items() if not _is_face(line))
        raise UserError(f"{file}, line {place}: not 'x y width height score': {' '.join(line)!r:.100}") from None
    found[:, 2:4] += found[:, :2]
    return found


def _is_face(line: list[str]) -> bool:
    try:
        return len(line) == 5 and bool(np.isfinite([float(number) for number in line]).all())
    except ValueError:
        return False
