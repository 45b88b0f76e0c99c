"""Does the memory of ``tag-run predict`` grow with the number of inputs?

    python benchmarks/prediction_memory.py [INPUTS]

A small network on mp4 clips of moving digits: 200 files under INPUTS (10,000) names go through ``tag-run predict
--out`` with two workers. Every 20 ms the resident memory of the command and of its workers is taken; a row is the most
that they had until the next shard of 500 was done. The bar: in the last fifth of the run, up to its report, the
highest row of either is at most 5 MB above the highest of the second fifth (the first is for warming up).
Exits with 1 when the bar is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import psutil

from tag_plugins_video.motion import make_motion_data

FILES, INPUTS, SHARD, BAR = 200, 10_000, 500, 5
TAG_RUN = Path(sys.executable).with_name("tag-run")
MB = 2**20


def prepare(folder: Path, inputs: int) -> None:
    """``clips/``: that many hard links to 200 mp4 files; ``run/``: a network trained for one epoch."""
    made = list(make_motion_data(folder / "data", {"train": FILES - 32, "val": 16, "test": 16}))
    (folder / "clips").mkdir()
    for number, path in enumerate(islice(cycle(made), inputs)):
        os.link(path, folder / "clips" / f"{number:06d}.mp4")
    sources = [f"data.{split}.source=data/{split}" for split in ("train", "val", "test")]
    command = [TAG_RUN, "train", "video/motion", *sources, "train.epochs=1", "--out", "run"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def resident(process: psutil.Process) -> tuple[int, int]:
    """Bytes of the command, and of all its workers."""
    sizes = []
    for one in [process, *process.children(recursive=True)]:
        try:
            sizes.append(one.memory_info().rss)
        except psutil.NoSuchProcess:
            sizes.append(0)
    return sizes[0], sum(sizes[1:])


def watch(folder: Path) -> dict[int, tuple[int, int]]:
    """Inputs done -> the most bytes of the command and of its workers until there were more."""
    options = ["eval.workers=2", "eval.batch_size=16", f"eval.shard_size={SHARD}"]
    running = subprocess.Popen([TAG_RUN, "predict", "run", *options, "clips", "--out", "out"], cwd=folder)
    done, peaks = 0, dict[int, tuple[int, int]]()
    while running.poll() is None and not (folder / "out" / "report.html").exists():  # at exit libraries come in again
        shards = len(list((folder / "out" / "predictions").glob("part-*.jsonl")))
        done = max(done, SHARD * shards)  # they are gone when all are joined
        command, workers = resident(psutil.Process(running.pid))
        most = peaks.get(done, (0, 0))
        peaks[done] = (max(command, most[0]), max(workers, most[1]))
        time.sleep(0.02)
    if running.wait():
        sys.exit(running.returncode)
    return peaks


def main() -> int:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), inputs)
        peaks = watch(Path(name))
        records = len((Path(name) / "out" / "predictions.jsonl").read_text().splitlines())
    for done, (command, workers) in peaks.items():
        print(f"{done:7} inputs: command {command / MB:7.1f} MB, workers {workers / MB:7.1f} MB")
    early = [row for done, row in peaks.items() if 0.2 < done / inputs <= 0.4]
    late = [row for done, row in peaks.items() if done / inputs > 0.8]
    if not early or not late:
        sys.exit(f"too few inputs to tell: {5 * SHARD} or more are needed")
    grown = [(max(row[who] for row in late) - max(row[who] for row in early)) / MB for who in (0, 1)]
    print(f"{records} records; command {grown[0]:+.1f} MB, workers {grown[1]:+.1f} MB (bar {BAR:+} MB)")
    return int(records != inputs or max(grown) > BAR)


if __name__ == "__main__":
    sys.exit(main())
