"""Small pictures in files, for the tests of data sets and samplers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def write_pictures(folder: Path, names: Iterable[str], size: tuple[int, int] = (12, 8)) -> list[str]:
    """A picture of noise, the same for the same name, under each name; ``size`` is (height, width)."""
    paths = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        paths.append(str(path))
    return paths


def pixels(path: str | Path) -> np.ndarray:
    """uint8 [3, H, W] of a picture, by Pillow alone."""
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


def smallest_data(name: str, folder: Path) -> dict[str, Any]:
    """Two pictures of two identities as the data set reid/``name`` reads them, and the options to read them with."""
    ann, bo = write_pictures(folder, ["0001/0001_c1s1_000001_00.png", "0002/0002_c2s1_000002_00.png"])
    if name in ("folder", "market"):
        return {"source": str(folder)}
    file = folder / {"class-mapping": "class_mapping.json", "list": "list.txt"}.get(name, "f.json")
    annotation = {"bbox": [1, 1, 5, 9], "instance_id": 7, "image_id": 0}
    contents = {
        "class-mapping": {"ann": [ann], "bo": [bo]},
        "cuhk03": [{"train": [[ann, 1, 0], [bo, 2, 1]]}],
        "coco": {
            "images": [{"id": 0, "file_name": ann}],
            "annotations": [annotation, annotation | {"bbox": [0, 0, 5, 9]}],
        },
    }
    file.write_text(json.dumps(contents[name]) if name in contents else f"{ann} ann 1\n{bo} bo 2\n")
    return {"source": str(file)}
