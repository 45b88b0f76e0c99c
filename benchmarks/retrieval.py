"""Embeddings from scratch on real pictures, against random features and colour histograms.

    python benchmarks/retrieval.py [--grocery FOLDER] [--omniglot FOLDER] [--methods pcb ...] [--epochs N] [--seed N]

--grocery is the Grocery Store dataset with `train` and `val`: photos of 81 products. Each method trains the recipe
`reid/small` with its own loss, on `train`; then every photo of `val` searches `train` for its product. All methods have
the same network, augmentation and number of photos seen. Beside them: the same network as it was initialised (the
embedding of `arcface`), and histograms of 8x8x8 colours, compared by the cosine of their square roots.

--omniglot holds `images_background_small1.zip` and `images_background_small2.zip`. The recipe `reid/omniglot` trains on
the first; then every drawing of the second's alphabets that are not in the first searches all others of these, those
of its own drawer that show the same character left out. Alpha query expansion is reported beside it.

Prints rank-1 (recall@1), mAP and the CPU seconds of the training and its workers, best mAP first. Exits with 1 where
a method is not 0.10 above the untrained network in mAP, Omniglot's mAP is below 0.80 without query expansion, or a
training took more than 1,200 CPU seconds, which is ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tag_core
from tag_core.config import resolve

GAIN, OMNIGLOT_MAP, SECONDS = 0.10, 0.80, 1200
ARCFACE = {"name": "reid/arcface", "scale": 24.0, "margin": 0.3}
NET = {"name": "reid/small", "width": 32, "depth": 4}
TRIPLET = {"name": "reid/triplet", "margin": "soft", "adaptive_weights": True}  # batch-hard ones did not learn
PAIRS = {"name": "reid/identities", "num_instances": 4}
GLOBAL = {"name": "reid/embedding", "backbone": NET, "dim": 128, "neck": "bnneck"}
PCB = {"name": "reid/pcb", "backbone": NET, "parts": 4, "dim": 64, "dropout": 0.0, "loss": "core/cross-entropy"}
METHODS: dict[str, dict[str, Any]] = {
    "softmax": {"task": {**GLOBAL, "loss": "core/cross-entropy"}},
    "triplet": {"task": {**GLOBAL, "loss": TRIPLET}, "sampler": PAIRS},
    "arcface": {"task": {**GLOBAL, "loss": ARCFACE}},
    "arcface-xbm": {"task": {**GLOBAL, "loss": {"name": "reid/xbm-softmax", "loss": ARCFACE, "dim": 128, "size": 512}}},
    "pcb": {"task": PCB},
}
Found = dict[str, float]


def grocery(folder: Path, methods: list[str], train: dict[str, Any], out: Path) -> bool:
    found: dict[str, Found] = {}
    data = {"train": {"source": str(folder / "train")}, "val": {"source": str(folder / "val")}}
    data["test"] = {"source": str(folder / "val"), "gallery": str(folder / "train")}
    for method in methods:
        recipe = {"extends": "reid/small", "name": method, "data": data, "train": train, **METHODS[method]}
        found[method] = trained(recipe, out / method)
    recipe = {"extends": "reid/small", "name": "untrained", "data": data, **METHODS["arcface"]}
    found["untrained"] = untrained(recipe, train.get("seed", 0), out)
    found["colour histograms"] = histograms(recipe)
    for name in sorted(found, key=lambda name: -found[name]["map"]):
        print(f"grocery {name}: {told(found[name])}", flush=True)
    floor = found["untrained"]["map"] + GAIN
    return all(found[m]["map"] >= floor and found[m]["seconds"] <= SECONDS for m in methods)


def omniglot(folder: Path, train: dict[str, Any], out: Path) -> bool:
    for number in (1, 2):
        with zipfile.ZipFile(folder / f"images_background_small{number}.zip") as file:
            file.extractall(out)
    first, second = (out / f"images_background_small{number}" for number in (1, 2))
    seen = {path.name for path in first.iterdir()}
    unseen = _made(out / "unseen")
    for alphabet in second.iterdir():
        if alphabet.name not in seen:
            alphabet.rename(unseen / alphabet.name)
    data = {"train": {"source": str(first)}, "val": {"source": str(unseen)}, "test": {"source": str(unseen)}}
    recipe = {"extends": "reid/omniglot", "name": "omniglot", "data": data, "train": train}
    found = trained(recipe, out / "run")
    passed = found["map"] >= OMNIGLOT_MAP and found["seconds"] <= SECONDS
    print(f"omniglot: {told(found)} (bar {OMNIGLOT_MAP} and {SECONDS}): {'pass' if passed else 'FAIL'}")
    expanded = {"name": "reid/market", "expand_queries": 5, "expand_gallery": 5}
    print(f"omniglot with alpha query expansion: {told(scores({**recipe, 'metrics': [expanded]}, out / 'run', out))}")
    return passed


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def trained(recipe: dict[str, Any], out: Path) -> Found:
    """Scores after a training, and the CPU seconds that it took with its workers."""
    recipe = {**recipe, "train": {"validate_every": 0, **recipe["train"]}}
    before = sum(os.times()[:4])
    tag_core.train(recipe, out=out)
    seconds = sum(os.times()[:4]) - before
    return {**scores(recipe, out, out.parent), "seconds": seconds}


def scores(recipe: dict[str, Any], weights: Path, out: Path) -> Found:
    found = tag_core.evaluate({**recipe, "weights": str(weights)}, out=out / f"eval-{recipe['name']}").scores
    return {"rank1": found["rank1"], "map": found["map"]}


def untrained(recipe: dict[str, Any], seed: int, out: Path) -> Found:
    torch.manual_seed(seed)
    task = resolve(recipe).task.build(classes=["0"])
    torch.save(task.state_dict(), out / "untrained.pt")
    return scores(recipe, out / "untrained.pt", out)


def histograms(recipe: dict[str, Any]) -> Found:
    """Square roots of the shares of 512 colours, as embeddings for the recipe's own metric."""
    resolved = resolve(recipe)
    data, metric = resolved.data["test"].with_options(transforms=[]).build(), resolved.metrics[0].build(classes=[])
    for index in range(len(data)):
        sample = data[index]
        red, green, blue = sample["image"].long() // 32
        counts = np.bincount((red * 64 + green * 8 + blue).flatten().numpy(), minlength=512)
        batch = {key: [sample[key]] for key in ("source", "identity", "camera", "role")}
        metric.update({"embedding": torch.from_numpy(np.sqrt(counts / counts.sum()))[None]}, batch)
    found = metric.compute()
    return {"rank1": found["rank1"], "map": found["map"]}


def told(found: Found) -> str:
    seconds = f", {found['seconds']:.0f} CPU seconds" if "seconds" in found else ""
    return f"rank-1 {found['rank1']:.3f}, mAP {found['map']:.3f}{seconds}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grocery", type=Path)
    parser.add_argument("--omniglot", type=Path)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not (options.grocery or options.omniglot):
        parser.error("give --grocery or --omniglot, the folder of one of these data sets")
    logging.disable(logging.INFO)
    train = {"seed": options.seed} | ({"epochs": options.epochs} if options.epochs else {})
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        if options.omniglot:
            passed &= omniglot(options.omniglot, train, _made(Path(folder) / "omniglot"))
        if options.grocery:
            passed &= grocery(options.grocery, options.methods, train, _made(Path(folder) / "grocery"))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
