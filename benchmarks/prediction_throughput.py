"""Clips a second of Tag's prediction from video files, against the least that decodes and computes the same.

    python benchmarks/prediction_throughput.py [--only CASE ...] [--rounds N] [--videos N]

Three sides, on the same files, frames, model and weights, on two cores:

*floor*: two processes, each decoding a batch, computing it on one thread, and taking the next; nothing goes from
process to process, is written, or survives a faulty file. Neither core ever waits for the other, as it would with a
decoding process beside a computing one. It decodes with Tag's reader, since plain PyAV and decord are slower
(video_reading.py compares them).
*DataLoader*: a script in the style of torchvision's references: PyAV, float and normalised clips from two workers,
collated, through a model with torch's default threads.
*Tag*: what `tag-run predict --out` does once it has started: reading in workers that may crash, prediction, and the
shards of records, joined.
*same layout*: the same with `eval.channels_last=false`, which the other two do not set either.

Start-up (imports, models, weights, processes) is left out for all. Every side stays in a process of its own; they
take turns, and medians are compared, of the ratios of each round. Scores must agree, else nothing was compared. Shown
too: the ratio of the fastest rounds, that of CPU time, which other work on the machine disturbs less, and the share of
the two cores' time that a side was computing.
Exits with 1 where Tag is below 0.95 of the floor's clips a second, or not faster than the DataLoader script.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from video_reading import SHARED, encode_sample

from tag_core.media import sampling
from tag_core.media.video import read_clip

BAR, CORES, CLASSES = 0.95, 2, 10
SPAWN, FORK = get_context("spawn"), get_context("fork")
Scores = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """A backbone and what it is fed: ``frames`` of ``side`` x ``side`` pixels of a video."""

    backbone: dict[str, Any]
    frames: int
    side: int
    batch: int
    videos: int
    sampler: dict[str, Any] = field(default_factory=lambda: {"sampler": "segments"})

    @property
    def short_side(self) -> int:
        return self.side * 8 // 7

    def choose(self, num_frames: int) -> Sequence[int]:
        if self.sampler["sampler"] == "dense":
            return sampling.dense(num_frames, self.frames, self.sampler["frame_interval"]).ravel().tolist()
        return sampling.segments(num_frames, self.frames).ravel().tolist()

    def recipe(self, weights: Path, channels_last: bool | str = "auto") -> dict[str, Any]:
        count = {"clip_len" if self.sampler["sampler"] == "dense" else "num_segments": self.frames}
        crop = {"name": "video/center-crop", "size": self.side}
        data = {"name": "video/folder", "short_side": self.short_side, "transforms": [crop], **self.sampler, **count}
        task = {"name": "video/classification", "backbone": self.backbone, "loss": "core/cross-entropy"}
        return {
            "task": {**task, "top_k": CLASSES},
            "data": {"test": data},
            "eval": {"batch_size": self.batch, "channels_last": channels_last},
            "weights": str(weights),
            "distribution": "core/cpu",
        }


RESNET18 = {"name": "video/tsn", "encoder": "resnet18"}
CASES = {
    "decoding": Case(RESNET18, 3, 112, 8, 96),
    "both": Case(RESNET18, 8, 112, 8, 64),
    "model": Case({"name": "video/s3d"}, 16, 112, 8, 32, {"sampler": "dense", "frame_interval": 2}),
}


def make_model(case: Case, weights: Path) -> Any:
    """The recipe's task, in evaluation mode; with random weights where there is no such file yet."""
    from tag_core.config import resolve

    model: nn.Module = resolve(case.recipe(weights), needs=()).task.build(classes=[str(c) for c in range(CLASSES)])
    if weights.is_file():
        model.load_state_dict(torch.load(weights))
    return model.eval()


def forward(model: Any, clips: Tensor) -> Tensor:
    """[N, T, C, H, W], normalised, to scores."""
    with torch.inference_mode():
        return model.head(model.backbone(clips.transpose(1, 2))).softmax(-1)


def crop(case: Case, frames: Any) -> Any:
    """The middle of uint8 [T, H, W, 3], as video/center-crop takes it."""
    top, left = (round((size - case.side) / 2.0) for size in frames.shape[1:3])
    return frames[:, top : top + case.side, left : left + case.side]


def normalised(model: Any, clips: Tensor) -> Tensor:
    return (clips.float() / 255 - model.mean) / model.std


class Floor:
    """Two processes that share nothing but the number of the next batch."""

    def __init__(self, case: Case, files: list[str], weights: Path) -> None:
        torch.set_num_threads(1)
        model, following, self.ends = make_model(case, weights), FORK.Value("i", 0), list[Any]()
        self.following, self.found = following, Scores()

        def work(end: Any) -> None:
            while end.recv():
                scores: Scores = {}
                while True:
                    with following:
                        start, following.value = following.value, following.value + case.batch
                    if start >= len(files):
                        break
                    names = files[start : start + case.batch]
                    clips = [crop(case, read_clip(name, case.choose, case.short_side).frames) for name in names]
                    batch = torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)
                    scores |= zip(names, forward(model, normalised(model, batch)).tolist(), strict=True)
                end.send(scores)

        for _ in range(CORES):
            ours, theirs = FORK.Pipe()
            FORK.Process(target=work, args=(theirs,), daemon=True).start()
            self.ends.append(ours)

    def run(self) -> None:
        self.following.value = 0
        for end in self.ends:
            end.send(True)
        for end in self.ends:
            self.found |= end.recv()

    def results(self) -> Scores:
        return self.found


class Clips(Dataset[tuple[Tensor, int]]):
    """As torchvision's references have it: float, normalised clips."""

    def __init__(self, case: Case, files: list[str], model: Any) -> None:
        self.case, self.files, self.mean, self.std = case, files, model.mean, model.std

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pictures: dict[int, np.ndarray] = {}
        with av.open(self.files[index]) as container:
            stream = container.streams.video[0]
            wanted = self.case.choose(stream.frames)
            scale = self.case.short_side / min(stream.width, stream.height)
            size = {"width": round(stream.width * scale), "height": round(stream.height * scale)}
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    pictures[number] = frame.to_ndarray(format="rgb24", **size)
                if number == max(wanted):
                    break
        frames = crop(self.case, np.stack([pictures[number] for number in wanted]))
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        return (clip - self.mean) / self.std, index


class Script:
    """A loop over a DataLoader."""

    def __init__(self, case: Case, files: list[str], weights: Path) -> None:
        self.model, self.files, self.found = make_model(case, weights), files, Scores()
        clips = Clips(case, files, self.model)
        self.loader = DataLoader(clips, case.batch, num_workers=CORES, persistent_workers=True)

    def run(self) -> None:
        for batch, indices in self.loader:
            self.found |= zip([self.files[i] for i in indices], forward(self.model, batch).tolist(), strict=True)

    def results(self) -> Scores:
        return self.found


class Tag:
    """Prediction into a folder."""

    channels_last: bool | str = "auto"

    def __init__(self, case: Case, files: list[str], weights: Path) -> None:
        from tag_core.api import started
        from tag_core.config import resolve
        from tag_core.engine.predict import Predictor

        recipe, self.open = resolve(case.recipe(weights, self.channels_last), needs=()), contextlib.ExitStack()
        distribution = self.open.enter_context(started(recipe))
        self.predictor = self.open.enter_context(contextlib.closing(Predictor(recipe, files, distribution)))
        self.claim()

    def claim(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.predictor.claim(self.folder)

    def run(self) -> None:
        self.predictor.to_folder(self.folder)

    def results(self) -> Scores:
        from tag_core.records import read_records

        found: Scores = {}
        for record in read_records(self.folder / "predictions.jsonl"):
            named = dict(zip(record.labels or (), record.scores or (), strict=True))
            found[record.source] = [named[str(number)] for number in range(CLASSES)]
        shutil.rmtree(self.folder)
        self.claim()
        return found


class SameLayout(Tag):
    """Prediction with convolutions as the floor has them."""

    channels_last = False


SIDES = {"floor": Floor, "DataLoader": Script, "Tag": Tag, "same layout": SameLayout}
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}  # which tag-run sets for itself


def serve(make: Any, arguments: tuple[Any, ...], end: Any) -> None:
    """The life of a side's process: a pass whenever told to, then its results."""
    side = make(*arguments)
    while end.recv():
        side.run()
        end.send(None)
        end.send(side.results())


class Measured:
    """One side in its process, and what its passes took, in wall and CPU seconds."""

    def __init__(self, make: Any, *arguments: Any, **environment: str) -> None:
        self.end, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(make, arguments, theirs))
        os.environ.update(environment)
        self.process.start()
        for name in environment:
            del os.environ[name]
        theirs.close()
        self.wall, self.cpu = list[float](), list[float]()

    def run(self, keep: bool = True) -> Any:
        cpu, began = self._cpu_seconds(), time.perf_counter()
        self.end.send(True)
        self.end.recv()
        if keep:
            self.wall.append(time.perf_counter() - began)
            self.cpu.append(self._cpu_seconds() - cpu)
        return self.end.recv()

    def close(self) -> None:
        self.end.send(False)
        self.process.join()

    @property
    def busy(self) -> float:
        """Share of the cores' time that was spent computing."""
        return median(cpu / wall / CORES for cpu, wall in zip(self.cpu, self.wall, strict=True))

    def times(self, other: Measured, clock: str = "wall") -> float:
        """How many times as fast as the other one this is, round by round."""
        pairs = zip(getattr(other, clock), getattr(self, clock), strict=True)
        return median(theirs / ours for theirs, ours in pairs)

    def _cpu_seconds(self) -> float:
        root, total = psutil.Process(self.process.pid), 0.0
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # those of its ended children too
        return total


def compare(sides: dict[str, Measured], rounds: int, tolerance: float) -> None:
    """Let the sides take turns; a round before the first one starts what is started late, and compares results."""
    found = {name: side.run(keep=False) for name, side in sides.items()}
    for name, results in found.items():
        if results.keys() != found["floor"].keys() or any(
            np.shape(row) != np.shape(results[key]) or np.abs(np.subtract(results[key], row)).max() > tolerance
            for key, row in found["floor"].items()
        ):
            sys.exit(f"{name} did not compute the same as the floor: nothing was compared")
    for _ in range(rounds):
        for side in sides.values():
            side.run()
    for side in sides.values():
        side.close()


HEAD = f"{'times the floor':22}{'speed':>9}{'(best)':>9}{'by CPU':>9}{'busy':>9}"


def print_row(title: str, side: Measured, floor: Measured) -> None:
    best = min(floor.wall) / min(side.wall)
    cells = f"{side.times(floor):9.3f}{best:9.3f}{side.times(floor, 'cpu'):9.3f}{side.busy:9.1%}"
    print(f"{title:22}{cells}", flush=True)


def make_files(folder: Path, count: int) -> list[str]:
    made = folder / "made.mp4"
    encode_sample(made, 300)
    real = [SHARED / "video" / "videos" / f"{name}.mp4" for name in ("arm_wrestling_demo", "basketball_shot")]
    kinds = [made, *(path for path in real if path.is_file())]
    return [shutil.copy(kinds[i % len(kinds)], folder / f"{i:03}.mp4").as_posix() for i in range(count)]


def two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def main() -> int:
    parser = argparse.ArgumentParser(description="Prediction from video files, against a bare floor and a DataLoader.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, help="in place of each case's own number")
    options = parser.parse_args()
    two_cores()
    worst, slower = float("inf"), list[str]()
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            case, weights = CASES[name], Path(folder) / f"{name}.pt"
            files = make_files(Path(folder), options.videos or case.videos)
            torch.save(make_model(case, weights).state_dict(), weights)
            sides = {
                side: Measured(make, case, files, weights, **(ENVIRONMENT if issubclass(make, Tag) else {}))
                for side, make in SIDES.items()
            }
            compare(sides, options.rounds, tolerance=1e-4)
            for side, measured in sides.items():
                print_row(f"{name}: {side}", measured, sides["floor"])
            worst = min(worst, sides["Tag"].times(sides["floor"]))
            slower += [name] if sides["Tag"].times(sides["DataLoader"]) <= 1 else []
    print(f"Tag at its worst {worst:.3f} times the floor, bar {BAR}: {'met' if worst >= BAR else 'MISSED'}")
    print(f"faster than the DataLoader script in every case: {'MISSED: ' + ', '.join(slower) if slower else 'met'}")
    return int(worst < BAR or bool(slower))


if __name__ == "__main__":
    sys.exit(main())
