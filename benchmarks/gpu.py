"""Tag on a GPU: its loops against bare PyTorch, how long the GPU waits for data, and exact resume.

    python benchmarks/gpu.py [--only training prediction data resume] [--workers 4 8] [--rounds N] [--steps N]

Without a GPU it says so and exits with 0. Needs what requirements.txt lists (torch, torchvision, timm, torchmetrics,
av, ...); nothing is fetched, and no data set is needed. Tag itself need not be installed: where its packages have no
entry points, this script puts ``tag_core/src`` and ``tag_plugins_video/src`` on the path with the entry points that
their pyproject.toml name, so a bare checkout will do.

*training*, *prediction*: clips a second of S3D (64 frames of 224x224) and of TSN with a ResNet-50 (8 frames of
224x224) in fp32, bf16, bf16 with channels-last, and bf16 compiled. Three loops take turns, on the same task: Tag's; a
hand-written one that stacks, pins and copies the same clips; and that one on a batch which lies on the GPU already
("no data"), which is as fast as the model goes. Medians of wall time, the GPU synchronised around each round.

*data*: training TSN on H.264 files of 340x256, sampled, decoded and augmented by N workers: the share of time that the
loop waits for its next batch, the share that the GPU has nothing to do (by the time of "no data"), and clips a second
next to a hand-written loop over torch's DataLoader with as many workers and pinned memory.

*resume*: 20 steps at once; then 10 steps, a stop, and 10 more from the checkpoint, with ``deterministic``. Every tensor
of the two checkpoints must be bit-identical, in fp32 and in fp16 with its loss scaler; else the exit code is 1. Speeds
have no bar. ``--device cpu --tiny`` runs all of it on toy sizes where there is no GPU, to test this script.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import copy
import os
import shutil
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def as_if_installed(folder: Path) -> None:
    """Put a distribution's source folder on the path, with its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    packages = Path(tempfile.mkdtemp(prefix="tag-"))
    atexit.register(shutil.rmtree, packages, ignore_errors=True)
    info = packages / f"{folder.name}-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    entries = project["entry-points"]["tag.plugins"].items()
    info.joinpath("entry_points.txt").write_text("[tag.plugins]\n" + "".join(f"{k} = {v}\n" for k, v in entries))
    sys.path[:0] = [str(folder / "src"), str(packages)]


if not any(entry.name == "video" for entry in entry_points(group="tag.plugins")):
    for _folder in ("tag_core", "tag_plugins_video"):
        as_if_installed(ROOT / _folder)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from tag_core import Component, hookimpl  # noqa: E402

MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16, channels-last": {"precision": "bf16", "channels_last": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
LR, PRECISIONS = 0.01, ("fp32", "fp16")


@dataclass(frozen=True)
class Model:
    """A backbone and what it is fed: ``frames`` of ``side`` x ``side`` pixels, ``batch`` clips a step."""

    name: str
    backbone: dict[str, Any]
    frames: int
    side: int
    batch: int


MODELS = (
    Model("S3D", {"name": "video/s3d"}, 64, 224, 8),
    Model("TSN-R50", {"name": "video/tsn", "encoder": "resnet50"}, 8, 224, 16),
)
TINY = (
    Model("S3D", {"name": "video/s3d"}, 5, 32, 2),
    Model("TSN-tiny", {"name": "video/tsn", "encoder": "tiny"}, 2, 32, 2),
)


@hookimpl
def tag_datasets() -> list[Component]:
    return [Component("clips", "gpu:Clips", "Random clips that lie in memory")]


class Clips:
    """A few random clips, over and over.

    Args:
        source: not used.
        labelled: as every data set has it.
        length: samples.
        frames: of a clip.
        side: of a frame, in pixels.
    """

    def __init__(
        self, source: str = "memory", labelled: bool = True, length: int = 8, frames: int = 8, side: int = 32
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.clips = torch.randint(0, 256, (16, frames, 3, side, side), generator=generator, dtype=torch.uint8)
        self.length, self.classes = length, [f"class {number}" for number in range(400)]

    def __len__(self) -> int:
        return self.length

    def key(self, index: int) -> str:
        return f"clip {index}"

    def label(self, index: int) -> int:
        return index % len(self.classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.clips[index % len(self.clips)]
        return {"source": self.key(index), "clip": clip, "damage": None, "label": self.label(index)}


@dataclass(frozen=True)
class Bench:
    """Where, how often and how long to measure."""

    device: torch.device
    rounds: int
    steps: int
    tiny: bool

    @property
    def distribution(self) -> str:
        return "core/cuda" if self.device.type == "cuda" else "core/cpu"

    @property
    def models(self) -> tuple[Model, ...]:
        return TINY if self.tiny else MODELS

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, sides: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Name -> median seconds of a call, the sides taking turns; two rounds warm up."""
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(self.rounds + 2):
            for name, side in sides.items():
                self.finish()
                began = time.perf_counter()
                side()
                self.finish()
                if number > 1:
                    times[name].append(time.perf_counter() - began)
        return {name: median(taken) for name, taken in times.items()}


def recipe(bench: Bench, model: Model, mode: dict[str, Any]) -> dict[str, Any]:
    """Tables of a training on clips in memory, ``bench.steps`` steps an epoch."""
    precision = {"precision": mode.get("precision", "fp32")}
    data = {"name": "gpu/clips", "length": bench.steps * model.batch, "frames": model.frames, "side": model.side}
    return {
        "metrics": ["core/top-k"],
        "task": {"name": "video/classification", "backbone": model.backbone, "loss": "core/cross-entropy"},
        "data": {"holdout": 0.0, "train": data},
        "optimizer": {"name": "core/sgd", "lr": LR},
        "train": {"epochs": 10**6, "batch_size": model.batch, "workers": 0, "validate_every": 0, **mode},
        "eval": {"batch_size": model.batch, "workers": 0, "compile": mode.get("compile", False), **precision},
        "distribution": bench.distribution,
    }


class Tag:
    """Tag's own trainer, an epoch at a time, and its prediction."""

    def __init__(self, tables: Any, overrides: list[str], folder: Path) -> None:
        from tag_core.config import resolve
        from tag_core.engine.run import Run
        from tag_core.engine.train import Trainer

        self.recipe = resolve(tables, overrides)
        self.distribution = self.recipe.distribution.build()
        self.distribution.start()
        run = Run(folder, "train", self.recipe).__enter__()
        self.trainer = Trainer(self.recipe, run, self.distribution, None)
        self.predict_function: Any = None
        self.waited = 0.0

    def train(self) -> None:
        self.trainer.position.batch = 0
        self.trainer._train_epoch(threading.Event())

    def predict(self) -> None:
        from tag_core.engine.data import epoch_plan
        from tag_core.engine.session import predict_batches, records_of

        trainer, options = self.trainer, self.recipe.eval
        task: Any = trainer.task
        if self.predict_function is None:
            self.predict_function = torch.compile(task.predict) if options.compile else task.predict
        task.eval()
        plan = epoch_plan(len(trainer.data["train"]), options.batch_size, 0, 0, shuffle=False)
        for read in predict_batches(
            task, trainer.loader, plan, self.distribution, options.precision, self.predict_function
        ):
            records_of(task, read, trainer.loader)

    def time_waiting(self) -> None:
        """From now on ``waited`` sums the seconds in which the loop stands and waits for its next batch."""
        read = self.trainer.loader.read

        def timed(plan: Any) -> Iterator[Any]:
            batches = read(plan)
            while True:
                began = time.perf_counter()
                loaded = next(batches, None)
                self.waited += time.perf_counter() - began
                if loaded is None:
                    return
                yield loaded

        self.trainer.loader.read = timed  # type: ignore[method-assign]


class Bare:
    """The same task in hand-written loops."""

    def __init__(self, bench: Bench, task: nn.Module, mode: dict[str, Any]) -> None:
        self.bench, self.precision = bench, mode.get("precision", "fp32")
        self.task: Any = copy.deepcopy(task)
        if mode.get("channels_last"):
            formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            for weight in self.task.parameters():
                if weight.dim() in formats:
                    weight.data = weight.data.contiguous(memory_format=formats[weight.dim()])
        compiled = mode.get("compile", False)
        self.forward: Any = torch.compile(self.task) if compiled else self.task
        self.predict_function: Any = torch.compile(self.task.predict) if compiled else self.task.predict
        self.optimizer = torch.optim.SGD(self.task.parameters(), lr=LR, momentum=0.9, weight_decay=1e-4)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        bf16 = self.precision == "bf16"
        return torch.autocast(self.bench.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def move(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.bench.device.type != "cuda":
            return batch
        pinned = {key: value if value.is_pinned() else value.pin_memory() for key, value in batch.items()}
        return {key: value.to(self.bench.device, non_blocking=True) for key, value in pinned.items()}

    def batches(self, data: Clips, size: int) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(data), size):
            samples = [data[index] for index in range(start, start + size)]
            labels = torch.tensor([sample["label"] for sample in samples])
            yield self.move({"clip": torch.stack([sample["clip"] for sample in samples]), "label": labels})

    def train(self, batches: Iterator[dict[str, Tensor]]) -> float:
        self.task.train()
        total = torch.zeros((), device=self.bench.device)
        for batch in batches:
            with self.autocast():
                loss = self.forward(batch)["loss"]
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        return float(total)

    def predict(self, batches: Iterator[dict[str, Tensor]]) -> list[list[float]]:
        self.task.eval()
        best: list[list[float]] = []
        for batch in batches:
            with torch.no_grad(), self.autocast():
                scores = self.predict_function(batch)["scores"]
            best += scores.float().topk(5).values.tolist()
        return best


def throughput(bench: Bench, verb: str, folder: Path) -> None:
    """The table of training or prediction."""
    heads = ("Tag", "bare", "no data", "Tag/bare")
    print(f"\n{verb}: clips a second\n{'':32}" + "".join(f"{head:>11}" for head in heads))
    for model in bench.models:
        for name, mode in MODES.items():
            if bench.tiny and mode.get("compile") and model is bench.models[0]:
                continue  # minutes on a CPU
            title = f"{model.name}, {name}"
            with told(title):
                tag = Tag(recipe(bench, model, mode), [], folder / f"{verb}-{model.name}-{name}")
                bare, data = Bare(bench, tag.trainer.task, mode), tag.trainer.data["train"]
                call = getattr(bare, verb)
                resident = next(bare.batches(data, model.batch))
                found = bench.seconds(
                    {
                        "Tag": getattr(tag, verb),
                        "bare": lambda: call(bare.batches(data, model.batch)),  # noqa: B023
                        "no data": lambda: call(iter([resident] * bench.steps)),  # noqa: B023
                    }
                )
                cells = "".join(f"{len(data) / seconds:11.1f}" for seconds in found.values())
                print(f"{title:32}{cells}{found['Tag'] / found['bare']:11.3f}", flush=True)
                tag.trainer.close()
            torch._dynamo.reset()


@contextlib.contextmanager
def told(title: str) -> Iterator[None]:
    """A configuration that does not run (out of memory, say) is a line in the table, not the end of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        print(f"{title:32}  did not run: {' '.join(str(error).split())[:160]}", flush=True)


def write_videos(folder: Path, count: int, frames: int) -> None:
    """``count`` H.264 files of 340x256 in two class folders; 16 are encoded, the others are links to them."""
    from tag_plugins_video.motion import write_clip

    rng, made = np.random.default_rng(0), list[Path]()
    for number in range(count):
        path = folder / ("left", "right")[number % 2] / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 16:
            scene = np.kron(rng.integers(0, 255, (32, 85)), np.ones((8, 8))).astype(np.uint8)
            write_clip(path, np.stack([np.roll(scene, 3 * at, axis=1)[:, :340] for at in range(frames)]))
            made.append(path)
        else:
            path.hardlink_to(made[number % 16])


def waiting(bench: Bench, workers: list[int], folder: Path) -> None:
    """The table of the share of time that the GPU waits for decoded clips."""
    model = bench.models[-1]
    write_videos(folder / "videos", bench.steps * model.batch, 12 if bench.tiny else 150)
    precision = "bf16" if bench.device.type == "cuda" else "fp32"
    print(f"\ndata: training {model.name} in {precision} on H.264 files, {os.cpu_count()} cores")
    heads = ("Tag", "DataLoader", "no data", "loop waits", "GPU idle")
    print(f"{'workers':32}" + "".join(f"{head:>11}" for head in heads))
    options = [f"data.train.source={folder / 'videos'}", "data.holdout=0", f"train.batch_size={model.batch}"]
    options += [f"train.precision={precision}", "train.validate_every=0", f"distribution={bench.distribution}"]
    options += ["task.backbone.encoder=tiny"] if bench.tiny else []
    for count in workers:
        tag = Tag("video/tsn", [*options, f"train.workers={count}"], folder / f"data-{count}")
        bare, data = Bare(bench, tag.trainer.task, {"precision": precision}), tag.trainer.data["train"]
        keys = {"batch_size": model.batch, "shuffle": True, "num_workers": count, "collate_fn": stack}
        loader = DataLoader(data, pin_memory=bench.device.type == "cuda", persistent_workers=True, **keys)
        tag.time_waiting()
        totals: list[float] = []

        def train(tag: Tag = tag, totals: list[float] = totals) -> None:
            began, before = time.perf_counter(), tag.waited
            tag.train()
            bench.finish()
            totals.append((tag.waited - before) / (time.perf_counter() - began))

        resident = bare.move(next(iter(loader)))
        found = bench.seconds(
            {
                "Tag": train,
                "DataLoader": lambda: bare.train(map(bare.move, loader)),  # noqa: B023
                "no data": lambda: bare.train(iter([resident] * bench.steps)),  # noqa: B023
            }
        )
        idle = 1 - found["no data"] / found["Tag"]
        cells = "".join(f"{len(data) / seconds:11.1f}" for seconds in found.values())
        print(f"{count:<32}{cells}{median(totals[2:]):11.1%}{max(idle, 0):11.1%}", flush=True)
        tag.trainer.close()


def stack(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    labels = torch.tensor([sample["label"] for sample in samples])
    return {"clip": torch.stack([sample["clip"] for sample in samples]), "label": labels}


def resume(bench: Bench, precision: str, folder: Path) -> bool:
    """Whether 10 + 10 steps leave what 20 steps leave; dropout, EMA and augmentation take part."""
    from tag_core.config import resolve
    from tag_core.engine import checkpoint
    from tag_core.engine.run import Run
    from tag_core.engine.train import Trainer, train

    class Stopping(Trainer):
        def step(self, micro_batches: list[list[Any]], stop: bool = False) -> bool:
            return super().step(micro_batches, stop or self.position.step == 9)

    # S3D's 3D pooling has no deterministic backward pass on a GPU; TSN's ResNet has.
    model = bench.models[-1]
    tables = recipe(Bench(bench.device, 1, 20, bench.tiny), model, {"precision": precision, "deterministic": True})
    tables["train"] |= {"epochs": 1, "ema_decay": 0.9}
    tables["task"] = {**tables["task"], "dropout": 0.5}
    resolved = resolve(tables)
    whole, halves = folder / f"whole-{precision}", folder / f"halves-{precision}"
    distribution = resolved.distribution.build()
    distribution.start()
    train(resolved, whole, distribution)
    run = Run(halves, "train", resolved).__enter__()
    stopping = Stopping(resolved, run, distribution, None)
    with contextlib.suppress(KeyboardInterrupt):
        stopping.fit()
        raise RuntimeError("the training was not stopped")
    stopping.close()
    steps = checkpoint.load(halves / "checkpoints" / "last.pt")["position"]["step"]
    assert steps == 10, f"the training stopped after {steps} steps, not 10"
    train(resolved, halves, distribution, resume=True)
    torch.use_deterministic_algorithms(False)
    one, other = (checkpoint.load(out / "checkpoints" / "last.pt") for out in (whole, halves))
    differing = sorted(differences(one, other))
    told = "bit-identical" if not differing else f"DIFFERENT in {len(differing)}: {', '.join(differing[:5])}"
    print(f"resume, {model.name}, {precision}: 20 steps and 10 + 10 steps are {told}", flush=True)
    return not differing


def differences(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """Keys at which two checkpoints differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            yield from differences(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{key}[{number}]")
    elif not (torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other):
        yield key


def main() -> int:
    parser = argparse.ArgumentParser(description="Tag on a GPU against bare PyTorch.")
    sections = ["training", "prediction", "data", "resume"]
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--workers", nargs="+", type=int, default=[4, max((os.cpu_count() or 2) - 2, 2)])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="batches a round")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks/gpu.py: torch sees no GPU here, so nothing was run")
        return 0
    os.environ["TAG_PLUGINS"] = __file__
    bench = Bench(torch.device(asked.device), asked.rounds, asked.steps, asked.tiny)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "CPU, toy sizes"
    print(f"{name}; torch {torch.__version__}; median of {bench.rounds} rounds of {bench.steps} batches")
    exact = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for verb in ("train", "predict"):
            if {"train": "training", "predict": "prediction"}[verb] in asked.only:
                throughput(bench, verb, folder)
        if "data" in asked.only:
            waiting(bench, asked.workers, folder)
        if "resume" in asked.only:
            print()
            exact = sum(resume(bench, precision, folder) for precision in PRECISIONS) == len(PRECISIONS)
    return int(not exact)


if __name__ == "__main__":
    sys.exit(main())
