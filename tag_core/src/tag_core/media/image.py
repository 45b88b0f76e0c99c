"""Reading pictures of every common kind as upright RGB."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from tag_core.errors import UnreadableInput
from tag_core.media.file_checks import why_unreadable

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def read_image(file: str | Path | IO[bytes], source: str = "") -> np.ndarray:
    """A picture as RGB uint8 [H, W, 3], turned as its EXIF orientation says.

    Of several pictures in a file (GIF, multi-page TIFF) the first. Transparency is left out, gray is repeated, 16 bits
    a channel become 8 of them, floats are of [0, 1] or, where one is above 1, of [0, 255], and CMYK
    is converted without a colour profile.

    Args:
        file: a path, or an open binary file.
        source: what errors call it; by default its path.

    Raises:
        UnreadableInput: it is missing, no picture, cut off, or so large that it is taken for an attack.
    """
    with _opened(file, source) as image:
        turn = _turn(image)
        if image.mode[0] in "IF":  # 16 or 32 bits, integers or floats
            values = np.asarray(image, dtype=np.float32)
            largest = values.max(initial=0)
            top = {"F": 255.0 if largest > 1 else 1.0, "I": 65535.0 if largest > 255 else 255.0}.get(
                image.mode, 65535.0
            )
            image = Image.fromarray((values * (255 / top)).round().clip(0, 255).astype(np.uint8))
        rgb = image.convert("RGB")
        return np.array(rgb if turn is None else rgb.transpose(turn))


def image_size(file: str | Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from its header.

    Raises:
        UnreadableInput: as :func:`read_image`, but for damage behind the header.
    """
    with _opened(file, "") as image:
        width, height = image.size
        swapped = _turn(image) in (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])
    return (width, height) if swapped else (height, width)


def _turn(image: Image.Image) -> Transpose | None:
    """What makes it upright; Pillow turns TIFF itself. Nothing is decoded, as a PNG's own ``getexif`` would."""
    with contextlib.suppress(Exception):  # EXIF is often damaged
        return None if image.format == "TIFF" else _UPRIGHT.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    return None


@contextlib.contextmanager
def _opened(file: str | Path | IO[bytes], source: str) -> Iterator[Image.Image]:
    path = str(file) if isinstance(file, (str, Path)) else ""
    name = source or path or "picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes below Pillow's limit, odd EXIF, palettes
            with Image.open(file) as image:
                yield image
    except (UnidentifiedImageError, IsADirectoryError) as error:
        why = path and why_unreadable(path, "picture")
        raise UnreadableInput(name, why or "cannot identify it as a picture") from error
    except Exception as error:  # decoders of damaged files raise all kinds
        raise UnreadableInput(name, getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
