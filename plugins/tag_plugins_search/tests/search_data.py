"""Records and pictures for the tests of this package."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tag_core.records import Record

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200)}


def own_environment() -> dict[str, str]:
    """This process's, without the plugin that tests of the core add to it: it would be loaded by every new process."""
    return {key: value for key, value in os.environ.items() if not key.startswith("TAG_")}


def write_records(folder: Path, records: Iterable[Record], fingerprint: str | None = None) -> Path:
    """A run folder of predictions, with its model where a fingerprint is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(f"{record.to_json()}\n" for record in records))
    if fingerprint is not None:
        model = {"fingerprint": fingerprint, "recipe": {"name": f"recipe of {fingerprint}", "weights": "w.pt"}}
        (folder / "model.json").write_text(json.dumps(model))
    return folder


def write_pictures(folder: Path, count: int = 4, size: tuple[int, int] = (64, 48)) -> list[Record]:
    """``folder/<colour>/<i>.png`` of one colour each; the records' embeddings are near the colours."""
    noise = np.random.default_rng(0)
    records = []
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"{number}.png"
            Image.new("RGB", size, colour).save(path)
            embedding = np.array(colour) / 255 + noise.normal(0, 0.02, 3)
            records.append(Record(source=str(path), embedding=embedding.tolist()))
    return records
