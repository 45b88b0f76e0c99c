"""Small pictures with drawn faces, and a labelled set of them in the layout of WIDER FACE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
FACE_DATA = SHARED / "face"
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.78], [0.65, 0.78]])
"""Eyes, nose and corners of the mouth of a drawn face, as shares of its box."""


def draw_face(image: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    """A face with five landmarks into [H, W, 3], its box from (x, y)."""
    centre, radii = (x + width // 2, y + height // 2), (width // 2, height // 2)
    cv2.ellipse(image, centre, radii, 0, 0, 360, (224, 172, 140), -1)
    (left, right, nose, *mouth) = (POINTS * (width, height) + (x, y)).round().astype(int).tolist()
    size = max(1, width // 12)
    for eye in (left, right):
        cv2.circle(image, eye, size, (30, 30, 60), -1)
    cv2.circle(image, nose, size, (190, 120, 100), -1)
    cv2.line(image, mouth[0], mouth[1], (150, 20, 30), size)


def picture(
    seed: int, size: tuple[int, int] = (160, 200), faces: int = 2, least: int = 24, most: int = 64
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """uint8 [H, W, 3] of noise with faces that do not overlap, and their x, y, width, height."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(200):
        if len(boxes) == faces:
            break
        width = int(rng.integers(least, most + 1))
        height = round(width * 1.25)
        if height >= size[0] or width >= size[1]:
            continue
        x, y = int(rng.integers(size[1] - width)), int(rng.integers(size[0] - height))
        if all(x + width <= a or a + c <= x or y + height <= b or b + d <= y for a, b, c, d in boxes):
            draw_face(image, x, y, width, height)
            boxes.append((x, y, width, height))
    return image, boxes


def label_line(x: float, y: float, width: float, height: float, landmarks: bool = True) -> str:
    """A face's line in ``label.txt``."""
    points = POINTS * (width, height) + (x, y) if landmarks else np.full((5, 2), -1.0)
    told = " ".join(f"{a:.3f} {b:.3f} {0.0 if landmarks else -1.0}" for a, b in points)
    return f"{x} {y} {width} {height} {told} 0.5"


def write_labelled(
    folder: Path, count: int = 4, size: tuple[int, int] = (160, 200), faces: int = 2, least: int = 24, most: int = 64
) -> str:
    """``folder/label.txt`` and ``folder/images/<event>/<number>.png``; returns the path of ``label.txt``.

    Every third face has no landmarks labelled.
    """
    lines, number = [], 0
    for seed in range(count):
        name = f"{seed % 2}--Event{seed % 2}/{seed % 2}_Event{seed % 2}_{seed}.png"
        image, boxes = picture(seed, size, faces, least, most)
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        lines.append(f"# {name}")
        for box in boxes:
            number += 1
            lines.append(label_line(*box, landmarks=number % 3 > 0))
    file = folder / "label.txt"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def write_video(path: Path, pictures: Sequence[np.ndarray], rate: int = 10, key_every: int = 12) -> str:
    """Pictures [H, W, 3], all of one size, as H.264 nearly without loss, its index in front."""
    options = {"crf": "1", "x264-params": f"keyint={key_every}:min-keyint={key_every}:scenecut=0:mbtree=0"}
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv444p"
        stream.height, stream.width = pictures[0].shape[:2]
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))))
        container.mux(stream.encode())
    return str(path)


def packets(path: Path) -> list[tuple[int, int]]:
    """Place and size of every packet in a video file."""
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


def wipe_packet(path: Path, number: int) -> None:
    """Zeros in place of one packet of a video."""
    (at, size), data = packets(path)[number], bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
