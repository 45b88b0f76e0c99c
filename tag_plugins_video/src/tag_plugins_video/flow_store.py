"""A file of optical flow: a ZIP archive of grey JPEG pictures, the x part above the y part, and ``flow.json``.

Any picture is read without the others. A sixteenth of the raw bytes on the test videos; the JPEG error comes on
top of the rounding to 8 bits.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.files import atomic

SUFFIX = ".flow"
QUALITY = 95
_DAMAGE = (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, RuntimeError, SyntaxError, EOFError)


def write_store(
    path: Path,
    first: np.ndarray,
    others: Iterable[np.ndarray],
    about: Mapping[str, Any],
    damage: Callable[[], str | None] = lambda: None,
) -> int:
    """Write flow pictures, uint8 [H, W, 2], as they come; the file appears when all are written.

    Args:
        about: what else ``flow.json`` tells.
        damage: asked at the end: what was wrong with the video.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    count = 0
    with atomic(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for flow in chain([first], others):
            data = io.BytesIO()
            Image.fromarray(np.concatenate([flow[..., 0], flow[..., 1]])).save(data, "JPEG", quality=QUALITY)
            archive.writestr(zipfile.ZipInfo(_name(count)), data.getvalue())
            count += 1
        height, width = first.shape[:2]
        told = {**about, "frames": count, "height": height, "width": width, "damage": damage()}
        archive.writestr(zipfile.ZipInfo("flow.json"), json.dumps(told))
    return count


class FlowStore:
    """One open store; use it in a ``with`` statement.

    Attributes:
        num_frames: flow pictures, one less than the video had frames.
        fps: of the video.
        bound: pixels that 0 and 255 stand for.
        video_bytes: size of the video's file, or None.
        damage: what was wrong with the video, or None.

    Raises:
        UnreadableInput: no such file, or not a store.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not Path(path).exists():
            raise UnreadableInput(path, "no such file")
        try:
            self._archive = zipfile.ZipFile(path)
            about = json.loads(self._member("flow.json"))
            self.num_frames, self._size = int(about["frames"]), (int(about["height"]), int(about["width"]))
            self.fps, self.bound = float(about["fps"]), float(about["bound"])
            self.damage: str | None = about["damage"]
            self.video_bytes: int | None = about.get("video_bytes")
            if self.num_frames < 1:
                raise ValueError("no frames")
        except _DAMAGE as error:
            raise UnreadableInput(path, "not a file of 'tag-run flow', or damaged") from error

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [T, H, W, 2]: x and y.

        Raises:
            UnreadableInput: a picture is damaged.
        """
        height, width = self._size
        found = {}
        for index in set(indices):
            try:
                with Image.open(io.BytesIO(self._member(_name(index)))) as image:
                    found[index] = np.asarray(image.convert("L")).reshape(2, height, width)
            except (*_DAMAGE, Image.DecompressionBombError) as error:
                raise UnreadableInput(self.path, f"picture {index} is damaged or missing") from error
        return np.stack([found[index] for index in indices]).transpose(0, 2, 3, 1)

    def __enter__(self) -> FlowStore:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def _member(self, name: str) -> bytes:
        if self._archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError("compressed")  # a tiny file could unpack to anything
        return self._archive.read(name)


def _name(index: int) -> str:
    return f"{index:06d}.jpg"
