"""Samplers in real trainings of two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import tomli_w
from reid_pictures import write_pictures

from tag_plugins_reid.aspect import SIZES
from tag_plugins_reid.datasets.folder import IdentityFolders
from tag_plugins_reid.samplers.identities import Identities

PLUGIN = str(Path(__file__).with_name("watching_plugin.py"))
Steps = list[list[dict[str, Any]]]
EPOCHS = 2


def train(folder: Path, sampler: str, transforms: list[Any], batch_size: int) -> Steps:
    """What each process was given at each step of two epochs: [processes][steps]."""
    backbone = {"name": "reid/small", "width": 4, "depth": 2}
    task = {"name": "watching-plugin/embedding", "backbone": backbone, "loss": "core/cross-entropy"}
    recipe = {
        "task": task | {"folder": str(folder)},
        "data": {
            "holdout": 0.0,
            "train": {"name": "reid/folder", "source": str(folder / "data"), "transforms": transforms},
        },
        "sampler": sampler,
        "optimizer": {"name": "core/sgd", "lr": 0.01},
        "train": {"epochs": EPOCHS, "batch_size": batch_size, "workers": 0, "seed": 0},
        "distribution": "core/ddp",
    }
    (folder / "r.toml").write_text(tomli_w.dumps(recipe))
    command = [sys.executable, "-m", "tag_core.cli.main", "train", folder / "r.toml", "--out", folder / "run"]
    environment = {**os.environ, "TAG_PLUGINS": PLUGIN}
    done = subprocess.run([*command, "--procs", "2"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [folder / f"seen-{rank}.jsonl" for rank in range(2)]
    return [[json.loads(line) for line in each.read_text().splitlines()] for each in found]


def epochs_of(steps: Steps) -> list[list[set[str]]]:
    """[epochs][steps]: the pictures that all processes together were given."""
    joined = [set().union(*(each["sources"] for each in step)) for step in zip(*steps, strict=True)]
    length = len(joined) // EPOCHS
    return [joined[i * length : (i + 1) * length] for i in range(EPOCHS)]


def test_two_processes_get_whole_identities_and_never_the_same_picture(tmp_path: Path) -> None:
    """Of seven people with 4 to 10 pictures each."""
    write_pictures(tmp_path / "data", [f"p{who}/{number}.png" for who in range(7) for number in range(4 + who)])
    two = train(tmp_path, "reid/identities", [], 8)
    for process in two:
        for step in process:
            counts = Counter(Path(source).parent.name for source in step["sources"])
            assert list(counts.values()) == [4]  # one of the two identities of a batch, all of its four
    first, second = epochs_of(two)
    assert len(first) > 2
    for epoch in (first, second):
        assert sum(map(len, epoch)) == len(set().union(*epoch)) == 8 * len(epoch)  # no picture twice in an epoch
    assert first != second
    data = IdentityFolders(str(tmp_path / "data"))
    planned = Identities(data, batch_size=8, seed=0, processes=2)
    assert [first, second] == [
        [set(map(data.key, batch)) for batch in planned.batches(epoch)] for epoch in range(EPOCHS)
    ]


def test_two_processes_get_pictures_of_one_shape_at_a_time(tmp_path: Path) -> None:
    for shape, size in {"high": (40, 10), "square": (20, 20), "wide": (10, 20)}.items():
        write_pictures(tmp_path / "data", [f"p{n % 3}/{shape}{n}.png" for n in range(9)], size)
    steps = train(tmp_path, "reid/aspect-groups", [{"name": "reid/aspect-resize", "scale": "S"}], 4)
    for left, right in zip(*steps, strict=True):
        assert left["shape"] == right["shape"]
        assert tuple(left["shape"][:1:-1]) in SIZES["S"]
        shapes = {Path(source).name.rstrip("0123456789.png") for source in left["sources"] + right["sources"]}
        assert len(shapes) == 1
    first, second = epochs_of(steps)
    for epoch in (first, second):
        assert sum(map(len, epoch)) == len(set().union(*epoch)) == 24  # two batches of each shape
    assert first != second
