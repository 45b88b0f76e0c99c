"""A data set that only motion solves: handwritten digits gliding over a torus, as H.264 files.

The class is one of eight directions. Start, speed and digit are random, and the plane wraps round, so
that no single frame says anything about the class: a model that ignores time stays at chance (12.5 %).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import numpy as np

from tag_core.errors import UserError

DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (0, 1),
    "up-right": (-1, 1),
    "up": (-1, 0),
    "up-left": (-1, -1),
    "left": (0, -1),
    "down-left": (1, -1),
    "down": (1, 0),
    "down-right": (1, 1),
}
"""Class -> (rows, columns) per step."""

SIDE, SCALE, FRAMES, RATE = 32, 2, 8, 8
SPEEDS = (1, 2, 3)
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
"""Of the digit pictures: no picture is in two splits."""


def make_motion_data(folder: str | Path, counts: Mapping[str, int], seed: int = 0) -> Iterator[Path]:
    """Write ``folder/<split>/<direction>/<number>.mp4``, yielding each file as it is written.

    The same arguments give the same clips, and a folder that is complete (says its ``motion.json``) is
    left as it is.

    Args:
        counts: clips per split (``train``, ``val``, ``test``), spread evenly over the directions.

    Raises:
        UserError: the folder holds something else, or scikit-learn is not installed.
    """
    folder = Path(folder)
    wanted = {"seed": seed, **{split: counts.get(split, 0) for split in SHARES}}
    if _is_complete(folder, wanted):
        return
    _note(folder, {**wanted, "complete": False})
    splits = _split_digits(load_digits(), seed)
    for number, split in enumerate(SHARES):
        rng = np.random.default_rng([seed, number])
        for index in range(wanted[split]):
            name = list(DIRECTIONS)[index % len(DIRECTIONS)]
            path = folder / split / name / f"{index:05d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            digit = splits[split][rng.integers(len(splits[split]))]
            write_clip(path, render(digit, DIRECTIONS[name], rng))
            yield path
    _note(folder, {**wanted, "complete": True})


def render(digit: np.ndarray, direction: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A digit [8, 8] of 0..255 moving from a random place at a random speed: uint8 [T, H, W]."""
    plane = np.zeros((SIDE, SIDE), dtype=np.uint8)
    plane[: digit.shape[0], : digit.shape[1]] = digit
    start, speed = rng.integers(SIDE, size=2), rng.choice(SPEEDS)
    places = [start + speed * step * np.array(direction) for step in range(FRAMES)]
    frames = np.stack([np.roll(plane, tuple(place), axis=(0, 1)) for place in places])
    return frames.repeat(SCALE, axis=1).repeat(SCALE, axis=2)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Encode grey frames [T, H, W] as H.264 in mp4, fine enough to leave no trail that betrays motion."""
    with av.open(str(path), "w") as container:
        # x264's macroblock tree looks at memory it has not written: the same clip would not give the same file.
        options = {"crf": "10", "preset": "veryfast", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())


def load_digits() -> np.ndarray:
    """scikit-learn's 1,797 handwritten digits, uint8 [N, 8, 8] of 0..255."""
    try:
        from sklearn import datasets
    except ImportError as error:
        hint = "pip install 'tag-plugins-video[demo]'"
        raise UserError(f"the digits come with scikit-learn, which is not installed: {hint}") from error
    images = np.asarray(datasets.load_digits().images)
    return np.round(images * (255 / 16)).astype(np.uint8)


def _split_digits(digits: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(digits))
    cuts = np.cumsum([round(share * len(digits)) for share in SHARES.values()])[:-1]
    return dict(zip(SHARES, np.split(digits[order], cuts), strict=True))


def _is_complete(folder: Path, wanted: Mapping[str, int]) -> bool:
    if not folder.is_dir() or not os.listdir(folder):
        return False
    try:
        found = json.loads((folder / "motion.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder}: holds something else; name a new or empty folder") from None
    complete = bool(found.pop("complete", False))
    if found != wanted:
        raise UserError(f"{folder}: holds clips made with other settings; delete it or name another folder")
    return complete


def _note(folder: Path, settings: Mapping[str, int | bool]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "motion.json").write_text(json.dumps(settings) + "\n", encoding="utf-8")
