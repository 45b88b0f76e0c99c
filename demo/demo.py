"""From nothing to a report, on real videos made on the spot; ``make demo`` runs this.

Each clip shows a handwritten digit (scikit-learn's, real scans) that moves in one of 8 directions; the
class is the direction, so a single frame tells nothing. Every step is one ``tag-run`` command, printed
before it runs. Give files of your own with ``make demo FILES="a.mp4 b.mov"``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

WORK = Path(os.environ.get("DEMO_FOLDER", ".demo"))
SEED = os.environ.get("SEED", "0")
LEAST, CHANCE = 0.95, 0.25
"""The temporal model must reach the first; the single-frame model must stay below the second (chance is 1/8)."""


def tag_run(*arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> str:
    """Run one command and show it; returns its standard output."""
    words = [str(word) for word in arguments]
    print(f"\n$ tag-run {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "tag_core.cli.main", *words]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode not in allowed:
        sys.exit(f"demo: this command ended with exit code {result.returncode}")
    return result.stdout


def accuracy(run: Path) -> float:
    scores = json.loads(tag_run("eval", run, "--json", "--out", run / "test"))["scores"]
    return float(scores["top1"])


def main(files: list[str]) -> None:
    for folder in ("motion", "frame", "predictions"):
        shutil.rmtree(WORK / folder, ignore_errors=True)
    data = WORK / f"clips-{SEED}"
    tag_run("motion-data", data, "--seed", SEED)
    sources = [f"data.{part}.source={data / part}" for part in ("train", "val", "test")]
    runs = {name: WORK / name for name in ("motion", "frame")}
    for name, recipe in (("motion", "video/motion"), ("frame", "video/motion-frame")):
        tag_run("train", recipe, *sources, f"train.seed={SEED}", "--out", runs[name])
    reached = {name: accuracy(run) for name, run in runs.items()}

    held_out = sorted(str(path) for path in (data / "test").glob("*/*.mp4"))[::20]
    predictions = WORK / "predictions"
    tag_run("predict", runs["motion"], *held_out, *files, "--out", predictions, "--visualize", allowed=(0, 3))

    print("\nheld-out clips        what it sees        predicted       score")
    for line in (predictions / "predictions.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        source = Path(record["source"])
        truth = source.parent.name if record["source"] in held_out else "your file"
        said = record.get("error") or f"{record['labels'][0]:<15} {record['scores'][0]:.3f}"
        print(f"{source.name:<21} {truth:<19} {said}")
    print("\nmodel                           accuracy on held-out clips (chance 0.125)")
    print(f"small 3D network (video/motion) {reached['motion']:.3f}")
    print(f"single frame (motion-frame)     {reached['frame']:.3f}")
    print(f"\nreport:   {runs['motion'] / 'test' / 'report.html'}")
    print(f"pictures: {predictions / 'pictures'}")
    print("your own: tag-run train video/tsn data.train.source=FOLDER   (one folder of clips per class)")
    if reached["motion"] < LEAST or reached["frame"] > CHANCE:
        sys.exit(f"demo: expected at least {LEAST} from the 3D network and at most {CHANCE} from a single frame")


if __name__ == "__main__":
    main(sys.argv[1:])
