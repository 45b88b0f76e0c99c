"""Does every model of the video plugin learn, and does order matter to those that should see it?

    python benchmarks/motion_models.py [MODEL ...]

On the moving digits of ``tag-run motion-data``, where the class is one of eight directions, each through ``tag-run``
alone: every model must tell 16 clips that it was trained on apart (1.00) and reach .90 on held-out clips, except
where it ignores the order of frames and sees features of single frames. Those tell where the digit was, so the line
that it moves on, but not which way: of the clips whose line is found, such a model may get the way right no more often
than chance (.50, bar .60), which leaves it half of all clips at most. One row a model; exits with 1 when a bar is
missed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tag_plugins_video.motion import DIRECTIONS

TAG_RUN = Path(sys.executable).with_name("tag-run")
LEAST, BLIND = 0.90, 0.60
"""Bars on held-out clips: of all, right at least; of what ignores order, which way at most."""
FRAMES, CLIPS = "frames", "4-frame clips"
FOLDERS = {"clips": "clips", FRAMES: "frames", CLIPS: "short"}


@dataclass(frozen=True)
class Case:
    """A model, what it sees, and its command line."""

    model: str
    sees: str
    options: tuple[str, ...]
    blind: bool = False


def sequence(model: str, dim: int, *options: str) -> tuple[str, ...]:
    """Options of ``video/motion-features`` for a backbone over features of this size."""
    backbone = ", ".join([f"name='video/{model}'", f"modalities={{frames={dim}}}", *options])
    return (f"task.backbone={{{backbone}}}", "task.normalize=true", "train.epochs=8")


LSTM = ("embedding=128", "lstm=64", "hidden=[128, 64]", "dropout=0.2")
CLUSTER = ("clusters=8", "hidden=[128, 64]", "dropout=0.2")
VLAD = ("clusters=8", "groups=4", "hidden=64", "dropout=0.2")
CASES = [
    Case("c3d-tiny", "clips", ()),
    Case("s3d", "clips", ("task.backbone={name='video/s3d', norm_momentum=0.1}", "optimizer.lr=0.003")),
    Case(
        "stnet",
        "clips",
        (
            "task.backbone={name='video/stnet', snippet=2}",
            "optimizer.lr=0.002",
            "data.train.num_segments=4",
            "data.train.clip_len=2",
            "train.epochs=10",
        ),
    ),
    Case(
        "p3d",
        "clips",
        (
            "task.backbone={name='video/p3d', depth=63}",
            "optimizer.lr=0.001",
            "data.train.num_segments=16",
            "data.train.short_side=36",
            "data.train.transforms=[{name='video/random-crop', size=32}]",
            "data.val.transforms=[{name='video/center-crop', size=32}]",
            "train.epochs=10",
        ),
    ),
    Case(
        "c3d",
        "clips",
        (
            "task.backbone={name='video/c3d', width=0.25, dropout=0.2}",
            "optimizer.lr=0.0005",
            "data.train.num_segments=16",
            "train.epochs=10",
        ),
    ),
    Case("tsn", "clips", ("task.backbone={name='video/tsn', encoder='tiny'}",), blind=True),
    Case(
        "average",
        "clips",  # in short ones: TSN's average, of what sees motion
        (
            "data.train.sampler=dense",
            "data.train.num_segments=1",
            "data.train.clip_len=4",
            "data.train.num_clips=4",
        ),
    ),
    Case("attention-lstm", FRAMES, sequence("attention-lstm", 1024, *LSTM)),
    Case("attention-cluster", FRAMES, sequence("attention-cluster", 1024, *CLUSTER), blind=True),
    Case("nextvlad", FRAMES, sequence("nextvlad", 1024, *VLAD), blind=True),
    Case("attention-lstm", CLIPS, sequence("attention-lstm", 48, *LSTM)),
    Case("attention-cluster", CLIPS, sequence("attention-cluster", 48, *CLUSTER)),
    Case("nextvlad", CLIPS, sequence("nextvlad", 48, *VLAD)),
]


def tag_run(folder: Path, *arguments: str) -> str:
    done = subprocess.run([TAG_RUN, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"tag-run {' '.join(arguments)}\n{done.stderr}")
    return done.stdout


def prepare(folder: Path, models: set[str]) -> None:
    """``clips/``, and for sequence models the features in ``frames/`` and ``short/``."""
    tag_run(folder, "motion-data", "clips")
    for path in sorted((folder / "clips" / "train").glob("*/*.mp4")):
        target = folder / "clips" / "few" / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        if len(list(target.iterdir())) < 2:
            shutil.copy(path, target)
    if not models & {case.model for case in CASES if case.sees != "clips"}:
        return
    splits = ("few", "train", "val", "test")
    sources = [f"data.{split}.source=clips/{split}" for split in splits[1:]]
    tag_run(folder, "train", "video/motion", *sources, "--out", "motion")
    for split in splits:
        tag_run(folder, "features", "motion", "--step", "1", "--clip-len", "4", f"clips/{split}", f"short/{split}")
        random = (
            "task.backbone={name='video/tsn', encoder='tiny-grid'}",
            "weights=fresh",
            "--step",
            "1",
            "--clip-len",
            "1",
        )
        tag_run(folder, "features", "video/motion", *random, f"clips/{split}", f"frames/{split}")


def score(folder: Path, case: Case, run: str, train: str, test: str, *options: str) -> tuple[float, float]:
    """Of ``test``, the share that is right, and that of those on the right line; after training on ``train``."""
    recipe = "video/motion" if case.sees == "clips" else "video/motion-features"
    data = FOLDERS[case.sees]
    val = "val" if train == "train" else train
    sources = [f"data.{key}.source={data}/{part}" for key, part in (("train", train), ("val", val), ("test", test))]
    tag_run(folder, "train", recipe, *case.options, *sources, *options, "--out", run)
    told = json.loads(tag_run(folder, "eval", run, "--json", "--out", f"{run}-test"))
    matrix, classes = told["tables"]["confusion_matrix"], list(DIRECTIONS)
    names = sorted(classes)  # as in the class folders
    opposite = {name: classes[(classes.index(name) + 4) % 8] for name in classes}
    right = sum(matrix[i][i] for i in range(8))
    turned = sum(matrix[i][names.index(opposite[name])] for i, name in enumerate(names))
    return float(told["scores"]["top1"]), right / max(right + turned, 1)


def main(names: list[str]) -> int:
    if unknown := set(names) - {case.model for case in CASES}:
        sys.exit(f"no model {', '.join(sorted(unknown))}; there are {', '.join(dict.fromkeys(c.model for c in CASES))}")
    cases = [case for case in CASES if not names or case.model in names]
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, {case.model for case in cases})
        print(f"{'model':<18} {'sees':<14} {'16 clips':>8} {'held out':>9} {'which way':>10}  bar")
        for number, case in enumerate(cases):
            few = ["train.epochs=100", "train.batch_size=16", "train.validate_every=50"]
            if case.sees == "clips":
                few += ["task.dropout=0", "data.train.transforms=[]", "data.val.transforms=[]"]
            seen, _ = score(folder, case, f"few-{number}", "few", "few", *few)
            held_out, way = score(folder, case, f"run-{number}", "train", "test")
            met = seen == 1 and (way <= BLIND if case.blind else held_out >= LEAST)
            missed += not met
            bar = f"which way at most {BLIND:.2f}" if case.blind else f"held out at least {LEAST:.2f}"
            told = f"{case.model:<18} {case.sees:<14} {seen:>8.3f} {held_out:>9.3f} {way:>10.3f}"
            print(f"{told}  {bar}: {'met' if met else 'MISSED'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
