"""`tag-run features` on two cores: how busy they are, and its speed against the least that computes the same.

    python benchmarks/feature_extraction.py [--only CASE ...] [--rounds N] [--videos N]

*floor*: two processes, each decoding a video (with Tag's reader, as in prediction_throughput.py), computing its
features on one thread, and taking the next; one array is written at the end. *Tag*: ``extract_features``, which is
what the command runs, into a fresh store. Both build the model, read its weights and start their processes in every
pass; imports are left out. Columns as in prediction_throughput.py. Exits with 1 where Tag keeps the cores less than
90 % busy (its own processes' CPU time over two cores' time), or is below 0.95 of the floor's speed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prediction_throughput import (
    CORES,
    FORK,
    HEAD,
    RESNET18,
    Case,
    Measured,
    compare,
    crop,
    make_files,
    make_model,
    normalised,
    print_row,
    two_cores,
)

from tag_core.media.video import open_video
from tag_plugins_video.feature_clips import Positions

BUSY, BAR = 0.9, 0.95
EVERY = 1.0  # seconds from position to position
Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What a side is given."""

    case: Case
    interval: int
    files: list[str]
    weights: Path

    @property
    def positions(self) -> Positions:
        return Positions(EVERY, None, self.case.frames, self.interval)


DENSE = {"sampler": "dense", "frame_interval": 2}
CASES = {
    "frames": (Case(RESNET18, 1, 112, 32, 96), 1),
    "clips": (Case({"name": "video/s3d"}, 16, 112, 8, 10, DENSE), 2),
}


class Floor:
    """Two processes that share nothing but the number of the next video."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self.task, self.found = task, Features()

    def run(self) -> None:
        model, following, ends = make_model(self.task.case, self.task.weights), FORK.Value("i", 0), []
        for _ in range(CORES):
            ours, theirs = FORK.Pipe()
            FORK.Process(target=self.work, args=(model, following, theirs), daemon=True).start()
            ends.append(ours)
        self.found = {name: rows for end in ends for name, rows in end.recv().items()}
        with tempfile.TemporaryFile() as file:
            np.save(file, np.concatenate(list(self.found.values())))

    def work(self, model: Any, following: Any, end: Any) -> None:
        found: Features = {}
        while True:
            with following:
                number, following.value = following.value, following.value + 1
            if number >= len(self.task.files):
                return end.send(found)
            found[self.task.files[number]] = self.features(model, self.task.files[number])

    def features(self, model: Any, path: str) -> np.ndarray:
        case = self.task.case
        with open_video(path) as video:
            wanted = self.task.positions(video.times(range(video.num_frames)))
            numbers, places = np.unique(wanted, return_inverse=True)
            frames = torch.from_numpy(crop(case, video.frames(numbers, case.short_side)))
        rows = []
        with torch.inference_mode():
            for batch in torch.from_numpy(places.reshape(wanted.shape)).split(case.batch):
                clips = normalised(model, frames[batch].permute(0, 1, 4, 2, 3))
                rows.append(model.backbone(clips.transpose(1, 2)).numpy())
        return np.concatenate(rows)

    def results(self) -> Features:
        return self.found


class Tag:
    """Extraction into a new store."""

    def __init__(self, task: Task) -> None:
        self.task, self.folder = task, Path(tempfile.mkdtemp())

    def run(self) -> None:
        from tag_plugins_video.features import extract_features

        recipe, settings = self.task.case.recipe(self.task.weights), self.task.positions
        options = {"clip_len": settings.clip_len, "frame_interval": settings.frame_interval}
        extract_features(recipe, self.task.files, self.folder, every=EVERY, dtype="float32", **options)

    def results(self) -> Features:
        from tag_plugins_video.feature_store import FeatureStore

        store = FeatureStore(str(self.folder))
        found = {video.source: store.read(video) for video in store.videos}
        shutil.rmtree(self.folder)
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Features of videos, against a bare floor.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, help="in place of each case's own number")
    options = parser.parse_args()
    two_cores()
    idlest = slowest = float("inf")
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            (case, interval), weights = CASES[name], Path(folder) / f"{name}.pt"
            torch.save(make_model(case, weights).state_dict(), weights)
            task = Task(case, interval, make_files(Path(folder), options.videos or case.videos), weights)
            sides = {"floor": Measured(Floor, task), "Tag": Measured(Tag, task, OMP_WAIT_POLICY="PASSIVE")}
            compare(sides, options.rounds, tolerance=1e-3)
            for side, measured in sides.items():
                print_row(f"{name}: {side}", measured, sides["floor"])
            idlest, slowest = min(idlest, sides["Tag"].busy), min(slowest, sides["Tag"].times(sides["floor"]))
    print(f"both cores at least {idlest:.1%} busy, bar {BUSY:.0%}: {'met' if idlest >= BUSY else 'MISSED'}")
    print(f"Tag at its worst {slowest:.3f} times the floor, bar {BAR}: {'met' if slowest >= BAR else 'MISSED'}")
    return int(idlest < BUSY or slowest < BAR)


if __name__ == "__main__":
    sys.exit(main())
