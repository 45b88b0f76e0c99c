"""The training loop, to be read from top to bottom.

``train`` sets up, ``Trainer.fit`` goes through the epochs, ``Trainer.step`` is one optimizer step.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tag_core.config import Recipe
from tag_core.engine import checkpoint
from tag_core.engine.data import Coverage, Item, Loader, collate, datasets, epoch_plan, sampled_plan
from tag_core.engine.distributed import Distribution, State, to_device
from tag_core.engine.evaluate import better, evaluate
from tag_core.engine.interrupt import stop_signal
from tag_core.engine.progress import Progress
from tag_core.engine.run import Run, log
from tag_core.engine.session import autocast, channels_last, weighted_parts, weights_for
from tag_core.engine.weights import load_weights
from tag_core.errors import ConfigError, RunFolderError
from tag_core.plugins import installed


@dataclass
class Position:
    """Where training stands; part of every checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    scores_rows: int = 0
    best: float | None = None
    best_epoch: int = -1


@dataclass
class Trained:
    """What a finished training has to show."""

    folder: Path
    scores: dict[str, Any]
    coverage: Coverage
    best: Path | None
    classes: list[str] = field(default_factory=list)


def train(
    recipe: Recipe,
    folder: Path,
    distribution: Distribution,
    *,
    resume: bool = False,
    strict: bool = False,
    finish: Callable[[Trained], None] = lambda trained: None,
) -> Trained:
    """Train a recipe.

    Args:
        recipe: resolved.
        folder: the run folder; must not hold another training unless ``resume``.
        distribution: started.
        resume: go on from ``checkpoints/last.pt``, exactly as if never stopped.
        strict: stop at the first unreadable input.
        finish: called with the result before plugins hear that the run has ended.

    Raises:
        CheckpointError: nothing to resume from, or another recipe's checkpoint.
        RunFolderError: the folder is taken, or cannot be written.
        KeyboardInterrupt: after saving a checkpoint.
    """
    last = folder / "checkpoints" / "last.pt"
    if last.exists() and not resume:
        raise RunFolderError(f"{folder} holds a training already; add --resume to go on, or choose another --out")
    saved = checkpoint.load(last) if resume else None
    if saved:
        checkpoint.refuse_other_recipe(last, saved["recipe"], recipe)
    run = Run(folder, "train", recipe, distribution.is_main)
    trainer = Trainer(recipe, run, distribution, saved, strict)
    with run:
        for loaded in trainer.loaded:
            log.info(loaded)
        with contextlib.closing(trainer):
            trained = trainer.fit()
        del trainer  # its model need not lie beside another one
        finish(trained)
    return trained


class Trainer:
    """Everything a training holds: data, model, optimizer, position."""

    def __init__(
        self, recipe: Recipe, run: Run, distribution: Distribution, saved: State | None, strict: bool = False
    ) -> None:
        self.recipe, self.run, self.distribution = recipe, run, distribution
        self.options, self.position, self.coverage = recipe.train, Position(), Coverage()
        self.loaded = list[str]()
        # Rows: since the last row of scores, in this epoch. Columns: this process's sum of losses, samples. They
        # stay on the device: reading them at every step would make a GPU wait for the CPU.
        self.losses = torch.zeros(2, 2, dtype=torch.float64, device=distribution.device)
        self.further = dict[str, torch.Tensor]()  # what else the task had to log at the last step
        self._reproducible()
        self.data = datasets(recipe, ("train", "val"))
        self.classes = list(getattr(self.data["train"], "classes", None) or [])
        given = {"batch_size": self.options.batch_size, "seed": self.options.seed, "processes": distribution.world}
        self.sampler = recipe.sampler.build(dataset=self.data["train"], **given) if recipe.sampler else None
        self.steps_per_epoch = len(self._plan(0))
        if not self.steps_per_epoch:
            raise ConfigError(recipe.name, ["sampler: not one batch of these training data"])
        self._build_model(fresh=saved is None)
        self._build_optimizer()
        if saved:
            self._restore(saved)
        loaders = {
            name: Loader(self.data[name], options.workers, timeout=options.timeout, strict=strict)
            for name, options in (("train", recipe.train), ("val", recipe.eval))
            if name in self.data
        }
        self.loader, self.val_loader = loaders["train"], loaders.get("val")

    def _plan(self, epoch: int) -> list[list[list[Item]]]:
        """The micro-batches of each optimizer step of an epoch, over all processes."""
        options, count = self.options, self.options.accumulate
        if self.sampler:
            micro = sampled_plan(self.sampler, options.seed, epoch)
            return [(micro[i : i + count] + [[]] * count)[:count] for i in range(0, len(micro), count)]
        size, length = options.batch_size, len(self.data["train"])
        steps = epoch_plan(length, size * count, options.seed, epoch, shuffle=True, drop_last=options.drop_last)
        return [[step[i : i + size] for i in range(0, size * count, size)] for step in steps]

    def _reproducible(self) -> None:
        checkpoint.seed_everything(self.options.seed)
        torch.backends.cudnn.benchmark = not self.options.deterministic
        torch.use_deterministic_algorithms(self.options.deterministic)
        if self.options.deterministic:  # cuBLAS refuses without it
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def _build_model(self, fresh: bool) -> None:
        recipe = self.recipe
        self.task: nn.Module = recipe.task.build(classes=self.classes)
        for name, (spec, source) in weighted_parts(recipe).items() if fresh else ():
            part = self.task.get_submodule(name)
            if source:
                self.loaded += [f"weights {source}: {load_weights(weights_for(spec, source), part, strict=False)}"]
            elif initialize := getattr(getattr(part, "backbone", None), "initialize", None):
                initialize()
        self.task.to(self.distribution.device)
        channels_last(self.task, self.options.channels_last, self.distribution.device)
        self.ema: AveragedModel | None = None
        if decay := self.options.ema_decay:
            if not self.distribution.can_step_alone:
                raise ConfigError(
                    recipe.name, ["train.ema_decay: not with sharded weights; use core/ddp, or set it to 0"]
                )
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self.ema = AveragedModel(self.task, multi_avg_fn=average)
        checkpoint.seed_everything(self.options.seed + self.distribution.rank)

    def _build_optimizer(self) -> None:
        recipe, device = self.recipe, self.distribution.device
        assert recipe.optimizer is not None
        # Freezing comes first: DDP looks at requires_grad when it wraps.
        self.optimizer: torch.optim.Optimizer = recipe.optimizer.build(model=self.task)
        self.wrapped = self.distribution.wrap(self.task)
        if not self.distribution.can_step_alone:  # sharded parameters are new objects
            self.optimizer = recipe.optimizer.build(model=self.task)
        self.forward = torch.compile(self.wrapped) if self.options.compile else self.wrapped
        steps = {"total_steps": self.steps_per_epoch * self.options.epochs, "steps_per_epoch": self.steps_per_epoch}
        self.schedule = recipe.schedule.build(**steps) if recipe.schedule else lambda step: 1.0
        scaled = self.options.precision == "fp16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def _restore(self, saved: State) -> None:
        if saved["classes"] != self.classes:
            raise ConfigError(self.recipe.name, ["data.train: its classes differ from the checkpoint's"])
        self.distribution.load_state(self.task, self.optimizer, (saved["model"], saved["optimizer"]))
        if self.ema is not None:
            self.ema.load_state_dict(saved["averaged"])
        self.scaler.load_state_dict(saved["scaler"])
        self.position = Position(**saved["position"])
        if saved["recipe"]["train"]["best"] != self.options.best:
            self.position.best = None  # it was of another score
        states, rank = saved["random"], self.distribution.rank
        checkpoint.set_random_state(states[rank % len(states)])
        for state in states[rank :: self.distribution.world]:
            self.losses += self.losses.new_tensor(state["losses"])
        self.run.cut_scores(self.position.scores_rows)

    def fit(self) -> Trained:
        """Train to the last epoch, validating and saving as the recipe says."""
        at, options, scores = self.position, self.options, dict[str, Any]()
        with stop_signal() as stopped:
            while at.epoch < options.epochs and not self._has_waited_enough():
                self._train_epoch(stopped)
                scores = self._end_epoch()
        best = self.run.folder / "checkpoints" / "best.pt"
        parts = self.data.values() if options.validate_every else [self.data["train"]]
        self.coverage.total = sum(map(len, parts))
        return Trained(self.run.folder, scores, self.coverage, best if best.exists() else None, self.classes)

    def _has_waited_enough(self) -> bool:
        at, options = self.position, self.options
        waited = at.epoch - 1 - at.best_epoch
        if not options.patience or waited < options.patience * options.validate_every:
            return False
        log.info("no better score in %d validations: stopping early", options.patience)
        return True

    def _train_epoch(self, stopped: threading.Event) -> None:
        at, options, world = self.position, self.options, self.distribution.world
        steps = self._plan(at.epoch)[at.batch :]
        mine = [batch[self.distribution.rank :: world] for step in steps for batch in step]
        self.task.train()
        self.loader.coverage = Coverage()
        with Progress(f"epoch {at.epoch + 1}/{options.epochs}", self.steps_per_epoch, at.batch, self.run.main) as bar:
            batches = self.loader.read(mine)
            for _ in steps:
                loaded = [next(batches) for _ in range(options.accumulate)]
                stop = self.step([part.samples for part in loaded], stopped.is_set())
                at.batch += 1
                bar.advance(1)
                due = options.checkpoint_every and at.step % options.checkpoint_every == 0
                if stop or (due and at.batch < self.steps_per_epoch):
                    self.save("last")
                if stop:
                    raise KeyboardInterrupt

    def step(self, micro_batches: list[list[Any]], stop: bool = False) -> bool:
        """One optimizer step over micro-batches of samples; true when some process wants to stop.

        Each sample weighs the same, however many of a micro-batch, or of a process's share, could be
        read; so the gradient is that of one process with one large batch.
        """
        everywhere = self.distribution.gather(([len(samples) for samples in micro_batches], stop))
        total = sum(sum(counts) for counts, _ in everywhere)
        some_empty = any(0 in counts for counts, _ in everywhere)
        if total and (self.distribution.can_step_alone or not some_empty):
            factor = self.schedule(self.position.step)
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            self._forward_backward(micro_batches, total, alone=some_empty)
            if self.options.clip_norm:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.task.parameters(), self.options.clip_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update_parameters(self.task)
        self.position.step += 1
        if self.position.step % self.options.log_every == 0:
            lr = self.optimizer.param_groups[0]["lr"]
            self._add_scores({"lr": lr, "train_loss": self._mean_loss(0), **self._further()})
        return any(stop for _, stop in everywhere)

    def _forward_backward(self, micro_batches: list[list[Any]], total: int, alone: bool) -> None:
        """Leave the gradient of the mean loss of ``total`` samples; ``alone`` without the wrapper, which would
        wait for processes that have none.
        """
        forward = self.task if alone else self.forward
        device, precision = self.distribution.device, self.options.precision
        for number, samples in enumerate(micro_batches, 1):
            if not samples:
                continue
            batch = to_device(collate(samples), device)
            self.distribution.exchange_gradients(self.wrapped, number == len(micro_batches))
            with autocast(precision, device):
                told = forward(batch)
            loss = told["loss"]
            self.further = {name: value.detach() for name, value in told.items() if name != "loss"}
            if loss.dim():
                problem = f"task: its loss has shape {list(loss.shape)}; give one number, the mean over the batch"
                raise ConfigError(self.recipe.name, [problem])
            # The wrapper averages over processes, hence the factor of their number.
            share = len(samples) / total * (1 if alone else self.distribution.world)
            self.scaler.scale(loss * share).backward()
            self.losses[:, 0] += loss.detach().double() * len(samples)
            self.losses[:, 1] += len(samples)
        if alone:
            self.distribution.sum_gradients(self.task)

    def _mean_loss(self, which: int) -> float:
        """Take the mean of a row of ``losses`` over all processes, and start it anew."""
        total, samples = map(sum, zip(*self.distribution.gather(self.losses[which].tolist()), strict=True))
        self.losses[which] = 0
        if not math.isfinite(total) and not self.scaler.is_enabled():
            raise self._diverged(f"the loss became {total}")
        return total / samples if samples else math.nan

    def _further(self) -> dict[str, float]:
        """The task's further scalars at this step, their mean over the processes that had samples."""
        shares = self.distribution.gather({name: float(value) for name, value in self.further.items()})
        names = dict.fromkeys(name for share in shares for name in share)
        return {name: fmean(share[name] for share in shares if name in share) for name in names}

    def _diverged(self, what: str) -> ConfigError:
        problem = f"{what} before step {self.position.step}; try a smaller optimizer.lr"
        return ConfigError(self.recipe.name, [problem])

    def _add_scores(self, scores: dict[str, Any]) -> dict[str, Any]:
        row = {"epoch": self.position.epoch, "step": self.position.step, **scores}
        self.run.add_scores(row)
        self.position.scores_rows += 1
        return row

    def _end_epoch(self) -> dict[str, Any]:
        """Record, validate and save; returns the row of scores."""
        at, options = self.position, self.options
        for part in self.distribution.gather(self.loader.coverage):
            self.coverage.merge(part)
        self.run.write_unreadable(self.coverage)
        if not sum(self.distribution.gather(float(self.losses[1, 1]))):
            problem = f"data.train: not one sample could be read: {self.loader.coverage}"
            raise ConfigError(self.recipe.name, [problem])
        scores: dict[str, Any] = {"epoch_loss": self._mean_loss(1)}
        is_best = False
        due = at.epoch + 1 == options.epochs or (at.epoch + 1) % max(options.validate_every, 1) == 0
        if self.val_loader and options.validate_every and due:
            scores |= self._validate()
            is_best = self._is_best(scores)
        row = self._add_scores(scores)
        at.epoch, at.batch = at.epoch + 1, 0
        told = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info("epoch %d/%d  %s", at.epoch, options.epochs, told)
        if is_best:
            self.save("best")
        self.save("last")
        if self.run.main:
            installed().event("tag_epoch_finished", run=self.run, scores=row)
        return row

    def _validate(self) -> dict[str, float]:
        assert self.val_loader is not None
        task: Any = self.ema.module if self.ema is not None else self.task
        task.eval()
        with checkpoint.unchanged_random_state(), self.distribution.whole(self.task):
            result = evaluate(task, self.val_loader, self.recipe, self.classes, self.distribution)
        self.coverage.merge(result.coverage)
        self.run.write_unreadable(self.coverage)
        return result.scores

    def _is_best(self, scores: dict[str, float]) -> bool:
        """Whether the score that the recipe goes by, or the first metric's first, is the best so far; and keep it."""
        default = next((name for name in scores if name not in ("epoch_loss", "val_loss")), "-val_loss")
        chosen = self.options.best or default
        name = chosen.removeprefix("-")
        if name not in scores:
            raise ConfigError(
                self.recipe.name,
                [f"train.best: no score {chosen!r}; there are {', '.join(scores)}; go on with another and --resume"],
            )
        if not better(chosen, scores, self.position.best):
            return False
        self.position.best, self.position.best_epoch = scores[name], self.position.epoch
        return True

    def save(self, name: str) -> None:
        """Write ``checkpoints/<name>.pt``; every rank takes part, rank 0 writes."""
        model, optimizer = self.distribution.state(self.task, self.optimizer)
        states = self.distribution.gather({**checkpoint.random_state(), "losses": self.losses.tolist()})
        if not self.run.main:
            return
        if not all(value.isfinite().all() for value in model.values()):
            raise self._diverged("weights became infinite or nan")
        state: dict[str, Any] = {"model": model, "classes": self.classes, "recipe": self.recipe.to_dict()}
        if self.ema is not None:
            state["ema"] = self.ema.module.state_dict()
        if name == "last":
            state |= {
                "optimizer": optimizer,
                "scaler": self.scaler.state_dict(),
                "averaged": self.ema.state_dict() if self.ema is not None else {},
                "position": asdict(self.position),
                "random": states,
            }
        folder = self.run.folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        checkpoint.save(folder / f"{name}.pt", state)

    def close(self) -> None:
        self.loader.close()
        if self.val_loader:
            self.val_loader.close()
