"""Face detection in one picture, from its pixels to the faces, against plain PyTorch in the same run.

    python benchmarks/face_detection.py [PICTURE ...] [--weights FILE] [--rounds N] [--threads N]

The floor is written out below as implementations commonly have it: the same network unfused and in PyTorch's own memory
order, prior boxes by ``itertools.product`` for every picture, non-maximum suppression by a loop over the boxes. Tag is
``predict`` of face/detection as ``tag-run predict`` makes it ready: batch norms folded, channels last, anchors made
once for each size of picture. Both have the same weights, and must find the same faces. Beside them runs the file of
``tag-run export`` in onnxruntime, whose threads, where it has several, count while they wait. They take turns, and the
least CPU time of each part counts. Without pictures and weights, those of TAG_SHARED_DATA are taken. Exit code 1 if on
some picture Tag takes more than 0.55 times as long as the floor, or finds other faces.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from math import ceil
from pathlib import Path
from time import process_time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as tag-run has it: torch's threads wait without work

import numpy as np
import torch

import tag_core
from tag_core.config import resolve
from tag_core.engine.distributed import Cpu
from tag_core.engine.session import task_with_weights
from tag_core.engine.weights import load_weights, read_file
from tag_core.media.image import read_image

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
RECIPE, BAR = "face/retinaface-mobilenet0.25", 0.55
SIZES, STRIDES, MEAN = ((16, 32), (64, 128), (256, 512)), (8, 16, 32), (104, 117, 123)
THRESHOLD, TOP_K, NMS, KEEP = 0.02, 5000, 0.4, 750

Faces = tuple[np.ndarray, np.ndarray, np.ndarray]


class Stopwatch:
    """The least CPU time of each part in milliseconds over all rounds; parts inside a part are told by themselves."""

    def __init__(self) -> None:
        self.best = defaultdict[str, float](lambda: float("inf"))
        self.round, self.inside = defaultdict[str, float](float), 0.0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            outer, self.inside, began = self.inside, 0.0, process_time()
            found = function(*given)
            took = process_time() - began
            self.round[name] += took - self.inside
            self.inside = outer + took
            return found

        return run

    def end_round(self, side: str) -> None:
        for name, seconds in {**self.round, "all": sum(self.round.values())}.items():
            self.best[f"{side} {name}"] = min(self.best[f"{side} {name}"], 1000 * seconds)
        self.round.clear()


def prior_boxes(height: int, width: int) -> torch.Tensor:
    found: list[float] = []
    for sizes, stride in zip(SIZES, STRIDES, strict=True):
        for i, j in product(range(ceil(height / stride)), range(ceil(width / stride))):
            for size in sizes:
                found += [(j + 0.5) * stride / width, (i + 0.5) * stride / height, size / width, size / height]
    return torch.tensor(found).view(-1, 4)


def decode(boxes: torch.Tensor, points: torch.Tensor, priors: torch.Tensor, height: int, width: int) -> tuple[Any, Any]:
    """Of every prior, in pixels: x1, y1, x2, y2, and five points."""
    boxes = torch.cat(
        [priors[:, :2] + boxes[:, :2] * 0.1 * priors[:, 2:], priors[:, 2:] * (boxes[:, 2:] * 0.2).exp()], 1
    )
    boxes[:, :2] -= boxes[:, 2:] / 2
    boxes[:, 2:] += boxes[:, :2]
    found = [priors[:, :2] + points[:, k : k + 2] * 0.1 * priors[:, 2:] for k in range(0, 10, 2)]
    boxes, landmarks = (
        boxes * torch.tensor([width, height] * 2),
        torch.cat(found, 1) * torch.tensor([width, height] * 5),
    )
    return boxes.numpy(), landmarks.numpy()


def suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    x1, y1, x2, y2 = boxes.T
    areas, order, kept = (x2 - x1 + 1) * (y2 - y1 + 1), scores.argsort()[::-1], []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        wide = np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest]) + 1
        high = np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest]) + 1
        shared = np.maximum(0, wide) * np.maximum(0, high)
        order = rest[shared / (areas[first] + areas[rest] - shared) <= NMS]
    return kept


def floor(network: Any, watch: Stopwatch) -> Callable[[np.ndarray], Faces]:
    def forward(image: np.ndarray) -> tuple[torch.Tensor, ...]:
        blue_first = np.float32(image[:, :, ::-1]) - np.float32(MEAN)
        found = network.pyramid(network.backbone.maps(torch.from_numpy(blue_first).permute(2, 0, 1)[None]))[0]
        return found[:, :2].softmax(1), found[:, 2:6], found[:, 6:]

    def candidates(boxes: torch.Tensor, points: torch.Tensor, scores: torch.Tensor, image: np.ndarray) -> Faces:
        height, width = image.shape[:2]
        found, landmarks = decode(boxes, points, make_priors(height, width), height, width)
        chosen = np.where(scores.numpy() > THRESHOLD)[0]
        chosen = chosen[scores.numpy()[chosen].argsort()[::-1][:TOP_K]]
        return found[chosen], scores.numpy()[chosen], landmarks[chosen]

    make_network, make_priors = watch.timed("network", forward), watch.timed("priors", prior_boxes)
    make_candidates, make_distinct = watch.timed("decode", candidates), watch.timed("NMS", suppress)

    def detect(image: np.ndarray) -> Faces:
        scores, boxes, points = make_network(image)
        found = make_candidates(boxes, points, scores[:, 1], image)
        kept = make_distinct(*found[:2])[:KEEP]
        return tuple(each[kept] for each in found)

    return detect


def tag(task: Any, watch: Stopwatch, decoding: str) -> Callable[[np.ndarray], Faces]:
    """``predict``; its network, where it is one by itself, and its suppression are told by themselves."""
    task.offsets = watch.timed("network", task.offsets)
    task._distinct = watch.timed("NMS", task._distinct)
    predict = watch.timed(decoding, task.predict)

    def detect(image: np.ndarray) -> Faces:
        outputs = predict({"image": torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()})
        return tuple(outputs[name][0].numpy() for name in ("boxes", "scores", "landmarks"))

    return detect


def sides(weights: str, watch: Stopwatch, folder: str) -> dict[str, Callable[[np.ndarray], Faces]]:
    recipe = resolve(RECIPE, [f"weights={weights}"], needs=())
    plain = recipe.task.build()
    load_weights(read_file(Path(weights)), plain, strict=True)
    tag_core.export(RECIPE, overrides=[f"weights={weights}"], out=f"{folder}/faces.onnx")
    graph = resolve(RECIPE, [f"weights={folder}/faces.onnx"], needs=())
    return {
        "floor": floor(plain.eval(), watch),
        "Tag": tag(task_with_weights(recipe, Cpu())[0], watch, "decode"),
        "ONNX": tag(task_with_weights(graph, Cpu())[0], watch, "network and decode"),
    }


def same(found: Faces, expected: Faces) -> bool:
    """As many faces, within half a pixel and a thousandth of score."""
    pairs = zip(found, expected, (0.5, 1e-3), strict=False)
    return all(len(a) == len(b) and np.abs(a - b).max(initial=0) < most for a, b, most in pairs)


def compare(picture: str, detectors: dict[str, Callable[[np.ndarray], Faces]], watch: Stopwatch, rounds: int) -> bool:
    """Print a picture's parts in milliseconds; true where Tag keeps to the bar and finds the floor's faces."""
    image, found = read_image(picture), dict[str, Faces]()
    watch.best.clear()
    for _ in range(rounds):
        for side, detect in detectors.items():
            found[side] = detect(image)
            watch.end_round(side)
    ratio = watch.best["Tag all"] / watch.best["floor all"]
    alike = all(same(each, found["floor"]) for each in found.values())
    faces = f"{len(found['Tag'][0])} faces" if alike else "OTHER FACES"
    print(f"{Path(picture).name}, {image.shape[1]}x{image.shape[0]}, {faces}: {ratio:.2f} of the floor (bar {BAR})")
    for side in detectors:
        parts = {name.partition(" ")[2]: took for name, took in watch.best.items() if name.startswith(f"{side} ")}
        print(f"    {side:<5}", ", ".join(f"{name} {took:.1f}" for name, took in parts.items()), "ms")
    return alike and ratio <= BAR


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE")
    parser.add_argument("--weights", default=str(SHARED / "face" / "weights" / "retinaface_mobilenet0.25.pth"))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    pictures = options.pictures or sorted(map(str, (SHARED / "face" / "images").glob("*")))
    if not (pictures and Path(options.weights).is_file()):
        print(f"{sys.argv[0]}: no pictures or weights in TAG_SHARED_DATA; name PICTURES and --weights FILE")
        return 2
    torch.set_num_threads(options.threads)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        detectors = sides(options.weights, watch, folder)
        torch.set_num_threads(options.threads)
        kept = [compare(picture, detectors, watch, options.rounds) for picture in pictures]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
